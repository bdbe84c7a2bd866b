"""The probed place that a line of ftrace text names."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_BEHIND: Final = r"(?: \[\w+\])?(?: <[0-9a-f]+>)?"
"""Module, and with the option sym-addr the address (seq_print_ip_sym())."""
_PROBED: Final = re.compile(
    r"\((?P<first>[^\s()<+]+)(?:\+0x(?P<offset>[0-9a-f]{1,8})(?:/0x[0-9a-f]+)?)?"
    + _BEHIND + r"(?: <- (?P<probed>[^\s()<+]+)(?P<more>\+0x[0-9a-f]{1,8}(?:/0x[0-9a-f]+)?)?"
    + _BEHIND + r")?\)", re.ASCII)


class Place(NamedTuple):
    """What the parentheses behind an event's name say."""

    function: str
    offset: int
    is_return: bool
    return_to: str


def read_place(text: str) -> Place | None:
    """`(function+offset/size)` or `(returned to <- function)`; None when it is no probe's."""
    match = _PROBED.fullmatch(text)
    if not match:
        return None
    first, probed, offset = match["first"], match["probed"], match["offset"]
    if not offset:
        first = _symbol(first)
    if probed is not None:
        return Place(probed if match["more"] else _symbol(probed), 0, True, first)
    return Place(first, int(offset or "0", 16), False, "")


def _symbol(name: str) -> str:
    """A function's name, "" for a bare address."""
    return "" if re.fullmatch(r"(0x)?[0-9a-f]{8,16}", name) else name
