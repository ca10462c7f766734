"""The entry point of the program, for `diffuse` and for `python -m diffuse_cli`.

Importing the command line takes a fifth of a second. It is imported only after Ctrl-C has been made harmless.
"""

import signal


def main() -> None:
    """Run the command line. Ctrl-C during its import ends the program by that signal, without a traceback."""
    raises_interrupt = signal.getsignal(signal.SIGINT) is signal.default_int_handler     # false where it is ignored
    if raises_interrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import app

    if raises_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    app.main()


if __name__ == "__main__":
    main()
