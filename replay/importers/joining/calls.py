"""Probe events to rows, compiled: a call's entry, its locked part and its return become one row.

Events come in the order of the recording. Calls are joined per task, last in first out, since a
kernel function returns to the task that entered it. These functions neither recurse nor call each
other, but for the fallback: xen_alloc_unpopulated_pages() and xen_free_unpopulated_pages() of
drivers/xen/unpopulated-alloc.c call the balloon's functions of the same signature. So a task has at
most two calls open, and the second is the fallback inside the first.
"""

from __future__ import annotations

from replay.base.compiled import inline, compiled
from replay.importers.joining import operations as does
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
    leave,
    pass_locked,
    pass_unlock,
)
from replay.importers.joining.row import fill_before, hold, new_row, newer
from replay.importers.joining.state import KIND_ALLOC, KIND_DECREASE, KIND_SECTION
from replay.importers.source.probes import MISSING


@inline
def _level(w, t, function):  # type: ignore[no-untyped-def]
    """Where the task's open call of a function is, the innermost one; -1 if none."""
    for level in range(w.tasks[t].depth - 1, -1, -1):
        if w.calls[t, level].function == function:
            return level
    return -1


@inline
def _open(w, t, r, stream):  # type: ignore[no-untyped-def]
    task = w.tasks[t]
    call = w.calls[t, task.depth]
    task.depth += 1
    call.row = r
    call.function = stream.function
    call.event = stream.event
    call.mark = call.count = 0
    call.last = -1


@inline
def _take_over(outer, fallback):  # type: ignore[no-untyped-def]
    """The pages that the fallback reported are those of the call that fell back."""
    outer.count = fallback.count
    outer.last = fallback.last


@inline
def _end(p, w, t, level, time):  # type: ignore[no-untyped-def]
    """A call ends, and with it the fallback that it called and that did not report its end."""
    task = w.tasks[t]
    outer = w.calls[t, 0]
    fallback = w.calls[t, -1]
    if level == 0 and task.depth == 2 and outer.count == 0:
        _take_over(outer, fallback)
    task.depth = level
    w.rows[w.calls[t, level].row].end = time
    if level == 1:
        if fallback.count:
            _take_over(outer, fallback)
        # arm64 recordings have no return probe on the outer function: it returns what the
        # fallback returned, right behind it
        if p.functions[outer.function].returning:
            return
        task.depth = 0
        w.rows[outer.row].end = time
    finish(w, outer, False)


@inline
def _alloc(p, w, s, event, t, time, a):  # type: ignore[no-untyped-def]
    """Entry of an allocation: a new row, unless it is the fallback inside an open one."""
    stream, task, args = p.streams[s], w.tasks[t], does.before(p.args, a)
    task.free_row = -1
    function = p.functions[stream.function]
    if task.depth:
        call = w.calls[t, task.depth - 1]
        within = w.rows[call.row]
        if task.depth == 1 and call.function == function.outer:
            w.counts.nested_calls += 1
            within.label = function.label
            _open(w, t, call.row, stream)
            return
        other = call.event != stream.event
        if call.function == stream.function and other and (within.time == time
                                                           or call.count == 0):
            w.skips[s].second += 1
            return
        # what is open never returned
        finish(w, w.calls[t, 0], True)
        task.depth = 0
    r = new_row(w, KIND_ALLOC, time, event)
    row = w.rows[r]
    row.nr_pages = args.nr_pages
    row.caller = args.caller
    row.label = function.label
    row.value = args.pointer
    row.list_head = args.list_head
    fill_before(row, args)
    _open(w, t, r, stream)


@inline
def _alloc_return(p, w, s, index, t, time, a):  # type: ignore[no-untyped-def]
    """Return of an allocation: closes the row. Since Linux 6.9 it can tell the first pages."""
    w.tasks[t].free_row = -1
    stream, args = p.streams[s], does.returned(p.args, a)
    level = _level(w, t, stream.function)
    if level < 0:
        w.counts.returns_unmatched += 1
        return
    call = w.calls[t, level]
    row = w.rows[call.row]
    row.errno = newer(args.errno, row.errno)
    if level == 0 and row.caller == MISSING:
        row.caller = args.caller
    row.list_count_after = newer(args.list_count_after, row.list_count_after)
    row.list_head_after = newer(args.list_head_after, row.list_head_after)
    if row.frames_count > 0:
        keep_more_frames(p, w, stream, index, row)
    else:
        keep_frames(p, w, stream, index, row)
    failed = args.errno != MISSING and args.errno != 0
    if row.frames_count <= 0 and not call.count and not failed:
        first_from_list(w, row)
    _end(p, w, t, level, time)


