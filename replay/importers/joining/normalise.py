"""Probe streams to the one table of a trace: rows with exactly the columns of schema.SCHEMA.

`slots`, `lock_rank` and the recovered lock order are left to the trace folder. The label of an
alloc or free is the function that served it: the fallback, where the outer one fell back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final

from replay.base.anomalies import Anomalies
from replay.base.errors import ReplayError
from replay.base.units import NS_PER_S
from replay.importers.joining.parts import ROLES
from replay.importers.joining.table import gather, to_table
from replay.importers.joining.tape import Matched, join_events
from replay.importers.joining.times import Clock
from replay.importers.joining.views import View
from replay.importers.source.imported import Imported
from replay.importers.source.probes import MISSING, Decoded, Probe, ProbeTable, Wanted

X86_VMEMMAP_BASE: Final = 0xFFFFEA0000000000
"""arch/x86/include/asm/pgtable_64_types.h, __VMEMMAP_BASE_L4; moves with KASLR."""
_X86_VMEMMAP_TOP: Final = (X86_VMEMMAP_BASE >> 40) - (1 << 24)
VMEMMAP: Final = "vmemmap_base"
"""Name under which a probe may fetch the kernel's variable of that name."""
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
    clock = _clock(decoded, hz)
    anomalies = Anomalies(Counter(decoded.anomalies.counts))
    skipped: Counter[str] = Counter(decoded.undecoded)
    matched = _match(decoded, table, anomalies, skipped)
    base = _base(decoded, matched, vmemmap_base)
    functions = {stream.function for stream in decoded.streams}
    joined = join_events(matched, base, pv=any(name in functions for name in _PV_ONLY))
    for name, count in joined.anomalies.items():
        anomalies.count(name, count)
    columns = gather(joined, decoded)
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
    return Normalised(to_table(columns, joined, t0_raw, clock, source), anomalies, accounting,
                      t0_raw, clock.hz or NS_PER_S, decoded.clock, columns["time"],
                      scale=clock.scale, offset_ns=decoded.offset_ns)


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
    for stream in decoded.streams:
        if stream.is_probe:
            probe, place = probe_of(stream.event, stream.function, stream.place, len(stream))
            if probe is not None:
                matched.append((stream, probe, place))
        elif "text" not in stream.texts:
            skipped[f"event {stream.event}"] += len(stream)
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
        return probe is not None and (probe.role in ROLES or VMEMMAP in fields)
    return wanted


def _base(decoded: Decoded, matched: list[Matched], given: int | None) -> int:
    """The address of frame 0's struct page; an error when it is needed and unknown."""
    if given is not None:
        return given
    for stream, _, _ in matched:
        known = stream.numbers.get(VMEMMAP)
        if known is not None and len(known) and known[0] != MISSING:
            return int(known[0]) % (1 << 64)
    if decoded.arch == "x86_64":
        return X86_VMEMMAP_BASE
    seen = False
    for stream, probe, _ in matched:
        view = View(stream, probe, X86_VMEMMAP_BASE)
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
