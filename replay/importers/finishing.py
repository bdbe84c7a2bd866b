"""From the rows of a recording to its trace: the order of calls, their pages, rows of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from replay.base.anomalies import Anomalies
from replay.base.errors import ReplayError
from replay.base.scratch import Scratch
from replay.base.since import has
from replay.base.units import XEN_PAGE_BYTES
from replay.engine.drive import LARGEST_REQUEST
from replay.importers.ordering.calls import collect
from replay.importers.ordering.ledger import (
    OF_ALLOC, CALL_KINDS, OF_FREE, Ledger, read_ledger,
)  # fmt: skip
from replay.importers.ordering.order import rank
from replay.importers.ordering.pairing import tie
from replay.importers.ordering.told import hide_lists, told
from replay.importers.source.rows import Rows
from replay.physmap.host import unusable_memory
from replay.physmap.model import Physmap
from replay.trace.columns import NONE, ragged
from replay.trace.meta import Meta
from replay.trace.placing import GIVES, NO_SLOTS, TAKES, Moves
from replay.trace.schema import SCHEMA
from replay.trace.store import ASKING_KINDS, BATCH_ROWS, Stream, Trace, check, checked
from replay.trace.stored import compacted, resized

POOL_CALL, DRIVER_CALLS = "xen_alloc_unpopulated_pages", (
    "xen_alloc_ballooned_pages", "alloc_xenballooned_pages")
"""Functions that serve an allocation, as the label of its row (the latter since Linux 3.1)."""


@dataclass(frozen=True)
class Found:
    """Rows, and what was found out about their calls. strategy: of the recorded kernel. lists,
    paired: see told()."""

    rows: Rows
    ledger: Ledger
    strategy: str
    lists: bool
    paired: bool

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows with all that was found out."""
        return told(self.rows.batches(), self.ledger, lists=self.lists, paired=self.paired)


def find_out(rows: Rows, machine: Physmap | None, scratch: Scratch, anomalies: Anomalies,
             kernel: str = "") -> Found:
    """Put the calls in order and tie each free to its pages; a Xen trace alone has neither.

    kernel: the release of the recorded kernel.
    """
    ledger = read_ledger(rows, scratch)
    strategy = _recorded_strategy(ledger, machine, kernel)
    hidden = hide_lists(ledger) if strategy == "balloon" else 0
    anomalies.count("lengths_of_other_list", hidden)
    paired = bool((ledger.kind <= OF_FREE).any())
    if paired:
        balloon = strategy == "balloon"
        calls = collect(ledger, balloon=balloon)
        rank(ledger, calls, anomalies)
        tie(ledger, calls, anomalies, balloon=balloon,
            page_bytes=machine.page_bytes if machine else XEN_PAGE_BYTES)
    _check_frames(rows, ledger, machine, anomalies)
    return Found(rows, ledger, strategy, hidden > 0, paired)


def _recorded_strategy(ledger: Ledger, machine: Physmap | None, kernel: str) -> str:
    """Which of the strategies the recorded kernel used, by what its calls show.

    The function that served most calls tells, where it is recorded: one of the pool's that fell
    through to the balloon driver is the driver's, although it carries the length of the pool's list
    (0). Otherwise calls of the pool carry that length, and the driver's balloon_stats as well.
    """
    labels = ledger.facts.labels
    if not labels.total():
        return ""
    pool = ledger.facts.alone
    if labels.total() > labels[""]:
        pool = labels[POOL_CALL] > sum(labels[name] for name in DRIVER_CALLS)
    if not pool:
        return "balloon"
    return "hypervisor" if machine and _named_by_xen(machine, kernel) else "pool"


def _named_by_xen(machine: Physmap, kernel: str) -> bool:
    """Whether the kernel's pool draws from what the hypervisor names: extended regions, or the
    UNUSABLE ranges of a PVH dom0."""
    if machine.arch == "arm64":
        return bool(machine.regions)
    return bool(unusable_memory(machine)) and has("unusable_seeding", kernel)


def _check_frames(rows: Rows, ledger: Ledger, machine: Physmap | None, anomalies: Anomalies
                  ) -> None:
    if machine is None:
        return
    top, facts = machine.top_pfn, ledger.facts
    if facts.least < -1 or facts.most >= top:  # of most recordings all are inside
        for batch in rows.batches():
            frames = ragged(pa.Table.from_batches([batch]), "frames").values
            anomalies.count("frames_outside_physmap",
                            int(((frames < -1) | (frames >= top)).sum()))


def whole_trace(path: Path, found: Found, meta: Meta) -> Trace:
    """A trace whose rows are in memory."""
    table = pa.Table.from_batches(found.batches(), SCHEMA).combine_chunks()
    return check(path, Trace(table, meta))


def streamed_trace(path: Path, found: Found, meta: Meta, last: int) -> Trace:
    """A trace whose rows are made when they are written. last: time of the last one."""
    rows, kinds = found.rows, _kinds(found)
    if not set(kinds) & set(ASKING_KINDS):
        stream = Stream(rows.count, kinds, lambda: resized(
            (pa.Table.from_batches([batch]) for batch in found.batches()), BATCH_ROWS))
        return check(path, Trace(SCHEMA.empty_table(), meta, stream))
    check(path, Trace(SCHEMA.empty_table(), meta))
    ledger = found.ledger
    made = compacted(
        _moves(ledger, meta.name), rows.count, ledger.facts.highest_target, last, meta.name,
        meta.start, ledger.scratch, lambda size: checked(path, meta, found.batches()))
    return Trace(SCHEMA.empty_table(), replace(meta, bounds=made.bounds),
                 Stream(rows.count, kinds, lambda: made.batches(BATCH_ROWS), beside=False))


def _kinds(found: Found) -> dict[str, Counter[int]]:
    """Of each kind that occurs, by name: how many rows have which flags."""
    counts: dict[str, Counter[int]] = {}
    for kind, flags in found.rows.kinds.items():
        if kind not in CALL_KINDS:
            counts[kind] = flags
    ledger = found.ledger
    for part in ledger.parts():
        both = np.stack((ledger.kind[part], ledger.flags[part]))
        for (kind, flag), many in zip(*(values.tolist() for values in np.unique(
                both.T, axis=0, return_counts=True)), strict=True):
            counts.setdefault(CALL_KINDS[kind], Counter())[flag] += many
    return dict(sorted(counts.items()))


def _moves(ledger: Ledger, name: str) -> Moves:
    """What the calls do with slots. ReplayError where no replay could be made of them."""
    what, failed = ledger.scratch.array(len(ledger.row)), ledger.scratch.array(len(ledger.row))
    for part in ledger.parts():
        kind, nr, errno = ledger.kind[part], ledger.nr[part], ledger.errno[part]
        what[part] = np.where(nr < 1, NO_SLOTS, np.where(
            kind == OF_ALLOC, TAKES, np.where(kind == OF_FREE, GIVES, NO_SLOTS)))
        failed[part] = (what[part] == TAKES) & (errno < 0) & (errno != NONE)
        bad = (what[part] != NO_SLOTS) & (nr > LARGEST_REQUEST)
        if bad.any():
            at = int(np.argmax(bad))
            raise ReplayError(f"trace {name!r}, row {int(ledger.row[part][at])}: a request of "
                              f"{int(nr[at])} pages, expected 1 to {LARGEST_REQUEST}")
        ledger.scratch.relax()
    return Moves(ledger.row, ledger.time, what, ledger.nr, ledger.pid, failed, ledger.slot_at,
                 ledger.slots)
