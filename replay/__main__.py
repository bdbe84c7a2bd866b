"""The program's first step: `replay`, or `python -m replay`.

This file and the package's __init__ must be read by any Python 3, so that an old one can say so.
"""

import gc
import os
import signal
import sys

OLDEST_PYTHON = (3, 11)


def start() -> None:
    """Load the command line and run it.

    Loading takes a moment in which nothing is under way that would need to be undone: Ctrl-C ends
    the process at once then, as it ends a program in C, and not in a traceback.
    """
    if sys.version_info < OLDEST_PYTHON:
        needed, here = (".".join(map(str, v[:2])) for v in (OLDEST_PYTHON, sys.version_info))
        sys.stderr.write(f"replay: needs Python {needed} or later, this is {here}\n")
        raise SystemExit(2)
    # Few cycles are made: looking for them as often as usual costs a tenth of the start-up. Threads
    # of a BLAS take longer to start than what it is used for.
    gc.set_threshold(100_000)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    usual = signal.getsignal(signal.SIGINT)  # ignored, where a shell started it in the background
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from replay.cli import main

    main(interrupted=usual)


if __name__ == "__main__":
    start()
