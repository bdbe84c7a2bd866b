"""What the events of each role do when they are joined, and with which arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from replay.importers.joining import operations as does
from replay.importers.joining.state import KIND_ALLOC, KIND_DECREASE, KIND_FREE, KIND_SECTION
from replay.importers.joining.views import Names, View, coded, is_refill_caller, known_caller
from replay.importers.source.probes import MISSING, Elements, Ints
from replay.trace.schema import KINDS

Arguments = dict[str, Ints | None]
"""By the names of the operation's record."""


class Part(NamedTuple):
    """One stream's share: what its events do, their arguments, their arrays."""

    op: int
    kind: int
    args: Arguments
    frames: Elements | None = None
    frames_are_pages: bool = True
    mfns: Elements | None = None
    single_pages: int = 0
    """How many frames an event can add besides those of its array."""


def _before(view: View, names: Names) -> Arguments:
    return {"nr_pages": view.pages(), "pointer": view.number("pointer"),
            "caller": _caller(view, names), "list_count": view.number("list_count"),
            "current_pages": view.number("current"), "target_pages": view.number("target"),
            "target_unpopulated": view.number("unpopulated"), "list_head": view.list_head()}


def _left(view: View) -> Arguments:
    return {"list_count_after": view.number("list_after"), "list_head_after": view.list_head()}


def _caller(view: View, names: Names) -> Ints | None:
    found = view.text("caller")
    return None if found is None else names.codes(found, known_caller)


def _alloc(view: View, names: Names) -> Part:
    return Part(does.OP_ALLOC, KIND_ALLOC, _before(view, names))


def _alloc_inside(view: View, names: Names) -> Part:
    """A probe within an allocation; which one, its arguments tell."""
    if view.number("list_after") is not None:
        return Part(does.OP_UNLOCK, KIND_ALLOC, _left(view))
    if view.number("page") is not None:
        return Part(does.OP_PAGE, KIND_ALLOC, {"pfn": view.frame("page")}, single_pages=1)
    if all(view.elements(m) is None for m in ("errno", "frames", "first", "last")):
        return Part(does.OP_LOCKED, KIND_ALLOC, _before(view, names), view.chain())
    return Part(does.OP_DONE, KIND_ALLOC, {
        "errno": view.number("errno"), "list_count_after": view.number("list_count"),
        "first": view.frame("first"), "last": view.frame("last")},
        view.elements("frames"), single_pages=2)


def _alloc_return(view: View, names: Names) -> Part:
    back = view.stream.texts.get("return_to")
    return Part(does.OP_RETURN, KIND_ALLOC, {
        "errno": view.number("errno"), "list_count_after": view.number("list_count"),
        "list_head_after": view.list_head(),
        "caller": None if back is None else names.codes(coded(back), known_caller)},
        view.elements("frames"), single_pages=1)


def _free(view: View, names: Names) -> Part:
    return Part(does.OP_FREE, KIND_FREE, {
        "nr_pages": view.pages(), "pointer": view.number("pointer"),
        "caller": _caller(view, names), "list_count": view.number("list_count")},
        view.elements("frames"))


def _free_inside(view: View, names: Names) -> Part:
    """A probe within a free: of one with the list's chain which one, its arguments tell."""
    if view.number("list_after") is not None:
        return Part(does.OP_FREE_UNLOCK, KIND_FREE, _left(view), view.chain())
    if view.elements("frames") is None and view.elements("last") is None:
        return Part(does.OP_FREE_LOCKED, KIND_FREE, _before(view, names))
    return Part(does.OP_FREE_INSIDE, KIND_FREE, {
        "list_count": view.number("list_count"), "last": view.frame("last")},
        view.elements("frames"), single_pages=2)


def _free_return(view: View, names: Names) -> Part:
    return Part(does.OP_FREE_RETURN, KIND_FREE, {})


def _frame(view: View, names: Names) -> Part:
    return Part(does.OP_FRAME, KIND_ALLOC, {"pfn": view.number("pfn")}, single_pages=1)


def _refill(view: View, names: Names) -> Part:
    caller = view.text("caller")
    if caller is None:
        ours = np.ones(len(view.stream), dtype=np.int64)
    else:
        known = [is_refill_caller(name) for name in caller.names]
        ours = np.array(known, dtype=np.int64)[caller.codes]
    return Part(does.OP_REFILL, KIND_ALLOC, {"ours": ours})


