"""How far a long command has come. Those who work say so here; the command line may draw it.

Nothing is drawn unless somebody has asked for it, and no result hangs on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import local
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
TOLD_TOGETHER = 1024
"""Items of many() that are told of together."""


class Drawing(Protocol):
    """What shows steps; `begin` gives what the others are called with."""

    def begin(self, what: str, total: float | None, unit: str) -> Any:
        """A step begins: of `total` units, None where nobody knows."""

    def advance(self, step: Any, amount: float) -> None:
        """So many units more are done."""

    def end(self, step: Any) -> None:
        """The step is over, whether done or not."""


class _Open(local):
    """The steps that a thread is in, the innermost last."""

    def __init__(self) -> None:
        self.steps: list[Any] = []


_drawing: Drawing | None = None
_heard_by: Callable[[str], None] | None = None
_open = _Open()


@contextmanager
def drawn(drawing: Drawing | None) -> Iterator[None]:
    """Have the steps of what is done within drawn."""
    global _drawing
    before, _drawing = _drawing, drawing
    try:
        yield
    finally:
        _drawing = before


@contextmanager
def heard(by: Callable[[str], None]) -> Iterator[None]:
    """Have somebody hear what is said of the work within."""
    global _heard_by
    before, _heard_by = _heard_by, by
    try:
        yield
    finally:
        _heard_by = before


def say(sentence: str) -> None:
    """Something about the work that whoever waits for it should know at once."""
    if _heard_by is not None:
        _heard_by(sentence)


@contextmanager
def step(what: str, total: float | None = None, unit: str = "") -> Iterator[None]:
    """Something that may take its time: of `total` units (B for bytes), None if unknown."""
    drawing = _drawing
    if drawing is None:
        yield
        return
    opened = drawing.begin(what, total, unit)
    _open.steps.append(opened)
    try:
        yield
    finally:
        _open.steps.pop()
        drawing.end(opened)


def advance(amount: float = 1) -> None:
    """So many units of this thread's innermost step are done."""
    if _drawing is not None and _open.steps:
        _drawing.advance(_open.steps[-1], amount)


def each(items: Sequence[Item], what: str, unit: str) -> Iterator[Item]:
    """The items, as a step of as many units."""
    with step(what, len(items), unit):
        for item in items:
            yield item
            advance()


def many(items: Iterable[Item], total: int, what: str, unit: str) -> Iterator[Item]:
    """The same of so many items, `total` of them, that it would take time to tell of each."""
    with step(what, total, unit):
        for number, item in enumerate(items, 1):
            yield item
            if number % TOLD_TOGETHER == 0:
                advance(TOLD_TOGETHER)
