"""What a recording began with, from its machine's files and from what its calls show later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from replay.base.since import has
from replay.importers.ordering.ledger import OF_ALLOC, OF_FREE, PART_CALLS, Ledger
from replay.importers.source.probes import Ints
from replay.physmap.host import extra_memory, unusable_memory
from replay.physmap.iomem import scratch_sections
from replay.physmap.model import Physmap
from replay.trace.columns import NONE
from replay.trace.start import BEFORE, MOST_PAGES, fact, runs_of

PART_SLOTS: Final = 1 << 20
ASKED: Final = 64
"""The first lengths of the pool's list that are asked for its length at the start: a call that
read it while another held the lock may read what that one left."""


class _Calls(NamedTuple):
    """The allocator's calls in the order of lock holders.

    calls: places in the ledger. added: pages of new sections by the call that added them.
    """

    ledger: Ledger
    calls: Ints
    added: dict[int, int]

    def parts(self) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Of a part of the calls at a time: the calls, and by how many pages the list was longer
        before each and behind it than at the start."""
        behind = 0
        for at in range(0, len(self.calls), PART_CALLS):
            calls, ledger = self.calls[at : at + PART_CALLS], self.ledger
            nr, errno = np.maximum(ledger.nr[calls], 0), ledger.errno[calls]
            failed = (errno < 0) & (errno != NONE)
            change = np.where(ledger.kind[calls] == OF_ALLOC, np.where(failed, 0, -nr), nr)
            for k in np.flatnonzero(np.isin(calls, list(self.added))).tolist():
                change[k] += self.added[int(calls[k])]
            after = behind + np.cumsum(change)
            yield calls, after - change, after
            behind = int(after[-1])
            ledger.scratch.relax()


def _calls(ledger: Ledger) -> _Calls:
    calls = _of_kinds(ledger, OF_ALLOC, OF_FREE)
    calls = calls[np.argsort(ledger.rank[calls], kind="stable")]
    ledger.scratch.relax()
    return _Calls(ledger, calls, _added(ledger))


def _of_kinds(ledger: Ledger, *kinds: int) -> Ints:
    found = [np.zeros(0, np.int64)]
    for part in ledger.parts():
        found.append(np.flatnonzero(np.isin(ledger.kind[part], kinds)) + part.start)
        ledger.scratch.relax()
    return np.concatenate(found)


def _added(ledger: Ledger) -> dict[int, int]:
    """Pages of the sections that each call added to the pool: the last of its task before each."""
    found: dict[int, int] = {}
    sections = ledger.sections
    ours = np.flatnonzero(sections.scratch).tolist()
    allocs = _of_kinds(ledger, OF_ALLOC) if ours else np.zeros(0, np.int64)
    for k in ours:
        before = allocs[: np.searchsorted(ledger.row[allocs], sections.row[k])]
        mine = np.flatnonzero(ledger.pid[before] == sections.pid[k])
        if len(mine):
            call = int(before[mine[-1]])
            found[call] = found.get(call, 0) + int(sections.nr[k])
    return found


def _pool_listed(calls: _Calls) -> dict[str, Any] | None:
    """The length of the pool's list: what most of the first calls that read it say."""
    ledger, votes, inside, asked = calls.ledger, Counter[int](), True, 0
    for part, before, _ in calls.parts():
        listed = ledger.listed[part]
        said = np.flatnonzero((ledger.kind[part] == OF_ALLOC) & (listed != NONE))[: ASKED - asked]
        asked += len(said)
        inside = inside and bool((ledger.lock[part][said] != NONE).all())
        votes.update(np.maximum(listed[said] - before[said], 0).tolist())
        if asked == ASKED:
            break
    if not votes:
        return None
    pages, agree = votes.most_common(1)[0]
    where = "in the lock" if inside else "at entry"
    return fact(min(int(pages), MOST_PAGES), f"the first list_count {where}, less what calls "
                f"before it moved; {agree} of {asked} calls agree")


def _learned(calls: _Calls, listed: int) -> np.ndarray:
    """Frames of the list from its head on: an allocation that reaches below what was freed and
    added since shows them. -1 where its frames are not recorded."""
    parts: list[np.ndarray] = []
    taken = lowest = 0
    # How far below its first length the list ever was: each new depth is the next of its frames.
    for some, _, after in calls.parts():
        low = np.minimum.accumulate(np.minimum(after, lowest))
        reached = -np.diff(low, prepend=lowest)
        lowest = int(low[-1])
        for k in np.flatnonzero(reached).tolist():
            deep = min(int(reached[k]), listed - taken)
            if deep <= 0:
                break
            part = np.full(deep, -1, np.int64)
            above = int(calls.ledger.nr[some[k]]) - int(reached[k])
            row = calls.ledger.frames_of(int(some[k]))[above : above + deep]
            part[: len(row)] = row
            parts.append(part)
            taken += deep
    frames = np.concatenate([*parts, np.zeros(0, np.int64)])
    known = np.flatnonzero(frames >= 0)
    return frames[: known[-1] + 1] if len(known) else frames[:0]


