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
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.anomalies import Anomalies
from replay.errors import InputError, ReplayError
from replay.importers.imported import Imported
from replay.importers.xentrace_columns import (
    DOMIDS,
    INFERRED,
    INVERSIONS,
    LATENCIES,
    LOST,
    MFNS,
    OPS,
    ROWS,
    STARTS,
    UNCLEAR,
    VALUES,
    Decoded,
    decode,
    scale,
)
from replay.importers.xentrace_events import (
    CALLS,
    DOMAINS,
    EXTENTS,
    LOST_RECORDS,
    MULTICALL_PART,
    NEW,
    OLD,
    UNKNOWN,
    UNKNOWN_CALL,
)
from replay.importers.xentrace_file import CPU_CHANGE, framed, read_records
from replay.importers.xentrace_names import EVENT_NAMES, HYPERCALLS
from replay.schema import COLUMNS, KINDS, SCHEMA
from replay.units import NS_PER_S

VERSION = re.compile(r"(\d+)\.(\d+)")


def read_xentrace(path: Path, *, hz: int, xen_version: str | None, arch: str = "",
                  source: int = 0, t0_raw: int | None = None) -> Imported:
    """Import an xentrace file.

    hz: frequency of the time stamps, which the file does not hold. xen_version: needed where the
    layout of a record depends on it. arch: named in the notes only. source: value of the `source`
    column. t0_raw: the clock's value at time 0; None for the file's first record.
    """
    if not 0 < hz < 9 * NS_PER_S:
        raise ReplayError(f"clock frequency is {hz} Hz, expected 1 to 9*10^9 "
                          "(state it: --cpu-hz 2596140000)")
    records = read_records(Path(path))
    decoded = decode(records, _layout(xen_version))
    n = decoded.counts
    if n[UNCLEAR]:
        first = next(event for k, event in enumerate(EXTENTS) if n[UNCLEAR] >> k & 1)
        _takes_old_layout(xen_version, EVENT_NAMES[first])
    ticks = decoded.out.ticks[:n[ROWS]]
    earliest = int(ticks[0] if not n[INVERSIONS] else ticks.min()) if len(ticks) else 0
    start = earliest if t0_raw is None else t0_raw
    table = _table(decoded, start, source, hz, path)
    if n[INVERSIONS]:
        order = np.lexsort((decoded.out.offset[:n[ROWS]], ticks))
        table, ticks = table.take(pa.array(order)).combine_chunks(), ticks[order]
    skipped = _skipped(decoded.skipped)
    anomalies = Anomalies()
    anomalies.count("records_lost", n[LOST])
    anomalies.count("time_inferred", n[INFERRED])
    anomalies.count("time_inversions", n[INVERSIONS])
    anomalies.count("events_skipped", skipped.total() - skipped["wrap_buffer"])
    anomalies.count("file_truncated", int(records.truncated))
    windows = len(records.windows)
    skipped["cpu_change"] += windows
    return Imported(
        table=table, anomalies=anomalies,
        accounting={"records": records.count + windows, "imported": n[ROWS],
                    "skipped": dict(sorted((+skipped).items())), "lost": n[LOST],
                    "byte_order": records.byte_order},
        t0_raw=start, hz=hz, clock="generic counter" if arch == "arm64" else "tsc", ticks=ticks,
    )


def compile_kernels() -> None:
    """Run them on a window without a record, so that no import waits for it."""
    decode(framed(Path(), struct.pack("<III", CPU_CHANGE, 0, 0)), NEW)
    ns_of(np.zeros(1, dtype=np.int64), 0, 1)


def ns_of(ticks: np.ndarray, start: int, hz: int, path: Path | str = "") -> np.ndarray:
    """Ticks as nanoseconds after `start`, rounded down, in integers (see units.scale_ticks)."""
    nanoseconds = np.empty(len(ticks), dtype=np.int64)
    if scale(np.ascontiguousarray(ticks), start, hz, nanoseconds) > 9 * NS_PER_S:
        raise InputError(path, "times lie more than 9*10^9 s from the start; is the frequency "
                         f"{hz} Hz right?")
    return nanoseconds


def _layout(xen_version: str | None) -> int:
    """Which layout of extents a version has; UNKNOWN matters only if the file has any."""
    if xen_version is None or not VERSION.match(xen_version):
        return UNKNOWN
    return OLD if _takes_old_layout(xen_version, "") else NEW


def _takes_old_layout(xen_version: str | None, what: str) -> bool:
    """Before Xen 4.18 domid and order shared a word; since (83af664db3) each has its own.

    The lengths are equal, so the record itself does not tell.
    """
    if xen_version is None:
        raise ReplayError(
            f"the file has {what} records, whose layout changed with Xen 4.18, and the Xen version "
            "is not known: pass --set xen_version=4.17.7, or --machine with a folder that has "
            "xl-info")
    match = VERSION.match(xen_version)
    if not match:
        raise ReplayError(f"Xen version is {xen_version!r}, expected something like 4.17.7")
    return (int(match[1]), int(match[2])) < (4, 18)


