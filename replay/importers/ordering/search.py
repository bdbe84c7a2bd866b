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

from itertools import combinations
from typing import Final

import numpy as np

from replay.base.prepared import prepared
from replay.base.scratch import Scratch
from replay.importers.ordering.calls import Calls
from replay.importers.ordering.quiet import OPEN_CELL, UNKNOWN, List
from replay.importers.ordering.settle import Settled
from replay.importers.ordering.states import FreeList, State, merged
from replay.importers.ordering.stories import Story
from replay.importers.ordering.together import Together
from replay.importers.ordering.walk import (
    ENTER, LEAVE, LOOKED_AT, MOST_MOMENTS, MOST_WAITING, NO_BOUND, PACE, TRIED_EACH_STATE, Moments,
    Pace, lay_moments, quiet, walk,
)  # fmt: skip
from replay.trace.columns import NONE

MAX_STATES: Final = 512
"""States that are kept from one event to the next."""
MAX_TRIED: Final = 2048
"""States that are tried at one event. Beyond either bound the open calls count as ambiguous."""
MAX_TRIED_IN_ALL: Final = 200_000
"""States that are tried in one recording, half a minute's work; then few at each event."""
TRIED: Final = 2_000
TRIED_EACH: Final = 20
"""States that are tried in a short recording, and more for each call: a whole recording of a busy
machine needs about one for two calls, one with holes as many as it may."""
FEW: Final = 16
LONG: Final = 64
"""Calls in a row whose order is kept open then: of more one is taken, or each would cost more
than the one before it."""
MOST_BESIDE: Final = 6
"""Open calls beside those it needs that a call is tried behind, where fewer do."""
_NOTHING: Final = (Story(),)
"""The stories of a state to which nothing has happened since the last settled moment."""


