"""The start of the program: `diffuse`, and `python -m diffuse_cli`.

Imports nothing before Ctrl-C is harmless: the command line takes a fifth of a second to import.
"""

import signal


def main() -> None:
    """Run the command line. Ctrl-C while it is imported ends the program by that signal, without a traceback."""
    if waiting := signal.getsignal(signal.SIGINT) is signal.default_int_handler:           # not where it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import app

    if waiting:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    app.main()


if __name__ == "__main__":
    main()
