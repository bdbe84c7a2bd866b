"""Probe streams to the one table of a trace: rows with exactly the columns of schema.SCHEMA.

`slots`, `lock_rank` and the recovered lock order are left to the trace folder. The label of an
alloc or free is the function that served it: the fallback, where the outer one fell back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final

import numpy as np

from replay.base.anomalies import Anomalies
from replay.base.errors import ReplayError
from replay.base.progress import step
from replay.base.scratch import Scratch
from replay.base.units import NS_PER_S, XEN_PAGE_BYTES
from replay.importers.joining.joined import Joined
from replay.importers.joining.parts import ROLES
from replay.importers.joining.table import Others, Tables, gather
from replay.importers.joining.tape import Layout, Matched
from replay.importers.joining.times import Clock
from replay.importers.joining.views import Names
from replay.importers.joining.vmemmap import Chosen, choose
from replay.importers.source.imported import Imported
from replay.importers.source.probes import MISSING, Decoded, Probe, ProbeTable, Wanted
from replay.importers.source.rows import PART_ROWS, Rows
from replay.importers.source.settings import MAX_HZ
from replay.physmap.readers import Machine
from replay.trace.schema import SCHEMA

VMEMMAP, MEMSTART = "vmemmap_base", "memstart_addr"
"""Names under which a probe may fetch the kernel's variables of those names, x86's and arm64's."""
MAX_SECONDS: Final = 1 << 32
_PV_ONLY: Final = ("xen_alloc_p2m_entry", "xen_remap_pfn")


Normalised = Imported
"""What `normalise` returns; every importer hands on the same."""


def normalise(
    decoded: Decoded,
    *,
    hz: int | None,
    vmemmap_base: int | None,
    table: ProbeTable,
    source: int,
    scratch: Scratch | None = None,
    machine: Machine | None = None,
    kernel: str = "",
) -> Normalised:
    """Join, cut and convert the events of one recording.

    hz: ticks per second, needed when the clock counts ticks. vmemmap_base: address of the
    `struct page` of frame 0; None: what follows from machine, kernel (its release, where not the
    recording's) and the addresses, see vmemmap.py. The result's t0_raw is the raw time of
    the first event, whether it became a row or not. scratch: the result has `rows` instead of a
    table, what does not fit into memory lies there.
    """
    clock = _clock(decoded, hz)
    anomalies = Anomalies(Counter(decoded.anomalies.counts))
    skipped: Counter[str] = Counter(decoded.undecoded)
    matched = _match(decoded, table, anomalies, skipped)
    base, found = _base(decoded, matched, vmemmap_base, machine, kernel)
    functions = {stream.function for stream, _ in decoded.outline}
    pv = any(name in functions for name in _PV_ONLY)
    room = scratch or Scratch(in_memory=1 << 62)
    page = machine.physmap.page_bytes if machine else XEN_PAGE_BYTES
    joined, others = Joined(Layout(matched, Names(), base, pv=pv, page_bytes=page), room), Others()
    with step("joining events"):
        for streams in decoded.parts():
            joined.add(streams)
            others.add_phases(streams, joined.names)
        joined.finish(PART_ROWS)
    others.add_losses(decoded.losses)
    for name, count in joined.anomalies.items():
        anomalies.count(name, count)
    t0_raw, last = min(decoded.first_time, decoded.last_time), decoded.last_time
    seconds = (clock.ns(last) - clock.ns(t0_raw)) // NS_PER_S
    if decoded.unit == "ticks" and (seconds > MAX_SECONDS or clock.ns(last) >> 62):
        raise ReplayError(f"{decoded.path}: at {clock.hz} ticks per second the recording would "
                          f"last {seconds} seconds")
    skipped += joined.skipped
    events = decoded.events().total() + decoded.undecoded.total()
    anomalies.count("events_skipped", skipped.total())
    accounting = {"records": events, "imported": events - skipped.total(),
                  "skipped": dict(sorted(skipped.items())), "lost": decoded.records_lost}
    tables = Tables(joined, Rows(room), t0_raw, clock, source)
    ticks = [np.zeros(0, dtype=np.int64)]
    for columns in gather(joined, others, room, PART_ROWS):
        tables.add(columns)
        ticks += [] if scratch else [columns["time"]]
    table = SCHEMA.empty_table() if scratch else tables.rows.table()
    return Normalised(table, anomalies, accounting, t0_raw, clock.hz or NS_PER_S, decoded.clock,
                      np.concatenate(ticks), scale=clock.scale, offset_ns=decoded.offset_ns,
                      rows=tables.rows if scratch else None, facts=found)


