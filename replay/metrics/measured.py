"""One replay, as metrics are computed from it: what several of them share is computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from replay.costs.primitives import WORK
from replay.engine.drive import Ended, Outcome
from replay.engine.start import Start
from replay.metrics.folded import Folded
from replay.metrics.fragmentation import fragmentation, singles
from replay.metrics.hazards import Case, examine, ranges
from replay.metrics.latency import latency
from replay.metrics.part import whole
from replay.metrics.tally import Tally
from replay.physmap.model import Physmap
from replay.trace.store import Trace


@dataclass(frozen=True)
class Measured:
    """A replay that has ended, and the groups of figures that metrics take theirs from.

    outcome, trace: all of its requests, and the trace that was replayed; None where they are not at
    hand, as of a replay batch by batch.
    """

    ended: Ended
    folded: Folded
    outcome: Outcome | None = None
    trace: Trace | None = None

    @property
    def tally(self) -> Tally:
        """The requests, counted."""
        return self.folded.tally

    @cached_property
    def latency(self) -> dict[str, dict[str, Any]]:
        """Distributions, see latency.latency()."""
        return latency(self.ended, self.tally)

    @cached_property
    def gauges(self) -> dict[str, dict[str, float | None]]:
        """{end, peak, mean} by gauge, see fragmentation.fragmentation()."""
        return fragmentation(self.ended, self.tally)

    @cached_property
    def singles(self) -> dict[str, float | None]:
        """Numbers of the whole replay, see fragmentation.singles()."""
        return singles(self.ended)

    @cached_property
    def work(self) -> dict[str, int]:
        """Primitives of the whole replay, see work()."""
        return work(self.ended, self.tally)

    @cached_property
    def hazards(self) -> tuple[dict[str, int], dict[str, list[dict[str, Any]]]]:
        """Counts and rows, see hazards.examine()."""
        return examine(Case(self.ended, self.folded, self.outcome, self.trace))


def to_fold(machine: Physmap, options: Mapping[str, Any], start: Start | None, real: bool
            ) -> Folded:
    """A replay of which no request has gone by. real: whether its frames are of this machine."""
    return Folded(machine, options, start.live_pages if start else 0,
                  ranges(machine) if real else {})


def measured(o: Outcome, trace: Trace | None = None) -> Measured:
    """A replay whose requests are all at hand. trace: names their callers, and holds the grants."""
    folded = to_fold(o.machine, o.options, o.start, bool(o.page_work[0]))
    folded.fold(whole(o, trace))
    folded.digest.add(o.frames, {})
    return Measured(o, folded, o, trace)


def work(o: Ended, tally: Tally) -> dict[str, int]:
    """Primitives of the whole replay: requests, background passes, and the per-page list work."""
    totals = {name: o.of_calls[name] + o.background[name] for name in WORK}
    got = int(tally.groups["served_pages"].sum())
    freed = int(tally.totals.freed_pages) - o.tallies["frees_skipped"]
    for names, pages in zip(o.page_work, (got, freed), strict=True):
        for name in names:
            totals[name] += pages
    return totals