def _section(view: View, names: Names) -> Part:
    """The range: recorded as frames, or as first and last byte."""
    n = len(view.stream)
    start, last = _or_missing(view.number("start"), n), _or_missing(view.number("end"), n)
    pfn, pages = _or_missing(view.number("start_pfn"), n), _or_missing(view.pages(), n)
    in_bytes = (start != MISSING) & (last != MISSING)
    with np.errstate(over="ignore"):
        pfn = np.where(in_bytes, start // view.page_bytes, pfn)
        pages = np.where(in_bytes, (last + 1 - start) // view.page_bytes, pages)
    sound = (pfn != MISSING) & (pages != MISSING) & (pages > 0) & (pfn >= 0)
    name = view.text("name")
    label = np.full(n, names.known(view.probe.label), dtype=np.int64)
    if name is not None:
        given = names.codes(name)
        label = np.where(given == MISSING, label, given)
    other = np.zeros(n, dtype=np.int64)
    if view.probe.args.get("name"):
        other[:] = 1
        if name is not None:
            other[:] = np.array([text != "Xen scratch" for text in name.names])[name.codes]
    return Part(does.OP_SECTION, KIND_SECTION, {
        "start_pfn": np.where(sound, pfn, MISSING), "nr_pages": pages, "label": label,
        "other": other})


def _or_missing(column: Ints | None, length: int) -> Ints:
    return np.full(length, MISSING, dtype=np.int64) if column is None else column


def _hypercall(kind: str) -> Callable[[View, Names], Part]:
    def part(view: View, names: Names) -> Part:
        return Part(does.OP_HYPERCALL, KINDS.index(kind), {"nr_pages": view.pages()},
                    view.xen_frames("gfns"), frames_are_pages=False)
    return part


def _hypercall_return(kind: str) -> Callable[[View, Names], Part]:
    def part(view: View, names: Names) -> Part:
        return Part(does.OP_HYPERCALL_RETURN, KINDS.index(kind),
                    {"pages_done": view.number("count")})
    return part


def _batch(view: View, names: Names) -> Part:
    return Part(does.OP_BATCH, KIND_DECREASE, {})


def _pass_inside(view: View, names: Names) -> Part:
    if view.number("list_after") is not None:
        return Part(does.OP_PASS_UNLOCK, KIND_DECREASE, _left(view))
    return Part(does.OP_PASS_LOCKED, KIND_DECREASE, _before(view, names))


def _mapping(kind: str) -> Callable[[View, Names], Part]:
    def part(view: View, names: Names) -> Part:
        return Part(does.OP_MAPPING, KINDS.index(kind), {
            "nr_pages": view.pages(), "pointer": view.number("pointer"),
            "domid": view.number("domid")},
            view.elements("frames"), mfns=view.elements("mfns"))
    return part


def _target(view: View, names: Names) -> Part:
    return Part(does.OP_TARGET, KINDS.index("target"), {"target_pages": view.number("target")})


def _hotplug_check(view: View, names: Names) -> Part:
    return Part(does.OP_ROW, KINDS.index("hotplug_check"), {})


PART_OF: Final[dict[tuple[str, str], Callable[[View, Names], Part]]] = {
    ("alloc", "entry"): _alloc,
    ("alloc", "inside"): _alloc_inside,
    ("alloc", "return"): _alloc_return,
    ("free", "entry"): _free,
    ("free", "inside"): _free_inside,
    ("free", "return"): _free_return,
    ("frame", "entry"): _frame,
    ("refill", "entry"): _refill,
    ("section", "entry"): _section,
    ("decrease", "entry"): _hypercall("decrease"),
    ("decrease", "return"): _hypercall_return("decrease"),
    ("decrease_batch", "entry"): _batch,
    ("pass", "inside"): _pass_inside,
    ("increase", "entry"): _hypercall("increase"),
    ("increase", "return"): _hypercall_return("increase"),
    ("target", "entry"): _target,
    ("hotplug_check", "entry"): _hotplug_check,
    **{(kind, "entry"): _mapping(kind)
       for kind in ("grant_map", "grant_unmap", "foreign_map", "foreign_unmap")},
}
"""What the events of a role do, by their place in the function; see probes.toml for the roles."""
ROLES: Final = frozenset(role for role, _ in PART_OF)
