"""Handlers of allocations: entry, locked part, return, returned pages, refills, new sections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from replay.importers.calls import (
    Joiner,
    OpenCall,
    Row,
    TaskState,
    View,
    is_refill_caller,
    known_caller,
    outer_function,
)

Handler = Callable[[int], None]
PAGE_SHIFT: Final = 12
_BEFORE: Final = (("list_count", "list_count"), ("current", "current_pages"),
                  ("target", "target_pages"), ("unpopulated", "target_unpopulated"))


def fill(view: View, index: int, row: Row, pairs: tuple[tuple[str, str], ...]) -> None:
    """Copy integer arguments that the probe fetched into columns."""
    for meaning, column in pairs:
        value = view.number(meaning, index)
        if value is not None:
            row[column] = value


def _heads(view: View) -> list[int] | None:
    """page_list as frame numbers: -1 is an empty list."""
    found = view.pfns("list_head")
    return None if found is None else found.values[:, 0].tolist()


def _put_head(heads: list[int] | None, index: int, row: Row, column: str) -> None:
    if heads is not None and heads[index] >= 0:
        row[column] = heads[index]


def alloc_entry(joiner: Joiner, view: View) -> Handler:
    """Entry of an allocation: a new row, unless it is the fallback inside an open one."""
    heads = _heads(view)

    def handle(index: int) -> None:
        state = joiner.state(view.pid[index])
        state.free = None
        top = state.calls[-1] if state.calls else None
        if top and top.function == outer_function(view.function) and not top.nested:
            joiner.anomalies.count("nested_calls")
            top.row["label"] = view.function
            state.calls.append(OpenCall(top.row, view.function, view.event, nested=True))
            return
        if top and top.function == view.function and top.event != view.event and (
                top.row["time"] == view.time[index] or not top.frames):
            joiner.skipped["a second probe on the same call"] += 1
            return
        # these functions neither recurse nor call each other otherwise: what is open never returned
        _abandon(joiner, state)
        row = joiner.new_row(view, index, "alloc")
        row["nr_pages"] = view.pages(index)
        row["caller"] = known_caller(view.text("caller", index))
        row["label"] = view.function
        pointer = view.number("pointer", index)
        if pointer is not None:
            row["value"] = pointer
        fill(view, index, row, _BEFORE)
        _put_head(heads, index, row, "list_head")
        state.calls.append(OpenCall(row, view.function, view.event))

    return handle


def _abandon(joiner: Joiner, state: TaskState) -> None:
    for call in state.calls:
        if not call.nested:
            joiner.finish(call, unfinished=True)
    state.calls.clear()


def _open_call(state: TaskState, function: str) -> OpenCall | None:
    return next((c for c in reversed(state.calls) if c.function == function), None)


def _end(joiner: Joiner, state: TaskState, call: OpenCall, time: int) -> None:
    """A call ends, and with it the calls it made that did not report their end."""
    row = call.row
    position = next(i for i, c in enumerate(state.calls) if c is call)
    inner = state.calls[position + 1:]
    for made in inner:
        call.frames = call.frames or made.frames
    del state.calls[position:]
    row["end"] = time
    if not call.nested:
        joiner.finish(call, unfinished=False)
        return
    outer = state.calls[-1]
    outer.frames = call.frames or outer.frames
    # arm64 recordings have no return probe on the outer function: it returns what the
    # fallback returned, right behind it
    if outer.function not in joiner.returning:
        _end(joiner, state, outer, time)


def alloc_return(joiner: Joiner, view: View) -> Handler:
    """Return of an allocation: closes the row."""
    heads = _heads(view)

    def handle(index: int) -> None:
        state = joiner.state(view.pid[index])
        state.free = None
        call = _open_call(state, view.function)
        if call is None:
            joiner.anomalies.count("returns_unmatched")
            return
        row = call.row
        errno = view.number("errno", index)
        if errno is not None:
            row["errno"] = errno
        if row.get("caller") is None and not call.nested and "return_to" in view.stream.texts:
            row["caller"] = known_caller(view.stream.texts["return_to"][index])
        fill(view, index, row, (("list_count", "list_count_after"),))
        _put_head(heads, index, row, "list_head_after")
        _end(joiner, state, call, view.time[index])

    return handle


def alloc_inside(joiner: Joiner, view: View) -> Handler:
    """A probe within an allocation; which one, its arguments tell."""
    if "page" in view.probe.args and view.numbers("page") is not None:
        return _returned_page(joiner, view)
    if any(view.elements(m) is not None for m in ("errno", "frames", "first", "last")):
        return _alloc_done(joiner, view)
    return _alloc_locked(joiner, view)


def _returned_page(joiner: Joiner, view: View) -> Handler:
    found = view.pfns("page")
    pfns = [] if found is None else found.values[:, 0].tolist()

    def handle(index: int) -> None:
        call = _open_call(joiner.state(view.pid[index]), view.function)
        if call is None:
            joiner.skipped["page of a call begun before the recording"] += 1
            return
        call.frames.append(pfns[index])
        call.row.setdefault("lock", view.time[index])

    return handle


def _alloc_locked(joiner: Joiner, view: View) -> Handler:
    def handle(index: int) -> None:
        call = _open_call(joiner.state(view.pid[index]), view.function)
        if call is None:
            joiner.skipped["inside a call begun before the recording"] += 1
            return
        row = call.row
        row.setdefault("lock", view.time[index])
        # the state in the lock is better than that at the racy entry
        fill(view, index, row, _BEFORE)
        if row.get("nr_pages") is None:
            row["nr_pages"] = view.pages(index)

    return handle


def _alloc_done(joiner: Joiner, view: View) -> Handler:
    """End of the locked part: result, list after, and the pages or the first and the last."""
    frames, first, last = view.pfns("frames"), view.pfns("first"), view.pfns("last")

    def handle(index: int) -> None:
        state = joiner.state(view.pid[index])
        call = _open_call(state, view.function)
        if call is None:
            joiner.skipped["inside a call begun before the recording"] += 1
            return
        row = call.row
        row.setdefault("lock", view.time[index])
        errno = view.number("errno", index)
        if errno is not None:
            row["errno"] = errno
        fill(view, index, row, (("list_count", "list_count_after"),))
        if not row.get("errno"):
            joiner.keep_frames(row, frames, index)
            if frames is None:
                put_ends(joiner, row, None if first is None else int(first.values[index, 0]),
                         None if last is None else int(last.values[index, 0]))
        # arm64 recordings have no return probe on xen_alloc_unpopulated_pages: the probe before
        # its unlock, which carries the result, stands for the return
        if errno is not None and view.function not in joiner.returning:
            _end(joiner, state, call, view.time[index])

    return handle


def put_ends(joiner: Joiner, row: Row, first: int | None, last: int | None) -> None:
    """First and last frame: all there is for up to two pages; else the last goes to `value`."""
    pages = row.get("nr_pages") or 0
    frames = [first] if first is not None else list(row.get("frames") or [])
    if last is not None and pages == 2:
        frames = [*frames[:1], last]
    elif last is not None and pages > 2 and last >= 0:
        row["value"] = last
    joiner.set_frames(row, frames)


def p2m_entry(joiner: Joiner, view: View) -> Handler:
    """xen_alloc_p2m_entry: on PV one per returned page, and a few per refill."""
    def handle(index: int) -> None:
        state = joiner.state(view.pid[index])
        pfn = view.number("pfn", index)
        if not state.calls or pfn is None:
            where = "outside an allocation" if pfn is not None else "without a frame"
            joiner.skipped[f"{view.function} {where}"] += 1
            return
        call = state.calls[-1]
        call.frames.append(pfn)
        if len(call.frames) == call.refill_mark + 1:
            call.row.setdefault("lock", view.time[index])

    return handle


def refill(joiner: Joiner, view: View) -> Handler:
    """allocate_resource: from here to the section's arrival, p2m entries are the refill's."""

    def handle(index: int) -> None:
        state = joiner.state(view.pid[index])
        if state.calls and is_refill_caller(view.text("caller", index)):
            state.calls[-1].refill_mark = len(state.calls[-1].frames)

    return handle


def section(joiner: Joiner, view: View) -> Handler:
    """A range of pages arrives: several functions report the same one, one row is kept."""

    def handle(index: int) -> None:
        state = joiner.state(view.pid[index])
        name = view.text("name", index)
        start, last = view.number("start", index), view.number("end", index)
        pfn, pages = view.number("start_pfn", index), view.pages(index)
        if start is not None and last is not None:
            pfn, pages = start >> PAGE_SHIFT, (last + 1 - start) >> PAGE_SHIFT
        if view.probe.args.get("name") and name != "Xen scratch":
            joiner.skipped[f"{view.function} of another resource"] += 1
            return
        label = name or view.probe.label
        if state.calls:
            _drop_refill_frames(state.calls[-1])
        if pfn is None or pages is None or pages <= 0 or pfn < 0:
            joiner.skipped[f"{view.function} without a range"] += 1
            return
        known = state.sections.get((pfn, pages))
        if known is not None and view.function not in known:
            known.add(view.function)
            return
        state.sections[pfn, pages] = {view.function}
        row = joiner.new_row(view, index, "section")
        inside = state.calls and "unpopulated" in state.calls[-1].function
        row["label"] = label or ("Xen scratch" if inside else "System RAM")
        row["start_pfn"], row["nr_pages"] = pfn, pages

    return handle


def _drop_refill_frames(call: OpenCall) -> None:
    del call.frames[call.refill_mark:]
    if not call.frames:
        call.row.pop("lock", None)
