"""Xen's own trace (xentrace) as trace rows: what each record means.

Payloads: xen/include/public/trace.h and the places that emit them, Xen 4.17 to 4.22. A record
carries no more than stands here: grant maps name the granting domain, and neither frame nor count.

`latency_ns` of a hypercall of an HVM or PVH guest: from the exit to the entry around it.

`value` by kind: p2m_set, the p2m type; hypercall, its number; lost, the count; runstate,
`vcpu << 16 | old << 8 | new` (0 running, 1 runnable, 2 blocked, 3 offline).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.anomalies import Anomalies
from replay.errors import InputError, ReplayError
from replay.importers.imported import Imported
from replay.importers.xentrace_file import Records, read_records
from replay.importers.xentrace_names import EVENT_NAMES, HYPERCALLS
from replay.kernel import kernel
from replay.schema import COLUMNS, KINDS, SCHEMA, Flag
from replay.units import NS_PER_S

LOST_RECORDS, WRAP_BUFFER = 0x0001F001, 0x0001F002
RUNSTATE, RUNSTATE_MASK = 0x00021001, 0x0FFFF00F
DOMAINS = {  # event: (kind, payload words), the first word is the domid
    0x0010F001: ("grant_map", 1), 0x0010F002: ("grant_unmap", 1), 0x0010F003: ("grant_transfer", 1),
    0x00041001: ("domain_create", 1), 0x00041002: ("domain_destroy", 1),
}  # fmt: skip
SET_P2M = 0x0010F004
EXTENTS = {  # event: (kind, payload words, whether the second 64 bits are an mfn)
    SET_P2M: ("p2m_set", 6, True),
    0x0010F005: ("decrease_extent", 4, False),
    0x0010F010: ("pod_populate", 6, True),
    0x0010F011: ("pod_reclaim", 6, True),
    0x0010F012: ("pod_splinter", 4, False),
}
CALLS = {  # event: (payload words at least, which holds the number, mask)
    0x0020100D: (1, 0, 0xFFFFF),  # PV, version 2
    0x0020200E: (1, 0, 0xFFFFF),  # part of a multicall
    0x00201001: (2, 1, 0xFFFFFFFF),  # PV, version 1: eip, eax
    0x00201101: (3, 2, 0xFFFFFFFF),  # the same with a 64-bit rip
    0x00082012: (1, 0, 0xFFFFFFFF), 0x00082412: (1, 0, 0xFFFFFFFF),  # VMMCALL; nested
}  # fmt: skip
MULTICALL_PART = 0x0020200E
VMMCALLS = (0x00082012, 0x00082412)
VMEXITS = (0x00081002, 0x00081102, 0x00081003, 0x00081103,
           0x00081402, 0x00081502, 0x00081403, 0x00081503)
"""VMX and, since Xen 4.19 under numbers of their own, SVM; 32- and 64-bit rip; nested."""
VMENTRIES = (0x00081001, 0x00081401)
ORDER_MAX = 40
"""A larger extent order cannot be: 2^52 bytes is all there is."""


def read_xentrace(path: Path, *, hz: int, xen_version: str | None, arch: str = "",
                  source: int = 0, t0_raw: int | None = None) -> Imported:
    """Import an xentrace file.

    hz: frequency of the time stamps, which the file does not hold. xen_version: needed where the
    layout of a record depends on it. arch: named in the notes only. source: value of the `source`
    column. t0_raw: the clock's value at time 0; None for the file's first record.
    """
    if not 0 < hz < 9 * NS_PER_S:
        raise ReplayError(f"clock frequency is {hz} Hz, expected 1 to 9*10^9 "
                          "(state it: --set cpu_hz=2596140000)")
    records = read_records(Path(path))
    meaning = _Meaning(records, xen_version)
    anomalies = Anomalies()
    kept = np.flatnonzero(meaning.kind >= 0)
    flags = np.where(records.timed, 0, int(Flag.TIME_INFERRED))
    _mark_after_loss(records.cpu, meaning.kind, KINDS.index("lost"),
                     np.zeros(int(records.cpu.max(initial=0)) + 1, dtype=np.int64), flags)
    kept = kept[np.argsort(records.ticks[kept], kind="stable")]
    ticks = records.ticks[kept]
    start = int(ticks[0]) if t0_raw is None and len(ticks) else int(t0_raw or 0)
    lost = int(meaning.value[meaning.kind == KINDS.index("lost")].sum())
    anomalies.count("records_lost", lost)
    anomalies.count("time_inferred", int((~records.timed[kept]).sum()))
    anomalies.count("time_inversions", _inversions(records))
    anomalies.count("events_skipped",
                    sum(meaning.skipped.values()) - meaning.skipped["wrap_buffer"])
    anomalies.count("file_truncated", int(records.truncated))
    skipped = meaning.skipped + Counter(cpu_change=records.windows)
    return Imported(
        table=_table(meaning, kept, ns_of(ticks, start, hz, path), flags[kept], source, hz),
        anomalies=anomalies,
        accounting={"records": len(records.at) + records.windows, "imported": len(kept),
                    "skipped": dict(sorted(skipped.items())), "lost": lost,
                    "byte_order": records.byte_order},
        t0_raw=start, hz=hz, clock="generic counter" if arch == "arm64" else "tsc", ticks=ticks,
    )


def ns_of(ticks: np.ndarray, start: int, hz: int, path: Path | str = "") -> np.ndarray:
    """Ticks as nanoseconds after `start`, rounded down, in integers (see units.scale_ticks)."""
    delta = ticks - start
    seconds, rest = np.divmod(delta, hz)
    if len(seconds) and max(-int(seconds.min()), int(seconds.max())) > 9 * NS_PER_S:
        raise InputError(path, "times lie more than 9*10^9 s from the start; is the frequency "
                         f"{hz} Hz right?")
    nanoseconds: np.ndarray = seconds * NS_PER_S + rest * NS_PER_S // hz
    return nanoseconds


def _codes(event: np.ndarray) -> np.ndarray:
    """1 for an exit from a guest, 2 for a hypercall in it, 3 for an entry, 4 for lost records."""
    codes = np.zeros(len(event), dtype=np.int64)
    for code, events in enumerate((VMEXITS, VMMCALLS, VMENTRIES, (LOST_RECORDS,)), 1):
        codes[np.isin(event, events)] = code
    return codes


def _latency(cpu: np.ndarray, ticks: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Ticks from the exit to the entry around each hypercall of an HVM or PVH guest; -1 unknown.

    Both have a time of their own, the hypercall has none. Whatever Xen did meanwhile is in it,
    another vCPU's turn on the same CPU too.
    """
    last = np.full((2, int(cpu.max(initial=0)) + 1), -1, dtype=np.int64)
    found = np.full(len(cpu), -1, dtype=np.int64)
    _between(cpu, ticks, codes, last, found)
    return found


