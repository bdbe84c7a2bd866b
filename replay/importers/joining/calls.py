"""Probe events to rows, compiled: a call's entry, its locked part and its return become one row.

Events come in the order of the recording. Calls are joined per task, last in first out, since a
kernel function returns to the task that entered it. These functions neither recurse nor call each
other, but for the fallback: xen_alloc_unpopulated_pages() and xen_free_unpopulated_pages() of
drivers/xen/unpopulated-alloc.c call the balloon's functions of the same signature. So a task has at
most two calls open, and the second is the fallback inside the first.
"""

from __future__ import annotations

from replay.base.compiled import inline, compiled
from replay.importers.joining import state as j
from replay.importers.joining.frames import (
    UNPAIRED,
    drop_frames,
    finish,
    first_from_list,
    flag_truncated,
    keep_as_mfns,
    keep_frames,
    keep_mfns,
    keep_more_frames,
    push_frame,
    put_ends,
)
from replay.importers.joining.frees import free, free_inside, free_return
from replay.importers.joining.locks import (
    alloc_locked,
    free_locked,
    free_unlock,
    in_pass,
    left,
    pass_locked,
    pass_unlock,
)
from replay.importers.joining.row import fill_before, hold, new_row, put


@inline
def _level(w, t, function):  # type: ignore[no-untyped-def]
    """Where the task's open call of a function is, the innermost one; -1 if none."""
    for level in range(w.tasks[j.T_DEPTH, t] - 1, -1, -1):
        if w.tasks[j.T_FUNCTION + level, t] == function:
            return level
    return -1


@inline
def _open(w, t, r, function, event):  # type: ignore[no-untyped-def]
    level = w.tasks[j.T_DEPTH, t]
    w.tasks[j.T_DEPTH, t] = level + 1
    w.tasks[j.T_ROW + level, t], w.tasks[j.T_FUNCTION + level, t] = r, function
    w.tasks[j.T_EVENT + level, t] = event
    w.tasks[j.T_MARK + level, t] = w.tasks[j.T_COUNT + level, t] = 0
    w.tasks[j.T_LAST + level, t] = -1


@inline
def _take_over(w, t):  # type: ignore[no-untyped-def]
    """The pages that the fallback reported are those of the call that fell back."""
    w.tasks[j.T_COUNT, t] = w.tasks[j.T_COUNT2, t]
    w.tasks[j.T_LAST, t] = w.tasks[j.T_LAST2, t]


@inline
def _end(p, w, t, level, time):  # type: ignore[no-untyped-def]
    """A call ends, and with it the fallback that it called and that did not report its end."""
    if level == 0 and w.tasks[j.T_DEPTH, t] == 2 and w.tasks[j.T_COUNT, t] == 0:
        _take_over(w, t)
    w.tasks[j.T_DEPTH, t] = level
    w.rows[j.C_END, w.tasks[j.T_ROW + level, t]] = time
    if level == 1:
        if w.tasks[j.T_COUNT2, t]:
            _take_over(w, t)
        # arm64 recordings have no return probe on the outer function: it returns what the
        # fallback returned, right behind it
        if p.functions[j.F_RETURNING, w.tasks[j.T_FUNCTION, t]]:
            return
        w.tasks[j.T_DEPTH, t] = 0
        w.rows[j.C_END, w.tasks[j.T_ROW, t]] = time
    finish(w, t, 0, False)


