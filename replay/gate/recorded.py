"""The latencies that a trace recorded, as rows of the history."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from replay.base.errors import InputError, ReplayError
from replay.base.ranks import rank
from replay.base.units import NS_PER_S, moment
from replay.gate.history import HISTORY_COLUMNS, RECORDED
from replay.trace.columns import NONE, ints, is_kind, strings
from replay.trace.store import Trace
from replay.trace.weight import load_whole

LEAST_CALLS = {50: 20, 90: 100, 99: 1000}
"""Those kept, and from how many calls on: ten must lie above each."""


def read_latencies(path: Path, *, load_name: str = "", machine: str = "", commit: str = "",
                   time: str = "", allow_loss: bool = False) -> pl.DataFrame:
    """A row per percentile of the recorded latency of allocations and frees, of all callers and by
    caller.

    load_name, machine, commit, time: instead of the trace's name, its machine, its kernel and its
    `recorded_at`. Calls that failed, and percentiles of 0 ns (a clock that ticks too slowly), are
    left out.
    """
    trace = load_whole(path, "add")
    meta = trace.meta
    if meta.synthetic:
        raise InputError(path, "SYNTHETIC, so that no latency was recorded",
                         hint="the history takes recordings")
    if (meta.lost or meta.cut) and not allow_loss:
        raise InputError(path, "the recording lost records, so that its percentiles are those of "
                         "what is left", hint="record again, or pass --allow-loss")
    kernel = meta.provenance.get("kernel", "")
    sources = ":".join(str(source.get("sha256", "")) for source in meta.sources)
    shared = {
        "kind": RECORDED, "time": _time(path, trace, time), "size": "", "profile": "",
        "trace": load_name or meta.name, "strategy": meta.recorded_strategy,
        "physmap": meta.physmap.name if meta.physmap else "",
        "machine": machine or (meta.physmap.name if meta.physmap else ""),
        "commit": commit or (f"Linux {kernel}" if kernel else ""),
        "emulated": meta.provenance.get("emulated", ""),
        "digest": hashlib.sha256(sources.encode()).hexdigest()[:16]}
    rows = [{**shared, "figure": name, "seconds": ns / NS_PER_S} for name, ns in _figures(trace)]
    if not rows:
        raise InputError(path, "holds too few calls with a recorded latency",
                         hint=f"expected {LEAST_CALLS[50]} or more")
    return pl.DataFrame(rows, schema=HISTORY_COLUMNS)


def _figures(trace: Trace) -> Iterator[tuple[str, int]]:
    """Name and latency in ns, as recorded."""
    t = trace.table
    ns, served = ints(t, "latency_ns"), ints(t, "errno", 0) >= 0
    callers = strings(t, "caller")
    for kind in ("alloc", "free"):
        rows = is_kind(t, kind) & served & (ns != NONE)
        yield from _percentiles(kind, "", ns[rows])
        names = sorted({str(name) for name in callers[rows]} - {""})
        for name in names if len(names) > 1 else []:
            yield from _percentiles(kind, f" by {name}", ns[rows & (callers == name)])


def _percentiles(kind: str, whose: str, ns: np.ndarray) -> Iterator[tuple[str, int]]:
    ordered = np.sort(ns)
    for percent, least in LEAST_CALLS.items():
        if len(ordered) >= least:
            value = int(ordered[rank(len(ordered), 100 * percent) - 1])
            if value > 0:
                yield f"{kind} p{percent}{whose}", value


def _time(path: Path, trace: Trace, given: str) -> datetime:
    text: Any = given or trace.meta.options.get("recorded_at", "")
    if not text:
        raise InputError(path, "does not say when it was recorded", hint="pass --time, or import "
                         "with --set recorded_at=TIME")
    try:
        return moment(text)
    except (ValueError, OverflowError):
        if given:
            raise ReplayError(f"--time {given}: expected a time such as 2026-11-27T02:17") from None
        raise InputError(path, f"recorded_at is {text[:40]!r}, expected a time such as "
                         "2026-11-27T02:17", hint="pass --time") from None
