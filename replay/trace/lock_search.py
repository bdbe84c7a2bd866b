"""Looks for an order of all requests that fits the recorded frames: compiled, with backtracking."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.kernel import inline, kernel
from replay.trace import lock_stack
from replay.trace.lock_options import MAX_ORDERS, Room, make_room, options
from replay.trace.lock_stack import (
    ALLOC,
    AT_END,
    COUNT,
    DEPTH,
    FREE,
    LOG,
    MAX_STEPS,
    MISFIT,
    ORDER,
    STEPS,
    TAKEN,
    TOO_LONG,
    Ints,
    Requests,
    Stack,
    apply,
    run,
    undo_to,
)

MAX_TRIES = 1_000_000
"""Bounds the search, in comparisons, for what explains one allocation."""
NO_ROOM = TOO_LONG + 1

# places in `n`
(PENDING, CHOICE, TOP, BEGIN, BEGAN, CONTRADICTED, FAR, FAR_PENDING, FAR_ORDER, NEEDED,
 SIZE) = range(11)

# what a choice holds, at its place in `choices`: the open frees and their orders follow
_BEFORE, _OPEN, _END, _NEXT, _AT = range(5)
_HEAD = _AT + lock_stack.SIZE


class Work(NamedTuple):
    """The state of a search. n: see PENDING.

    choices: the decided allocations one behind the other, each with what is left to try and how to
    get back; CHOICE is the last one's place, -1 without one, TOP where it ends. far_...: how far
    the search came: the stack's `at`, the open frees, the order since the last contradiction, which
    ends at BEGIN. NEEDED: open frees there must be room for.
    """

    n: Ints
    choices: Ints
    far_at: Ints
    far_pending: Ints
    far_order: Ints


@inline
def _enter(q, s, pending, count):  # type: ignore[no-untyped-def]
    """Frees entered before the next allocation held the lock join those that are open."""
    stop = len(q.reach) + q.reach[s.at[ALLOC]]
    for f in range(s.at[FREE], stop):
        pending[count] = f
        count += 1
    s.at[FREE] = max(s.at[FREE], stop)
    return count


@inline
def _has_room(q, s, o, w):  # type: ignore[no-untyped-def]
    """Whether the next allocation's choice can be listed; NEEDED then says for how many frees."""
    more = len(q.reach) + q.reach[s.at[ALLOC]] - s.at[FREE]
    needed = w.n[PENDING] + max(np.int64(0), more)
    w.n[NEEDED] = needed
    top = w.n[TOP] + _HEAD + needed + 2 * MAX_ORDERS * (needed + 1)
    return needed <= len(o.path) and top <= len(w.choices)


@inline
def _decide(q, s, o, w):  # type: ignore[no-untyped-def]
    """Put a choice: the orders that open frees may have had before the next allocation."""
    pending = w.n[PENDING] = _enter(q, s, o.pending, w.n[PENDING])
    a, here = s.at[ALLOC], w.n[TOP]
    since = q.time[a - 1] if a else np.int64(-1)
    for k in range(pending):
        w.choices[here + _HEAD + k] = o.pending[k]
    start = here + _HEAD + pending
    end = options(q, s, o, pending, q.time[a], s.at[COUNT], since, w.choices, start)
    w.choices[here + _BEFORE], w.choices[here + _OPEN] = w.n[CHOICE], pending
    w.choices[here + _END], w.choices[here + _NEXT] = end, start
    for k in range(lock_stack.SIZE):
        w.choices[here + _AT + k] = s.at[k]
    s.at[STEPS] += (end - start) // (pending + 1) * max(1, pending) ** 2
    w.n[CHOICE], w.n[TOP] = here, end


@inline
def _drop_choice(w):  # type: ignore[no-untyped-def]
    w.n[TOP] = w.n[CHOICE]
    w.n[CHOICE] = w.choices[w.n[CHOICE] + _BEFORE]


@inline
def _keep_open(o, w, option):  # type: ignore[no-untyped-def]
    """The frees that are not in the order chosen stay open."""
    kept = 0
    for k in range(w.n[PENDING]):
        chosen = False
        for n in range(option + 1, option + 1 + w.choices[option]):
            chosen = chosen or w.choices[n] == o.pending[k]
        if not chosen:
            o.pending[kept] = o.pending[k]
            kept += 1
    w.n[PENDING] = kept


@inline
def _choose(q, s, o, w):  # type: ignore[no-untyped-def]
    """Take the first order of the last choice that fits; without one the choice is dropped."""
    here = w.n[CHOICE]
    while w.choices[here + _NEXT] < w.choices[here + _END]:
        option = w.choices[here + _NEXT]
        w.choices[here + _NEXT] += w.choices[here + _OPEN] + 1
        if apply(q, s, w.choices, option + 1, option + 1 + w.choices[option]):
            _keep_open(o, w, option)
            return True
    _drop_choice(w)
    return False


