"""A replay's latencies under other costs, without replaying where that gives the same.

Work does not depend on costs where nothing but requests takes the callers' lock and none of them
sleeps or lets go of it: then service = work x costs, and the times follow from Lindley's recursion
(D. V. Lindley, "The theory of queues with a single server", 1952), as in the loop: first come,
first served. Elsewhere (the balloon's thread, hot-added memory, sleepers) each set of costs is
replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from replay.base.compiled import compiled
from replay.base.errors import ReplayError
from replay.base.ranks import rank
from replay.costs.primitives import COSTED, PRIMITIVES, WAKE_LATENCY, WORK
from replay.costs.profile import Profile
from replay.engine.drive import Outcome, most_pages
from replay.engine.drive import replay as replay_once
from replay.engine.outcome import SLEPT
from replay.engine.requests import TARGET
from replay.engine.state import words
from replay.metrics.calls import is_served, latency_ns, work_of
from replay.metrics.latency import bucket_edges, bucket_index

MEASURES: Final = ("p50", "p99", "max", "ram_given_bytes", "unusable_free_index")
"""Latencies of successful allocations, ns, modelled; time-weighted means of the other two."""
RANKS: Final = (5000, 9900)
"""Of the first two, in ten-thousandths."""


@compiled
def lindley(arrival, kind, service, out):  # type: ignore[no-untyped-def]
    """Latency of each request: start = max(arrival, lock free); kind: index into service, ns."""
    free = 0
    for r in range(len(arrival)):
        free = max(free, arrival[r]) + service[kind[r]]
        out[r] = free - arrival[r]


@dataclass(frozen=True)
class Recost:
    """One strategy's replay, ready for other costs.

    counts: (kinds, PRIMITIVES) work of each kind of request. kind: (requests,) index into it.
    replayed: whether each set of costs takes a replay.
    """

    outcome: Outcome
    given: Mapping[str, str]
    counts: np.ndarray
    kind: np.ndarray
    served: np.ndarray
    replayed: bool

    def measures(self, ps: np.ndarray) -> tuple[float, ...]:
        """MEASURES at these picoseconds per constant."""
        return self._by_replay(ps) if self.replayed else self._by_work(ps)

    def _by_work(self, ps: np.ndarray) -> tuple[float, ...]:
        service = (self.counts @ ps[: len(PRIMITIVES)] + 500) // 1000
        took = np.empty(len(self.kind), np.int64)
        lindley(self.outcome.workload.requests.time, self.kind, service, took)
        return (*_latencies(took[self.served]), *_means(self.outcome))

    def _by_replay(self, ps: np.ndarray) -> tuple[float, ...]:
        o = self.outcome
        costs = {name: replace(o.profile.costs[name], ns=value / 1000)
                 for name, value in zip(COSTED, ps.tolist(), strict=True)}
        again = replay_once(o.strategy, self.given, o.machine, o.workload,
                            Profile(o.profile.name, o.profile.summary, costs))
        took = latency_ns(again)[is_served(again)]
        return (*_latencies(took), *_means(again))


def _latencies(took: np.ndarray) -> tuple[float, ...]:
    """Nearest rank, as `replay run` prints them; 0 where nothing was served."""
    if not len(took):
        return (0.0,) * (len(RANKS) + 1)
    top = int(took.max())
    at = [rank(len(took), share) - 1 for share in RANKS]
    sample = np.partition(took, at)[at]
    edges = bucket_edges()[1][bucket_index(sample)]
    return (*(float(min(edge, top)) for edge in edges.tolist()), float(top))


def _means(o: Outcome) -> tuple[float, float]:
    span = max(o.duration_ns, 1)
    return (o.areas["given_pages"] / span * o.machine.page_bytes,
            o.areas["unusable_free_index"] / span)


def _takes_replays(o: Outcome, given: Mapping[str, str]) -> bool:
    """Whether anything but requests in their order has the callers' lock."""
    made = o.strategy.init(o.machine, most_pages(o.workload, o.machine), o.strategy.values(given))
    own_lock = words(made.state).own_lock
    hot_added = o.work[:, WORK.index("hotplug_section")].any() or o.background["hotplug_section"]
    return bool(hot_added or (o.rows["path"] == SLEPT).any()
                or (o.tallies["thread_passes"] and not own_lock))


def recost(o: Outcome, given: Mapping[str, str]) -> Recost:
    """Sort a replay's requests by the work they did; given: the options it was made with.

    ReplayError where the recursion does not give the replay's own times: a defect.
    """
    work = np.column_stack((work_of(o), o.workload.requests.kind != TARGET)).astype(np.int64)
    counts, kind = np.unique(work, axis=0, return_inverse=True)
    made = Recost(o, given, np.ascontiguousarray(counts),
                  np.ascontiguousarray(kind.reshape(-1), np.int64), is_served(o),
                  _takes_replays(o, given))
    if not made.replayed:
        service = (made.counts @ picoseconds(o.profile)[: len(PRIMITIVES)] + 500) // 1000
        took = np.empty(len(made.kind), np.int64)
        lindley(o.workload.requests.time, made.kind, service, took)
        if not np.array_equal(took, latency_ns(o)):
            raise ReplayError(f"{o.strategy.name}: its times do not follow from its work")
    return made


def picoseconds(profile: Profile) -> np.ndarray:
    """Costs of COSTED, as the engine takes them."""
    return np.array([round(profile.costs[name].ns * 1000) for name in COSTED], np.int64)


def occurring(all_of: list[Recost]) -> list[str]:
    """Constants that had a part in any of the replays, its thread included."""
    def done(r: Recost, k: int, name: str) -> Any:
        if name == WAKE_LATENCY:
            return r.outcome.background.get("thread_wake", 0)
        return r.counts[:, k].any() or r.outcome.background.get(name, 0)
    return [name for k, name in enumerate(COSTED) if any(done(r, k, name) for r in all_of)]
