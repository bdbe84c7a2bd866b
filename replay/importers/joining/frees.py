"""Events of a free to its row, compiled. See join.py for how calls nest."""

from __future__ import annotations

from replay.base.compiled import inline
from replay.importers.joining import state as j
from replay.importers.joining.frames import keep_frames, keep_more_frames, put_ends
from replay.importers.joining.row import hold, new_row, put


@inline
def undoes(p, w, function, caller, t):  # type: ignore[no-untyped-def]
    """Whether xen_alloc_ballooned_pages, failing half-way, gives back what it had."""
    depth = w.tasks[j.T_DEPTH, t]
    if not p.functions[j.F_UNDONE, function] or not depth:
        return False
    inside = p.functions[j.F_UNDOING, w.tasks[j.T_FUNCTION + depth - 1, t]]
    return inside and (caller == j.MISSING or caller == p.names[2])


@inline
def free(p, w, s, index, event, t, time, a):  # type: ignore[no-untyped-def]
    """Entry of a free: a new row, unless another probe or an outer call reported it."""
    function, caller = p.streams[j.S_FUNCTION, s], p.args[a + j.A_CALLER]
    if undoes(p, w, function, caller, t):
        w.counts[j.N_NESTED] += 1
        return
    nr, pointer, name = p.args[a + j.A_NR], p.args[a + j.A_POINTER], p.streams[j.S_EVENT, s]
    r = w.tasks[j.T_FREE, t]
    if r >= 0 and w.rows[j.C_NR, r] == nr:
        before = w.tasks[j.T_FREE_FUNCTION, t]
        if before == p.functions[j.F_OUTER, function]:
            w.counts[j.N_NESTED] += 1
            w.rows[j.C_LABEL, r] = p.functions[j.F_LABEL, function]
            w.tasks[j.T_FREE_FUNCTION, t], w.tasks[j.T_FREE_EVENTS, t] = function, 1 << name
            return
        if before == function and w.rows[j.C_VALUE, r] == pointer and not (
                w.tasks[j.T_FREE_EVENTS, t] >> name & 1):
            w.tasks[j.T_FREE_EVENTS, t] |= 1 << name
            w.counts[j.N_REPEATED] += 1
            keep_more_frames(p, w, s, index, r)
            return
    r = new_row(w, j.FREE, time, event)
    w.rows[j.C_NR, r], w.rows[j.C_CALLER, r], w.rows[j.C_VALUE, r] = nr, caller, pointer
    w.rows[j.C_LABEL, r] = p.functions[j.F_LABEL, function]
    w.rows[j.C_LIST, r] = p.args[a + j.A_LIST]
    keep_frames(p, w, s, index, r)
    w.tasks[j.T_FREE, t], w.tasks[j.T_FREE_FUNCTION, t] = r, function
    w.tasks[j.T_FREE_EVENTS, t] = 1 << name


@inline
def free_inside(p, w, s, index, t, time, a):  # type: ignore[no-untyped-def]
    """A probe within a free: the locked state and the pages, or the last page."""
    r = w.tasks[j.T_FREE, t]
    if r < 0 or w.tasks[j.T_FREE_FUNCTION, t] != p.streams[j.S_FUNCTION, s]:
        w.skips[j.X_INSIDE, s] += 1
        return
    hold(w, r, time)
    put(w, j.C_LIST, r, p.args[a + j.A_AFTER])
    keep_frames(p, w, s, index, r)
    if p.args[a + j.A_LAST] != j.MISSING:
        put_ends(w, r, j.MISSING, p.args[a + j.A_LAST])


@inline
def free_return(p, w, s, t, time):  # type: ignore[no-untyped-def]
    """Return of a free. Behind its fallback's the outer function's follows, which counts."""
    r, function = w.tasks[j.T_FREE, t], p.streams[j.S_FUNCTION, s]
    served = w.tasks[j.T_FREE_FUNCTION, t]
    if r >= 0 and (function == served or function == p.functions[j.F_OUTER, served]):
        w.rows[j.C_END, r] = time
    elif undoes(p, w, function, j.MISSING, t):
        w.counts[j.N_NESTED] += 1
    else:
        w.counts[j.N_UNMATCHED] += 1
