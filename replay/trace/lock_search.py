"""Orders of calls that overlap: every state of the free list that fits what was recorded.

Calls take effect one at a time, somewhere between entry and return. Time is followed from event to
event; each surviving state says which of the open calls have taken effect and what the list then
is. A call is applied when it must be: at a moment at which it held the lock, at its return, or
where what was read of the list (its length, its head) shows that it was. States that come to the
same are one, with several stories of how; what tells them apart later decides, and what is left
at the end is ambiguous. This is the search of Lowe, "Testing for linearizability" (2017), with the
list's own observations to cut it short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Final

from replay.trace.columns import NONE
from replay.trace.lock_calls import Calls
from replay.trace.lock_quiet import OPEN, UNKNOWN, List
from replay.trace.lock_settle import Settled
from replay.trace.lock_states import MAX_STORIES, FreeList, State

MAX_STATES: Final = 512
"""States that are kept from one event to the next."""
MAX_TRIED: Final = 4096
"""States that are tried at one event. Beyond either bound the open calls count as ambiguous."""
MAX_SUBSETS_OF: Final = 10
"""Open calls of which all subsets are tried; of more, those of up to two."""


class Search:
    """Follows the events of calls; `settled` keeps what is decided."""

    def __init__(self, calls: Calls, listed: List) -> None:
        self.q, self.list = calls, FreeList(calls, listed)
        self.settled = Settled(self.list)
        self.open: list[int] = []
        self.states: list[State] = []
        self.contradicted = self.misread = self.tried = 0
        self._off: set[int] = set()

    def run(self, cluster: Iterable[int]) -> None:
        """All events of some calls that overlap no others."""
        self.states = [self.settled.start()]
        for call, moment in _events(self.q, cluster):
            self.tried = 0
            if moment == ENTER:
                self._read(int(self.q.listed[call]), int(self.q.head[call]))
                self.open.append(call)
            else:
                self._force(call)
                if moment == LEAVE:
                    self._over(call)
            self._bound()
            self.states = self.settled.fold(self.states)
        self.states = self.settled.fold(self.states, end=True)

    def _over(self, call: int) -> None:
        self._read(int(self.q.listed_after[call]), int(self.q.head_after[call]))
        self.open.remove(call)
        self.states = _merged(replace(s, done=s.done - {call}) for s in self.states)

    def _bound(self) -> None:
        if self.tried >= MAX_TRIED or len(self.states) > MAX_STATES:
            self.settled.give_up(self.open)
            del self.states[MAX_STATES:]

    def _pending(self, state: State) -> list[int]:
        """Open calls that may take effect at any time."""
        return [c for c in self.open if c not in state.done and self.q.held[c] == NONE]

    # -- a call must have taken effect
    def _force(self, call: int) -> None:
        found = _merged(self._all(lambda state: self._up_to(state, call)))
        if not found:
            self.contradicted += 1
            found = [self.settled.without_list(s, call, int(self.q.listed_after[call]))
                     for s in self.states[:1]]
        self.states = found

    def _all(self, follow: Callable[[State], Iterator[State]]) -> Iterator[State]:
        for state in self.states:
            for one in follow(state):
                self.tried += 1
                yield one
                if self.tried >= MAX_TRIED:
                    return

    def _up_to(self, state: State, call: int) -> Iterator[State]:
        """The states after others that may have come before a call, and that call.

        A free goes to the top in any case: only what pops comes before it, with the frees that
        does need; other frees join its bag later.
        """
        if call in state.done:
            yield state
            return
        pending = [c for c in self._pending(state) if c != call]
        popping = any(self.q.pops[c] for c in pending)
        if self.q.pushes[call] and not popping:
            yield from self.list.apply(state, call)
            return
        for some in _subsets(pending):
            if self.q.pushes[call] and some and not any(self.q.pops[c] for c in some):
                continue
            for before in self._orders(state, frozenset(some)):
                if self.q.pushes[call] and some and before.bag:
                    continue  # ends in frees
                yield from self.list.apply(before, call)

    def _orders(self, state: State, calls: frozenset[int], last: int = -1) -> Iterator[State]:
        """The states after some calls in every order; frees in a row are one bag."""
        if not calls:
            yield state
            return
        for call in sorted(calls):
            pushes = bool(self.q.pushes[call])
            if pushes and call < last:
                continue
            for one in self.list.apply(state, call):
                self.tried += 1
                if self.tried >= MAX_TRIED:
                    return
                yield from self._orders(one, calls - {call}, call if pushes else -1)

    # -- what was read of the list
    def _read(self, listed: int, head: int) -> None:
        if listed == NONE:
            return
        found = _merged(self._all(lambda state: self._seen(state, listed, head)))
        if not found:
            found = _merged(self._all(lambda state: self._half_done(state, listed)))
        if found:
            self.states = [replace(state, bag=()) for state in found]
            return
        self.misread += 1
        self._resynchronise(listed)

    def _resynchronise(self, listed: int) -> None:
        """Where records are missing lengths are off by the same from then on: believe the second."""
        off = {listed - state.count for state in self.states if not self._pending(state)}
        if off and off == self._off:
            self.states = [replace(state, count=listed) for state in self.states]
        self._off = off

    def _change(self, call: int) -> int:
        q = self.q
        added = q.sections[1, q.section[call] : q.section[call + 1]].sum()
        return int(q.pushes[call] + added - q.pops[call])

    def _seen(self, state: State, listed: int, head: int) -> Iterator[State]:
        """The states in which the list is as long as was read, and begins with that page."""
        if state.count == NONE:
            yield replace(state, count=listed)
            return
        for some in _subsets(self._pending(state)):
            if state.count + sum(map(self._change, some)) == listed:
                for one in self._orders(state, frozenset(some)):
                    yield from self._beginning(one, head)

    def _beginning(self, state: State, head: int) -> Iterator[State]:
        first = self.list.head(state)
        if first <= OPEN and head >= 0:
            for one in self.list.opened(state, head, UNKNOWN):
                yield from self._beginning(one, head)
        elif head < 0 or first < 0 or first == head:
            yield state

    def _half_done(self, state: State, listed: int) -> Iterator[State]:
        """States in which a call was under way, and the length read between before and after."""
        pending = [c for c in self.open if c not in state.done]
        for some in _subsets(self._pending(state)):
            count = state.count + sum(map(self._change, some))
            if not some and self._in_hand(state, listed):
                yield state
            for call in pending:
                q = self.q
                pushed = int(q.pushes[call] + self._change(call) + q.pops[call])
                if call in some or not count - int(q.pops[call]) < listed < count + pushed:
                    continue
                for one in self._orders(state, frozenset(some)):
                    if one.holder == -1:
                        yield replace(one, holder=call)


    def _in_hand(self, state: State, listed: int) -> bool:
        """Whether a call that is known to have held the lock may still have been at work."""
        q = self.q
        for call in self.open:
            if call in state.done and q.held[call] != NONE:
                before = state.count - self._change(call)
                grown = before + int(q.pushes[call] + self._change(call) + q.pops[call])
                if min(before, state.count) <= listed <= max(before, grown):
                    return True
        return False


ENTER, HOLD, LEAVE = range(3)


def _events(q: Calls, cluster: Iterable[int]) -> list[tuple[int, int]]:
    """(call, what happens to it) in the order of time."""
    found = []
    for call in cluster:
        found.append((int(q.entered[call]), ENTER, call))
        if q.held[call] != NONE:
            found.append((int(q.held[call]), HOLD, call))
        found.append((int(q.over[call]), LEAVE, call))
    return [(call, moment) for _, moment, call in sorted(found)]


def _subsets(calls: list[int]) -> Iterator[tuple[int, ...]]:
    most = len(calls) if len(calls) <= MAX_SUBSETS_OF else 2
    for size in range(most + 1):
        yield from combinations(calls, size)


def _merged(states: Iterable[State]) -> list[State]:
    """States that come to the same as one, with all their stories."""
    found: dict[tuple[object, ...], State] = {}
    for state in states:
        key = state.key()
        if key in found:
            stories = (*found[key].stories, *state.stories)
            state = replace(found[key], stories=tuple(dict.fromkeys(stories))[:MAX_STORIES])
        found[key] = state
    return list(found.values())

