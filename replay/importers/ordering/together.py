"""Several states of the free list followed as one, by the pages that all of them have on top."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from replay.base.prepared import prepared
from replay.importers.ordering.calls import Calls
from replay.importers.ordering.quiet import LIST_SIZE, OPEN_CELL, List
from replay.importers.ordering.states import FreeList, Level, State
from replay.importers.ordering.stories import Story
from replay.importers.ordering.walk import Moments, Pace, walk

MOST_COMMON: Final = 4096
"""Pages on top that are compared at a time."""


class Together:
    """What states have in common on top, as a list of its own that walk.walk() follows."""

    def __init__(self, calls: Calls, settled: List, moments: Moments, pace: Pace) -> None:
        self._args = calls, moments, pace
        self._settled = settled
        self._list: List | None = None
        self._walk: Callable[[], int] = int
        self._laid = 0

    def lay(self, states: list[State]) -> Callable[[], int] | None:
        """What follows these states, whose lists are equally long; None where they have nothing in
        common."""
        found = _on_top([state.top for state in states])
        if not found:
            return None
        listed = self._list or self._made()
        cells = np.concatenate(found[::-1])
        self._laid = len(cells)
        listed.cells[: len(cells)] = cells
        listed.size["depth"], listed.size["count"] = len(cells), states[0].length
        return self._walk

    def _made(self) -> List:
        calls, moments, pace = self._args
        size = np.zeros(1, LIST_SIZE)[0]
        # pages of allocations that all states follow are the same in all: they are settled
        self._list = List(np.empty_like(self._settled.cells), self._settled.content, size)
        self._walk = prepared(walk, calls, self._list, moments, pace)
        return self._list

    def taken(self, states: list[State], done: frozenset[int], took: tuple[int, ...]
              ) -> list[State]:
        """The states after calls took effect. done: those of them, and of the ones before, that
        are open."""
        assert self._list is not None
        depth, length = self._list.size.item()
        top = (Level(self._list.cells[:depth].copy()),) if depth else ()
        return [self._after(state, top)._replace(done=done, length=length, stories=tuple(
            Story((*story.past, *took), story.picks) for story in state.stories))
                for state in states]

    def _after(self, state: State, top: tuple[Level, ...]) -> State:
        """The state with other pages in place of the common ones."""
        left = self._laid
        while left:
            pages = min(left, len(state.top[0].cells))
            state, left = FreeList.less(state, pages), left - pages
        return state._replace(top=(*top, *state.top))


def _on_top(tops: list[tuple[Level, ...]]) -> list[np.ndarray]:
    """The pages that lists have in common on top, known ones, the topmost cells first."""
    found: list[np.ndarray] = []
    pages = 0
    for levels in zip(*tops, strict=False):
        cells = levels[0].cells
        same = len(cells)
        for other in levels[1:]:
            if other.cells is not cells:
                same = min(same, _same(cells, other.cells))
        closed = np.flatnonzero(cells[::-1][:same] <= OPEN_CELL)
        same = int(closed[0]) if len(closed) else same
        if same:
            found.append(cells[len(cells) - same :])
        pages += same
        if pages > MOST_COMMON or any(len(one.cells) != same for one in levels):
            break
    return found


def _same(a: np.ndarray, b: np.ndarray) -> int:
    """How many of the last elements are equal."""
    n = min(len(a), len(b))
    differs = np.flatnonzero(a[::-1][:n] != b[::-1][:n])
    return int(differs[0]) if len(differs) else n
