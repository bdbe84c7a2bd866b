"""The row that a call becomes, and what is put into it; compiled."""

from __future__ import annotations

from replay.base.compiled import inline
from replay.importers.joining import state as j


@inline
def new_row(w, kind, time, event):  # type: ignore[no-untyped-def]
    """The next row, of which nothing else is known yet."""
    r = w.counts[j.N_ROWS]
    w.counts[j.N_ROWS] += 1
    for c in range(j.C_SIZE):
        w.rows[c, r] = j.MISSING
    w.rows[j.C_KIND, r], w.rows[j.C_TIME, r], w.rows[j.C_EVENT, r] = kind, time, event
    w.rows[j.C_FLAGS, r] = 0
    return r


@inline
def put(w, column, r, value):  # type: ignore[no-untyped-def]
    """Store a number that was recorded."""
    if value != j.MISSING:
        w.rows[column, r] = value


@inline
def hold(w, r, time):  # type: ignore[no-untyped-def]
    """The first time at which the call is known to have held the lock."""
    if w.rows[j.C_LOCK, r] == j.MISSING:
        w.rows[j.C_LOCK, r] = time


@inline
def fill_before(p, w, a, r):  # type: ignore[no-untyped-def]
    """The allocator's own numbers before the call."""
    put(w, j.C_LIST, r, p.args[a + j.A_LIST])
    put(w, j.C_CURRENT, r, p.args[a + j.A_CURRENT])
    put(w, j.C_TARGET, r, p.args[a + j.A_TARGET])
    put(w, j.C_UNPOPULATED, r, p.args[a + j.A_UNPOPULATED])
