"""What the search has decided: the settled list, the order so far, and what stays open in it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from replay.importers.ordering.quiet import OPEN_CELL, UNKNOWN
from replay.importers.ordering.states import FreeList, Group, State
from replay.importers.ordering.stories import MADE, Story
from replay.importers.source.probes import Ints


class Settled:
    """The order of calls up to now: `sequence` has their numbers, or -1 - a group's.

    ambiguous: calls whose place stays open. choices: how many orders fit, per such group.
    """

    def __init__(self, listed: FreeList) -> None:
        self.list = listed
        self.sequence = array("q")
        self.picked: dict[int, int] = {}
        self.ambiguous: set[int] = set()
        self.choices: list[int] = []

    def start(self, done: frozenset[int] = frozenset()) -> State:
        """The settled list as a state."""
        depth, count = self.list.settled.size.item()
        return State(done, (), depth, count)

    def give_up(self, calls: Iterable[int]) -> None:
        """A bound was hit: these calls' order is not known."""
        self.ambiguous.update(calls)

    def without_list(self, state: State, call: int, count: int) -> State:
        """The state after a call that no order explains: nothing is known of the list any more."""
        q = self.list.calls
        known, start, nr = int(q.known[call]), int(q.start[call]), int(q.nr[call])
        pages = np.full(nr, UNKNOWN, np.int64)
        pages[:known] = q.frames[start : start + known]
        content = state.content
        if q.content[call + 1] > q.content[call]:
            content = (*content, (call, pages.tobytes()))
        return State(state.done | {call}, (), 0, count,
                     tuple(story.then(call) for story in state.stories), content=content)

    # -- folding
    def fold(self, states: list[State], *, end: bool = False) -> list[State]:
        """One state with open places in its list, where all have done the same calls."""
        if any(s.done != states[0].done or s.holder != states[0].holder for s in states[1:]):
            if not end:
                return states
            states = states[:1]
        first = states[0]
        if any(state.loose or state.unread != first.unread for state in states) and not end:
            return states
        if len(states) == 1 and len(first.stories) == 1:
            self._decide(first.stories[0])
            self._keep(first, first.base, tuple(level.cells for level in first.top))
        else:
            self._group(states)
        return [self.start(first.done)._replace(holder=first.holder, length=first.length)]

    def _decide(self, story: Story) -> None:
        self.sequence.extend(story.past)
        self.picked.update(story.picks)

    def _keep(self, state: State, base: int, top: tuple[np.ndarray, ...]) -> None:
        """Make a state's list and contents the settled ones."""
        settled, depth = self.list.settled, base
        for cells in reversed(top):
            settled.cells[depth : depth + len(cells)] = cells
            depth += len(cells)
        settled.size["depth"], settled.size["count"] = depth, state.length
        for call, pages in state.content:
            first, end = self.list.calls.content[call : call + 2]
            settled.content[first:end] = np.frombuffer(pages, np.int64)

    def _group(self, states: list[State]) -> None:
        """Several states, or stories: what differs becomes a group."""
        base = min(s.base for s in states)
        settled = self.list.settled.cells
        lists = [np.concatenate((settled[base : s.base], *(one.cells for one in reversed(s.top))))
                 for s in states]
        same = [k for k, cells in enumerate(lists) if len(cells) == len(lists[0])]
        if len(same) < len(states):  # pages from beneath are on one list and not on the other
            self.give_up(c for s in states for story in s.stories for c in story.past)
        states, lists = [states[k] for k in same], [lists[k] for k in same]
        low, high = _difference(lists)
        group = Group([], [])
        for state, cells in zip(states, lists, strict=True):
            for story in state.stories:
                group.cells.append(cells[low:high].copy())
                group.stories.append(story)
        number = len(self.list.groups)
        self.list.groups.append(group)
        self.sequence.append(-1 - number)
        cells = lists[0].copy()
        if any(not np.array_equal(cells, other) for other in lists[1:]):
            cells[low:high] = OPEN_CELL - number
        content = _common(states)
        self._keep(states[0]._replace(content=content), base, (cells,) if len(cells) else ())

    # -- the end
    def order(self) -> Ints:
        """All calls in one order that fits; `ambiguous` and `choices` then say what is open."""
        groups = self.list.groups
        self.ambiguous |= self.list.given_up
        decided = dict(self.picked)
        for number in range(len(groups) - 1, -1, -1):
            group = groups[number]
            if not group.bag:
                self._choose(number, group, decided)
        order = array("q")
        for item in self.sequence:
            if item >= 0:
                order.append(item)
            else:
                order.extend(groups[-1 - item].stories[decided[-1 - item]].past)
        found = np.array(order, np.int64)
        self._bags(found, decided)
        return found

    def _choose(self, number: int, group: Group, decided: dict[int, int]) -> None:
        if number not in decided:
            decided[number] = 0
            self.choices.append(len(group.stories))
            chosen = group.stories[0]
            for other in group.stories[1:]:
                self.ambiguous.update(a for a, b in zip(chosen.past, other.past, strict=False)
                                      if a != b)
                self.ambiguous.update(b for a, b in zip(chosen.past, other.past, strict=False)
                                      if a != b)
                for g, which in set(chosen.picks) ^ set(other.picks):
                    if which != MADE:
                        self.ambiguous.update(_calls(self.list.groups[g]))
        for g, which in group.stories[decided[number]].picks:
            if decided.get(g, MADE) == MADE:
                decided[g] = which

    def _bags(self, order: Ints, decided: dict[int, int]) -> None:
        """Put frees that came together into the order that was seen, or that of their entry."""
        groups = self.list.groups
        made = [g for g in decided if groups[g].bag]
        inner = set().union(*(groups[g].grown_from for g in made))
        for g in made:
            top = decided[g]
            if top != MADE:
                rest = tuple(m for m in groups[g].bag if m[0] != top)
                if len(rest) > 1:
                    inner.add(self.list.bag_number(rest))
        place = _places(order, {call for g in made for call, _ in groups[g].bag})
        for g in sorted(made):
            if g in inner:
                continue
            members = [call for call, _ in groups[g].bag]
            arranged, open_ = self._arranged(g, decided)
            if len(open_) > 1:
                self.ambiguous.update(open_)
                self.choices.append(int(np.prod(np.arange(1.0, min(len(open_), 20) + 1))))
            if all(call in place for call in members):
                places = sorted(place[call] for call in members)
                for at, call in zip(places, arranged, strict=True):
                    order[at], place[call] = call, at

    def _arranged(self, group: int, decided: dict[int, int]) -> tuple[list[int], list[int]]:
        """A bag's frees, the first one first; and those of them whose order stays open."""
        bag = self.list.groups[group].bag
        top = decided.get(group, MADE)
        if top == MADE:
            members = sorted(call for call, _ in bag)
            return members, members
        rest = tuple(m for m in bag if m[0] != top)
        if len(rest) == 1:
            return [rest[0][0], top], []
        below, open_ = self._arranged(self.list.bag_number(rest), decided)
        return [*below, top], open_


