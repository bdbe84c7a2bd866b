"""Probe streams to the one table of a trace: rows with exactly the columns of schema.SCHEMA.

`slots`, `lock_rank` and the recovered lock order are left to the trace folder. The label of an
alloc or free is the function that served it: the fallback, where the outer one fell back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from replay.anomalies import Anomalies
from replay.errors import ReplayError
from replay.importers.alloc_handlers import Handler
from replay.importers.calls import Joiner, Row, View
from replay.importers.handlers import HANDLERS
from replay.importers.imported import Imported
from replay.importers.probes import Decoded, Ints, Probe, ProbeStream, ProbeTable
from replay.schema import SCHEMA, Flag
from replay.units import NS_PER_S

X86_VMEMMAP_BASE: Final = 0xFFFFEA0000000000
"""arch/x86/include/asm/pgtable_64_types.h, __VMEMMAP_BASE_L4; moves with KASLR."""
_X86_VMEMMAP_TOP: Final = (X86_VMEMMAP_BASE >> 40) - (1 << 24)
MAX_HZ: Final = 9_000_000_000
"""Beyond it the remainder of a division, times 10^9, would leave 64 bits."""
MAX_SECONDS: Final = 1 << 32
_PV_ONLY: Final = ("xen_alloc_p2m_entry", "xen_remap_pfn")
_PAGE_MEANINGS: Final = ("frames", "page", "first", "last")


Normalised = Imported
"""What `normalise` returns; every importer hands on the same."""


def normalise(
    decoded: Decoded,
    *,
    hz: int | None,
    vmemmap_base: int | None,
    table: ProbeTable,
    source: int,
) -> Normalised:
    """Join, cut and convert the events of one recording.

    hz: ticks per second, needed when the clock counts ticks. vmemmap_base: address of the
    `struct page` of frame 0; x86 without KASLR needs none. The result's t0_raw is the raw time of
    the first event, whether it became a row or not.
    """
    rate = _rate(decoded, hz)
    anomalies = Anomalies(Counter(decoded.anomalies.counts))
    skipped: Counter[str] = Counter(decoded.undecoded)
    matched = _match(decoded, table, anomalies, skipped)
    base = _base(decoded, matched, vmemmap_base)
    functions = {stream.function for stream in decoded.streams}
    joiner = Joiner(
        anomalies,
        returning={probe.function for _, probe, place in matched if place == "return"},
        pv=any(name in functions for name in _PV_ONLY))
    rows = _run(joiner, matched, base, skipped) + _phases(decoded)
    t0_raw, last = min(decoded.first_time, decoded.last_time), decoded.last_time
    if rate is not None and (last - t0_raw) // rate > MAX_SECONDS:
        raise ReplayError(f"{decoded.path}: at {rate} ticks per second the recording would last "
                          f"{(last - t0_raw) // rate} seconds")
    _mark_losses(rows, decoded)
    skipped += joiner.skipped
    events = decoded.events().total() + decoded.undecoded.total()
    anomalies.count("events_skipped", skipped.total())
    accounting = {"records": events, "imported": events - skipped.total(),
                  "skipped": dict(sorted(skipped.items())), "lost": decoded.records_lost}
    rows.sort(key=lambda row: (row["time"], row["source_offset"]))
    ticks = np.array([row["time"] for row in rows], dtype=np.int64)
    return Normalised(_table(rows, t0_raw, rate, source), anomalies, accounting, t0_raw,
                      rate or NS_PER_S, decoded.clock, ticks)


def _rate(decoded: Decoded, hz: int | None) -> int | None:
    if decoded.unit == "ns":
        return None
    rate = hz or decoded.hz
    if rate is None:
        raise ReplayError(f"{decoded.path}: the clock {decoded.clock or 'of the trace'} counts "
                          "ticks; say how many per second (for x86-tsc see `xl dmesg`)")
    if not 0 < rate <= MAX_HZ:
        raise ReplayError(f"{decoded.path}: {rate} ticks per second, expected 1 to {MAX_HZ}")
    return rate


Matched = tuple[ProbeStream, Probe, str]


def _match(decoded: Decoded, table: ProbeTable, anomalies: Anomalies,
           skipped: Counter[str]) -> list[Matched]:
    """Streams with their meaning; the others are counted by name."""
    matched = []
    for stream in decoded.streams:
        if not stream.is_probe:
            if "text" not in stream.texts:
                skipped[f"event {stream.event}"] += len(stream)
            continue
        function, place = stream.function, str(stream.place)
        if not function:
            anomalies.count("symbols_unresolved", len(stream))
            function, place = table.hints.get(stream.event, ("", place))
        probe = table.find(function)
        if probe is None:
            _skip(stream.event, function, len(stream), anomalies, skipped)
        else:
            matched.append((stream, probe, place))
    for event, function, is_probe, count in decoded.passed:
        if is_probe:
            anomalies.count("symbols_unresolved", 0 if function else count)
            _skip(event, function, count, anomalies, skipped)
        else:
            skipped[f"event {event}"] += count
    return matched


def _skip(event: str, function: str, count: int, anomalies: Anomalies,
          skipped: Counter[str]) -> None:
    """Events of a probe that no role knows."""
    anomalies.count("probe_unknown", count)
    skipped[function or f"event {event}"] += count


def wanted_by(table: ProbeTable) -> Callable[[str, str], bool]:
    """Whether a probe of that function, or event name where the function is unknown, has a role."""
    def wanted(function: str, event: str) -> bool:
        if not function:
            function = table.hints.get(event, ("", ""))[0]
        return bool(function) and table.find(function) is not None
    return wanted


def _base(decoded: Decoded, matched: list[Matched], given: int | None) -> int:
    """The address of frame 0's struct page; an error when it is needed and unknown."""
    if given is not None:
        return given
    if decoded.arch == "x86_64":
        return X86_VMEMMAP_BASE
    seen = False
    for stream, probe, place in matched:
        view = View(stream, probe, place, X86_VMEMMAP_BASE)
        for meaning in _PAGE_MEANINGS:
            found = view.elements(meaning)
            if found is None:
                continue
            first = found.values[found.whole > 0][:, :1]
            seen |= bool(len(first))
            # ftrace text names no architecture; this range is that of x86 without KASLR
            if not decoded.arch and ((first >> 40) == _X86_VMEMMAP_TOP).any():
                return X86_VMEMMAP_BASE
    if seen:
        raise ReplayError(
            f"{decoded.path}: frames are recorded as struct page addresses; say where the "
            "array of struct page begins (vmemmap_base)")
    return X86_VMEMMAP_BASE