def _skipped(events: dict[int, int]) -> Counter[str]:
    """Records without a row, by the event's name; a known event with an odd payload says so."""
    skipped: Counter[str] = Counter()
    known = {*DOMAINS, *EXTENTS, *CALLS, LOST_RECORDS}
    for event, count in events.items():
        name = EVENT_NAMES.get(event, f"{event:#010x}")
        skipped[f"{name} (odd payload)" if event in known else name] += count
    return skipped


def _labels(ops: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The names of the hypercalls that occur, and which of them each op is."""
    names: dict[str, int] = {}
    place = np.zeros(len(CALLS) * (UNKNOWN_CALL + 1), dtype=np.int16)
    for op in np.flatnonzero(np.bincount(ops)).tolist():
        event, number = divmod(op, UNKNOWN_CALL + 1)
        prefix = "multicall " if list(CALLS)[event] == MULTICALL_PART else ""
        place[op] = names.setdefault(prefix + HYPERCALLS.get(number, "unknown"), len(names))
    return list(names), place


def _table(decoded: Decoded, start: int, source: int, hz: int, path: Path) -> pa.Table:
    """The rows as Arrow, without a copy; a column that holds nothing shares its zeros."""
    out, n = decoded.out, decoded.counts
    rows = n[ROWS]
    nothing = _Nothing(rows)

    def plain(values: np.ndarray, known: np.ndarray | None = None, count: int = rows) -> pa.Array:
        """Fixed-width values, of which `count` are known."""
        kind = pa.from_numpy_dtype(values.dtype)
        if not count:
            return nothing.of(kind)
        bits = pa.py_buffer(known) if known is not None and count < rows else None
        return pa.Array.from_buffers(kind, rows, [bits, pa.py_buffer(values)], rows - count)

    def singles(values: np.ndarray, at: np.ndarray, known: np.ndarray, count: int) -> pa.Array:
        """A list of one element where known, else null."""
        if not count:
            return nothing.of(pa.list_(pa.int64()))
        bits = pa.py_buffer(known) if count < rows else None
        return pa.Array.from_buffers(
            pa.list_(pa.int64()), rows, [bits, pa.py_buffer(at[:rows + 1])], rows - count,
            children=[pa.array(values[:count])])

    filled: dict[str, Any] = {
        "time_ns": plain(ns_of(out.ticks[:rows], start, hz, path)),
        "cpu": plain(out.cpu[:rows]),
        "kind": pa.DictionaryArray.from_arrays(plain(out.kind[:rows]), pa.array(list(KINDS))),
        "domid": plain(out.domid[:rows], out.domid_known, n[DOMIDS]),
        "nr_pages": plain(out.pages[:rows], out.start_known, n[STARTS]),
        "frames": singles(out.frames, out.frames_at, out.start_known, n[STARTS]),
        "mfns": singles(out.mfns, out.mfns_at, out.mfns_known, n[MFNS]),
        "start_pfn": plain(out.start[:rows], out.start_known, n[STARTS]),
        "value": plain(out.value[:rows], out.value_known, n[VALUES]),
        "flags": plain(out.flags[:rows]),
        "source": plain(np.full(rows, source, dtype=np.int16)),
        "source_offset": plain(out.offset[:rows]),
    }
    if n[LATENCIES]:
        took = ns_of(out.latency[:rows], 0, hz, path)
        filled["latency_ns"] = plain(took, out.latency_known, n[LATENCIES])
    names: list[str] = []
    op = out.op[:rows]
    if n[OPS]:
        bits = np.unpackbits(out.op_known, count=rows, bitorder="little").view(np.bool_)
        names, place = _labels(op[bits])
        op = np.where(bits, place[op], np.int16(0))
    filled["label"] = pa.DictionaryArray.from_arrays(plain(op, out.op_known, n[OPS]),
                                                     pa.array(names, pa.string()))
    return pa.Table.from_arrays([filled[c.name] if c.name in filled else nothing.of(c.type)
                                 for c in COLUMNS], schema=SCHEMA)


class _Nothing:
    """All-null columns of one length over one run of zeros."""

    def __init__(self, rows: int) -> None:
        self.rows, self.zeros = rows, pa.py_buffer(np.zeros(8 * rows + 8, dtype=np.uint8))

    def of(self, kind: pa.DataType) -> pa.Array:
        """The column of a type."""
        if pa.types.is_dictionary(kind):
            return pa.DictionaryArray.from_arrays(self.of(kind.index_type),
                                                  pa.array([], kind.value_type))
        children = [pa.array([], kind.value_type)] if pa.types.is_list(kind) else []
        return pa.Array.from_buffers(kind, self.rows, [self.zeros, self.zeros], self.rows,
                                     children=children)