@inline
def _alloc_done(p, w, s, index, t, time, a):  # type: ignore[no-untyped-def]
    """End of the locked part: result, list after, and the pages or the first and the last."""
    stream, args = p.streams[s], does.done(p.args, a)
    level = _level(w, t, stream.function)
    if level < 0:
        w.skips[s].inside += 1
        return
    row = w.rows[w.calls[t, level].row]
    hold(row, time)
    row.errno = newer(args.errno, row.errno)
    row.list_count_after = newer(args.list_count_after, row.list_count_after)
    if row.errno == MISSING or row.errno == 0:
        keep_frames(p, w, stream, index, row)
        if stream.frames.at < 0:
            put_ends(w, row, args.first, args.last)
    # arm64 recordings have no return probe on xen_alloc_unpopulated_pages: the probe before its
    # unlock, which carries the result, stands for the return
    if args.errno != MISSING and not p.functions[stream.function].returning:
        _end(p, w, t, level, time)


@inline
def _alloc_inside(p, w, s, index, t, time, a):  # type: ignore[no-untyped-def]
    """A returned page, the begin of the locked part, or its end."""
    stream = p.streams[s]
    level = _level(w, t, stream.function)
    if level < 0:
        if stream.op == does.OP_PAGE:
            w.skips[s].page += 1
        else:
            w.skips[s].inside += 1
        return
    call = w.calls[t, level]
    row = w.rows[call.row]
    if stream.op == does.OP_PAGE:
        push_frame(w, call, does.page(p.args, a).pfn)
        hold(row, time)
        return
    if stream.op == does.OP_UNLOCK:
        hold(row, time)
        leave(row, does.left(p.args, a))
        return
    # the state in the lock is better than that at the racy entry
    alloc_locked(p, w, stream, index, row, p.functions[stream.function].pool, time, a)
    if row.nr_pages == MISSING:
        row.nr_pages = does.before(p.args, a).nr_pages


@inline
def _frame(w, s, t, time, pfn):  # type: ignore[no-untyped-def]
    """xen_alloc_p2m_entry: on PV one per returned page, and a few per refill."""
    depth = w.tasks[t].depth
    if pfn == MISSING:
        w.skips[s].no_frame += 1
    elif not depth:
        w.skips[s].outside += 1
    else:
        call = w.calls[t, depth - 1]
        push_frame(w, call, pfn)
        if call.count == call.mark + 1:
            hold(w.rows[call.row], time)


@inline
def _refill(w, t, ours):  # type: ignore[no-untyped-def]
    """An allocation takes memory: its p2m entries up to here are those of returned pages."""
    depth = w.tasks[t].depth
    if depth and ours:
        call = w.calls[t, depth - 1]
        call.mark = call.count


@inline
def _section(p, w, s, event, t, time, a):  # type: ignore[no-untyped-def]
    """A range of pages arrives: several functions report the same one, one row is kept."""
    args = does.arrived(p.args, a)
    if args.other:
        w.skips[s].other += 1
        return
    inside, depth = 0, w.tasks[t].depth
    if depth:
        # the p2m entries since the refill began are its own
        call = w.calls[t, depth - 1]
        drop_frames(w, call, call.mark)
        within = w.rows[call.row]
        if not call.count and within.locked == MISSING:
            within.lock = MISSING
        inside = p.functions[call.function].pool
    if args.start_pfn == MISSING:
        w.skips[s].no_range += 1
        return
    told = 1 << p.streams[s].event
    if w.groups[args.group] and not w.groups[args.group] & told:
        w.groups[args.group] |= told
        return
    w.groups[args.group] = told
    row = w.rows[new_row(w, KIND_SECTION, time, event)]
    row.label = newer(args.label, p.labels.scratch if inside else p.labels.ram)
    row.start_pfn = args.start_pfn
    row.nr_pages = args.nr_pages


@inline
def _hypercall(p, w, s, index, event, t, time, nr):  # type: ignore[no-untyped-def]
    """Entry of xenmem_reservation_*: pages asked for and the first of their frames.

    xen_page_to_gfn() is the machine frame on PV; an increase names pseudo-physical frames.
    """
    stream, task = p.streams[s], w.tasks[t]
    r = new_row(w, stream.kind, time, event)
    row = w.rows[r]
    row.nr_pages = nr
    if stream.frames.at >= 0:
        if stream.kind == KIND_DECREASE and p.pv:
            keep_as_mfns(p, w, stream, index, row)
        else:
            row.frames_count = 0
            keep_frames(p, w, stream, index, row)
    if stream.kind == KIND_DECREASE and task.batch != MISSING:
        row.lock = task.batch
        task.batch = MISSING
    in_pass(w, t, r)
    if stream.kind == KIND_DECREASE:
        row.next = task.decrease
        task.decrease = r
    else:
        row.next = task.increase
        task.increase = r


