"""The `diffuse` command: its sub-commands, `--version`, and the one place where errors become messages and exit codes.

Commands import everything that needs torch inside their bodies, so that help and refusals come at once.
"""

import functools
import os
import platform
import re
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..errors import DiffuseError, UsageError
from ..files import durable
from ..runtime import launch_environment
from ..storage import home_directory
from ..version import __version__
from . import data, distill, doctor, evaluate, export, limits, models, noise_demo, options, sample, train, ui, upscale
from .processes import CRASH
from .terminal import view
from .terminal.plain_text import clean
from .unknown_options import suggested_command, suggestion

# The base class of all errors of the option parser. Typer exports only one of its subclasses.
_ParserError: type[Exception] = typer.BadParameter.__mro__[1]
_PARSER_TYPE_ERROR = re.compile(r"Input should be a valid (integer|number)\b.*")
_TYPE_NAMES = {"integer": "a whole number", "number": "a number"}              # the parser's word → ours
_READER_LEFT = 128 + 13                         # exit code for SIGPIPE, which Windows does not know

_HELP: Any = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(name="diffuse", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
                  context_settings=_HELP)
app.command()(train.train)
app.command()(sample.sample)
app.command()(upscale.upscale)
app.command()(distill.distill)
app.command()(evaluate.evaluate)
app.command()(noise_demo.noise_demo)
app.command()(export.export)
app.command()(ui.ui)
app.command()(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")


def _print_version(version: bool) -> None:
    if version:
        view.out(f"diffuse-cli {__version__}")
        raise typer.Exit


@app.callback()
def diffuse(
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.", is_eager=True,
                                          callback=_print_version)] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train an image diffusion model on a folder of your own pictures, and sample it.

    [bold]diffuse train ./images[/]              train a model on a folder

    [bold]diffuse sample "a red car" -n 8[/]     generate pictures with it

    [bold]diffuse ui[/]                          draw in the browser

    [bold]diffuse evaluate cars[/]               measure how good it is

    [bold]diffuse noise-demo photo.jpg[/]        see noise destroy a picture

    [bold]diffuse export cars --to diffusers[/]  use it in other programs

    [bold]diffuse models ls[/]                   list your models

    [bold]diffuse data check ./images[/]         find problems in a folder

    [bold]diffuse doctor[/]                      see what works on this computer
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)


def main() -> NoReturn:
    """Run the command line. Ends the process with its exit code, or by the signal that ended the command."""
    _open_standard_streams()
    _let_waiting_threads_sleep()
    _enable_mps_fallback()
    sys.meta_path.insert(0, limits.CheckBeforeImport())                 # type: ignore[arg-type]
    _forget_impossible_widths()
    view.start()
    if not view.is_drawable(sys.stdout):
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"          # or Typer colours help on every CI system
    code = _run(sys.argv[1:])
    _silence_failing_streams()
    if code > 128:
        _die_by(code - 128)
    if launch_environment.is_launched():
        os._exit(code)                          # everything is written, and ending torch's threads could still abort
    sys.exit(code)


# ── Errors ──────────────────────────────────────────────────────────────────────────────────────────────


def _run(arguments: Sequence[str]) -> int:
    """Run a command line and report its error, if any. → its exit code; 128 + n means that signal n ended it."""
    program = Path(sys.argv[0]).name
    program = program if program in ("diffuse", "diffuse-cli") else "diffuse"
    command = _command()
    try:
        code = 0
        try:
            if (variable := f"_{program.replace('-', '_').upper()}_COMPLETE") in os.environ:
                _complete(command, program, variable)
            with command.make_context(program, list(arguments)) as context:
                command.invoke(context)
        except typer.Exit as exiting:
            code = exiting.exit_code
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return _READER_LEFT
    except SystemExit as exiting:                                  # Rich raises it for a BrokenPipeError
        if isinstance(exiting.__context__, BrokenPipeError):
            return _READER_LEFT
        raise
    except _ParserError as error:
        if not str(error):                                         # without a command, help has been printed
            return UsageError.exit_code
        return _fail(_usage_error(error))
    except DiffuseError as error:
        return _fail(error)
    except BaseException as error:                                 # a panic of a library in Rust is no Exception
        known = limits.explain(error)
        return _crash(error) if known is None else _fail(known, cause=error)


