"""States of the free list while the order of overlapping calls is open, and what a call does to one.

A state is a settled list that all states share (lock_quiet.List), less what was popped of it, plus
what was pushed since. Pages whose arrangement is open are one Group, which a pop opens up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from replay.trace.columns import NONE
from replay.trace.lock_calls import Calls, Ints
from replay.trace.lock_quiet import OPEN, UNKNOWN, List

MAX_STORIES: Final = 64
"""Ways in which one state can have come about that are told apart."""
MADE: Final = -1
"""A pick that says that a bag exists, and nothing yet of its order."""


@dataclass(frozen=True)
class Story:
    """How a state came about since the last settled moment.

    past: calls in the order in which they took effect. picks: (group, arrangement) decided since.
    """

    past: tuple[int, ...] = ()
    picks: tuple[tuple[int, int], ...] = ()

    def then(self, call: int) -> Story:
        """The story with one more call."""
        return Story((*self.past, call), self.picks)

    def with_pick(self, group: int, which: int) -> Story:
        """The story with one more decision."""
        return Story(self.past, (*self.picks, (group, which)))


@dataclass(frozen=True)
class State:
    """The list after some of the open calls took effect.

    done: those calls. top: cells pushed since the last settled moment, array by array, the last
    one first. base: cells of the settled list that are still there. count: pages listed, or NONE.
    holder: the call that must be next, or -1. bag: frees at the very top, in any order. content:
    (allocation, its pages) since the settled moment.
    """

    done: frozenset[int]
    top: tuple[np.ndarray, ...]
    base: int
    count: int
    stories: tuple[Story, ...] = (Story(),)
    holder: int = -1
    bag: tuple[int, ...] = ()
    content: tuple[tuple[int, bytes], ...] = ()

    def key(self) -> tuple[object, ...]:
        """Equal for states that behave alike from here on."""
        cells = b"".join(cells.tobytes() for cells in reversed(self.top))
        return (self.done, cells, self.base, self.count, self.holder, self.bag,
                tuple(sorted(self.content)))


@dataclass
class Group:
    """Pages whose arrangement is open.

    cells: the arrangements, each with the lowest page first. stories: of each, how it comes about.
    bag: instead, frees that may have come in any order, with their pages; grown_from: the bag that
    was there before the last of them, or -1.
    """

    cells: list[np.ndarray] = field(default_factory=list)
    stories: list[Story] = field(default_factory=list)
    bag: tuple[tuple[int, np.ndarray], ...] = ()
    grown_from: int = -1


class FreeList:
    """What calls do to states of one list."""

    def __init__(self, calls: Calls, settled: List) -> None:
        self.calls, self.settled = calls, settled
        self.groups: list[Group] = []
        self._bags: dict[tuple[tuple[int, bytes], ...], int] = {}

    # -- pages of a call
    def _wanted(self, call: int) -> tuple[Ints, Ints]:
        """The frames that an allocation is known to have got of the list, and their origins."""
        q, n = self.calls, int(self.calls.pops[call])
        known, start = min(n, int(q.known[call])), int(q.start[call])
        frames, origin = np.full(n, UNKNOWN, np.int64), np.full(n, UNKNOWN, np.int64)
        frames[:known] = q.frames[start : start + known]
        origin[:known] = q.origin[start : start + known]
        return frames, origin

    def _pages(self, state: State, call: int) -> Ints:
        """What a call pushes, lowest page first."""
        q, n = self.calls, int(self.calls.pushes[call])
        known, start = min(n, int(q.known[call])), int(q.start[call])
        pages = np.full(n, UNKNOWN, np.int64)
        pages[:known] = q.frames[start : start + known]
        if (pages < 0).any() and q.array[call] >= 0:
            source = self.content_of(state, int(q.array[call]))
            pages = np.where(pages < 0, source, pages)
        return pages

    def content_of(self, state: State, call: int) -> Ints:
        """The pages that an allocation got."""
        for one, pages in state.content:
            if one == call:
                return np.frombuffer(pages, np.int64)
        first, end = self.calls.content[call : call + 2]
        return np.asarray(self.settled.content[first:end])

    # -- calls
    def apply(self, state: State, call: int) -> Iterator[State]:
        """The states after a call took effect; none if it cannot."""
        q = self.calls
        if state.holder not in (-1, call):
            return
        state = replace(state, done=state.done | {call}, holder=-1,
                        stories=tuple(story.then(call) for story in state.stories))
        if q.pushes[call]:
            yield self._push(state, call)
            return
        for n in range(int(q.section[call]), int(q.section[call + 1])):
            first, pages = (int(x) for x in q.sections[:, n])
            state = replace(state, top=(np.arange(first, first + pages), *state.top), bag=(),
                            count=state.count + pages if state.count != NONE else NONE)
        nr = int(q.pops[call])
        if q.whole[call] and state.count == NONE:
            state = replace(state, count=nr)
        if state.count != NONE:
            if state.count < nr or (q.whole[call] and state.count != nr):
                return
            state = replace(state, count=state.count - nr)
        if not q.nr[call]:
            yield state
            return
        yield from self._pop(replace(state, bag=()) if nr else state, call)

    def _push(self, state: State, call: int) -> State:
        pages = self._pages(state, call)
        count = state.count + len(pages) if state.count != NONE else NONE
        q = self.calls
        together = state.bag and all(q.over[one] > q.entered[call] for one in state.bag)
        if not together:
            return replace(state, top=(pages, *state.top), count=count, bag=(call,))
        below = state.top[0]
        before = OPEN - int(below[0]) if len(state.bag) > 1 else -1
        members = self.groups[before].bag if before >= 0 else ((state.bag[0], below),)
        group = self._bag(tuple(sorted((*members, (call, pages)), key=lambda m: m[0])), before)
        cells = np.full(len(below) + len(pages), OPEN - group, np.int64)
        return replace(state, top=(cells, *state.top[1:]), count=count, bag=(*state.bag, call),
                       stories=tuple(s.with_pick(group, MADE) for s in state.stories))

    def _bag(self, members: tuple[tuple[int, np.ndarray], ...], grown_from: int = -1) -> int:
        key = tuple((call, pages.tobytes()) for call, pages in members)
        if key not in self._bags:
            self._bags[key] = len(self.groups)
            self.groups.append(Group(bag=members, grown_from=grown_from))
        return self._bags[key]

    def bag_number(self, members: tuple[tuple[int, np.ndarray], ...]) -> int:
        """The group that some frees in any order are."""
        return self._bag(members)

    def _pop(self, state: State, call: int) -> Iterator[State]:
        frames, origin = self._wanted(call)
        waiting: list[tuple[State, tuple[np.ndarray, ...], int]] = [(state, (), 0)]
        while waiting:
            state, taken, at = waiting.pop()
            if at == len(frames):
                yield self._got(state, call, taken)
                continue
            cells = state.top[0] if state.top else self.settled.cells[: state.base]
            if len(cells) and cells[-1] <= OPEN:
                opened = self.opened(state, int(frames[at]), int(origin[at]))
                waiting.extend((one, taken, at) for one in reversed(list(opened)))
                continue
            here = cells[::-1][: len(frames) - at]
            closed = np.flatnonzero(here <= OPEN)
            here = here[: closed[0]] if len(closed) else here
            if not len(cells):  # beneath: listed before the recording
                here = np.full(len(frames) - at, UNKNOWN, np.int64)
            want, source = frames[at : at + len(here)], origin[at : at + len(here)]
            if ((want < 0) | (here == want) | ((here == UNKNOWN) & (source < 0))).all():
                waiting.append((self._less(state, len(here) if len(cells) else 0),
                                (*taken, here.copy()), at + len(here)))

    @staticmethod
    def _less(state: State, pages: int) -> State:
        """The state without its topmost cells, all of which lie in one array."""
        if not state.top:
            return replace(state, base=state.base - pages)
        rest = state.top[0][: len(state.top[0]) - pages]
        return replace(state, top=(rest, *state.top[1:]) if len(rest) else state.top[1:])

    def _got(self, state: State, call: int, taken: tuple[np.ndarray, ...]) -> State:
        q, nr = self.calls, int(self.calls.nr[call])
        if q.content[call + 1] == q.content[call]:
            return state
        pages = np.full(nr, UNKNOWN, np.int64)
        known, start = int(q.known[call]), int(q.start[call])
        pages[:known] = q.frames[start : start + known]
        listed = np.concatenate((*taken, np.full(nr - sum(map(len, taken)), UNKNOWN, np.int64)))
        pages = np.where(pages < 0, listed, pages)
        return replace(state, content=(*state.content, (call, pages.tobytes())))

    # -- groups
    def opened(self, state: State, frame: int, origin: int) -> Iterator[State]:
        """The states into which one with a group on top falls apart, where `frame` can be on top.

        A frame below 0 fits all.
        """
        cells = state.top[0] if state.top else self.settled.cells[: state.base]
        group = OPEN - int(cells[-1])
        seen: dict[bytes, list[int]] = {}
        arrangements = self._arrangements(group)
        for which, arranged in arrangements:
            seen.setdefault(arranged.tobytes(), []).append(which)
        for data, picks in seen.items():
            arranged = np.frombuffer(data, np.int64)
            last = int(arranged[-1])
            if not (frame < 0 or last == frame or last <= OPEN or (last == UNKNOWN and origin < 0)):
                continue
            stories = tuple(story.with_pick(group, which) for story in state.stories
                            for which in picks)
            smaller = self._less(state, len(arranged))
            yield replace(smaller, top=(arranged, *smaller.top), bag=(),
                          stories=stories[:MAX_STORIES])

    def _arrangements(self, group: int) -> list[tuple[int, np.ndarray]]:
        """The ways in which a group's pages may lie; of a bag, with each free on top."""
        bag = self.groups[group].bag
        if not bag:
            return list(enumerate(self.groups[group].cells))
        found = []
        for call, pages in bag:
            rest = tuple(member for member in bag if member[0] != call)
            if len(rest) == 1:
                below = rest[0][1]
            else:
                below = np.full(sum(len(p) for _, p in rest), OPEN - self._bag(rest), np.int64)
            found.append((call, np.concatenate((below, pages))))
        return found

    def head(self, state: State) -> int:
        """The first page of the list: a frame, UNKNOWN, or OPEN and below."""
        if state.top:
            return int(state.top[0][-1])
        return int(self.settled.cells[state.base - 1]) if state.base else UNKNOWN
