"""How many columns a text for a person has: as many as the terminal that it is made for, and in
files and pipes always the same number, so that the same figures give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

TEXT_WIDTH: Final = 100
NARROWEST: Final = 60
WIDEST: Final = 200

_terminal: list[int] = []


@contextmanager
def on_terminal(columns: int | None) -> Iterator[None]:
    """Have texts that are made within fit a terminal, of NARROWEST to WIDEST columns; None: for no
    terminal."""
    before = _terminal[:]
    _terminal[:] = [] if columns is None else [min(WIDEST, max(NARROWEST, columns))]
    try:
        yield
    finally:
        _terminal[:] = before


def for_terminal() -> bool:
    """Whether what does not fit must be set otherwise: a terminal would break lines anywhere."""
    return bool(_terminal)


def text_width() -> int:
    """The columns that there are."""
    return _terminal[0] if _terminal else TEXT_WIDTH


def fitting(label: int, each: int) -> int:
    """How many columns of a table, `each` wide, fit beside a label; at least one."""
    return max(1, (text_width() - label) // each)
