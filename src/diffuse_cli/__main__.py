"""The entry point of the program, for `diffuse` and for `python -P -m diffuse_cli`.

Importing the command line takes a fifth of a second. It is imported only after Ctrl-C has been made harmless, and
nothing is imported before the current directory is off the path.
"""

from . import python_process

python_process.leave_current_directory(run_by_m=__name__ == "__main__")

import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402


def main() -> None:
    """Run the command line. Ctrl-C during its import ends the program by that signal, without a traceback."""
    raises_interrupt = signal.getsignal(signal.SIGINT) is signal.default_int_handler     # false where it is ignored
    if raises_interrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from .cli import app
    except (ImportError, MemoryError, OSError) as error:               # a broken installation, or `ulimit -v`
        reason = " ".join(str(error).split()) or "out of memory"
        hint = "Raise the limits of the system (`ulimit`), or install the program again"
        os.write(2, f"error: the program cannot be loaded: {reason}. {hint}\n".encode(errors="backslashreplace"))
        sys.exit(7 if isinstance(error, MemoryError) or "map segment" in reason else 70)

    if raises_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    app.main()


if __name__ == "__main__":
    main()