def _places(order: Ints, calls: set[int]) -> dict[int, int]:
    """Where some calls are in an order."""
    if not calls:
        return {}
    at = np.flatnonzero(np.isin(order, list(calls)))
    return dict(zip(order[at].tolist(), at.tolist(), strict=True))


def _calls(group: Group) -> set[int]:
    if group.bag:
        return {call for call, _ in group.bag}
    return {call for story in group.stories for call in story.past}


def _difference(lists: list[np.ndarray]) -> tuple[int, int]:
    """Where lists of one length begin and end to differ; a group's pages are not divided."""
    table = np.stack(lists)
    differs = np.flatnonzero((table != table[0]).any(axis=0))
    if not len(differs):
        return 0, 0
    low, high = int(differs[0]), int(differs[-1]) + 1
    while low > 0 and any(row[low - 1] <= OPEN_CELL and row[low - 1] == row[low] for row in table):
        low -= 1
    while high < table.shape[1] and any(
            row[high] <= OPEN_CELL and row[high] == row[high - 1] for row in table):
        high += 1
    return low, high


def _common(states: list[State]) -> tuple[tuple[int, bytes], ...]:
    """The pages of allocations as far as all states agree on them."""
    found: dict[int, np.ndarray] = {}
    for state in states:
        for call, data in state.content:
            pages = np.frombuffer(data, np.int64)
            if call in found:
                pages = np.where(found[call] == pages, pages, UNKNOWN)
            found[call] = pages
    return tuple((call, pages.tobytes()) for call, pages in found.items())

