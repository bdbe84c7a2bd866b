"""What the events of each role do when they are joined, and with which arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from replay.importers.joining import state as j
from replay.importers.joining.state import KINDS, MISSING
from replay.importers.joining.views import Names, View, coded, is_refill_caller, known_caller
from replay.importers.source.probes import Elements, Ints

PAGE_SHIFT: Final = 12
Columns = list[Ints | None]


class Part(NamedTuple):
    """One stream's share: what its events do, their arguments, their arrays."""

    op: int
    kind: int
    args: Columns
    frames: Elements | None = None
    frames_are_pages: bool = True
    mfns: Elements | None = None
    single_pages: int = 0
    """How many frames an event can add besides those of its array."""


def _before(view: View, names: Names) -> Columns:
    """See join_state.A_NR and the following."""
    return [view.pages(), view.number("pointer"), _caller(view, names), view.number("list_count"),
            view.number("current"), view.number("target"), view.number("unpopulated"),
            view.list_head()]


def _left(view: View) -> Columns:
    """See join_state.A_LIST_LEFT and the following."""
    return [view.number("list_after"), view.list_head()]


def _caller(view: View, names: Names) -> Ints | None:
    found = view.text("caller")
    return None if found is None else names.codes(found, known_caller)


def _alloc(view: View, names: Names) -> Part:
    return Part(j.OP_ALLOC, j.ALLOC, _before(view, names))


def _alloc_inside(view: View, names: Names) -> Part:
    """A probe within an allocation; which one, its arguments tell."""
    if view.number("list_after") is not None:
        return Part(j.OP_UNLOCK, j.ALLOC, _left(view))
    if view.number("page") is not None:
        return Part(j.OP_PAGE, j.ALLOC, [view.frame("page")], single_pages=1)
    if all(view.elements(m) is None for m in ("errno", "frames", "first", "last")):
        return Part(j.OP_LOCKED, j.ALLOC, _before(view, names), view.chain())
    return Part(j.OP_DONE, j.ALLOC, [view.number("errno"), view.number("list_count"),
                                     view.frame("first"), view.frame("last")],
                view.elements("frames"), single_pages=2)


def _alloc_return(view: View, names: Names) -> Part:
    back = view.stream.texts.get("return_to")
    return Part(j.OP_RETURN, j.ALLOC, [
        view.number("errno"), view.number("list_count"), view.list_head(),
        None if back is None else names.codes(coded(back), known_caller)],
        view.elements("frames"), single_pages=1)


def _free(view: View, names: Names) -> Part:
    return Part(j.OP_FREE, j.FREE, _before(view, names)[:4], view.elements("frames"))


def _free_inside(view: View, names: Names) -> Part:
    """A probe within a free: of one with the list's chain which one, its arguments tell."""
    if view.number("list_after") is not None:
        return Part(j.OP_FREE_UNLOCK, j.FREE, _left(view), view.chain())
    if view.elements("frames") is None and view.elements("last") is None:
        return Part(j.OP_FREE_LOCKED, j.FREE, _before(view, names))
    return Part(j.OP_FREE_INSIDE, j.FREE, [None, view.number("list_count"), None,
                                           view.frame("last")],
                view.elements("frames"), single_pages=2)


def _free_return(view: View, names: Names) -> Part:
    return Part(j.OP_FREE_RETURN, j.FREE, [])


def _frame(view: View, names: Names) -> Part:
    return Part(j.OP_FRAME, j.ALLOC, [view.number("pfn")], single_pages=1)


def _refill(view: View, names: Names) -> Part:
    caller = view.text("caller")
    if caller is None:
        return Part(j.OP_REFILL, j.ALLOC, [np.ones(len(view.stream), dtype=np.int64)])
    ours = np.array([is_refill_caller(name) for name in caller.names], dtype=np.int64)
    return Part(j.OP_REFILL, j.ALLOC, [ours[caller.codes]])


def _section(view: View, names: Names) -> Part:
    """The range: recorded as frames, or as first and last byte."""
    n = len(view.stream)
    start, last = _or_missing(view.number("start"), n), _or_missing(view.number("end"), n)
    pfn, pages = _or_missing(view.number("start_pfn"), n), _or_missing(view.pages(), n)
    in_bytes = (start != MISSING) & (last != MISSING)
    with np.errstate(over="ignore"):
        pfn = np.where(in_bytes, start >> PAGE_SHIFT, pfn)
        pages = np.where(in_bytes, (last + 1 - start) >> PAGE_SHIFT, pages)
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
    return Part(j.OP_SECTION, j.SECTION, [np.where(sound, pfn, MISSING), pages, None, label, other])


def _or_missing(column: Ints | None, length: int) -> Ints:
    return np.full(length, MISSING, dtype=np.int64) if column is None else column


def _hypercall(kind: str) -> Callable[[View, Names], Part]:
    def part(view: View, names: Names) -> Part:
        return Part(j.OP_HYPERCALL, KINDS.index(kind), [view.pages()], view.elements("gfns"),
                    frames_are_pages=False)
    return part


def _hypercall_return(kind: str) -> Callable[[View, Names], Part]:
    def part(view: View, names: Names) -> Part:
        return Part(j.OP_HYPERCALL_RETURN, KINDS.index(kind), [view.number("count")])
    return part


def _batch(view: View, names: Names) -> Part:
    return Part(j.OP_BATCH, j.DECREASE, [])


def _pass_inside(view: View, names: Names) -> Part:
    if view.number("list_after") is not None:
        return Part(j.OP_PASS_UNLOCK, j.DECREASE, _left(view))
    return Part(j.OP_PASS_LOCKED, j.DECREASE, _before(view, names))


def _row(kind: str) -> Callable[[View, Names], Part]:
    def part(view: View, names: Names) -> Part:
        target = view.number("target") if kind == "target" else None
        mapping = kind in j.MAPPINGS
        return Part(j.OP_ROW, KINDS.index(kind), [
            view.pages(), view.number("pointer"), view.number("domid") if mapping else None,
            target], view.elements("frames") if mapping else None,
            mfns=view.elements("mfns") if mapping else None)
    return part


PARTS: Final[dict[tuple[str, str], Callable[[View, Names], Part]]] = {
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
    **{(kind, "entry"): _row(kind) for kind in (*j.MAPPINGS, "target", "hotplug_check")},
}
"""What the events of a role do, by their place in the function; see probes.toml for the roles."""
ROLES: Final = frozenset(role for role, _ in PARTS)
