"""Events of a free to its row, compiled. See calls.py for how calls nest."""

from __future__ import annotations

from replay.base.compiled import inline
from replay.importers.joining.frames import keep_frames, keep_more_frames, put_ends
from replay.importers.joining.operations import freed, freed_inside
from replay.importers.joining.row import hold, new_row, newer
from replay.importers.joining.state import KIND_FREE
from replay.importers.source.probes import MISSING


@inline
def undoes(p, w, function, caller, t):  # type: ignore[no-untyped-def]
    """Whether xen_alloc_ballooned_pages, failing half-way, gives back what it had."""
    depth = w.tasks[t].depth
    if not p.functions[function].undone or not depth:
        return False
    inside = p.functions[w.calls[t, depth - 1].function].undoing
    return inside and (caller == MISSING or caller == p.labels.undoing)


@inline
def free(p, w, s, index, event, t, time, a):  # type: ignore[no-untyped-def]
    """Entry of a free: a new row, unless another probe or an outer call reported it."""
    stream, task, args = p.streams[s], w.tasks[t], freed(p.args, a)
    function = stream.function
    if undoes(p, w, function, args.caller, t):
        w.counts.nested_calls += 1
        return
    told, r = 1 << stream.event, task.free_row
    if r >= 0 and w.rows[r].nr_pages == args.nr_pages:
        row = w.rows[r]
        if task.free_function == p.functions[function].outer:
            w.counts.nested_calls += 1
            row.label = p.functions[function].label
            task.free_function = function
            task.free_events = told
            return
        if task.free_function == function and row.value == args.pointer and not (
                task.free_events & told):
            task.free_events |= told
            w.counts.frees_repeated += 1
            keep_more_frames(p, w, stream, index, row)
            return
    r = new_row(w, KIND_FREE, time, event)
    row = w.rows[r]
    row.nr_pages = args.nr_pages
    row.caller = args.caller
    row.value = args.pointer
    row.label = p.functions[function].label
    row.list_count = args.list_count
    keep_frames(p, w, stream, index, row)
    task.free_row = r
    task.free_function = function
    task.free_events = told


@inline
def free_inside(p, w, s, index, t, time, a):  # type: ignore[no-untyped-def]
    """A probe within a free: the locked state and the pages, or the last page."""
    stream, task, args = p.streams[s], w.tasks[t], freed_inside(p.args, a)
    if task.free_row < 0 or task.free_function != stream.function:
        w.skips[s].inside += 1
        return
    row = w.rows[task.free_row]
    hold(row, time)
    row.list_count = newer(args.list_count, row.list_count)
    keep_frames(p, w, stream, index, row)
    if args.last != MISSING:
        put_ends(w, row, MISSING, args.last)


@inline
def free_return(p, w, s, t, time):  # type: ignore[no-untyped-def]
    """Return of a free. Behind its fallback's the outer function's follows, which counts."""
    task, function = w.tasks[t], p.streams[s].function
    served = task.free_function
    if task.free_row >= 0 and (function == served or function == p.functions[served].outer):
        w.rows[task.free_row].end = time
    elif undoes(p, w, function, MISSING, t):
        w.counts.nested_calls += 1
    else:
        w.counts.returns_unmatched += 1
