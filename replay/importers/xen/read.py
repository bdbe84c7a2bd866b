"""Xen's own trace (xentrace) as trace rows: what each record means.

Payloads: xen/include/public/trace.h and the places that emit them, Xen 4.13 to 4.22. A record
carries no more than stands here: grant maps name the granting domain, and neither frame nor count.

`latency_ns` of a hypercall of an HVM or PVH guest: from the exit to the entry around it; another
vCPU's turn on the same CPU is in it too.

`value` by kind: p2m_set, the p2m type; hypercall, its number; lost, the count; runstate,
`vcpu << 16 | old << 8 | new` (0 running, 1 runnable, 2 blocked, 3 offline).
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from replay.base.anomalies import Anomalies
from replay.base.errors import ReplayError
from replay.base.progress import advance
from replay.base.scratch import Growing, Scratch
from replay.base.units import NS_PER_S
from replay.importers.source.imported import Imported
from replay.importers.source.inputs import plain_bytes
from replay.importers.source.probes import Ints
from replay.importers.source.rows import PART_ROWS, Rows, coded
from replay.importers.source.sorting import Keyed, Run, in_order
from replay.importers.xen.arrow import Batches
from replay.importers.xen.census import FLAG_VALUES, Census, census
from replay.importers.xen.columns import Decoded, decode
from replay.importers.xen.events import (
    DOMAINS,
    EXTENTS,
    HYPERCALL_EVENTS,
    LOST_RECORDS,
    NEW_LAYOUT,
    OLD_LAYOUT,
    SLOTS,
    UNKNOWN_LAYOUT,
)
from replay.importers.xen.framing import CPU_CHANGE
from replay.importers.xen.keep import events_of, left_out
from replay.importers.xen.names import EVENT_NAMES
from replay.trace.schema import KINDS, SCHEMA
from replay.trace.store import BATCH_ROWS, Stream
from replay.trace.stored import resized

XEN_VERSION = re.compile(r"(\d+)\.(\d+)")
NO_TOP = 1 << 62
"""Of a machine that is not known: every frame may be its own."""


def read_xentrace(path: Path, *, hz: int, xen_version: str | None, arch: str = "",
                  source: int = 0, t0_raw: int | None = None,
                  scratch: Scratch | None = None) -> Imported:
    """Import an xentrace file, all rows at once, or where they may lie in a file.

    hz: frequency of the time stamps, which the file does not hold. xen_version: needed where the
    layout of a record depends on it. arch: named in the notes only. source: value of the `source`
    column. t0_raw: the clock's value at time 0; None for the file's first record.
    """
    opened = XenTrace(path, hz=hz, xen_version=xen_version, source=source, t0_raw=t0_raw)
    imported = opened.described(arch)
    if scratch:
        imported.rows, imported.ticks = opened.sorted(scratch)
    else:
        imported.table, imported.ticks = opened.table()
    return imported


def open_xentrace(path: Path, *, hz: int, xen_version: str | None, arch: str = "",
                  top: int = NO_TOP, keep: np.ndarray | None = None) -> Imported:
    """An xentrace file whose rows are a stream: a batch at a time, when it is written.

    top: frames from here on lie outside the machine. keep: by number of a kind, whether its rows
    are kept (keep.py); None for all.
    """
    opened = XenTrace(path, hz=hz, xen_version=xen_version, top=top, keep=keep)
    imported = opened.described(arch)
    imported.stream = Stream(opened.rows, opened.kinds(), opened.batches)
    return imported


class XenTrace:
    """An xentrace file of which all is known but the rows."""

    def __init__(self, path: Path, *, hz: int, xen_version: str | None, source: int = 0,
                 t0_raw: int | None = None, top: int = NO_TOP, keep: np.ndarray | None = None
                 ) -> None:
        if not 0 < hz < 9 * NS_PER_S:
            raise ReplayError(f"clock frequency is {hz} Hz, expected 1 to 9*10^9 "
                              "(state it: --cpu-hz 2596140000)")
        self.path, self.hz, self.source = Path(path), hz, source
        self.layout = _layout(xen_version)
        self.keep = np.ones(len(KINDS), np.bool_) if keep is None else keep
        with plain_bytes(self.path) as data:
            self.file: Census = census(self.path, data, self.layout, top)
        if self.file.unclear:
            first = next(event for k, event in enumerate(EXTENTS) if self.file.unclear >> k & 1)
            _takes_old_layout(xen_version, EVENT_NAMES[first])
        self.start = self.file.earliest if t0_raw is None else t0_raw

    @property
    def rows(self) -> int:
        """How many are kept."""
        return int(self.file.kinds[self.keep].sum())

    def described(self, arch: str) -> Imported:
        """All but the rows."""
        file, anomalies = self.file, Anomalies()
        skipped = _skipped(file.skipped) + left_out(dict(zip(
            KINDS, np.where(self.keep, 0, file.kinds.sum(axis=1)).tolist(), strict=True)))
        anomalies.count("records_lost", file.lost)
        anomalies.count("time_inferred", file.inferred)
        anomalies.count("time_inversions", file.inversions)
        anomalies.count("events_skipped", skipped.total() - skipped["wrap_buffer"])
        anomalies.count("file_truncated", int(file.truncated))
        anomalies.count("frames_outside_physmap", file.outside)
        windows = len(file.windows)
        skipped["cpu_change"] += windows
        return Imported(
            table=pa.Table.from_batches([], SCHEMA), anomalies=anomalies,
            accounting={"records": file.records + windows, "imported": self.rows,
                        "skipped": dict(sorted((+skipped).items())), "lost": file.lost,
                        "byte_order": file.byte_order},
            t0_raw=self.start, hz=self.hz, clock="generic counter" if arch == "arm64" else "tsc")

    def kinds(self) -> dict[str, Counter[int]]:
        """Of each kind that occurs, by name: how many rows have which flags."""
        return {name: Counter({f: row[f] for f in range(FLAG_VALUES) if row[f]})
                for name, row, its in sorted(zip(KINDS, self.file.kinds.tolist(),
                                                 self.keep.tolist(), strict=True))
                if any(row) and its}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows."""
        if not self.file.inversions:
            for _, batch in self._parts(BATCH_ROWS):
                yield batch
            return
        found = self.sorted(Scratch())
        yield from resized((pa.Table.from_batches([batch]) for batch in found[0].batches()),
                           BATCH_ROWS)

    def _parts(self, rows: int) -> Iterator[tuple[Ints, pa.RecordBatch]]:
        """Rows as they are decoded, so many at a time, and their raw times."""
        maker = self._maker()
        at = 0
        for decoded in self._decoded(rows):
            end = int(decoded.out.offset[-1])
            advance(end - at)
            at = end
            yield decoded.out.ticks, maker.batch(decoded)

    def sorted(self, scratch: Scratch) -> tuple[Rows, Ints]:
        """The rows where they may lie in a file, and their raw times.

        Those of a file whose times go back are put in order: a row waits for those behind it that
        are earlier.
        """
        rows, ticks, least = Rows(scratch), Growing(scratch), []
        for raw, batch in self._parts(PART_ROWS):
            rows.texts = {name: batch[name].dictionary.to_pylist() for name in rows.texts}
            rows.append(coded(batch))
            ticks.append(raw)
            least.append(int(raw.min()))
            scratch.relax()
        if not self.file.inversions:
            return rows, ticks.array
        made, moments = Rows(scratch), Growing(scratch)
        made.texts, times = rows.texts, ticks.array

        def load(number: int) -> Keyed:
            batch, begin = rows.read(number), rows.begins[number]
            return times[begin : begin + batch.num_rows], batch

        for keys, batch in in_order([Run(least, load)]):
            made.append(batch)
            moments.append(keys)
            scratch.relax()
        return made, moments.array

    def table(self) -> tuple[pa.Table, np.ndarray]:
        """All rows at once, and their raw times."""
        maker = self._maker()
        table, ticks = pa.Table.from_batches([], SCHEMA), np.zeros(0, dtype=np.int64)
        for decoded in self._decoded(max(self.rows, 1)):
            table, ticks = pa.Table.from_batches([maker.batch(decoded)]), decoded.out.ticks
            if self.file.inversions:
                order = np.lexsort((decoded.out.offset, ticks))
                table, ticks = table.take(pa.array(order)).combine_chunks(), ticks[order]
        return table, ticks

    def _decoded(self, most: int) -> Iterator[Decoded]:
        return decode(self.path, self.file, self.layout, most, self.rows, events_of(self.keep))

    def _maker(self) -> Batches:
        return Batches(self.path, start=self.start, hz=self.hz, source=self.source,
                       ops=self.file.ops)


