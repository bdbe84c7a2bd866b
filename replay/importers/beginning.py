"""What a recording began with, from its machine's files and from what its calls show later."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np
import pyarrow as pa

from replay.physmap.iomem import scratch_sections
from replay.physmap.model import Physmap
from replay.trace.columns import NONE, encoded, ints, is_kind, ragged
from replay.trace.start import BEFORE, MOST_PAGES, fact, runs_of

ASKED: Final = 64
"""The first lengths of the pool's list that are asked for its length at the start: a call that
read it while another held the lock may read what that one left."""


class _Calls:
    """The allocator's calls in the order of lock holders, in numbers."""

    def __init__(self, table: pa.Table) -> None:
        rank = ints(table, "lock_rank")
        alloc, free = is_kind(table, "alloc"), is_kind(table, "free")
        rows = np.flatnonzero(alloc | free)
        self.rows = rows[np.argsort(rank[rows], kind="stable")]
        self.alloc = alloc[self.rows]
        self.nr = ints(table, "nr_pages", 0)[self.rows]
        self.failed = ints(table, "errno", 0)[self.rows] < 0
        self.time = ints(table, "time_ns")[self.rows]
        self.frames = ragged(table, "frames")
        self.slots = ragged(table, "slots")
        self.added = _added(table, self.rows, self.alloc)
        # pages that the calls before each one put on the list, less those they took off it
        change = np.where(self.alloc, np.where(self.failed, 0, -self.nr), self.nr) + self.added
        self.after = np.cumsum(change)
        self.change = self.after - change

    def column(self, table: pa.Table, name: str) -> np.ndarray:
        """A column of the table for these calls."""
        return ints(table, name)[self.rows]


def _added(table: pa.Table, rows: np.ndarray, alloc: np.ndarray) -> np.ndarray:
    """Pages of the sections that each call added to the pool: those of its task within it."""
    codes, labels = encoded(table, "label")
    ours = np.array([label == "Xen scratch" for label in labels], bool)[codes]
    pid, nr = ints(table, "pid"), ints(table, "nr_pages", 0)
    found = np.zeros(len(rows), np.int64)
    allocs = rows[alloc]
    for r in np.flatnonzero(is_kind(table, "section") & ours).tolist():
        mine = allocs[(allocs < r) & (pid[allocs] == pid[r])]
        if len(mine):
            found[rows == mine.max()] += int(nr[r])
    return found


def _pool_listed(table: pa.Table, calls: _Calls) -> dict[str, Any] | None:
    """The length of the pool's list: what most of the first calls that read it say."""
    listed = calls.column(table, "list_count")
    said = np.flatnonzero(calls.alloc & (listed != NONE))[:ASKED]
    inside = bool(len(said)) and bool((calls.column(table, "lock_ns")[said] != NONE).all())
    votes = Counter(np.maximum(listed[said] - calls.change[said], 0).tolist())
    if not votes:
        return None
    pages, agree = votes.most_common(1)[0]
    where = "in the lock" if inside else "at entry"
    return fact(min(int(pages), MOST_PAGES), f"the first list_count {where}, less what calls "
                f"before it moved; {agree} of {len(said)} calls agree")


def _learned(calls: _Calls, listed: int) -> np.ndarray:
    """Frames of the list from its head on: an allocation that reaches below what was freed and
    added since shows them. -1 where its frames are not recorded."""
    parts: list[np.ndarray] = []
    taken = 0
    # How far below its first length the list ever was: each new depth is the next of its frames.
    lowest = np.minimum.accumulate(np.minimum(calls.after, 0))
    reached = -np.diff(lowest, prepend=0)
    for k in np.flatnonzero(reached).tolist():
        nr, deep = int(calls.nr[k]), min(int(reached[k]), listed - taken)
        if deep <= 0:
            break
        part = np.full(deep, -1, np.int64)
        above = nr - int(reached[k])
        row = calls.frames.row(int(calls.rows[k]))[above : above + deep]
        part[: len(row)] = row
        parts.append(part)
        taken += deep
    frames = np.concatenate([*parts, np.zeros(0, np.int64)])
    known = np.flatnonzero(frames >= 0)
    return frames[: known[-1] + 1] if len(known) else frames[:0]