def _sections(ledger: Ledger, machine: Physmap) -> list[list[int]]:
    """(first frame, pages) of the pool's sections before the recording."""
    page = machine.page_bytes
    seen = set(ledger.sections.start.tolist())
    return [[first // page, (end - first) // page] for first, end in scratch_sections(machine)
            if first // page not in seen]


def seeded(machine: Physmap, kernel: str) -> int:
    """Pages that the pool's list began with at boot, in that kernel."""
    extents = extra_memory(machine) if has("extra_on_pool", kernel) else []
    if has("unusable_seeding", kernel):
        extents = extents + unusable_memory(machine)
    return sum(end - start for start, end in extents)


def _pool(calls: _Calls, machine: Physmap, seeds: int) -> dict[str, Any]:
    sections = _sections(calls.ledger, machine)
    held = _freed_before(calls.ledger)
    listed = _pool_listed(calls) or fact(
        max(0, sum(nr for _, nr in sections) + seeds - held),
        "its sections and what it was seeded with, less pages held" if seeds else
        "its sections less pages held")
    return {"listed": listed, "head": runs_of(_learned(calls, listed["pages"])),
            "sections": sections}


def _freed_before(ledger: Ledger) -> int:
    """Pages freed that were live before the recording."""
    found = 0
    for at in range(0, len(ledger.slots), PART_SLOTS):
        found += int((ledger.slots[at : at + PART_SLOTS] == BEFORE).sum())
        ledger.scratch.relax()
    return found


def _live(calls: _Calls, start: dict[str, Any], strategy: str, seeds: int) -> dict[str, Any]:
    """Pages that callers held: pool pages are listed or held, since no section is ever removed.

    seeds: pages that the pool's list began with at boot.
    """
    freed = _freed_before(calls.ledger)
    lent = start.get("balloon", {}).get("unpopulated", {}).get("pages", 0)
    if strategy == "balloon" and lent >= max(freed, 1):
        return fact(lent, "target_unpopulated: pages lent")
    pool = start.get("pool", {})
    sections = sum(nr for _, nr in pool.get("sections", []))
    held = sections + seeds - pool.get("listed", {}).get("pages", 0)
    if pool and sections + seeds and held >= max(freed, 1):
        return fact(held, "the pool's sections, and what it was seeded with, less its list"
                    if seeds else "the pool's sections less its list")
    return fact(freed, "freed later, and never seen allocated")


def _by_driver(calls: _Calls) -> dict[str, Any]:
    """balloon_stats as the first call read them in the lock, if only calls were before it."""
    ledger = calls.ledger
    for part, before, _ in calls.parts():
        known = np.flatnonzero(ledger.current[part] != NONE)
        if not len(known):
            continue
        call, change = int(part[known[0]]), int(before[known[0]])
        if ledger.facts.first_other < ledger.row[call]:
            return {}
        moved = {"listed": ("list_count", ledger.listed, -change),
                 "current": ("current_pages", ledger.current, 0),
                 "target": ("target_pages", ledger.target, 0),
                 "unpopulated": ("target_unpopulated", ledger.unpopulated, change)}
        found = {}
        for name, (column, values, less) in moved.items():
            value = int(values[call])
            if value != NONE and 0 <= value + less <= MOST_PAGES:
                found[name] = fact(value + less, f"the first {column} in the lock")
        return found
    return {}


def _by_files(machine: Physmap, origin: dict[str, str]) -> dict[str, Any]:
    memory, words = machine.memory, {"listed": ("low", "low_kb"), "current": ("current",
                                     "current_kb"), "target": ("target", "target_kb")}
    found = {}
    for name, (field, line) in words.items():
        where = origin.get(f"memory.{field}", "assumed")
        shown = where != "assumed" and not where.startswith("--set") and "xenstore" not in where
        said = f"{where} {line}" if shown else where
        found[name] = fact(min(getattr(memory, field), MOST_PAGES), said)
    return found


def beginning(ledger: Ledger, strategy: str, machine: Physmap | None,
              origin: dict[str, str], kernel: str = "") -> dict[str, Any]:
    """`Meta.start` of a recording whose calls are ordered and paired; {} where there are none.

    origin: by fact of the machine, the file it was read from. kernel: the recorded one's release.
    """
    if machine is None:
        return {}
    calls = _calls(ledger)
    if not len(calls.calls):
        return {}
    start: dict[str, Any] = {"balloon": _by_files(machine, origin)}
    if strategy == "balloon":
        start["balloon"].update(_by_driver(calls))
    elif strategy:
        start["pool"] = _pool(calls, machine, seeded(machine, kernel))
    start["live"] = _live(calls, start, strategy, seeded(machine, kernel))
    return start
