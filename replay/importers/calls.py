"""From probe events to rows: a call's entry, its locked part and its return become one row.

Events are taken in the order of the recording. Calls are joined per task, last in first out, since
a kernel function returns to the task that entered it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from replay.anomalies import Anomalies
from replay.importers.probes import MISSING, Elements, Probe, ProbeStream, bare
from replay.schema import Flag

Row = dict[str, Any]
MAX_PFN: Final = 1 << 40
"""A frame number beyond 52 bits of physical address is no frame."""
STRUCT_PAGE_BYTES: Final = 64
_UNKNOWN_CALLERS: Final = ("", "arch_rethook_trampoline", "[unknown/kretprobe'd]",
                           "kretprobe_trampoline", "__kretprobe_trampoline")
_REFILL_CALLERS: Final = ("xen_alloc_unpopulated_pages", "fill_list", "reserve_additional_memory")
_NESTING: Final = {"xen_alloc_ballooned_pages": "xen_alloc_unpopulated_pages",
                   "xen_free_ballooned_pages": "xen_free_unpopulated_pages"}
"""drivers/xen/unpopulated-alloc.c falls back to the balloon's function of the same signature."""


class View:
    """One stream with the columns of its probe's meanings, ready for element-wise access."""

    def __init__(self, stream: ProbeStream, probe: Probe, place: str, vmemmap_base: int) -> None:
        self.stream, self.probe, self.place = stream, probe, place
        self.event, self.function = stream.event, probe.function
        self.time = stream.time.tolist()
        self.cpu, self.pid = stream.cpu.tolist(), stream.pid.tolist()
        self.task, self.source_offset = stream.task, stream.source_offset.tolist()
        self._numbers: dict[str, list[int] | None] = {}
        self._base = vmemmap_base

    def numbers(self, meaning: str) -> list[int] | None:
        """The column of an integer argument, None when no accepted name is recorded."""
        if meaning not in self._numbers:
            names = self.probe.args.get(meaning, ())
            found = next((n for n in names if n in self.stream.numbers), None)
            column = None if found is None else self.stream.numbers[found].tolist()
            self._numbers[meaning] = column
        return self._numbers[meaning]

    def number(self, meaning: str, row: int) -> int | None:
        """One integer argument, None when it was not recorded or was cut off."""
        column = self.numbers(meaning)
        if column is None or column[row] == MISSING:
            return None
        return column[row]

    def pages(self, row: int) -> int | None:
        """The number of pages, None when it is none that a machine can have."""
        count = self.number("nr", row)
        return count if count is not None and 0 <= count < MAX_PFN else None

    def text(self, meaning: str, row: int) -> str | None:
        """One symbol or string argument."""
        for name in self.probe.args.get(meaning, ()):
            if name in self.stream.texts:
                return self.stream.texts[name][row] or None
        return None

    def elements(self, meaning: str) -> Elements | None:
        """All arrays of a meaning side by side; a scalar is an array of one."""
        tables, wholes, open_rows = [], [], np.ones(len(self.stream), dtype=bool)
        for name in self.probe.args.get(meaning, ()):
            part = self.stream.arrays.get(name)
            if part is None and name in self.stream.numbers:
                values = self.stream.numbers[name]
                part = Elements(values[:, None], (values != MISSING).astype(np.int64))
            if part is None or not part.values.shape[1]:
                continue
            tables.append(part.values)
            # behind an array that was cut nothing is in its place
            wholes.append(np.where(open_rows, part.whole, 0))
            open_rows &= part.whole == part.values.shape[1]
        if not tables:
            return None
        return Elements(np.hstack(tables), np.sum(wholes, axis=0))

    def pfns(self, meaning: str) -> Elements | None:
        """Arrays of `struct page *` as frame numbers; -1 for what is none."""
        found = self.elements(meaning)
        if found is None:
            return None
        return Elements(page_to_pfn(found.values, self._base), found.whole)


def page_to_pfn(addresses: np.ndarray[Any, Any], base: int) -> np.ndarray[Any, Any]:
    """Frame numbers of `struct page` addresses (64 bits as int64); -1 for what is none."""
    signed = np.int64(base - (1 << 64) if base >= 1 << 63 else base)
    with np.errstate(over="ignore"):
        distance = addresses - signed
    pfns = distance >> 6
    # kernel addresses are negative as int64; an empty list's NULL is none
    good = (addresses < 0) & (pfns >= 0) & (pfns < MAX_PFN) & (distance % STRUCT_PAGE_BYTES == 0)
    return np.where(good, pfns, -1)


