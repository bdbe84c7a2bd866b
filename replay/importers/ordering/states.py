"""States of the free list while the order of calls is open, and what a call does to one.

A state is a settled list that all states share (quiet.List), less what was popped of it, plus
what was pushed since. Pages whose arrangement is open are one Group, which a pop opens up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from replay.importers.ordering.calls import Calls
from replay.importers.ordering.quiet import OPEN_CELL, UNKNOWN, List
from replay.importers.ordering.stories import MAX_STORIES, Story
from replay.importers.source.probes import Ints
from replay.trace.columns import NONE

MAX_TOPS: Final = 8
"""Frees of a bag any of which may be on top: of more, the one entered last is taken."""


class Level(NamedTuple):
    """Cells that lie together on the list, the lowest page first.

    calls: the frees that pushed them, in any order, () for others. whole: nothing was popped yet.
    """

    cells: np.ndarray
    calls: tuple[int, ...] = ()
    whole: bool = False


class State(NamedTuple):
    """The list after some of the open calls took effect.

    done: those calls. top: what was pushed since the last settled moment, the last first. base:
    cells of the settled list that are still there. length: pages listed, or NONE. holder: the call
    that must be next, or -1. loose: levels of the top that an open free may still turn out to lie
    beneath. content: (allocation, its pages) since the settled moment. unread: lengths read of the
    list that this state does not explain.
    """

    done: frozenset[int]
    top: tuple[Level, ...]
    base: int
    length: int
    stories: tuple[Story, ...] = (Story(),)
    holder: int = -1
    loose: int = 0
    content: tuple[tuple[int, bytes], ...] = ()
    unread: int = 0

    def sight(self) -> tuple[object, ...]:
        """Of states that behave alike from here on equal, and quick to tell."""
        return self.done, self.length, self.base, self.loose, self.holder

    def key(self) -> tuple[object, ...]:
        """Equal for states that behave alike from here on."""
        cells = b"".join(level.cells.tobytes() for level in reversed(self.top))
        loose = tuple((len(one.cells), one.calls, one.whole) for one in self.top[: self.loose])
        return (self.done, cells, self.base, self.length, self.holder, loose,
                tuple(sorted(self.content)))

    def cells(self, settled: np.ndarray) -> np.ndarray:
        """The topmost level's cells, or all that is left of the settled ones."""
        return self.top[0].cells if self.top else settled[: self.base]


def merged(states: Iterable[State]) -> list[State]:
    """States that come to the same as one, with all their stories."""
    states = list(states)
    if len(states) < 2:
        return states
    found: list[State] = []
    alike: dict[tuple[object, ...], int] = {}
    keys: dict[tuple[object, ...], int] = {}
    for state in states:
        first = alike.setdefault(state.sight(), len(found))
        if first < len(found):
            keys.setdefault(found[first].key(), first)
            first = keys.setdefault(state.key(), len(found))
        if first == len(found):
            found.append(state)
            continue
        other = found[first]
        if state.unread < other.unread:
            found[first] = state
        elif state.unread == other.unread:
            stories = (*other.stories, *state.stories)
            found[first] = other._replace(stories=tuple(dict.fromkeys(stories))[:MAX_STORIES])
    return found


@dataclass
class Group:
    """Pages whose arrangement is open.

    cells: the arrangements, each with the lowest page first. stories: of each, how it comes about.
    bag: instead, frees that may have come in any order, with their pages; grown_from: bags that
    were there before the last of them.
    """

    cells: list[np.ndarray] = field(default_factory=list)
    stories: list[Story] = field(default_factory=list)
    bag: Bag = ()
    grown_from: set[int] = field(default_factory=set)


Bag = tuple[tuple[int, np.ndarray], ...]


