"""Pairs of recordings of one load list under two strategies: what the balloon moved in the one, and
in replays of both loads.

`python tests/support/counterfactual.py pairs > pairs.json`, for `docs/results.py counterfactual
pairs.json`; with `phases` the arm64 pair, phase by phase.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

import replay
from replay.trace.columns import ints, is_kind, strings
from replay.trace.store import Trace, load

TRACES = Path(__file__).parents[2] / "traces"
LOADS = ("paced", "dense", "paced-built", "dense-built")
"""Of traces/pairs: a load list, and where it says so, by kernels that were built for the pair."""


@dataclass(frozen=True)
class Moved:
    """Pages and hypercalls by which the balloon gave RAM up and took it back; sections added."""

    pages_out: int
    pages_back: int
    hypercalls_out: int
    hypercalls_back: int
    sections: int


def traces(name: str) -> dict[str, Trace]:
    """The recordings of a load list, by the strategy that was recorded; the balloon's once or
    twice."""
    paths = {of: TRACES / "pairs" / f"{name}-{of}.arrow"
             for of in ("pool", "balloon", "balloon-again")}
    return {of: load(path) for of, path in paths.items() if path.exists()}


def asked(trace: Trace) -> list[tuple[int, int]]:
    """(1 for an allocation or -1 for a free, pages) of each request, in order."""
    table = trace.table
    rows = np.flatnonzero(is_kind(table, "alloc", "free"))
    sign = np.where(is_kind(table, "alloc"), 1, -1)
    return list(zip(sign[rows].tolist(), ints(table, "nr_pages", 0)[rows].tolist(), strict=True))


def recorded(trace: Trace) -> Moved:
    """Up to the last request, with which a replay ends, too."""
    table = trace.table
    times = ints(table, "time_ns")
    seen = times <= times[is_kind(table, "alloc", "free", "target")].max()
    out, back = (seen & is_kind(table, kind) for kind in ("decrease", "increase"))
    moved = np.maximum(ints(table, "errno", 0), 0)
    return Moved(int(moved[out].sum()), int(moved[back].sum()), int(out.sum()), int(back.sum()),
                 int((seen & is_kind(table, "section")).sum()))


def replayed(trace: Trace, strategy: str) -> Moved:
    """A replay at recorded times with default costs; each decrease_reservation() flushes once."""
    figures = replay.run_trace(trace, [strategy], no_outcome=True).allocators[strategy]
    work = figures["work"]
    calls_out = work.get("tlb_flush", 0)
    return Moved(work.get("extent_decrease", 0), work.get("extent_populate", 0), calls_out,
                 work.get("hypercall", 0) - calls_out, figures["nr_sections"])


def beside(number: int, real: int) -> str:
    """A figure of a replay, and by how much it is another than the recorded one."""
    change = f" ({(number - real) / real:+.1%})".replace("%", " %") if number != real and real else ""
    return f"{number:,}{change}"


def pair_rows(name: str) -> list[list[str]]:
    """A row per figure of a load list: recorded, once more, own and the other's load replayed."""
    found, rows = traces(name), []
    for strategy, other in (("balloon", "pool"), ("pool", "balloon")):
        again = found.get(f"{strategy}-again")
        real, *others = (asdict(one) if one else {} for one in (
            recorded(found[strategy]), again and recorded(again),
            replayed(found[strategy], strategy), replayed(found[other], strategy)))
        rows += [[name, strategy, figure.replace("_", " "), f"{was:,}",
                  *(beside(one[figure], was) if one else "" for one in others)]
                 for figure, was in real.items() if strategy == "balloon" or figure == "sections"]
    return rows


def _phases(trace: Trace) -> list[tuple[str, int, int]]:
    """(name, start, end in ns) of the marked parts of a load."""
    marks = np.flatnonzero(is_kind(trace.table, "phase"))
    starts, labels = ints(trace.table, "time_ns")[marks], strings(trace.table, "label")[marks]
    return list(zip(labels.tolist(), starts.tolist(), [*starts[1:].tolist(), 1 << 62],
                    strict=True))


def _by_phase(trace: Trace, time: np.ndarray, *counts: np.ndarray) -> list[list[int]]:
    """Per phase of a load, the sums of counts that belong to these times."""
    parts = [(time >= start) & (time < end) for _, start, end in _phases(trace)]
    return [[int(one[part].sum()) for one in counts] for part in parts]


def _asked(trace: Trace) -> list[list[int]]:
    """Per phase, allocations and the pages that they asked for."""
    calls = is_kind(trace.table, "alloc")
    return _by_phase(trace, ints(trace.table, "time_ns"), calls,
                     np.where(calls, ints(trace.table, "nr_pages", 0), 0))


def _given(trace: Trace) -> list[list[int]]:
    """Per phase, pages and hypercalls by which allocations of a replay gave RAM up."""
    run = replay.run_trace(trace, ["balloon"], physmap="qemu-virt-arm64-no-regions")
    rows = run.outcome("balloon").filter(pl.col("kind").cast(pl.String) == "alloc")
    return _by_phase(trace, rows["time_ns"].to_numpy(), *(
        rows[name].fill_null(0).to_numpy() for name in ("work_extent_decrease", "work_tlb_flush")))


def phase_rows() -> list[list[str]]:
    """A row per phase of the arm64 pair in which the balloon served anything."""
    whole, own = (load(TRACES / f"{name}.arrow") for name in (
        "arm64-dom0", "arm64-dom0-no-regions"))
    out = is_kind(own.table, "decrease")
    real = _by_phase(own, ints(own.table, "time_ns"),
                     np.where(out, np.maximum(ints(own.table, "errno", 0), 0), 0), out)
    names = [name.split(" ", 2)[2] for name, _, _ in _phases(own)]
    rows = zip(names, _asked(whole), _asked(own), real, _given(own), _given(whole), strict=True)
    return [[name, " / ".join(f"{one[0]:,}" for one in (theirs, ours)),
             " / ".join(f"{one[1]:,}" for one in (theirs, ours)),
             *(text for k in (0, 1) for text in (
                 f"{was[k]:,}", beside(now[k], was[k]), beside(swapped[k], was[k])))]
            for name, theirs, ours, was, now, swapped in rows if was[0]]


def main(what: str) -> None:
    print(json.dumps(phase_rows() if what == "phases" else [
        row for name in LOADS for row in pair_rows(name)], indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