@kernel()
def _between(cpu, ticks, codes, last, found):  # type: ignore[no-untyped-def]
    """last: per CPU the time of the exit, and the row of the hypercall within it, or -1."""
    for k in range(len(cpu)):
        code, c = codes[k], cpu[k]
        if code == 1:
            last[0, c], last[1, c] = ticks[k], -1
        elif code == 2:
            last[1, c] = k
        elif code == 3 or code == 4:
            call = last[1, c]
            if code == 3 and call >= 0 and last[0, c] >= 0 and ticks[k] >= last[0, c]:
                found[call] = ticks[k] - last[0, c]
            last[0, c] = last[1, c] = -1


@kernel()
def _mark_after_loss(cpu, kind, lost, pending, flags):  # type: ignore[no-untyped-def]
    """Flag the first imported record of a CPU after lost ones."""
    for k in range(len(cpu)):
        if kind[k] == lost:
            pending[cpu[k]] = 1
        elif kind[k] >= 0 and pending[cpu[k]]:
            flags[k] |= 8
            pending[cpu[k]] = 0


def _inversions(records: Records) -> int:
    """Records whose own time is before that of their predecessor on the same CPU."""
    rows = np.flatnonzero(records.timed)
    rows = rows[np.argsort(records.cpu[rows], kind="stable")]
    back = np.diff(records.ticks[rows]) < 0
    return int((back & (np.diff(records.cpu[rows]) == 0)).sum())


def _takes_old_layout(xen_version: str | None, what: str) -> bool:
    """Before Xen 4.18 domid and order shared a word; since (83af664db3) each has its own.

    The lengths are equal, so the record itself does not tell.
    """
    if xen_version is None:
        raise ReplayError(
            f"the file has {what} records, whose layout changed with Xen 4.18, and the Xen version "
            "is not known: pass --set xen_version=4.17.7, or --machine with a folder that has "
            "xl-info")
    match = re.match(r"(\d+)\.(\d+)", xen_version)
    if not match:
        raise ReplayError(f"Xen version is {xen_version!r}, expected something like 4.17.7")
    return (int(match[1]), int(match[2])) < (4, 18)