@inline
def _remember(s, o, w):  # type: ignore[no-untyped-def]
    """Keep the order that led to the allocation farthest on, should nothing lead beyond it."""
    if w.n[FAR] and s.at[ALLOC] <= w.far_at[ALLOC]:
        return
    length = s.at[ORDER] - w.n[BEGIN]
    for k in range(length):
        w.far_order[k] = s.order[w.n[BEGIN] + k]
    for k in range(w.n[PENDING]):
        w.far_pending[k] = o.pending[k]
    s.at[STEPS] += length // 64
    for k in range(lock_stack.SIZE):
        w.far_at[k] = s.at[k]
    w.n[FAR], w.n[FAR_ORDER], w.n[FAR_PENDING] = 1, length, w.n[PENDING]


@inline
def _back(s, o, w):  # type: ignore[no-untyped-def]
    """Undo to the last choice that leaves something to try; whether there is one."""
    steps = s.at[STEPS]
    while w.n[CHOICE] >= 0 and steps - w.n[BEGAN] < MAX_TRIES:
        here = w.n[CHOICE]
        if w.choices[here + _NEXT] < w.choices[here + _END]:
            undo_to(s, w.choices[here + _AT + LOG])
            for k in range(lock_stack.SIZE):
                s.at[k] = w.choices[here + _AT + k]
            s.at[STEPS] = steps
            w.n[PENDING] = w.choices[here + _OPEN]
            for k in range(w.n[PENDING]):
                o.pending[k] = w.choices[here + _HEAD + k]
            return True
        _drop_choice(w)
    return False


@inline
def _give_up(q, s, w):  # type: ignore[no-untyped-def]
    """Let the farthest allocation take effect though nothing explains it, and all open frees."""
    steps = s.at[STEPS]
    for k in range(lock_stack.SIZE):
        s.at[k] = w.far_at[k]
    pending = _enter(q, s, w.far_pending, w.n[FAR_PENDING])
    a, order = s.at[ALLOC], w.n[BEGIN]
    for k in range(w.n[FAR_ORDER]):
        s.order[order + k] = w.far_order[k]
    order += w.n[FAR_ORDER]
    for k in range(pending):
        s.order[order + k] = w.far_pending[k]
        s.at[COUNT] += q.nr[w.far_pending[k]]
    order += pending
    s.order[order] = a
    s.at[COUNT] -= q.nr[a]
    w.n[BEGIN] = s.at[ORDER] = order + 1
    s.at[ALLOC] = a + 1
    s.at[DEPTH] = s.at[LOG] = s.at[TAKEN] = 0
    s.at[STEPS] = w.n[BEGAN] = steps
    w.n[CONTRADICTED] += 1
    w.n[CHOICE], w.n[TOP], w.n[FAR], w.n[PENDING] = -1, 0, 0, 0


@kernel()
def _search(q, s, o, w):  # type: ignore[no-untyped-def]
    """Decide allocation by allocation; how it ended. With NO_ROOM it goes on when called again."""
    while s.at[ALLOC] < len(q.reach):
        fits, ended = False, AT_END
        if not w.n[PENDING]:
            ended = run(q, s)
            if ended == AT_END or ended == TOO_LONG:
                return ended
        if ended != MISFIT:
            if not _has_room(q, s, o, w):
                return NO_ROOM
            _decide(q, s, o, w)
            if s.at[STEPS] > MAX_STEPS:
                return TOO_LONG
            fits = _choose(q, s, o, w)
        while not fits:
            _remember(s, o, w)
            if not _back(s, o, w):
                _give_up(q, s, w)
                break
            if s.at[STEPS] > MAX_STEPS:
                return TOO_LONG
            fits = _choose(q, s, o, w)
    return AT_END


def _grown(o: Room, w: Work) -> tuple[Room, Work]:
    """Both with room for the choice that is needed next, and for many more."""
    needed = int(w.n[NEEDED])
    top = int(w.n[TOP]) + _HEAD + needed + 2 * MAX_ORDERS * (needed + 1)
    if needed > len(o.path):
        room = make_room(len(o.pending), 2 * needed)
        o = room._replace(pending=o.pending)
    choices = np.empty(2 * top, dtype=np.int64)
    choices[:w.n[TOP]] = w.choices[:w.n[TOP]]
    return o, w._replace(choices=choices)


def search(q: Requests, s: Stack) -> tuple[Ints | None, int]:
    """All requests in the order found, None if the search is too long; contradictions met.

    Where no order explains an allocation's frames, what was found until there stays, and the list
    is taken for unknown from there on.
    """
    frees = len(q.time) - len(q.reach)
    o = make_room(frees, 16)
    w = Work(np.zeros(SIZE, dtype=np.int64), np.empty(1 << 16, dtype=np.int64),
             np.zeros(lock_stack.SIZE, dtype=np.int64), np.empty(frees, dtype=np.int64),
             np.empty(len(q.time), dtype=np.int64))
    w.n[CHOICE] = -1
    while (ended := _search(q, s, o, w)) == NO_ROOM:
        if int(w.n[NEEDED]) ** 2 > MAX_STEPS:
            return None, int(w.n[CONTRADICTED])
        o, w = _grown(o, w)
    if ended == TOO_LONG:
        return None, int(w.n[CONTRADICTED])
    return np.concatenate((s.order[:s.at[ORDER]], o.pending[:w.n[PENDING]],
                           np.arange(s.at[FREE], len(q.time)))), int(w.n[CONTRADICTED])
