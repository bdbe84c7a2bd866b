"""The program's first step: `replay`, or `python -m replay`."""

from __future__ import annotations

import signal


def start() -> None:
    """Load the command line and run it.

    Loading takes a moment in which nothing is under way that would need to be undone: Ctrl-C ends
    the process at once then, as it ends a program in C, and not in a traceback.
    """
    usual = signal.getsignal(signal.SIGINT)  # ignored, where a shell started it in the background
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from replay.cli import main

    main(interrupted=usual)


if __name__ == "__main__":
    start()