class _Meaning:
    """The columns of each record, in file order; kind is -1 for a record that is skipped."""

    def __init__(self, records: Records, xen_version: str | None) -> None:
        n = len(records.at)
        self.records, self.xen_version = records, xen_version
        self.event, self.extra = records.event, records.extra
        self.kind = np.full(n, -1, dtype=np.int64)
        self.domid, self.label = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
        self.gfn, self.mfn = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.has_gfn, self.has_mfn = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
        self.has_value = np.zeros(n, dtype=np.bool_)
        self.value, self.nr_pages = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.latency = _latency(records.cpu, records.ticks, _codes(self.event))
        self.labels: list[str] = []
        self._domains()
        self._extents()
        self._calls()
        self._runstates()
        self._losses()
        self.skipped = self._skipped()

    def _rows(self, event: int, words: int) -> np.ndarray:
        return np.flatnonzero((self.event == event) & (self.extra >= words))

    def _set(self, rows: np.ndarray, kind: str, value: np.ndarray | None = None) -> None:
        self.kind[rows] = KINDS.index(kind)
        if value is not None:
            self.value[rows], self.has_value[rows] = value, True

    def _domains(self) -> None:
        for event, (kind, words) in DOMAINS.items():
            rows = self._rows(event, words)
            self._set(rows, kind)
            self.domid[rows] = self.records.payload(rows, 0) & 0xFFFF

    def _extents(self) -> None:
        for event, (kind, words, has_mfn) in EXTENTS.items():
            rows = self._rows(event, words)
            if not len(rows):
                continue
            read = self.records.payload
            if event == SET_P2M:  # two 16-bit fields in every version
                last = read(rows, 5)
                domid, order = last & 0xFFFF, last >> 16
            elif _takes_old_layout(self.xen_version, EVENT_NAMES[event]):
                packed = read(rows, words - 2)
                domid, order = packed & 0xFFFF, packed >> 16
            else:
                domid, order = read(rows, words - 2) & 0xFFFF, read(rows, words - 1)
            sound = order <= ORDER_MAX
            rows, domid, order = rows[sound], domid[sound], order[sound]
            self._set(rows, kind, read(rows, 4) if event == SET_P2M else None)
            self.domid[rows], self.nr_pages[rows] = domid, 1 << order
            self.gfn[rows], self.has_gfn[rows] = self.records.payload64(rows, 0), True
            if has_mfn:
                self.mfn[rows], self.has_mfn[rows] = self.records.payload64(rows, 2), True

    def _calls(self) -> None:
        for event, (words, index, mask) in CALLS.items():
            rows = self._rows(event, words)
            number = self.records.payload(rows, index) & mask
            self._set(rows, "hypercall", number)
            prefix = "multicall " if event == MULTICALL_PART else ""
            ops, place = np.unique(number, return_inverse=True)
            names = [prefix + HYPERCALLS.get(op, "unknown") for op in ops.tolist()]
            self.labels += [name for name in dict.fromkeys(names) if name not in self.labels]
            index_of = {name: at for at, name in enumerate(self.labels)}
            self.label[rows] = np.array([index_of[name] for name in names], dtype=np.int64)[place]

    def _runstates(self) -> None:
        rows = np.flatnonzero(((self.event & RUNSTATE_MASK) == RUNSTATE) & (self.extra >= 1))
        who, event = self.records.payload(rows, 0), self.event[rows]
        self._set(rows, "runstate",
                  (who & 0xFFFF) << 16 | ((event >> 8) & 3) << 8 | ((event >> 4) & 3))
        self.domid[rows] = who >> 16

    def _losses(self) -> None:
        rows = self._rows(LOST_RECORDS, 2)
        self._set(rows, "lost", self.records.payload(rows, 0))
        self.domid[rows] = self.records.payload(rows, 1) & 0xFFFF

    def _skipped(self) -> Counter[str]:
        """Records without a row, by the event's name; a known event with an odd payload says so."""
        skipped: Counter[str] = Counter()
        left = self.kind < 0
        known = {*DOMAINS, *EXTENTS, *CALLS, LOST_RECORDS}
        events, counts = np.unique(self.event[left], return_counts=True)
        for event, count in zip(events.tolist(), counts.tolist(), strict=True):
            name = EVENT_NAMES.get(event, f"{event:#010x}")
            skipped[f"{name} (odd payload)" if event in known else name] += count
        return skipped


def _table(meaning: _Meaning, kept: np.ndarray, time_ns: np.ndarray, flags: np.ndarray,
           source: int, hz: int) -> pa.Table:
    took = meaning.latency[kept]
    domid, label, gfn = meaning.domid[kept], meaning.label[kept], meaning.has_gfn[kept]
    filled: dict[str, Any] = {
        "time_ns": pa.array(time_ns, pa.int64()),
        "cpu": pa.array(meaning.records.cpu[kept].astype(np.int32)),
        "kind": _dictionary(meaning.kind[kept], list(KINDS)),
        "domid": pa.array(domid.astype(np.int32), mask=domid < 0),
        "nr_pages": pa.array(meaning.nr_pages[kept], mask=~gfn),
        "frames": _singles(meaning.gfn[kept], gfn),
        "mfns": _singles(meaning.mfn[kept], meaning.has_mfn[kept]),
        "start_pfn": pa.array(meaning.gfn[kept], mask=~gfn),
        "latency_ns": pa.array(ns_of(np.maximum(took, 0), 0, hz), mask=took < 0),
        "value": pa.array(meaning.value[kept], mask=~meaning.has_value[kept]),
        "label": _dictionary(label, meaning.labels),
        "flags": pa.array(flags.astype(np.int32)),
        "source": pa.array(np.full(len(kept), source, dtype=np.int16)),
        "source_offset": pa.array(4 * meaning.records.at[kept]),
    }
    columns = [filled[c.name] if c.name in filled else pa.nulls(len(kept), c.type)
               for c in COLUMNS]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _dictionary(codes: np.ndarray, names: list[str]) -> pa.DictionaryArray:
    indices = pa.array(codes.astype(np.int16), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def _singles(values: np.ndarray, present: np.ndarray) -> pa.ListArray:
    """A list of one element where `present`, else null."""
    offsets = np.concatenate(([0], np.cumsum(present))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[present], pa.int64()),
                                    mask=pa.array(~present))