class FreeList:
    """What calls do to states of one list. origins: whether it is known of allocated pages who
    freed them last."""

    def __init__(self, calls: Calls, settled: List, *, origins: bool) -> None:
        self.calls, self.settled, self.origins = calls, settled, origins
        self.groups: list[Group] = []
        self.given_up: set[int] = set()
        self._bags: dict[tuple[tuple[int, bytes], ...], int] = {}

    # -- pages of a call
    def _wanted(self, call: int) -> tuple[Ints, Ints]:
        """The frames that an allocation is known to have got of the list, and their origins."""
        q, n = self.calls, int(self.calls.pops[call])
        known, start = min(n, int(q.known[call])), int(q.start[call])
        if known == n:
            return q.frames[start : start + n], q.origin[start : start + n]
        frames, origin = np.full(n, UNKNOWN, np.int64), np.full(n, UNKNOWN, np.int64)
        frames[:known] = q.frames[start : start + known]
        origin[:known] = q.origin[start : start + known]
        return frames, origin

    def _pages(self, state: State, call: int) -> Ints:
        """What a call pushes, lowest page first."""
        q, n = self.calls, int(self.calls.pushes[call])
        known, start = min(n, int(q.known[call])), int(q.start[call])
        pages = q.frames[start : start + known].copy()
        if known < n:
            pages = np.concatenate((pages, np.full(n - known, UNKNOWN, np.int64)))
        if q.array[call] >= 0 and (pages < 0).any():
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

    def needed(self, call: int) -> set[int]:
        """The frees whose pages an allocation got."""
        return {c for c in set(self._wanted(call)[1].tolist()) if c >= 0}

    def divides(self, state: State, call: int) -> bool:
        """Whether an allocation left some pages of a free that it took others of, or may have."""
        frames, origin = self._wanted(call)
        if (frames < 0).any() or not len(frames):
            return len(frames) > 0
        last = int(origin[-1])
        left = state.cells(self.settled.cells)
        if last < 0 or not len(left):
            return not self.origins
        pages = self._pages(state, last)
        return len(pages) > 0 and int(pages[0]) != int(frames[-1])

    # -- calls
    def apply(self, state: State, call: int) -> Iterator[State]:
        """The states after a call took effect; none if it cannot."""
        q = self.calls
        if state.holder not in (-1, call):
            return
        if q.pushes[call]:
            yield from self._pushed(state._replace(done=state.done | {call}, holder=-1), call)
            return
        state = state._replace(done=state.done | {call}, holder=-1,
                        stories=tuple(story.then(call) for story in state.stories))
        for n in range(int(q.section[call]), int(q.section[call + 1])):
            first, pages = q.sections[n].tolist()
            state = state._replace(top=(Level(np.arange(first, first + pages)), *state.top),
                            loose=0, length=state.length + pages if state.length != NONE else NONE)
        nr = int(q.pops[call])
        if q.whole[call] and state.length == NONE:
            state = state._replace(length=nr)
        if state.length != NONE:
            if state.length < nr or (q.whole[call] and state.length != nr):
                return
            state = state._replace(length=state.length - nr)
        if not q.nr[call]:
            yield state
            return
        yield from self._pop(state, call)

    def _pushed(self, state: State, call: int) -> Iterator[State]:
        """The states in which a free's pages lie on top, or beneath what it may have preceded."""
        q, pages = self.calls, self._pages(state, call)
        if state.length != NONE:
            state = state._replace(length=state.length + len(pages))

        def may_precede(level: Level) -> bool:
            return bool(level.calls) and all(q.over[c] > q.entered[call] for c in level.calls)

        waiting = [(state, 0)]
        while waiting:
            state, at = waiting.pop()
            below = state.top[at] if at < state.loose else None
            if below and below.whole and may_precede(below):
                yield self._joined(state, at, call, pages)
                if all(map(may_precede, state.top[at : at + 2])) and at + 2 <= state.loose:
                    waiting.append((state, at + 2))
                continue
            yield self._inserted(state, at, call, pages)
            if below and may_precede(below):
                waiting.append((state, at + 1))
            elif below and len(below.calls) > 1 and below.whole:  # a bag only some of which it may
                waiting.extend((one, at + 1) for one in self._split(state, at)
                               if may_precede(one.top[at]))

    def _split(self, state: State, at: int) -> Iterator[State]:
        """The states in which one of a bag's frees is the topmost of them."""
        group = OPEN_CELL - int(state.top[at].cells[0])
        bag = self.groups[group].bag
        for call, pages in bag:
            levels = self._levels(bag, call, pages)
            yield state._replace(top=(*state.top[:at], *levels, *state.top[at + 1 :]),
                          loose=state.loose + 1, stories=tuple(
                              s.on_top(group, call, levels[1].calls) for s in state.stories))

    def _levels(self, bag: Bag, call: int, pages: np.ndarray) -> tuple[Level, Level]:
        """A bag with one of its frees on top."""
        rest = tuple(one for one, _ in bag if one != call)
        return Level(pages, (call,), True), Level(self._below(bag, call), rest, True)

    @staticmethod
    def _inserted(state: State, at: int, call: int, pages: np.ndarray) -> State:
        """The state with a free's pages beneath so many levels."""
        level = Level(pages, (call,), True)
        stories = tuple(s.before(call, state.top[at - 1].calls) if at else s.then(call)
                        for s in state.stories)
        return state._replace(top=(*state.top[:at], level, *state.top[at:]), stories=stories,
                       loose=state.loose + 1)

    def _joined(self, state: State, at: int, call: int, pages: np.ndarray) -> State:
        """The state in which a free came right before or after those of a level, whose order is
        open too."""
        below = state.top[at]
        before = OPEN_CELL - int(below.cells[0]) if len(below.calls) > 1 else -1
        members = self.groups[before].bag if before >= 0 else ((below.calls[0], below.cells),)
        group = self._bag(tuple(sorted((*members, (call, pages)), key=lambda m: m[0])), before)
        cells = np.full(len(below.cells) + len(pages), OPEN_CELL - group, np.int64)
        level = Level(cells, tuple(sorted((*below.calls, call))), True)
        return state._replace(top=(*state.top[:at], level, *state.top[at + 1 :]), stories=tuple(
            s.together(call, below.calls, group, before) for s in state.stories))

    def _bag(self, members: Bag, grown_from: int = -1) -> int:
        key = tuple((call, pages.tobytes()) for call, pages in members)
        if key not in self._bags:
            self._bags[key] = len(self.groups)
            self.groups.append(Group(bag=members))
        if grown_from >= 0:
            self.groups[self._bags[key]].grown_from.add(grown_from)
        return self._bags[key]

    def bag_number(self, members: Bag) -> int:
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
            cells = state.cells(self.settled.cells)
            if len(cells) and cells[-1] <= OPEN_CELL:
                opened = self.opened(state, int(frames[at]), int(origin[at]))
                waiting.extend((one, taken, at) for one in reversed(list(opened)))
                continue
            here = cells[::-1][: len(frames) - at]
            if len(here) and (here == frames[at : at + len(here)]).all():
                waiting.append((self.less(state, len(here)), (*taken, here.copy()),
                                at + len(here)))
                continue
            closed = np.flatnonzero(here <= OPEN_CELL)
            here = here[: closed[0]] if len(closed) else here
            if not len(cells):  # beneath: listed before the recording
                here = np.full(len(frames) - at, UNKNOWN, np.int64)
            want, source = frames[at : at + len(here)], origin[at : at + len(here)]
            if ((want < 0) | (here == want) | ((here == UNKNOWN) & (source < 0))).all():
                waiting.append((self.less(state, len(here) if len(cells) else 0),
                                (*taken, here.copy()), at + len(here)))

    @staticmethod
    def less(state: State, pages: int) -> State:
        """The state without its topmost pages, all of which lie in one level."""
        if not state.top:
            return state._replace(base=state.base - pages)
        first, rest = state.top[0], state.top[1:]
        if pages == len(first.cells):
            return state._replace(top=rest, loose=max(0, state.loose - 1))
        level = Level(first.cells[: len(first.cells) - pages], first.calls)
        return state._replace(top=(level, *rest))

    def _got(self, state: State, call: int, taken: tuple[np.ndarray, ...]) -> State:
        q, nr = self.calls, int(self.calls.nr[call])
        if q.content[call + 1] == q.content[call]:
            return state
        known, start = int(q.known[call]), int(q.start[call])
        pages = q.frames[start : start + known]
        if known == nr and (pages >= 0).all():
            return state._replace(content=(*state.content, (call, pages.tobytes())))
        pages = np.concatenate((pages, np.full(nr - known, UNKNOWN, np.int64)))
        listed = np.concatenate((*taken, np.full(nr - sum(map(len, taken)), UNKNOWN, np.int64)))
        pages = np.where(pages < 0, listed, pages)
        return state._replace(content=(*state.content, (call, pages.tobytes())))

    # -- groups
    def opened(self, state: State, frame: int, origin: int) -> Iterator[State]:
        """The states into which one with a group on top falls apart, where `frame` can be on top.

        A frame below 0 fits all.
        """
        group = OPEN_CELL - int(state.cells(self.settled.cells)[-1])
        bag = self.groups[group].bag
        seen: dict[bytes, list[int]] = {}
        for which, arranged in self._arrangements(group, frame, origin):
            seen.setdefault(arranged.tobytes(), []).append(which)
        for data, picks in seen.items():
            arranged = np.frombuffer(data, np.int64)
            smaller, loose = self.less(state, len(arranged)), 0
            levels: tuple[Level, ...] = (Level(arranged),)
            if bag:
                levels = self._levels(bag, picks[0], dict(bag)[picks[0]])
                loose = len(levels) if state.loose else 0
                stories = tuple(s.on_top(group, picks[0], levels[1].calls) for s in state.stories)
            else:
                stories = tuple(s.with_pick(group, k) for s in state.stories for k in picks)
            yield smaller._replace(top=(*levels, *smaller.top), loose=smaller.loose + loose,
                          stories=stories[:MAX_STORIES])

    def _arrangements(self, group: int, frame: int, origin: int) -> list[tuple[int, np.ndarray]]:
        """The ways in which a group's pages may lie with `frame` on top; of a bag, by that call."""
        def may_be(last: int) -> bool:
            return (frame < 0 or last == frame or last <= OPEN_CELL
                    or (last == UNKNOWN and origin < 0))

        bag = self.groups[group].bag
        if not bag:
            return [(k, cells) for k, cells in enumerate(self.groups[group].cells)
                    if may_be(int(cells[-1]))]
        tops = [member for member in bag if may_be(int(member[1][-1]))]
        if len(tops) > MAX_TOPS:
            self.given_up.update(call for call, _ in tops)
            tops = tops[-1:]
        return [(call, np.concatenate((self._below(bag, call), pages))) for call, pages in tops]

    def _below(self, bag: Bag, top: int) -> np.ndarray:
        """The pages of a bag beneath those of one call."""
        rest = tuple(member for member in bag if member[0] != top)
        if len(rest) == 1:
            return rest[0][1]
        return np.full(sum(len(pages) for _, pages in rest), OPEN_CELL - self._bag(rest), np.int64)

    def head(self, state: State) -> int:
        """The first page of the list: a frame, UNKNOWN, or OPEN_CELL and below."""
        cells = state.cells(self.settled.cells)
        return int(cells[-1]) if len(cells) else UNKNOWN

    def loosened(self, state: State, pending: list[int]) -> State:
        """The state with those levels loose that one of the pending frees may lie beneath."""
        q = self.calls
        first = min((int(q.entered[c]) for c in pending if q.pushes[c]), default=None)
        loose = 0
        while first is not None and loose < state.loose and any(
                q.over[c] > first for c in state.top[loose].calls):
            loose += 1
        return state._replace(loose=loose) if loose < state.loose else state