def _complete(command: Any, program: str, variable: str) -> NoReturn:
    """Print what the shell asks for by environment variables, and exit. Raises UsageError if they make no sense."""
    try:
        command.main(prog_name=program)
    except (KeyError, ValueError, IndexError) as error:
        raise UsageError(f"{variable} is set, but what else a shell sets to complete a command is missing or wrong "
                         f"({error}): unset it") from error
    raise AssertionError("a completion ends the process")


@functools.cache
def _command() -> Any:
    """The command line parser, whose help pages have one form.

    Flags and arguments show no type, and every default stands in the text of its option. The options that install
    completion work, but no help page shows them.
    """
    command = typer.main.get_command(app)
    for _, inner in commands(command):
        for parameter in inner.get_params(typer.Context(inner, **_HELP)):
            parameter.show_default = False
            if parameter.param_type_name == "argument" or getattr(parameter, "is_flag", False):
                parameter.display_type_rich = lambda ctx: ""
            if parameter.name in ("help", "version"):
                parameter.rich_help_panel = options.OUTPUT_PANEL
            if parameter.name in ("install_completion", "show_completion"):
                parameter.hidden = True
    return command


def commands(command: Any, path: tuple[str, ...] = ("diffuse",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command of the parser and all commands below it, each with the words that call it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def _fail(error: DiffuseError, *, cause: BaseException | None = None) -> int:
    if view.settings.debug:
        view.trace(cause or error)
    view.error(str(error))
    return error.exit_code


def _crash(error: BaseException) -> int:
    """Report an unforeseen error in one line, and save a report for the developers."""
    report = "\n".join((f"diffuse-cli {__version__}, Python {platform.python_version()}, {platform.platform()}",
                        shlex.join(sys.argv), "", *traceback.format_exception(error)))
    try:
        directory = durable.make_directory(home_directory.crash_directory())
        path = directory / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}.txt"
        durable.write(path, report.encode(errors="backslashreplace"))
        hint = f"Please report this, with {path}"
    except (DiffuseError, OSError):
        hint = "Run it again with --debug to see where"
    if view.settings.debug:
        view.trace(error)
    view.error(f"unexpected {type(error).__name__}: {clean(str(error))}. {hint}")
    return CRASH


def _usage_error(error: Any) -> UsageError:
    """An error of the parser in our words, with the nearest option or command as a hint."""
    context = error.ctx
    see_help = f"See `{context.command_path} -h`" if context else ""
    message = " ".join(error.format_message().split()).rstrip(".")
    if message.startswith("No such option"):
        known = [name for parameter in context.command.params for name in parameter.opts] if context else []
        hint = suggestion(error.option_name, known) or see_help
        return UsageError(f"there is no option {error.option_name}", hint=hint)
    if match := re.match(r"No such command '(.*?)'", message):
        hint = suggested_command(match[1], context.command.commands) or see_help
        return UsageError(f"there is no command {match[1]!r}", hint=hint)
    message = _PARSER_TYPE_ERROR.sub(lambda match: f"this is not {_TYPE_NAMES[match[1]]}", message)
    return UsageError(message[:1].lower() + message[1:], hint=see_help)


# ── The process ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _open_standard_streams() -> None:
    """Open closed descriptors from 0 to 2, so that none of our files gets the number of stdin, stdout or stderr."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _let_waiting_threads_sleep() -> None:
    """Let GNU OpenMP's threads sleep soon while they wait for one another. Torch reads the setting at its import.

    By default a waiting thread spins for hundreds of thousands of turns. As soon as another program wants a core too,
    the spinning thread occupies the core that the thread it waits for needs.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _enable_mps_fallback() -> None:
    """Let torch use the CPU for functions that it lacks on an Apple GPU. Torch reads the setting at its import."""
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def _forget_impossible_widths() -> None:
    """Unset the sizes of a terminal that are none: Rich and Typer would end in a crash, or draw lines without end."""
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        if not re.fullmatch("0*[1-9][0-9]{0,3}", os.environ.get(name, "")):
            os.environ.pop(name, None)


def _silence_failing_streams() -> None:
    """Redirect streams that cannot be flushed, because Python flushes them at exit and would change the exit code.

    Their failure has been reported, if that was possible.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _die_by(number: int) -> NoReturn:
    """End by a signal, so that a shell's loop stops as well. On Windows, end with the exit code alone."""
    if sys.platform != "win32":
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(128 + number)