def _run(joiner: Joiner, matched: list[Matched], base: int, skipped: Counter[str]) -> list[Row]:
    """Feed all events, in recorded order, to the handlers of their streams."""
    handlers: list[Handler] = []
    streams: list[ProbeStream] = []
    for stream, probe, place in matched:
        make = HANDLERS.get((probe.role, place))
        if make is None:
            skipped[probe.function] += len(stream)
            continue
        handlers.append(make(joiner, View(stream, probe, place, base)))
        streams.append(stream)
    if not streams:
        return []
    order = np.concatenate([s.order for s in streams])
    which = np.repeat(np.arange(len(streams)), [len(s) for s in streams])
    index = np.concatenate([np.arange(len(s)) for s in streams])
    sequence = np.argsort(order, kind="stable")
    for number, row in zip(which[sequence].tolist(), index[sequence].tolist(), strict=True):
        handlers[number](row)
    return joiner.close()


def _phases(decoded: Decoded) -> list[Row]:
    rows: list[Row] = []
    for stream in decoded.streams:
        for index, text in enumerate(stream.texts.get("text", ()) if not stream.is_probe else ()):
            rows.append({
                "kind": "phase", "time": int(stream.time[index]), "cpu": int(stream.cpu[index]),
                "pid": int(stream.pid[index]), "task": stream.task[index], "label": text,
                "flags": 0, "source_offset": int(stream.source_offset[index])})
    return rows


def _mark_losses(rows: list[Row], decoded: Decoded) -> None:
    """A row per loss; the first row of that CPU behind it is flagged."""
    by_cpu: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda r: (r["time"], r["source_offset"])):
        by_cpu.setdefault(row["cpu"], []).append(row)
    for loss in decoded.losses:
        there = by_cpu.get(loss.cpu, [])
        after = bisect_left(there, loss.time, key=lambda r: int(r["time"]))
        if after < len(there):
            there[after]["flags"] |= Flag.AFTER_LOSS
        rows.append({"kind": "lost", "time": loss.time, "cpu": loss.cpu, "value": loss.count,
                     "flags": 0, "source_offset": loss.source_offset})


def to_ns(raw: Ints, t0_raw: int, hz: int | None) -> Ints:
    """Nanoseconds since t0_raw, rounded down, in integers throughout."""
    elapsed = raw - t0_raw
    if hz is None:
        return elapsed
    seconds, rest = np.divmod(elapsed, hz)
    scaled: Ints = seconds * NS_PER_S + rest * NS_PER_S // hz
    return scaled


def _column(rows: list[Row], name: str, type_: pa.DataType) -> pa.Array:
    values = [row.get(name) for row in rows]
    if pa.types.is_dictionary(type_):
        encoded = pa.array(values, pa.string()).dictionary_encode()
        if len(encoded.dictionary) >= 1 << 15:
            raise ReplayError(f"{len(encoded.dictionary)} different names in column {name}")
        return encoded.cast(type_)
    if pa.types.is_integer(type_) and type_.bit_width < 64:
        top = 1 << (type_.bit_width - 1)
        values = [v if v is not None and -top <= v < top else None for v in values]
    return pa.array(values, type_)


def _ns_column(rows: list[Row], name: str, t0_raw: int, hz: int | None) -> pa.Array:
    known = np.array([row.get(name) is not None for row in rows], dtype=bool)
    raw = np.array([row.get(name, t0_raw) for row in rows], dtype=np.int64)
    return pa.array(to_ns(raw, t0_raw, hz), pa.int64(), mask=~known)


def _table(rows: list[Row], t0_raw: int, hz: int | None, source: int) -> pa.Table:
    for row in rows:
        row["flags"] = int(row["flags"])
        row["source"] = source
        if not 0 <= (row.get("domid") or 0) < 1 << 15:
            row["domid"] = None
    made = {"time_ns": _ns_column(rows, "time", t0_raw, hz),
            "lock_ns": _ns_column(rows, "lock", t0_raw, hz)}
    end = _ns_column(rows, "end", t0_raw, hz)
    made["latency_ns"] = pc.subtract(end, made["time_ns"])
    columns = [made[f.name] if f.name in made else _column(rows, f.name, f.type) for f in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)