@inline
def _alloc(p, w, s, event, t, time, a):  # type: ignore[no-untyped-def]
    """Entry of an allocation: a new row, unless it is the fallback inside an open one."""
    w.tasks[j.T_FREE, t] = -1
    function, depth = p.streams[j.S_FUNCTION, s], w.tasks[j.T_DEPTH, t]
    if depth:
        top, r = w.tasks[j.T_FUNCTION + depth - 1, t], w.tasks[j.T_ROW + depth - 1, t]
        if depth == 1 and top == p.functions[j.F_OUTER, function]:
            w.counts[j.N_NESTED] += 1
            w.rows[j.C_LABEL, r] = p.functions[j.F_LABEL, function]
            _open(w, t, r, function, p.streams[j.S_EVENT, s])
            return
        other = w.tasks[j.T_EVENT + depth - 1, t] != p.streams[j.S_EVENT, s]
        if top == function and other and (w.rows[j.C_TIME, r] == time
                                          or w.tasks[j.T_COUNT + depth - 1, t] == 0):
            w.skips[j.X_SECOND, s] += 1
            return
        # what is open never returned
        finish(w, t, 0, True)
        w.tasks[j.T_DEPTH, t] = 0
    r = new_row(w, j.ALLOC, time, event)
    w.rows[j.C_NR, r], w.rows[j.C_CALLER, r] = p.args[a + j.A_NR], p.args[a + j.A_CALLER]
    w.rows[j.C_LABEL, r] = p.functions[j.F_LABEL, function]
    w.rows[j.C_VALUE, r], w.rows[j.C_HEAD, r] = p.args[a + j.A_POINTER], p.args[a + j.A_HEAD]
    fill_before(p, w, a, r)
    _open(w, t, r, function, p.streams[j.S_EVENT, s])


@inline
def _alloc_return(p, w, s, index, t, time, a):  # type: ignore[no-untyped-def]
    """Return of an allocation: closes the row. Since Linux 6.9 it can tell the first pages."""
    w.tasks[j.T_FREE, t] = -1
    level = _level(w, t, p.streams[j.S_FUNCTION, s])
    if level < 0:
        w.counts[j.N_UNMATCHED] += 1
        return
    r = w.tasks[j.T_ROW + level, t]
    put(w, j.C_ERRNO, r, p.args[a + j.A_ERRNO])
    if level == 0 and w.rows[j.C_CALLER, r] == j.MISSING:
        w.rows[j.C_CALLER, r] = p.args[a + j.A_RETURN_TO]
    put(w, j.C_LIST_AFTER, r, p.args[a + j.A_AFTER])
    put(w, j.C_HEAD_AFTER, r, p.args[a + j.A_HEAD_AFTER])
    if w.rows[j.C_FRAMES_COUNT, r] > 0:
        keep_more_frames(p, w, s, index, r)
    else:
        keep_frames(p, w, s, index, r)
    failed = p.args[a + j.A_ERRNO] != j.MISSING and p.args[a + j.A_ERRNO] != 0
    if w.rows[j.C_FRAMES_COUNT, r] <= 0 and not w.tasks[j.T_COUNT + level, t] and not failed:
        first_from_list(w, r)
    _end(p, w, t, level, time)


@inline
def _alloc_done(p, w, s, index, t, time, a):  # type: ignore[no-untyped-def]
    """End of the locked part: result, list after, and the pages or the first and the last."""
    function = p.streams[j.S_FUNCTION, s]
    level = _level(w, t, function)
    if level < 0:
        w.skips[j.X_INSIDE, s] += 1
        return
    r, errno = w.tasks[j.T_ROW + level, t], p.args[a + j.A_ERRNO]
    hold(w, r, time)
    put(w, j.C_ERRNO, r, errno)
    put(w, j.C_LIST_AFTER, r, p.args[a + j.A_AFTER])
    if w.rows[j.C_ERRNO, r] == j.MISSING or w.rows[j.C_ERRNO, r] == 0:
        keep_frames(p, w, s, index, r)
        if p.streams[j.S_FRAMES, s] < 0:
            put_ends(w, r, p.args[a + j.A_FIRST], p.args[a + j.A_LAST])
    # arm64 recordings have no return probe on xen_alloc_unpopulated_pages: the probe before its
    # unlock, which carries the result, stands for the return
    if errno != j.MISSING and not p.functions[j.F_RETURNING, function]:
        _end(p, w, t, level, time)


@inline
def _alloc_inside(p, w, s, op, index, t, time, a):  # type: ignore[no-untyped-def]
    """A returned page, the begin of the locked part, or its end."""
    level = _level(w, t, p.streams[j.S_FUNCTION, s])
    if level < 0:
        w.skips[j.X_PAGE if op == j.OP_PAGE else j.X_INSIDE, s] += 1
        return
    r = w.tasks[j.T_ROW + level, t]
    if op == j.OP_PAGE:
        push_frame(w, t, level, p.args[a + j.A_PFN])
        hold(w, r, time)
        return
    if op == j.OP_UNLOCK:
        hold(w, r, time)
        left(p, w, r, a)
        return
    # the state in the lock is better than that at the racy entry
    pool = p.functions[j.F_POOL, p.streams[j.S_FUNCTION, s]]
    alloc_locked(p, w, s, index, r, pool, time, a)
    if w.rows[j.C_NR, r] == j.MISSING:
        w.rows[j.C_NR, r] = p.args[a + j.A_NR]


