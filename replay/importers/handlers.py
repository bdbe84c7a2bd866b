"""One handler per role and place in the probed function; see probes.toml for the roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from replay.importers.alloc_handlers import (
    Handler,
    alloc_entry,
    alloc_inside,
    alloc_return,
    fill,
    p2m_entry,
    put_ends,
    refill,
    section,
)
from replay.importers.calls import (
    Joiner,
    OpenCall,
    Row,
    TaskState,
    View,
    known_caller,
    outer_function,
)
from replay.schema import Flag

_UNDOING: Final = "xen_alloc_ballooned_pages"
_UNDONE: Final = "xen_free_ballooned_pages"

def free_entry(joiner: Joiner, view: View) -> Handler:
    """Entry of a free: a new row, unless another probe or an outer call reported it."""
    elements = view.pfns("frames")

    def handle(index: int) -> None:
        state = joiner.state(view.pid[index])
        caller = known_caller(view.text("caller", index))
        if _undoes(view.function, caller, state):
            joiner.anomalies.count("nested_calls")
            return
        pages, pointer = view.pages(index), view.number("pointer", index)
        before = state.free
        if before and before.row["nr_pages"] == pages:
            if before.function == outer_function(view.function):
                joiner.anomalies.count("nested_calls")
                before.row["label"] = view.function
                state.free = OpenCall(before.row, view.function, view.event, nested=True)
                state.free_events = {view.event}
                return
            same = before.function == view.function and before.row.get("value") == pointer
            if same and view.event not in state.free_events:
                state.free_events.add(view.event)
                _repeat(joiner, before.row, view, index)
                return
        row = joiner.new_row(view, index, "free")
        row["nr_pages"] = pages
        row["caller"] = caller
        row["label"] = view.function
        if pointer is not None:
            row["value"] = pointer
        fill(view, index, row, (("list_count", "list_count"),))
        joiner.keep_frames(row, elements, index)
        state.free = OpenCall(row, view.function, view.event)
        state.free_events = {view.event}

    def _repeat(joiner: Joiner, row: Row, view: View, index: int) -> None:
        joiner.anomalies.count("frees_repeated")
        known = row.get("frames") or []
        again: Row = {"nr_pages": row["nr_pages"]}
        joiner.keep_frames(again, elements, index)
        if len(again.get("frames") or []) > len(known):
            row["frames"] = again["frames"]

    return handle


def _undoes(function: str, caller: str | None, state: TaskState) -> bool:
    """Whether xen_alloc_ballooned_pages, failing half-way, gives back what it had."""
    inside = state.calls and state.calls[-1].function == _UNDOING
    return bool(function == _UNDONE and inside and caller in (None, _UNDOING))


def free_inside(joiner: Joiner, view: View) -> Handler:
    """A probe within a free: the locked state and the pages, or the last page."""
    frames, last = view.pfns("frames"), view.pfns("last")

    def handle(index: int) -> None:
        free = joiner.state(view.pid[index]).free
        if free is None or free.function != view.function:
            joiner.skipped["inside a call begun before the recording"] += 1
            return
        row = free.row
        row.setdefault("lock", view.time[index])
        fill(view, index, row, (("list_count", "list_count"),))
        joiner.keep_frames(row, frames, index)
        if last is not None:
            put_ends(joiner, row, None, int(last.values[index, 0]))

    return handle


def hypercall_entry(kind: str) -> Callable[[Joiner, View], Handler]:
    """Entry of xenmem_reservation_*: pages asked for and the first of their frames."""

    def make(joiner: Joiner, view: View) -> Handler:
        gfns = view.elements("gfns")
        # xen_page_to_gfn() is the machine frame on PV; an increase names pseudo-physical frames
        column = "mfns" if kind == "decrease" and joiner.pv else "frames"

        def handle(index: int) -> None:
            row = joiner.new_row(view, index, kind)
            row["nr_pages"] = view.pages(index)
            if gfns is not None:
                kept: Row = {"nr_pages": row["nr_pages"]}
                joiner.keep_frames(kept, gfns, index)
                row[column] = kept.get("frames", [])
                if len(row[column]) < (row["nr_pages"] or 0) and column == "mfns":
                    row["flags"] |= Flag.ARRAY_TRUNCATED
                    joiner.anomalies.count("arrays_truncated")
            state = joiner.state(view.pid[index])
            if kind == "decrease" and state.batch_began is not None:
                row["lock"], state.batch_began = state.batch_began, None
            state.hypercalls.setdefault(kind, []).append(row)

        return handle

    return make


def batch_entry(joiner: Joiner, view: View) -> Handler:
    """Entry of decrease_reservation(): the pages are allocated between it and the hypercall."""

    def handle(index: int) -> None:
        joiner.state(view.pid[index]).batch_began = view.time[index]

    return handle


def hypercall_return(kind: str) -> Callable[[Joiner, View], Handler]:
    """Return of xenmem_reservation_*: how many pages it did."""

    def make(joiner: Joiner, view: View) -> Handler:
        def handle(index: int) -> None:
            waiting = joiner.state(view.pid[index]).hypercalls.get(kind)
            if not waiting:
                joiner.anomalies.count("returns_unmatched")
                return
            row = waiting.pop()
            row["errno"] = view.number("count", index)
            row["end"] = view.time[index]

        return handle

    return make


def mapping(kind: str) -> Callable[[Joiner, View], Handler]:
    """Grants or foreign frames mapped or unmapped: how many, whose, the first frame."""

    def make(joiner: Joiner, view: View) -> Handler:
        frames, mfns = view.pfns("frames"), view.elements("mfns")

        def handle(index: int) -> None:
            row = joiner.new_row(view, index, kind)
            row["nr_pages"] = view.pages(index)
            row["domid"] = view.number("domid", index)
            pointer = view.number("pointer", index)
            if pointer is not None:
                row["value"] = pointer
            joiner.keep_frames(row, frames, index)
            if mfns is not None and mfns.whole[index]:
                count = min(int(mfns.whole[index]), max(0, row["nr_pages"] or 0))
                row["mfns"] = mfns.values[index, :count].tolist()

        return handle

    return make


def target(joiner: Joiner, view: View) -> Handler:
    """balloon_set_new_target."""

    def handle(index: int) -> None:
        row = joiner.new_row(view, index, "target")
        row["target_pages"] = view.number("target", index)

    return handle


def hotplug_check(joiner: Joiner, view: View) -> Handler:
    """reserve_additional_memory."""

    def handle(index: int) -> None:
        joiner.new_row(view, index, "hotplug_check")

    return handle


HANDLERS: Final[dict[tuple[str, str], Callable[[Joiner, View], Handler]]] = {
    ("alloc", "entry"): alloc_entry,
    ("alloc", "inside"): alloc_inside,
    ("alloc", "return"): alloc_return,
    ("free", "entry"): free_entry,
    ("free", "inside"): free_inside,
    ("frame", "entry"): p2m_entry,
    ("refill", "entry"): refill,
    ("section", "entry"): section,
    ("decrease", "entry"): hypercall_entry("decrease"),
    ("decrease", "return"): hypercall_return("decrease"),
    ("decrease_batch", "entry"): batch_entry,
    ("increase", "entry"): hypercall_entry("increase"),
    ("increase", "return"): hypercall_return("increase"),
    ("grant_map", "entry"): mapping("grant_map"),
    ("grant_unmap", "entry"): mapping("grant_unmap"),
    ("foreign_map", "entry"): mapping("foreign_map"),
    ("foreign_unmap", "entry"): mapping("foreign_unmap"),
    ("target", "entry"): target,
    ("hotplug_check", "entry"): hotplug_check,
}