class Search:
    """Follows the events of calls; `settled` keeps what is decided.

    pairs: see walk.quiet(). most: calls that are followed at a time. origins: see FreeList.
    """

    def __init__(self, calls: Calls, listed: List, pairs: np.ndarray, most: int,
                 scratch: Scratch, *, origins: bool) -> None:
        self.q, self.list = calls, FreeList(calls, listed, origins=origins)
        self.settled = Settled(self.list)
        self.open: list[int] = []
        self.states: list[State] = []
        self.contradicted = self.misread = self.tried = 0
        self.tried_in_all = self._looked = 0
        self.most_in_all = min(MAX_TRIED_IN_ALL, TRIED + TRIED_EACH * len(calls.nr))
        self._behind = np.concatenate(([0], np.cumsum(calls.sections["pages"])))
        self._off: set[int] = set()
        self._counts = np.zeros(1, PACE)
        self._pace = Pace(self._counts[0], scratch.array(most), np.zeros(len(pairs), bool),
                          np.zeros(MOST_WAITING, np.int64))
        self._quiet = prepared(quiet, calls, listed, pairs, self._pace)
        self._moments = Moments(*(scratch.array(MOST_MOMENTS * most) for _ in range(2)))
        self._walk_on = prepared(walk, calls, listed, self._moments, self._pace)
        self._together = Together(calls, listed, self._moments, self._pace)

    def quiet(self, first: int, stop: int) -> int:
        """Follow calls first to stop - 1, see walk.quiet(); the first one of which something is
        open, or stop."""
        reached = self._paced(self._quiet, first, stop)
        self.settled.sequence.extend(range(first, reached))
        return reached

    def run(self, first: int, stop: int) -> None:
        """All events of calls first to stop - 1, that overlap no others."""
        self.states = [self.settled.start()]
        end = lay_moments(self._moments, self.q, first, stop)
        k = 0
        while k < end:
            k = self._walk(k, end)
            if k < end:
                self._event(int(self._moments.calls[k]), int(self._moments.what[k]))
                k += 1
        self.states = self.settled.fold(self.states, end=True)

    def _event(self, call: int, moment: int) -> None:
        self.tried = 0
        if moment == ENTER:
            self._read(int(self.q.listed[call]), int(self.q.head[call]))
            self.open.append(call)
        else:
            self._force(call)
            if moment == LEAVE:
                self._over(call)
        self._bound()
        self.states = merged(self.list.loosened(s, self._pending(s)) for s in self._likely())
        self.states = self.settled.fold(self.states)

    # -- where all states go the same way
    def _walk(self, begin: int, end: int) -> int:
        """Follow events from `begin` up to `end`, see walk.walk(); the first one that is left, or
        end."""
        first, alone = self.states[0], len(self.states) == 1
        waiting = self._pending(first)
        if len(waiting) > MOST_WAITING or not all(map(self._waits, waiting)) or not (
                self._is_settled() if alone else self._in_step()):
            return begin
        follow = self._walk_on if alone else self._together.lay(self.states)
        if follow is None:
            return begin
        self._pace.waiting[: len(waiting)] = waiting
        before, done = first.done, self._pace.done
        for call in before:
            done[call] = True
        reached = self._paced(follow, begin, end, len(waiting))
        if reached == begin:
            done[list(before)] = False
            return begin
        calls, kinds = (column[begin:reached] for column in self._moments)
        for call, what in zip(calls.tolist(), kinds.tolist(), strict=True):
            if what == ENTER:
                self.open.append(call)
            elif what == LEAVE:
                self.open.remove(call)
        # a damaged recording may tell of the lock before the call that took it
        now = frozenset(c for c in (*before, *calls[done[calls]].tolist()) if done[c])
        done[list(now)] = False
        took = self._pace.took[: int(self._counts["took"][0])]
        if alone:
            self.settled.sequence.frombytes(took.tobytes())
            self.states = [self.settled.start(now)]
        else:
            self.states = self._together.taken(self.states, now, tuple(took.tolist()))
        return reached

    def _waits(self, call: int) -> bool:
        """Whether a call that may take effect at any time does no more than to push pages."""
        q = self.q
        return bool(q.pushes[call] and not q.pops[call]
                    and q.section[call] == q.section[call + 1])

    def _is_settled(self) -> bool:
        """Whether the one state is the settled list."""
        first = self.states[0]
        return (not first.top and not first.content and first.stories == _NOTHING
                and first.holder == -1 and not first.unread)

    def _in_step(self) -> bool:
        """Whether all states have done the same calls, and an event is within what may be tried."""
        first = self.states[0]
        most = MAX_TRIED if self.tried_in_all < self.most_in_all else FEW
        return len(self.states) * TRIED_EACH_STATE < most and all(
            state.done == first.done and state.length == first.length
            and state.holder == -1 and not state.loose for state in self.states)

    def _paced(self, follow: Callable[[], int], at: int, stop: int, waiting: int = 0) -> int:
        """Go on compiled, and take over what was counted; how far it came."""
        states, took, tried = max(1, len(self.states)), NO_BOUND, NO_BOUND
        if states > 1 and self.tried_in_all < self.most_in_all:
            tried = self.most_in_all - states * TRIED_EACH_STATE
        elif states > 1:
            took = LONG - len(self.states[0].stories[0].past)
        off = next(iter(self._off)) if len(self._off) == 1 else 0
        self._counts[0] = (self.tried_in_all, self._looked, self.misread, self.contradicted, off,
                           len(self._off) == 1, len(self.open), waiting, 0, 0, at, stop, states,
                           self.list.origins, took, tried)
        reached = int(follow())
        (self.tried_in_all, self._looked, self.misread, self.contradicted, off, known,
         *_) = self._counts[0].item()
        self._off = {off} if known else self._off
        return reached

    def _likely(self) -> list[State]:
        """The states that explain most of what was read, and while calls are open the next best."""
        least = min(state.unread for state in self.states)
        worst = least + bool(self.open)
        self.misread += least
        likely = [state for state in self.states if state.unread <= worst]
        return [state._replace(unread=state.unread - least) for state in likely] if least \
            else likely

    def _over(self, call: int) -> None:
        self._read(int(self.q.listed_after[call]), int(self.q.head_after[call]))
        self.open.remove(call)
        self.states = merged(s._replace(done=s.done - {call}) for s in self.states)

    def _bound(self) -> None:
        much = self.tried_in_all < self.most_in_all
        most = MAX_STATES if much else FEW
        if self._spent() or len(self.states) > most:
            self.settled.give_up(self.open)
            del self.states[most:]
        if not much and len(self.states[0].stories[0].past) > LONG:
            self.settled.give_up(self.open)
            first = self.states[0]
            self.states = [first._replace(loose=0, stories=first.stories[:1])]
        self.tried_in_all += self.tried

    def _spent(self) -> bool:
        """Whether what may be tried at this event is used up."""
        return self.tried >= (
            MAX_TRIED if self.tried_in_all + self.tried < self.most_in_all else FEW)

    def _pending(self, state: State) -> list[int]:
        """Open calls that may take effect at any time."""
        return [c for c in self.open if c not in state.done and self.q.held[c] == NONE]

    # -- a call must have taken effect
    def _force(self, call: int) -> None:
        found = merged(self._all(lambda state: self._up_to(state, call)))
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
                if self._spent():
                    return

    def _up_to(self, state: State, call: int) -> Iterator[State]:
        """The states after others that may have come before a call, and that call.

        Frees need nothing before them but what pops: others that came first are put beneath them
        later. An allocation needs the frees whose pages it
        got. Others may have come before those, which makes a difference only where the allocation
        left some of their pages, or where its frames are not all known.
        """
        if call in state.done:
            yield state
            return
        pending = [c for c in self._pending(state) if c != call]
        if self.q.pushes[call]:
            yield from self.list.apply(state, call)
            pending = pending if any(self.q.pops[c] for c in pending) else []
        needed = self.list.needed(call) & set(pending)
        found = divided = False
        others = [c for c in pending if c not in needed]
        for size in range(len(others) + 1):
            if found and (size > MOST_BESIDE or not divided):
                return
            for some in combinations(others, size):
                self.tried += 1
                if self._spent():
                    return
                for one in self._followed(state, needed | set(some), call):
                    found = True
                    divided = divided or self.list.divides(one, call)
                    yield one

    def _followed(self, state: State, before: set[int], call: int) -> Iterator[State]:
        """The states after some calls, and then this one."""
        pushes = bool(self.q.pushes[call])
        if pushes and not any(self.q.pops[c] for c in before):
            return
        for one in self._orders(state, frozenset(before)):
            yield from self.list.apply(one, call)

    def _orders(self, state: State, calls: frozenset[int]) -> Iterable[State]:
        """The states after some calls in every order."""
        found = [state]
        for _ in range(len(calls)):
            following: list[State] = []
            for one in found:
                for call in sorted(calls - one.done):
                    self.tried += 1
                    if self._spent():
                        return []
                    following.extend(self.list.apply(one, call))
            found = merged(following)
        return found

    # -- what was read of the list
    def _read(self, listed: int, head: int) -> None:
        if listed == NONE:
            return
        found = list(self._all(lambda state: self._seen(state, listed, head)))
        found = found or list(self._all(lambda state: self._half_done(state, listed)))
        if not found:
            self._resynchronise(listed)
        # a read may come later than its event's time stamp, by as long as its CPU stood still
        late = [state._replace(unread=state.unread + 1) for state in self.states
                if self._pending(state) or not found]
        self.states = merged((*(state._replace(loose=0) if state.loose else state
                                 for state in found), *late))

    def _resynchronise(self, listed: int) -> None:
        """Where records are missing, lengths stay off by the same: believe the second."""
        off = {listed - state.length for state in self.states if not self._pending(state)}
        if off and off == self._off:
            self.states = [state._replace(length=listed) for state in self.states]
        self._off = off

    def _change(self, call: int) -> int:
        return int(self.q.pushes[call] + self._added(call) - self.q.pops[call])

    def _added(self, call: int) -> int:
        """Pages of the sections that a call adds."""
        first, end = self.q.section[call : call + 2]
        return int(self._behind[end] - self._behind[first])

    def _most(self, call: int) -> int:
        """By how much a call can make the list longer while it is at work."""
        return int(2 * self.q.pushes[call] + self._added(call))

    def _look(self) -> bool:
        """Count a choice of calls that is looked at; whether what may be tried is used up."""
        self._looked += 1
        if self._looked % LOOKED_AT == 0:
            self.tried += 1
        return self._spent()

    def _seen(self, state: State, listed: int, head: int) -> Iterator[State]:
        """The states in which the list is as long as was read, and begins with that page."""
        if state.length == NONE:
            yield state._replace(length=listed)
            return
        for some in self._of_length(self._pending(state), listed - state.length):
            for one in self._orders(state, frozenset(some)):
                yield from self._beginning(one, head)

    def _of_length(self, calls: list[int], length: int) -> Iterator[tuple[int, ...]]:
        """Subsets of calls that together change the list's length by so much, the small ones
        first."""
        changes = [self._change(c) for c in calls]
        most = sum(c for c in changes if c > 0)
        least = sum(c for c in changes if c < 0)
        if not least <= length <= most:
            return
        for size in range(len(calls) + 1):
            for some in combinations(range(len(calls)), size):
                if self._look():
                    return
                if sum(changes[k] for k in some) == length:
                    yield tuple(calls[k] for k in some)

    def _beginning(self, state: State, head: int) -> Iterator[State]:
        first = self.list.head(state)
        if first <= OPEN_CELL and head >= 0:
            for one in self.list.opened(state, head, UNKNOWN):
                yield from self._beginning(one, head)
        elif head < 0 or first < 0 or first == head:
            yield state

    def _half_done(self, state: State, listed: int) -> Iterator[State]:
        """States in which a call was under way, and the length read between before and after."""
        pending = [c for c in self.open if c not in state.done]
        for some in _few(self._pending(state)):
            count = state.length + sum(map(self._change, some))
            if not some and self._in_hand(state, listed):
                yield state
            for call in pending:
                if self._look():
                    return
                most = count + self._most(call)
                if call in some or not count - int(self.q.pops[call]) < listed < most:
                    continue
                for one in self._orders(state, frozenset(some)):
                    if one.holder == -1:
                        yield one._replace(holder=call)


    def _in_hand(self, state: State, listed: int) -> bool:
        """Whether a call that is known to have held the lock may still have been at work."""
        q = self.q
        for call in self.open:
            if call in state.done and q.held[call] != NONE:
                before = state.length - self._change(call)
                grown = before + self._most(call)
                if min(before, state.length) <= listed <= max(before, grown):
                    return True
        return False


def _few(calls: list[int]) -> Iterator[tuple[int, ...]]:
    """Subsets of up to three calls."""
    for size in range(min(3, len(calls)) + 1):
        yield from combinations(calls, size)