def compile_kernels(folder: Path) -> None:
    """Run them on a grant and on more events than the table holds, so that no import waits."""
    path = folder / "made-up.bin"
    body = struct.pack(f"<{SLOTS + 2}I", next(iter(DOMAINS)) | 1 << 28, 1, *range(SLOTS))
    path.write_bytes(struct.pack("<III", CPU_CHANGE, 0, len(body)) + body)
    read_xentrace(path, hz=1, xen_version="4.18")


def _layout(xen_version: str | None) -> int:
    """Which layout of extents a version has; UNKNOWN_LAYOUT matters only if the file has any."""
    if xen_version is None or not XEN_VERSION.match(xen_version):
        return UNKNOWN_LAYOUT
    return OLD_LAYOUT if _takes_old_layout(xen_version, "") else NEW_LAYOUT


def _takes_old_layout(xen_version: str | None, what: str) -> bool:
    """Before Xen 4.18 domid and order shared a word; since (83af664db3) each has its own.

    The lengths are equal, so the record itself does not tell.
    """
    if xen_version is None:
        raise ReplayError(
            f"the file has {what} records, whose layout changed with Xen 4.18, and the Xen version "
            "is not known: pass --set xen_version=4.17.7, or --machine with a folder that has "
            "xl-info")
    match = XEN_VERSION.match(xen_version)
    if not match:
        raise ReplayError(f"Xen version is {xen_version!r}, expected something like 4.17.7")
    return (int(match[1]), int(match[2])) < (4, 18)


def _skipped(events: dict[int, int]) -> Counter[str]:
    """Records without a row, by the event's name; a known event with an odd payload says so."""
    skipped: Counter[str] = Counter()
    known = {*DOMAINS, *EXTENTS, *HYPERCALL_EVENTS, LOST_RECORDS}
    for event, count in events.items():
        name = EVENT_NAMES.get(event, f"{event:#010x}")
        skipped[f"{name} (odd payload)" if event in known else name] += count
    return skipped