def _clock(decoded: Decoded, hz: int | None) -> Clock:
    """A frequency that is given counts, then what the file says."""
    if decoded.unit == "ns":
        return Clock(None)
    rate = hz or decoded.hz
    if rate is None:
        raise ReplayError(f"{decoded.path}: the clock {decoded.clock or 'of the trace'} counts "
                          "ticks; say how many per second (for x86-tsc see `xl dmesg`)")
    scale = None if hz else decoded.scale
    if rate < 1 or (rate > MAX_HZ and not scale):
        raise ReplayError(f"{decoded.path}: {rate} ticks per second, expected 1 to {MAX_HZ}")
    return Clock(rate, scale)


def _match(decoded: Decoded, table: ProbeTable, anomalies: Anomalies,
           skipped: Counter[str]) -> list[Matched]:
    """Streams with their meaning; the others are counted by name."""
    def probe_of(event: str, function: str, place: str, count: int) -> tuple[Probe | None, str]:
        if not function:
            anomalies.count("symbols_unresolved", count)
            function, place = table.hints.get(event, ("", place))
        probe = table.find(function)
        if probe is None:
            anomalies.count("probe_unknown", count)
            skipped[function or f"event {event}"] += count
        return probe, place

    matched = []
    for at, (stream, events) in enumerate(decoded.outline):
        if stream.is_probe:
            probe, place = probe_of(stream.event, stream.function, stream.place, events)
            if probe is not None:
                matched.append(Matched(at, stream, probe, place, events))
        elif "text" not in stream.texts:
            skipped[f"event {stream.event}"] += events
    for event, function, is_probe, count in decoded.passed:
        if not is_probe:
            skipped[f"event {event}"] += count
        elif (probe := probe_of(event, function, "", count)[0]) is not None:
            skipped[probe.function] += count
    return matched


def wanted_by(table: ProbeTable) -> Wanted:
    """Whether a probe's events can make or change a row, or tell where struct pages lie.

    Where the function is unknown the event's name stands for it.
    """
    def wanted(function: str, event: str, fields: Collection[str]) -> bool:
        if not function:
            function = table.hints.get(event, ("", ""))[0]
        probe = table.find(function) if function else None
        return probe is not None and (probe.role in ROLES or VMEMMAP in fields
                                      or MEMSTART in fields)
    return wanted


def _base(decoded: Decoded, matched: list[Matched], given: int | None, machine: Machine | None,
          kernel: str) -> Chosen:
    """The address of frame 0's struct page; an error when it is needed and cannot be known."""
    if given is not None:
        return Chosen(given, {})
    if (told := _told(decoded, matched, VMEMMAP)) is not None:
        return Chosen(told % (1 << 64), {})
    return choose(decoded, matched, machine, kernel or decoded.kernel,
                  _told(decoded, matched, MEMSTART))


def _told(decoded: Decoded, matched: list[Matched], variable: str) -> int | None:
    """What the first event of the first stream that fetches a variable says of it."""
    for one in matched:
        if variable not in one.outline.numbers:
            continue
        for streams in decoded.parts():
            if len(streams[one.at]):
                found = int(streams[one.at].numbers[variable][0])
                if found != MISSING:
                    return found
                break
    return None

