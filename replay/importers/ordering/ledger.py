"""What rows say of the allocator's calls: all that their order and their pages rest on.

Read once, a part of the rows at a time; the columns lie where `Scratch` puts them. What is found
out about the calls, their rank, flags and slots, is written here as well, and gets into the rows
when they are written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from replay.base.arrow import compute as pc
from replay.base.compiled import compiled
from replay.base.scratch import Growing, Scratch
from replay.importers.joining.tape import Tasks
from replay.importers.source.probes import Ints
from replay.importers.source.rows import Rows
from replay.trace.columns import NONE, encoded, ints, is_kind, ragged
from replay.trace.schema import BALLOON_TASK

CALL_KINDS: Final = ("alloc", "free", "increase", "decrease")
OF_ALLOC, OF_FREE, OF_INCREASE, OF_DECREASE = range(4)
"""In the column `kind`: places in CALL_KINDS."""
NO_MORE: Final = 1 << 62
"""In the column `next`: the task has no other row."""
PART_CALLS: Final = 1 << 16
"""Calls that are worked on at a time."""
_OF_ROWS: Final = {
    "time": "time_ns", "lock": "lock_ns", "took": "latency_ns", "pid": "pid", "errno": "errno",
    "nr": "nr_pages", "value": "value", "listed": "list_count", "head": "list_head",
    "listed_after": "list_count_after", "head_after": "list_head_after",
    "current": "current_pages", "target": "target_pages", "unpopulated": "target_unpopulated",
    "flags": "flags", "rank": "lock_rank"}
_OTHERS: Final = ("increase", "decrease", "hotplug_check", "section")


class Sections(NamedTuple):
    """Rows of that kind. scratch, ram: whether it is the pool's, or was hot-added as memory."""

    row: Ints
    time: Ints
    pid: Ints
    start: Ints
    nr: Ints
    scratch: Ints
    ram: Ints


class Facts(NamedTuple):
    """What the rows show besides. labels: of allocations. alone: whether one read a list's length
    and no balloon_stats. first_other: the first row of the balloon driver's own work, NO_MORE
    without. highest_target: of all targets. least, most: of all frames, 0 without."""

    labels: Counter[str]
    alone: bool
    first_other: int
    highest_target: int
    least: int
    most: int


@dataclass
class Ledger:
    """Calls of CALL_KINDS in the order of their rows; numbers that are not there are NONE.

    row: number of each. next: the time of the same task's next row. thread: whether the balloon
    thread made it. Call c's recorded frames are frames[frame_at[c] :] up to frame_count[c], its
    freed slots slots[slot_at[c] :] up to slot_count[c], -1 there where it has none.
    """

    scratch: Scratch
    row: Ints
    kind: Ints
    thread: Ints
    next: Ints
    time: Ints
    lock: Ints
    took: Ints
    pid: Ints
    errno: Ints
    nr: Ints
    value: Ints
    listed: Ints
    head: Ints
    listed_after: Ints
    head_after: Ints
    current: Ints
    target: Ints
    unpopulated: Ints
    flags: Ints
    rank: Ints
    frame_at: Ints
    frame_count: Ints
    frames: Ints
    slot_at: Ints
    slot_count: Ints
    slots: Ints
    sections: Sections
    facts: Facts

    def parts(self) -> list[slice]:
        """The calls, a part at a time."""
        return [slice(at, min(at + PART_CALLS, len(self.row)))
                for at in range(0, len(self.row), PART_CALLS)]

    def frames_of(self, call: int) -> Ints:
        """The recorded frames of a call."""
        begin = int(self.frame_at[call])
        return self.frames[begin : begin + int(self.frame_count[call])]