@inline
def _frame(w, s, t, time, pfn):  # type: ignore[no-untyped-def]
    """xen_alloc_p2m_entry: on PV one per returned page, and a few per refill."""
    depth = w.tasks[j.T_DEPTH, t]
    if pfn == j.MISSING:
        w.skips[j.X_NO_FRAME, s] += 1
    elif not depth:
        w.skips[j.X_OUTSIDE, s] += 1
    else:
        push_frame(w, t, depth - 1, pfn)
        if w.tasks[j.T_COUNT + depth - 1, t] == w.tasks[j.T_MARK + depth - 1, t] + 1:
            hold(w, w.tasks[j.T_ROW + depth - 1, t], time)


@inline
def _section(p, w, s, event, t, time, a):  # type: ignore[no-untyped-def]
    """A range of pages arrives: several functions report the same one, one row is kept."""
    if p.args[a + j.A_OTHER]:
        w.skips[j.X_OTHER, s] += 1
        return
    level = w.tasks[j.T_DEPTH, t] - 1
    if level >= 0:
        # the p2m entries since the refill began are its own
        drop_frames(w, t, level, w.tasks[j.T_MARK + level, t])
        row = w.tasks[j.T_ROW + level, t]
        if not w.tasks[j.T_COUNT + level, t] and w.rows[j.C_LOCKED, row] == j.MISSING:
            w.rows[j.C_LOCK, row] = j.MISSING
    if p.args[a + j.A_START] == j.MISSING:
        w.skips[j.X_NO_RANGE, s] += 1
        return
    group, told = p.args[a + j.A_GROUP], 1 << p.streams[j.S_EVENT, s]
    if w.groups[group] and not w.groups[group] & told:
        w.groups[group] |= told
        return
    w.groups[group] = told
    r = new_row(w, j.SECTION, time, event)
    inside = level >= 0 and p.functions[j.F_POOL, w.tasks[j.T_FUNCTION + level, t]]
    label = p.args[a + j.A_LABEL]
    w.rows[j.C_LABEL, r] = label if label != j.MISSING else p.names[0] if inside else p.names[1]
    w.rows[j.C_START, r], w.rows[j.C_NR, r] = p.args[a + j.A_START], p.args[a + j.A_PAGES]


@inline
def _hypercall(p, w, s, index, event, t, time, nr):  # type: ignore[no-untyped-def]
    """Entry of xenmem_reservation_*: pages asked for and the first of their frames.

    xen_page_to_gfn() is the machine frame on PV; an increase names pseudo-physical frames.
    """
    kind = p.streams[j.S_KIND, s]
    r = new_row(w, kind, time, event)
    w.rows[j.C_NR, r] = nr
    if p.streams[j.S_FRAMES, s] >= 0:
        if kind == j.DECREASE and p.pv:
            keep_as_mfns(p, w, s, index, r)
        else:
            w.rows[j.C_FRAMES_COUNT, r] = 0
            keep_frames(p, w, s, index, r)
    if kind == j.DECREASE and w.tasks[j.T_BATCH, t] != j.MISSING:
        w.rows[j.C_LOCK, r], w.tasks[j.T_BATCH, t] = w.tasks[j.T_BATCH, t], j.MISSING
    in_pass(p, w, t, r)
    chain = j.T_DECREASE if kind == j.DECREASE else j.T_INCREASE
    w.rows[j.C_NEXT, r], w.tasks[chain, t] = w.tasks[chain, t], r


@inline
def _hypercall_return(w, kind, t, time, done):  # type: ignore[no-untyped-def]
    """Return of xenmem_reservation_*: how many pages it did."""
    chain = j.T_DECREASE if kind == j.DECREASE else j.T_INCREASE
    r = w.tasks[chain, t]
    if r < 0:
        w.counts[j.N_UNMATCHED] += 1
        return
    w.tasks[chain, t] = w.rows[j.C_NEXT, r]
    w.rows[j.C_ERRNO, r], w.rows[j.C_END, r] = done, time