@inline
def _hypercall_return(w, kind, t, time, done):  # type: ignore[no-untyped-def]
    """Return of xenmem_reservation_*: how many pages it did."""
    task = w.tasks[t]
    r = task.decrease if kind == KIND_DECREASE else task.increase
    if r < 0:
        w.counts.returns_unmatched += 1
        return
    row = w.rows[r]
    if kind == KIND_DECREASE:
        task.decrease = row.next
    else:
        task.increase = row.next
    row.errno = done
    row.end = time


@inline
def _mapping(p, w, s, index, event, time, a):  # type: ignore[no-untyped-def]
    """Pages of another domain are mapped or unmapped."""
    stream, args = p.streams[s], does.mapping(p.args, a)
    row = w.rows[new_row(w, stream.kind, time, event)]
    row.nr_pages = args.nr_pages
    row.value = args.pointer
    row.domid = args.domid
    keep_frames(p, w, stream, index, row)
    keep_mfns(p, w, stream, index, row)


@inline
def _never_returned(w, r):  # type: ignore[no-untyped-def]
    """A task's open hypercalls, from the last one on."""
    while r >= 0:
        w.rows[r].flag_bits |= UNPAIRED
        w.counts.requests_unfinished += 1
        r = w.rows[r].next


@compiled
def close(w):  # type: ignore[no-untyped-def]
    """End of the recording: what is open stays unfinished."""
    for t in range(len(w.tasks)):
        task = w.tasks[t]
        if task.depth:
            finish(w, w.calls[t, 0], True)
        _never_returned(w, task.decrease)
        _never_returned(w, task.increase)


@compiled
def flag(w, begin, end):  # type: ignore[no-untyped-def]
    """Flags of some rows, when all calls are closed."""
    for r in range(begin, end):
        flag_truncated(w, w.rows[r])


@compiled
def join(p, w):  # type: ignore[no-untyped-def]
    """Make rows of a Tape's events; `counts` and `skips` of the Work say what else they did.

    The caller gives every table of the Work the room it can need at most.
    """
    for k in range(len(p.sequence)):
        event = p.sequence[k]
        s = p.which[event]
        stream = p.streams[s]
        op, index = stream.op, event - stream.first
        a = stream.args + index * stream.width
        t, time = p.events.task[event], p.events.time[event]
        if op == does.OP_FRAME:
            _frame(w, s, t, time, does.page(p.args, a).pfn)
        elif op == does.OP_PAGE or op == does.OP_LOCKED or op == does.OP_UNLOCK:
            _alloc_inside(p, w, s, index, t, time, a)
        elif op == does.OP_ALLOC:
            _alloc(p, w, s, event, t, time, a)
        elif op == does.OP_RETURN:
            _alloc_return(p, w, s, index, t, time, a)
        elif op == does.OP_DONE:
            _alloc_done(p, w, s, index, t, time, a)
        elif op == does.OP_FREE:
            free(p, w, s, index, event, t, time, a)
        elif op == does.OP_FREE_INSIDE:
            free_inside(p, w, s, index, t, time, a)
        elif op == does.OP_FREE_RETURN:
            free_return(p, w, s, t, time)
        elif op == does.OP_FREE_LOCKED:
            free_locked(p, w, s, t, time, a)
        elif op == does.OP_FREE_UNLOCK:
            free_unlock(p, w, s, index, t, time, a)
        elif op == does.OP_PASS_LOCKED:
            pass_locked(p, w, t, time, a)
        elif op == does.OP_PASS_UNLOCK:
            pass_unlock(p, w, t, a)
        elif op == does.OP_REFILL:
            _refill(w, t, does.refill(p.args, a).ours)
        elif op == does.OP_SECTION:
            _section(p, w, s, event, t, time, a)
        elif op == does.OP_HYPERCALL:
            _hypercall(p, w, s, index, event, t, time, does.hypercall(p.args, a).nr_pages)
        elif op == does.OP_HYPERCALL_RETURN:
            _hypercall_return(w, stream.kind, t, time, does.hypercall_done(p.args, a).pages_done)
        elif op == does.OP_BATCH:
            w.tasks[t].batch = time
        elif op == does.OP_MAPPING:
            _mapping(p, w, s, index, event, time, a)
        else:
            row = w.rows[new_row(w, stream.kind, time, event)]
            if op == does.OP_TARGET:
                row.target_pages = does.new_target(p.args, a).target_pages