@dataclass(eq=False)
class OpenCall:
    """A call that has been entered and has not returned.

    frames: what single-page probes gave. refill_mark: how many of them precede the last refill.
    """

    row: Row
    function: str
    event: str
    frames: list[int] = field(default_factory=list)
    refill_mark: int = 0
    nested: bool = False


@dataclass
class TaskState:
    """What one task is doing."""

    calls: list[OpenCall] = field(default_factory=list)
    free: OpenCall | None = None
    free_events: set[str] = field(default_factory=set)
    hypercalls: dict[str, list[Row]] = field(default_factory=dict)
    batch_began: int | None = None
    """When decrease_reservation() was entered; it holds the balloon's lock from there on."""
    sections: dict[tuple[int, int], set[str]] = field(default_factory=dict)


class Joiner:
    """The state of all tasks and the rows made so far; handlers.py feeds it."""

    def __init__(self, anomalies: Anomalies, returning: set[str], pv: bool) -> None:
        self.anomalies = anomalies
        self.returning = returning
        self.pv = pv
        self.rows: list[Row] = []
        self.tasks: dict[int, TaskState] = {}
        self.skipped: Counter[str] = Counter()

    def state(self, pid: int) -> TaskState:
        """The state of a task."""
        found = self.tasks.get(pid)
        if found is None:
            found = self.tasks[pid] = TaskState()
        return found

    def new_row(self, view: View, index: int, kind: str) -> Row:
        """Append a row with what every event has."""
        row: Row = {"kind": kind, "time": view.time[index], "cpu": view.cpu[index],
                    "pid": view.pid[index], "task": view.task[index], "flags": 0,
                    "source_offset": view.source_offset[index]}
        self.rows.append(row)
        return row

    def keep_frames(self, row: Row, elements: Elements | None, index: int) -> None:
        """Put a fetched array into the row: cut at nr_pages, since stale memory follows."""
        if elements is None:
            return
        wanted = row.get("nr_pages")
        whole = int(elements.whole[index])
        if not whole:
            return
        frames = elements.values[index, :whole if wanted is None else min(whole, max(0, wanted))]
        self.set_frames(row, frames.tolist())

    def set_frames(self, row: Row, frames: list[int]) -> None:
        """Put frames into the row; what is no frame is dropped and counted."""
        good = [f for f in frames if 0 <= f < MAX_PFN]
        self.anomalies.count("frames_outside_physmap", len(frames) - len(good))
        row["frames"] = good

    def finish(self, call: OpenCall, unfinished: bool) -> None:
        """Close a call: its page events become its frames."""
        row = call.row
        if unfinished:
            row["flags"] |= Flag.UNPAIRED
            self.anomalies.count("requests_unfinished")
        if row.get("errno"):
            # nothing was returned: what the array held is no result
            row["frames"] = []
            row.pop("value", None)
            return
        wanted = row.get("nr_pages")
        if call.frames:
            extra = 0 if wanted is None else max(0, len(call.frames) - wanted)
            self.set_frames(row, call.frames[extra:])

    def close(self) -> list[Row]:
        """End of the recording: what is open stays unfinished."""
        for state in self.tasks.values():
            for call in state.calls:
                if not call.nested:
                    self.finish(call, unfinished=True)
            for rows in state.hypercalls.values():
                for row in rows:
                    row["flags"] |= Flag.UNPAIRED
                    self.anomalies.count("requests_unfinished")
        for row in self.rows:
            frames, wanted = row.get("frames"), row.get("nr_pages")
            if frames is not None and wanted and len(frames) < wanted and not (
                    row["kind"] == "alloc" and row.get("errno")):
                row["flags"] |= Flag.ARRAY_TRUNCATED
                self.anomalies.count("arrays_truncated")
        return self.rows


def known_caller(name: str | None) -> str | None:
    """A caller's name as in its source, None for an address and for return trampolines."""
    if name is None or name in _UNKNOWN_CALLERS or name.startswith("0x"):
        return None
    return bare(name)


def is_refill_caller(name: str | None) -> bool:
    """Whether allocate_resource was called for new Xen pages (other drivers call it as well)."""
    return name is None or name.partition(".")[0] in _REFILL_CALLERS


def outer_function(function: str) -> str | None:
    """The function that may fall back to this one."""
    return _NESTING.get(function)
