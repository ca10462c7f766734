"""The `diffuse` command: its sub-commands, `--version`, and the one place where errors become a line and a number.

Knows what may go wrong, not how anything is done: commands import the engine's torch-using parts inside their bodies,
so that help and refusals come at once.
"""

import difflib
import errno
import os
import platform
import re
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..errors import DiffuseError, OutOfMemoryError, StorageError, UsageError
from ..files import durable
from ..runtime import launch_environment
from ..storage import registry
from ..version import __version__
from . import data, evaluate, export, models, noise_demo, options, sample, train
from .terminal import view

# The common base of everything the option parser complains about; Typer exports only this one of its heirs.
_ParserError: type[Exception] = typer.BadParameter.__mro__[1]
_PARSERS_WORDS = re.compile(r"Input should be a valid (integer|number)\b.*")
_PLAIN_WORDS = {"integer": "a whole number", "number": "a number"}
_READER_LEFT = 128 + 13                         # die by SIGPIPE, which Windows has no name for
_FULL_DISK = {errno.ENOSPC, errno.EROFS, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}

app = typer.Typer(name="diffuse", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
                  context_settings={"help_option_names": ["-h", "--help"]})
app.command()(train.train)
app.command()(sample.sample)
app.command()(evaluate.evaluate)
app.command()(noise_demo.noise_demo)
app.command()(export.export)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        view.out(f"diffuse-cli {__version__}")
        raise typer.Exit


@app.callback()
def diffuse(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True,
                                          callback=_print_version)] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train an image diffusion model on a folder of your own pictures, and sample it.

    [bold]diffuse train ./images[/]              a folder of pictures becomes a model

    [bold]diffuse sample "a red car" -n 8[/]     the model becomes pictures

    [bold]diffuse evaluate cars[/]               how good it is, on pictures that it has not seen

    [bold]diffuse noise-demo photo.jpg[/]        how noise takes a picture away

    [bold]diffuse export cars --to diffusers[/]  what other programs load

    [bold]diffuse models ls[/]                   what you have trained

    [bold]diffuse data check ./images[/]         what training would find in a folder
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)


def main() -> NoReturn:
    """Run the command line, and leave with its exit code, or by the signal that ended it."""
    _open_standard_streams()
    _share_cores()
    _fill_gaps()
    view.start()
    if not view.drawable(sys.stdout):
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"          # Typer would colour help wherever it sees a CI
    code = _run(sys.argv[1:])
    _silence_failing_streams()
    if code > 128:
        _die_by(code - 128)
    if launch_environment.is_launched():
        os._exit(code)                          # all is written; taking torch's threads down could still abort
    sys.exit(code)


# ── The error boundary ──────────────────────────────────────────────────────────────────────────────────────────────


def _run(arguments: Sequence[str]) -> int:
    """The exit code of a command line. 128 + n means: signal n ended it."""
    program = Path(sys.argv[0]).name
    program = program if program in ("diffuse", "diffuse-cli") else "diffuse"
    command = _command()
    if f"_{program.replace('-', '_').upper()}_COMPLETE" in os.environ:
        command.main(prog_name=program)                            # the shell asks for completions
    try:
        code = 0
        try:
            with command.make_context(program, list(arguments)) as context:
                command.invoke(context)
        except typer.Exit as leave:
            code = leave.exit_code
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return _READER_LEFT
    except SystemExit as leave:                                    # what Rich makes of a BrokenPipeError
        if isinstance(leave.__context__, BrokenPipeError):
            return _READER_LEFT
        raise
    except _ParserError as error:
        if not str(error):                                         # no command was given: help was printed instead
            return UsageError.exit_code
        return _fail(_usage_error(error))
    except DiffuseError as error:
        return _fail(error)
    except MemoryError as error:
        return _fail(OutOfMemoryError("out of memory", hint="Close other programs, or ask for less"), cause=error)
    except OSError as error:
        if error.errno in _FULL_DISK:
            return _fail(StorageError(f"cannot write: {(error.strerror or str(error)).lower()}"), cause=error)
        return _crash(error)
    except Exception as error:
        return _crash(error)


def _command() -> Any:
    """The parser made of `app`; completion is installable, but not advertised on every help page."""
    command = typer.main.get_command(app)
    for parameter in command.params:
        if parameter.name in ("install_completion", "show_completion"):
            parameter.hidden = True                                # type: ignore[attr-defined]
    return command


def _fail(error: DiffuseError, *, cause: Exception | None = None) -> int:
    if view.settings.debug:
        view.trace(cause or error)
    view.error(str(error))
    return error.exit_code


def _crash(error: Exception) -> int:
    """An error nobody foresaw: one line, and a report for whoever mends it."""
    report = "\n".join((f"diffuse-cli {__version__}, Python {platform.python_version()}, {platform.platform()}",
                        shlex.join(sys.argv), "", *traceback.format_exception(error)))
    try:
        directory = durable.make_directory(registry.crash_directory())
        path = directory / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}.txt"
        durable.write(path, report.encode(errors="backslashreplace"))
        advice = f"Please report this, with {path}"
    except (DiffuseError, OSError):
        advice = "Run it again with --debug to see where"
    if view.settings.debug:
        view.trace(error)
    view.error(f"unexpected {type(error).__name__}: {view.clean(str(error))}. {advice}")
    return 70


def _usage_error(error: Any) -> UsageError:
    """What the parser complains about, in our words and with the nearest thing that exists."""
    context = error.ctx
    listed = f"`{context.command_path} -h` explains" if context else ""
    message = " ".join(error.format_message().split()).rstrip(".")
    if message.startswith("No such option"):
        known = [name for parameter in context.command.params for name in parameter.opts] if context else []
        return UsageError(f"there is no option {error.option_name}", hint=_nearest(error.option_name, known) or listed)
    if match := re.match(r"No such command '(.*?)'", message):
        return UsageError(f"there is no command {match[1]!r}",
                          hint=_nearest(match[1], context.command.commands) or listed)
    message = _PARSERS_WORDS.sub(lambda match: f"this is not {_PLAIN_WORDS[match[1]]}", message)
    return UsageError(message[:1].lower() + message[1:], hint=listed)


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    return f"Did you mean {near[0]}?" if near else ""


# ── The process ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _open_standard_streams() -> None:
    """Fill closed descriptors 0 to 2, so that no file of ours gets the number of stdout."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _share_cores() -> None:
    """Have GNU OpenMP's threads sleep while they wait long for one another, before torch reads how they shall.

    Left to itself one spins for hundreds of thousands of turns, and keeps the core from the one it waits for as soon as
    another program wants that core too.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _fill_gaps() -> None:
    """Have torch compute on the CPU what its version cannot on an Apple GPU, before it is imported."""
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def _silence_failing_streams() -> None:
    """Python flushes them again on leaving, and would change the exit code; what failed was reported, if possible."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _die_by(number: int) -> NoReturn:
    """End by a signal, so that a shell's loop stops as well. Where there are no signals, by the exit code alone."""
    if sys.platform != "win32":
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(128 + number)