def _sections(table: pa.Table, machine: Physmap) -> list[list[int]]:
    """(first frame, pages) of the pool's sections before the recording."""
    page = machine.page_bytes
    start = ints(table, "start_pfn")
    seen = set(start[is_kind(table, "section")].tolist())
    return [[first // page, (end - first) // page] for first, end in scratch_sections(machine)
            if first // page not in seen]


def _pool(table: pa.Table, calls: _Calls, machine: Physmap) -> dict[str, Any]:
    sections = _sections(table, machine)
    held = _freed_before(calls)
    listed = _pool_listed(table, calls) or fact(
        max(0, sum(nr for _, nr in sections) - held), "its sections less pages held")
    return {"listed": listed, "head": runs_of(_learned(calls, listed["pages"])),
            "sections": sections}


def _freed_before(calls: _Calls) -> int:
    """Pages freed that were live before the recording."""
    return int((calls.slots.values == BEFORE).sum())


def _live(calls: _Calls, start: dict[str, Any], strategy: str) -> dict[str, Any]:
    """Pages that callers held: pool pages are listed or held, since no section is ever removed."""
    freed = _freed_before(calls)
    lent = start.get("balloon", {}).get("unpopulated", {}).get("pages", 0)
    if strategy == "balloon" and lent >= max(freed, 1):
        return fact(lent, "target_unpopulated: pages lent")
    pool = start.get("pool", {})
    sections = sum(nr for _, nr in pool.get("sections", []))
    held = sections - pool.get("listed", {}).get("pages", 0)
    if sections and held >= max(freed, 1):
        return fact(held, "the pool's sections less its list")
    return fact(freed, "freed later, and never seen allocated")


def _by_driver(table: pa.Table, calls: _Calls) -> dict[str, Any]:
    """balloon_stats as the first call read them in the lock, if only calls were before it."""
    known = np.flatnonzero(calls.column(table, "current_pages") != NONE)
    if not len(known):
        return {}
    k = int(known[0])
    others = is_kind(table, "increase", "decrease", "hotplug_check", "section")
    if others[: int(calls.rows[k])].any():
        return {}
    found = {}
    moved = {"listed": ("list_count", -int(calls.change[k])),
             "current": ("current_pages", 0), "target": ("target_pages", 0),
             "unpopulated": ("target_unpopulated", int(calls.change[k]))}
    for name, (column, less) in moved.items():
        value = int(calls.column(table, column)[k])
        if value != NONE and 0 <= value + less <= MOST_PAGES:
            found[name] = fact(value + less, f"the first {column} in the lock")
    return found


def _by_files(machine: Physmap, origin: dict[str, str]) -> dict[str, Any]:
    memory, words = machine.memory, {"listed": ("low", "low_kb"), "current": ("current",
                                     "current_kb"), "target": ("target", "target_kb")}
    found = {}
    for name, (field, line) in words.items():
        where = origin.get(f"memory.{field}", "assumed")
        said = "assumed" if where == "assumed" else where if where.startswith("--set") else (
            f"{where} {line}")
        found[name] = fact(min(getattr(memory, field), MOST_PAGES), said)
    return found


def beginning(table: pa.Table, strategy: str, machine: Physmap | None,
              origin: dict[str, str]) -> dict[str, Any]:
    """`Meta.start` of a recording whose calls are ordered and paired; {} where there are none.

    origin: by fact of the machine, the file it was read from.
    """
    if machine is None or not is_kind(table, "alloc", "free").any():
        return {}
    calls = _Calls(table)
    start: dict[str, Any] = {"balloon": _by_files(machine, origin)}
    if strategy == "balloon":
        start["balloon"].update(_by_driver(table, calls))
    elif strategy:
        start["pool"] = _pool(table, calls, machine)
    start["live"] = _live(calls, start, strategy)
    return start
