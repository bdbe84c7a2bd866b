"""Recordings with holes: what can be missing of one, and that every verb takes what import makes.

Events are removed from a decoded recording, so that the same ways apply to a trace.dat, a text and
a made one, and the rest of the import is the real one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from replay import api
from replay.base.anomalies import KNOWN, Anomalies
from replay.base.errors import ReplayError
from replay.importers import session
from replay.importers.dat import format as dat
from replay.importers.source.probes import Coded, Decoded, Elements, Loss, ProbeStream
from replay.importers.text import format as text
from replay.physmap import presets
from replay.report.trace_facts import facts_of
from replay.report.trace_info import trace_info
from replay.trace.events import events_of
from replay.trace.columns import is_kind
from replay.trace.store import Trace, load, save

Keep = Callable[[ProbeStream], np.ndarray | bool]
POOL = ("xen_alloc_unpopulated_pages", "xen_free_unpopulated_pages")
BALLOON = ("xen_alloc_ballooned_pages", "xen_free_ballooned_pages")
ALLOCATORS = (*POOL, *BALLOON)
HYPERCALLS = ("xenmem_reservation_increase", "xenmem_reservation_decrease")


def thinned(stream: ProbeStream, keep: np.ndarray) -> ProbeStream:
    """The stream with some of its events."""
    def texts(values: object) -> object:
        if isinstance(values, Coded):
            return Coded(values.codes[keep], values.names)
        return [one for one, kept in zip(values, keep, strict=True) if kept]  # type: ignore[call-overload]

    columns = {name: getattr(stream, name)[keep]
               for name in ("time", "cpu", "pid", "order", "source_offset")}
    return replace(
        stream, **columns, task=texts(stream.task),
        numbers={name: values[keep] for name, values in stream.numbers.items()},
        arrays={name: Elements(one.values[keep], one.whole[keep])
                for name, one in stream.arrays.items()},
        texts={name: texts(values) for name, values in stream.texts.items()})


def without(decoded: Decoded, keep: Keep) -> Decoded:
    """A recording of the events that are kept, with an account of its own."""
    streams = []
    for stream in decoded.streams:
        kept = np.broadcast_to(np.asarray(keep(stream), bool), len(stream))
        if kept.any():
            streams.append(thinned(stream, kept))
    return replace(decoded, streams=streams, losses=list(decoded.losses),
                   undecoded=Counter(decoded.undecoded),
                   anomalies=Anomalies(Counter(decoded.anomalies.counts)))


# -- ways in which events are missing
def _span(decoded: Decoded, low: float, high: float) -> tuple[int, int]:
    """Times of an event so far into the recording, by number of events."""
    times = np.sort(np.concatenate([s.time for s in decoded.streams]))
    last = len(times) - 1
    return int(times[int(low * last)]), int(times[int(high * last)])


def first_part(decoded: Decoded, share: float) -> Decoded:
    """The recording up to so much of its events."""
    _, end = _span(decoded, 0, share)
    return without(decoded, lambda s: s.time < end)


def begins_late(rng: random.Random, decoded: Decoded) -> Decoded:
    start, _ = _span(decoded, rng.random() * 0.8, 1)
    return without(decoded, lambda s: s.time > start)


def ends_early(rng: random.Random, decoded: Decoded) -> Decoded:
    _, end = _span(decoded, 0, 0.2 + rng.random() * 0.8)
    return without(decoded, lambda s: s.time < end)


def a_middle_piece(rng: random.Random, decoded: Decoded) -> Decoded:
    return ends_early(rng, begins_late(rng, decoded))


def _cpu(rng: random.Random, decoded: Decoded) -> int:
    return int(rng.choice(sorted({int(c) for s in decoded.streams for c in np.unique(s.cpu)})))


def a_cpu_begins_later(rng: random.Random, decoded: Decoded) -> Decoded:
    """As a ring buffer smaller than the others', whose oldest events were overwritten."""
    cpu, (start, _) = _cpu(rng, decoded), _span(decoded, rng.random() * 0.9, 1)
    return without(decoded, lambda s: (s.cpu != cpu) | (s.time > start))


def a_cpu_ends_earlier(rng: random.Random, decoded: Decoded) -> Decoded:
    cpu, (start, _) = _cpu(rng, decoded), _span(decoded, rng.random() * 0.9, 1)
    return without(decoded, lambda s: (s.cpu != cpu) | (s.time < start))


def a_silent_gap_on_a_cpu(rng: random.Random, decoded: Decoded) -> Decoded:
    cpu, low = _cpu(rng, decoded), rng.random() * 0.9
    start, end = _span(decoded, low, low + rng.random() * 0.1)
    return without(decoded, lambda s: (s.cpu != cpu) | (s.time < start) | (s.time > end))


def a_told_gap_on_a_cpu(rng: random.Random, decoded: Decoded) -> Decoded:
    """The tracer's own notice of records that it lost."""
    cpu = _cpu(rng, decoded)
    for _ in range(rng.randint(1, 4)):
        low = rng.random() * 0.9
        start, end = _span(decoded, low, low + rng.random() * 0.05)
        before = decoded.events().total()
        decoded = without(decoded, lambda s, a=start, b=end:  # type: ignore[misc]
                          (s.cpu != cpu) | (s.time < a) | (s.time > b))
        lost = before - decoded.events().total()
        decoded.losses.append(Loss(end, cpu, lost, 0))
        decoded = replace(decoded, records_lost=decoded.records_lost + lost)
        decoded.anomalies.count("records_lost", lost)
    return decoded


