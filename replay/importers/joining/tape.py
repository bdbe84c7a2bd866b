"""Probe events of a window laid out as the tables of numbers that joining works on."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

import numpy as np

from replay.base.compiled import words_in
from replay.base.errors import ReplayError
from replay.base.units import XEN_PAGE_BYTES
from replay.importers.joining import operations as does
from replay.importers.joining.parts import PART_OF, Part
from replay.importers.joining.state import (
    FUNCTION_RECORD, LABELS_RECORD, STREAM_RECORD, Events, Tape,
)  # fmt: skip
from replay.importers.joining.views import Names, View, signed
from replay.importers.source.probes import MISSING, Ints, Probe, ProbeStream



class Matched(NamedTuple):
    """A stream with its meaning. at: its place among all streams; outline: it, perhaps without its
    events, of which there are so many."""

    at: int
    outline: ProbeStream
    probe: Probe
    place: str
    events: int


MAX_PROBES: Final = 62
"""How many events may report one and the same free or section: a bit each."""
_NESTING: Final = {"xen_alloc_ballooned_pages": "xen_alloc_unpopulated_pages",
                   "xen_free_ballooned_pages": "xen_free_unpopulated_pages"}
"""drivers/xen/unpopulated-alloc.c falls back to the balloon's function of the same signature."""
_UNDOING, _UNDONE = "xen_alloc_ballooned_pages", "xen_free_ballooned_pages"
MOST_HOLES: Final = 1 << 26
"""Freed pages up to which each has a place among the frames, whether it is known or not."""
HOLES_PER_EVENT: Final = 64
"""In a long recording, so many for each of its events."""
_MAX_PID: Final = 1 << 22
"""PID_MAX_LIMIT of a 64-bit kernel (include/linux/threads.h); beyond it tasks are numbered."""
_MAKES_ROW: Final = (does.OP_ALLOC, does.OP_FREE, does.OP_SECTION, does.OP_HYPERCALL,
                     does.OP_MAPPING, does.OP_TARGET, does.OP_ROW)
_MAKES_NODE: Final = (does.OP_FRAME, does.OP_PAGE)


class Laid(NamedTuple):
    """A window's events; rows, nodes and frames that they can need at most. holes: freed pages that
    may have a place among the frames although no event tells them."""

    tape: Tape
    rows: int
    nodes: int
    frames: int
    holes: int


