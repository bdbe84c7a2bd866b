"""SIGTERM as an end like any other. The recorder has it too, on a dom0's Python 3.9."""

from __future__ import annotations

import signal
from typing import Any, NoReturn


class Terminated(BaseException):
    """SIGTERM: like Ctrl-C not for a verb to catch, so that all that is under way is undone."""


def raise_at_sigterm() -> None:
    """Let SIGTERM undo what is under way, as Ctrl-C does. A second one finds the undoing under way
    and changes nothing; one that is ignored stays so."""
    def raised(*_: Any) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, raised)