def some_events_anywhere(rng: random.Random, decoded: Decoded) -> Decoded:
    share, draw = rng.choice([0.01, 0.1, 0.5, 0.9]), np.random.default_rng(rng.getrandbits(32))
    return without(decoded, lambda s: draw.random(len(s)) >= share)


def some_frees(rng: random.Random, decoded: Decoded) -> Decoded:
    draw = np.random.default_rng(rng.getrandbits(32))
    return without(decoded, lambda s: draw.random(len(s)) >= 0.3 * ("_free_" in s.function))


def some_allocations(rng: random.Random, decoded: Decoded) -> Decoded:
    draw = np.random.default_rng(rng.getrandbits(32))
    return without(decoded, lambda s: draw.random(len(s)) >= 0.3 * (
        "_alloc_" in s.function and s.place == "entry" and s.function in ALLOCATORS))


def _no(missing: Callable[[ProbeStream], bool]) -> Callable[[random.Random, Decoded], Decoded]:
    return lambda rng, decoded: without(decoded, lambda s: not missing(s))


HOLES: dict[str, Callable[[random.Random, Decoded], Decoded]] = {
    "nothing": lambda rng, decoded: without(decoded, lambda s: True),
    "begins late": begins_late, "ends early": ends_early, "a middle piece": a_middle_piece,
    "a cpu begins later": a_cpu_begins_later, "a cpu ends earlier": a_cpu_ends_earlier,
    "a silent gap on a cpu": a_silent_gap_on_a_cpu, "a told gap on a cpu": a_told_gap_on_a_cpu,
    "some events anywhere": some_events_anywhere, "some frees": some_frees,
    "some allocations": some_allocations,
    "no returns": _no(lambda s: s.is_return),
    "no returns of allocations": _no(lambda s: s.is_return and "_alloc_" in s.function),
    "no returns of frees": _no(lambda s: s.is_return and "_free_" in s.function),
    "no entries": _no(lambda s: s.place == "entry" and s.function in ALLOCATORS),
    "no entries of frees": _no(lambda s: s.place == "entry" and "_free_" in s.function),
    "no p2m entries": _no(lambda s: s.function == "xen_alloc_p2m_entry"),
    "no probes of frees": _no(lambda s: "_free_" in s.function),
    "no probes of allocations": _no(lambda s: s.function in (POOL[0], BALLOON[0])),
    "no probes in the locks": _no(lambda s: s.place == "inside"),
    "no probes in the locks of frees": _no(lambda s: s.place == "inside"
                                           and "_free_" in s.function),
    "no probes in the locks of allocations": _no(lambda s: s.place == "inside"
                                                 and "_alloc_" in s.function),
    "no probes where locks are taken": _no(lambda s: s.event.endswith("_locked")),
    "no probes where locks are let go": _no(lambda s: s.event.endswith("_unlock")),
    "no hypercalls": _no(lambda s: s.function in HYPERCALLS),
    "no sections": _no(lambda s: s.function in (
        "add_pages", "add_memory_resource", "request_resource", "allocate_resource")),
}


# -- and what is expected of each
@contextmanager
def recording_is(decoded: Decoded) -> Iterator[None]:
    """Within it every ftrace recording that is imported is this one."""
    def read(path: Path, wanted: object = None, scratch: object = None) -> Decoded:
        return without(decoded, lambda s: True)

    with patch.object(text, "read_ftrace_text", read), \
            patch.object(dat, "read_trace_dat", read):
        yield


def imported(decoded: Decoded, path: Path, machine: Path | None,
             settings: dict[str, str]) -> Trace:
    """The trace of a recording with holes."""
    with recording_is(decoded):
        return session.import_recording([path], "holes", machine_dir=machine, settings=settings,
                                        probes=None)


def check_holes(decoded: Decoded, path: Path, machine: Path | None, settings: dict[str, str],
                folder: Path) -> Trace:
    """Import twice, alike to the byte; then every verb takes the trace, and says what it is."""
    files = [folder / "a.arrow", folder / "b.arrow"]
    for file in files:
        save(imported(decoded, path, machine, settings), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    trace = load(files[0])
    account = trace.meta.accounting
    assert account["records"] == account["imported"] + sum(account["skipped"].values())
    assert account["lost"] == decoded.records_lost
    assert set(trace.meta.anomalies) <= set(KNOWN)
    said = trace_info(facts_of(events_of(trace)))
    assert api.describe_trace(trace)["anomalies"] == trace.meta.anomalies
    for name in trace.meta.anomalies:
        assert name.replace("_", " ") in said, name
    if machine is None:
        physmap = presets.load("qemu-q35-pv")
        trace = replace(trace, meta=replace(trace.meta, physmap=physmap))
    if not is_kind(trace.table, "alloc", "free").any():
        with pytest.raises(ReplayError, match="holds no allocator calls to replay"):
            api.run_trace(trace, ["pool"])
        return trace
    strategy = trace.meta.recorded_strategy or "pool"
    assert not api.run_trace(trace, [strategy]).failed
    if trace.meta.recorded_strategy:
        assert api.verify_trace(trace)
    return trace