class Layout:
    """Lays out the events of one window after the other; what is the same in all is made once.

    known: of the streams that have a meaning, the place among all, and what it is.
    """

    def __init__(self, matched: list[Matched], names: Names, base: int, *, pv: bool,
                 page_bytes: int = XEN_PAGE_BYTES) -> None:
        self.names, self.base, self.pv, self.page_bytes = names, base, pv, page_bytes
        self.skipped = Counter[str]()
        self.known: list[Matched] = []
        for one in matched:
            if (one.probe.role, one.place) in PART_OF:
                self.known.append(one)
            else:
                self.skipped[one.probe.function] += one.events
        parts = self._parts([one.outline for one in self.known])
        functions = {one.probe.function: 0 for one in self.known}
        functions = {name: k for k, name in enumerate(functions)}
        self._streams = np.zeros(len(self.known), dtype=STREAM_RECORD)
        self._streams["op"] = [part.op for part in parts]
        self._streams["kind"] = [part.kind for part in parts]
        self._streams["function"] = [functions[one.probe.function] for one in self.known]
        self._streams["event"] = _reporters(self.known, parts)
        returning = {one.probe.function for one in matched if one.place == "return"}
        self._functions = _functions(functions, names, returning)
        self._labels = np.zeros(1, dtype=LABELS_RECORD)[0]
        self._labels.scratch, self._labels.ram = names.code("Xen scratch"), names.code("System RAM")
        self._labels.undoing = names.code(_UNDOING)
        self._groups: dict[tuple[int, ...], int] = {}
        self._tasks = Tasks()
        self._holes = 0
        self._most_holes = max(MOST_HOLES, HOLES_PER_EVENT * sum(one.events for one in matched))

    def _parts(self, streams: list[ProbeStream]) -> list[Part]:
        views = [View(stream, one.probe, self.base, self.page_bytes)
                 for one, stream in zip(self.known, streams, strict=True)]
        return [PART_OF[one.probe.role, one.place](view, self.names)
                for one, view in zip(self.known, views, strict=True)]

    @property
    def tasks(self) -> int:
        """How many tasks there are so far."""
        return self._tasks.count

    @property
    def groups(self) -> int:
        """How many ranges of sections there are so far."""
        return len(self._groups)

    def lay(self, streams: list[ProbeStream]) -> Laid:
        """The events of a window, of all streams in their order."""
        mine = [streams[one.at] for one in self.known]
        parts = self._parts(mine)
        lengths = np.array([len(stream) for stream in mine], dtype=np.int64)
        table = self._streams.copy()
        table["first"] = np.cumsum(lengths) - lengths
        events = self._events(mine)
        self._number_groups(parts, events.pid, table["first"], lengths)
        arrays, whole = _lay_arrays(table, parts)
        holes = _holes(parts)
        self._holes += holes
        allowed = self._holes <= self._most_holes
        tape = Tape(_sequence([stream.order for stream in mine]),
                    np.repeat(np.arange(len(mine)), lengths), table, events,
                    _lay_args(table, parts, lengths), arrays, whole, self._functions,
                    self._labels, signed(self.base), self.pv, allowed)
        op = table["op"]
        frames = int(whole.sum()) + (holes if allowed else 0) + sum(
            part.single_pages * int(n) for part, n in zip(parts, lengths, strict=True))
        return Laid(tape, int(lengths[np.isin(op, _MAKES_ROW)].sum()),
                    int(lengths[np.isin(op, _MAKES_NODE)].sum()), frames, holes)

    def _events(self, streams: list[ProbeStream]) -> Events:
        columns = [np.concatenate([np.zeros(0, dtype=np.int64),
                                   *(getattr(s, name) for s in streams)])
                   for name in ("time", "cpu", "pid", "source_offset")]
        time, cpu, pid, source_offset = columns
        return Events(time, cpu, pid, self._tasks.numbers(pid), source_offset)

    def _number_groups(self, parts: list[Part], pid: Ints, first: Ints, lengths: Ints) -> None:
        """Give equal ranges of one task's sections equal numbers."""
        for k, part in enumerate(parts):
            if part.op != does.OP_SECTION:
                continue
            ranges = zip(pid[first[k]:first[k] + lengths[k]].tolist(),
                         *(column.tolist() for column in _range(part)), strict=True)
            part.args["group"] = np.array(
                [self._groups.setdefault(key, len(self._groups)) for key in ranges],
                dtype=np.int64)


