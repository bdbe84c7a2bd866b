"""One replay, as metrics are computed from it: what several of them share is computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from replay.costs.primitives import WORK
from replay.engine.drive import Outcome
from replay.engine.requests import FREE
from replay.metrics.calls import is_served
from replay.metrics.fragmentation import fragmentation, singles
from replay.metrics.hazards import examine
from replay.metrics.latency import latency
from replay.trace.store import Trace


@dataclass(frozen=True)
class Measured:
    """An outcome, and the groups of figures that metrics take theirs from.

    trace: the one that was replayed, None where it is not at hand (then nothing is known of
    callers and grants).
    """

    outcome: Outcome
    trace: Trace | None = None

    def requests(self, kind: int) -> int:
        """Requests of a kind of engine.requests."""
        return int(np.count_nonzero(self.outcome.workload.requests.kind == kind))

    @cached_property
    def latency(self) -> dict[str, dict[str, Any]]:
        """Distributions, see latency.latency()."""
        return latency(self.outcome)

    @cached_property
    def gauges(self) -> dict[str, dict[str, float | None]]:
        """{end, peak, mean} by gauge, see fragmentation.fragmentation()."""
        return fragmentation(self.outcome)

    @cached_property
    def singles(self) -> dict[str, float | None]:
        """Numbers of the whole replay, see fragmentation.singles()."""
        return singles(self.outcome)

    @cached_property
    def work(self) -> dict[str, int]:
        """Primitives of the whole replay, see work()."""
        return work(self.outcome)

    @cached_property
    def hazards(self) -> tuple[dict[str, int], pl.DataFrame]:
        """Counts and rows, see hazards.examine()."""
        return examine(self.outcome, self.trace)


def work(o: Outcome) -> dict[str, int]:
    """Primitives of the whole replay: requests, background passes, and the per-page list work."""
    q = o.workload.requests
    sums = o.work.sum(axis=0).tolist() if len(o.work) else [0] * len(WORK)
    totals = {name: int(count) for name, count in zip(WORK, sums, strict=True)}
    for name, count in o.background.items():
        totals[name] += count
    got = int(q.pages[is_served(o)].sum())
    freed = int(q.pages[q.kind == FREE].sum()) - o.tallies["frees_skipped"]
    for names, pages in zip(o.page_work, (got, freed), strict=True):
        for name in names:
            totals[name] += pages
    return totals