@inline
def _row(p, w, s, index, event, time, a):  # type: ignore[no-untyped-def]
    """An event that is a row by itself: a mapping, a new target, a look for more memory."""
    kind = p.streams[j.S_KIND, s]
    r = new_row(w, kind, time, event)
    if kind == j.TARGET:
        w.rows[j.C_TARGET, r] = p.args[a + j.A_NEW_TARGET]
    elif kind >= j.MAPPING:
        w.rows[j.C_NR, r], w.rows[j.C_VALUE, r] = p.args[a + j.A_NR], p.args[a + j.A_POINTER]
        w.rows[j.C_DOMID, r] = p.args[a + j.A_DOMID]
        keep_frames(p, w, s, index, r)
        keep_mfns(p, w, s, index, r)


@inline
def _close(w):  # type: ignore[no-untyped-def]
    """End of the recording: what is open stays unfinished."""
    for t in range(w.tasks.shape[1]):
        if w.tasks[j.T_DEPTH, t]:
            finish(w, t, 0, True)
        for chain in (j.T_DECREASE, j.T_INCREASE):
            r = w.tasks[chain, t]
            while r >= 0:
                w.rows[j.C_FLAGS, r] |= UNPAIRED
                w.counts[j.N_UNFINISHED] += 1
                r = w.rows[j.C_NEXT, r]
    flag_truncated(w)


@compiled()
def join(p, w):  # type: ignore[no-untyped-def]
    """Make rows of all events of a Tape; `counts` and `skips` of the Work say what else they did.

    The caller gives every table of the Work the room it can need at most.
    """
    for k in range(len(p.sequence)):
        event = p.sequence[k]
        s = p.which[event]
        op, index = p.streams[j.S_OP, s], event - p.streams[j.S_FIRST, s]
        a = p.streams[j.S_ARGS, s] + index * p.streams[j.S_WIDTH, s]
        t, time = p.events[j.E_TASK, event], p.events[j.E_TIME, event]
        if op == j.OP_FRAME:
            _frame(w, s, t, time, p.args[a + j.A_PFN])
        elif op == j.OP_PAGE or op == j.OP_LOCKED or op == j.OP_UNLOCK:
            _alloc_inside(p, w, s, op, index, t, time, a)
        elif op == j.OP_ALLOC:
            _alloc(p, w, s, event, t, time, a)
        elif op == j.OP_RETURN:
            _alloc_return(p, w, s, index, t, time, a)
        elif op == j.OP_DONE:
            _alloc_done(p, w, s, index, t, time, a)
        elif op == j.OP_FREE:
            free(p, w, s, index, event, t, time, a)
        elif op == j.OP_FREE_INSIDE:
            free_inside(p, w, s, index, t, time, a)
        elif op == j.OP_FREE_RETURN:
            free_return(p, w, s, t, time)
        elif op == j.OP_FREE_LOCKED:
            free_locked(p, w, s, t, time, a)
        elif op == j.OP_FREE_UNLOCK:
            free_unlock(p, w, s, index, t, time, a)
        elif op == j.OP_PASS_LOCKED:
            pass_locked(w, t, event)
        elif op == j.OP_PASS_UNLOCK:
            pass_unlock(p, w, t, a)
        elif op == j.OP_REFILL:
            depth = w.tasks[j.T_DEPTH, t]
            if depth and p.args[a + j.A_BY_REFILL]:
                w.tasks[j.T_MARK + depth - 1, t] = w.tasks[j.T_COUNT + depth - 1, t]
        elif op == j.OP_SECTION:
            _section(p, w, s, event, t, time, a)
        elif op == j.OP_HYPERCALL:
            _hypercall(p, w, s, index, event, t, time, p.args[a + j.A_NR])
        elif op == j.OP_HYPERCALL_RETURN:
            _hypercall_return(w, p.streams[j.S_KIND, s], t, time, p.args[a + j.A_ERRNO])
        elif op == j.OP_BATCH:
            w.tasks[j.T_BATCH, t] = time
        else:
            _row(p, w, s, index, event, time, a)
    _close(w)