class Tasks:
    """Numbers without gaps in place of pids. count: how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self._by_pid: Ints = np.zeros(0, dtype=np.int64)  # one more than the number
        self._others: dict[int, int] = {}

    def numbers(self, pid: Ints) -> Ints:
        """Of each pid, old or new."""
        if not len(pid):
            return pid
        if pid.min() < 0 or pid.max() >= _MAX_PID:
            different, inverse = np.unique(pid, return_inverse=True)
            return np.array([self._number(one) for one in different.tolist()],
                            dtype=np.int64)[inverse]
        if not len(self._by_pid):
            self._by_pid = np.zeros(_MAX_PID, dtype=np.int64)
        found = self._by_pid[pid]
        if not found.all():
            for one in np.unique(pid[found == 0]).tolist():
                self._by_pid[one] = self._number(one) + 1
            found = self._by_pid[pid]
        return found - 1

    def _number(self, pid: int) -> int:
        self.count = max(self.count, len(self._others) + (pid not in self._others))
        return self._others.setdefault(pid, len(self._others))


def _reporters(known: list[Matched], parts: list[Part]) -> list[int]:
    """What tells the probes of one call apart: frees and calls by event, sections by function."""
    numbers: list[int] = []
    seen: dict[int, dict[str, int]] = {}
    for one, part in zip(known, parts, strict=True):
        name = one.probe.function if part.op == does.OP_SECTION else one.outline.event
        among = seen.setdefault(part.op, {})
        numbers.append(among.setdefault(name, len(among)))
        if part.op in (does.OP_FREE, does.OP_SECTION) and len(among) > MAX_PROBES:
            raise ReplayError(f"more than {MAX_PROBES} different events report calls of "
                              f"{one.probe.function}: record it with fewer probes")
    return numbers


def _sequence(orders: list[Ints]) -> Ints:
    """Places of the events, the streams one behind the other, in the order of the recording."""
    if not orders:
        return np.zeros(0, dtype=np.int64)
    order = np.concatenate(orders)
    if len(order) and 0 <= order.min() and order.max() < 4 * len(order) + 1024:
        place = np.full(int(order.max()) + 1, -1, dtype=np.int64)
        place[order] = np.arange(len(order))
        place = place[place >= 0]
        if len(place) == len(order):
            return place
    return np.argsort(order, kind="stable")


def _range(section: Part) -> list[Ints]:
    columns = (section.args["start_pfn"], section.args["nr_pages"])
    return [column for column in columns if column is not None]


def _lay_args(table: np.ndarray, parts: list[Part], lengths: Ints) -> Ints:
    """All arguments, each event's as a record of its operation."""
    kinds = [does.ARGUMENTS_OF[part.op] for part in parts]
    table["width"] = [words_in(kind) for kind in kinds]
    sizes = table["width"] * lengths
    table["args"] = np.cumsum(sizes) - sizes
    args = np.full(int(sizes.sum()), MISSING, dtype=np.int64)
    for part, kind, at, size in zip(parts, kinds, table["args"], sizes, strict=True):
        for name, column in part.args.items():
            if column is not None:
                args[at:at + size].view(kind)[name] = column
    return args


def _lay_arrays(table: np.ndarray, parts: list[Part]) -> tuple[Ints, Ints]:
    """All fetched arrays one behind the other; how many elements are sound is never too many."""
    values: list[Ints] = [np.zeros(0, dtype=np.int64)]
    wholes: list[Ints] = [np.zeros(0, dtype=np.int64)]
    at = rows = 0
    table["frames"]["at"] = table["mfns"]["at"] = -1
    table["frames_are_pages"] = [part.frames_are_pages for part in parts]
    for k, part in enumerate(parts):
        for name, elements in (("frames", part.frames), ("mfns", part.mfns)):
            if elements is None:
                continue
            width = elements.values.shape[1]
            table[name][k] = at, width, rows
            values.append(np.ascontiguousarray(elements.values).reshape(-1))
            wholes.append(np.clip(elements.whole, 0, width))
            at, rows = at + elements.values.size, rows + len(elements.whole)
    return np.concatenate(values), np.concatenate(wholes)


def _functions(functions: dict[str, int], names: Names, returning: set[str]) -> np.ndarray:
    table = np.zeros(len(functions), dtype=FUNCTION_RECORD)
    for name, k in functions.items():
        function = table[k]
        function.label = names.code(name)
        function.outer = functions.get(_NESTING.get(name, ""), -1)
        function.returning, function.pool = name in returning, "unpopulated" in name
        function.undoing, function.undone = name == _UNDOING, name == _UNDONE
    return table


def _holes(parts: list[Part]) -> int:
    """Pages freed in all, where the lock's probes tell the last of each free."""
    if not any(part.op == does.OP_FREE_UNLOCK for part in parts):
        return 0
    sizes = [part.args["nr_pages"] for part in parts if part.op == does.OP_FREE]
    return sum(int(np.clip(nr, 0, MOST_HOLES).sum()) for nr in sizes if nr is not None)