class _Reader:
    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch
        names = ("row", "kind", "thread", "next", *_OF_ROWS, "frame_at", "frame_count", "slot_at",
                 "slot_count", "frames", "slots")
        self.columns = {name: Growing(scratch) for name in names}
        self.sections: list[Sections] = []
        self.labels: Counter[str] = Counter()
        self.alone, self.first_other, self.highest_target = False, NO_MORE, 0
        self.least = self.most = 0
        self.tasks, self.last = Tasks(), np.zeros(0, dtype=np.int64)

    def add(self, table: pa.Table, begin: int) -> None:
        """The next rows, from number `begin` on."""
        codes, names = encoded(table, "kind")
        kinds = np.array([CALL_KINDS.index(name) if name in CALL_KINDS else -1
                          for name in names])[codes]
        rows = np.flatnonzero(kinds >= 0)
        self._follow(table, rows)
        if len(rows):
            self._calls(table.take(pa.array(rows)), rows + begin, kinds[rows])
        others = np.flatnonzero(np.array([name in _OTHERS for name in names])[codes])
        if len(others):
            self.first_other = min(self.first_other, begin + int(others[0]))
        section = np.flatnonzero(np.array([name == "section" for name in names])[codes])
        if len(section):
            self.sections.append(_sections(table.take(pa.array(section)), section + begin))
        goals = ints(table, "target_pages")[is_kind(table, "target")]
        self.highest_target = max(self.highest_target, int(goals.max(initial=0)))
        ends = pc.min_max(pc.list_flatten(table["frames"])).as_py()
        self.least = min(self.least, ends["min"] or 0)
        self.most = max(self.most, ends["max"] or 0)

    def _follow(self, table: pa.Table, rows: Ints) -> None:
        """Each call's task goes on with this row."""
        time, task = ints(table, "time_ns"), self.tasks.numbers(ints(table, "pid"))
        if self.tasks.count > len(self.last):
            more = self.tasks.count + len(self.last) // 2 - len(self.last)
            self.last = np.append(self.last, np.full(more, -1, dtype=np.int64))
        following, numbers = self.columns["next"], np.full(len(time), -1, dtype=np.int64)
        numbers[rows] = np.arange(following.count, following.count + len(rows))
        following.append(np.full(len(rows), NO_MORE, dtype=np.int64))
        _follow(time, task, numbers, self.last, following.array)

    def _calls(self, table: pa.Table, rows: Ints, kinds: Ints) -> None:
        add = self.columns
        add["row"].append(rows)
        add["kind"].append(kinds)
        codes, names = encoded(table, "task")
        thread = np.array([name == BALLOON_TASK for name in names], dtype=np.int64)
        add["thread"].append(thread[codes])
        for name, column in _OF_ROWS.items():
            add[name].append(ints(table, column, 0 if name == "flags" else NONE))
        for name in ("frames", "slots"):
            found, one = ragged(table, name), name.removesuffix("s")
            add[f"{one}_at"].append(found.start + add[name].count)
            absent = table[name].is_null().to_numpy()
            length = np.where(absent & (name == "slots"), -1, found.length)
            add[f"{one}_count"].append(length)
            add[name].append(np.maximum(found.values, -1) if name == "frames" else found.values)
        alloc = kinds == OF_ALLOC
        if alloc.any():
            codes, names = encoded(table, "label")
            counts = np.bincount(codes[alloc], minlength=len(names)).tolist()
            self.labels.update(dict(zip(names, counts, strict=True)))
            listed, current = ints(table, "list_count"), ints(table, "current_pages")
            self.alone |= bool((alloc & (listed != NONE) & (current == NONE)).any())

    def ledger(self) -> Ledger:
        """All calls."""
        columns = {name: column.array for name, column in self.columns.items()}
        parts = [Sections(*(np.zeros(0, dtype=np.int64) for _ in Sections._fields)),
                 *self.sections]
        return Ledger(
            **columns, scratch=self.scratch,
            sections=Sections(*map(np.concatenate, zip(*parts, strict=True))),
            facts=Facts(self.labels, self.alone, self.first_other, self.highest_target,
                        self.least, self.most))


@compiled
def _follow(time, task, number, last, following):  # type: ignore[no-untyped-def]
    """number: of the call that a row is, or -1; last: that of each task's last row."""
    for r in range(len(time)):
        call = last[task[r]]
        if call >= 0:
            following[call] = time[r]
        last[task[r]] = number[r]


def _sections(table: pa.Table, rows: Ints) -> Sections:
    codes, labels = encoded(table, "label")
    ours, ram = (np.array([label == which for label in labels], dtype=np.int64)[codes]
                 for which in ("Xen scratch", "System RAM"))
    return Sections(rows, ints(table, "time_ns"), ints(table, "pid"), ints(table, "start_pfn"),
                    ints(table, "nr_pages", 0), ours, ram)


def read_ledger(rows: Rows, scratch: Scratch) -> Ledger:
    """The calls of some rows."""
    reader, begin = _Reader(scratch), 0
    for batch in rows.batches():
        reader.add(pa.Table.from_batches([batch]), begin)
        begin += batch.num_rows
        scratch.relax()
    return reader.ledger()
