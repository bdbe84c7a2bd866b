"""Modelled latencies of a recording's own calls, held against the recorded ones.

Two models are compared. Costs alone: each call takes work x costs, so calls of equal work take
equally long. Costs and spread: that time multiplied by a factor drawn from what the calibration saw
of calls of the same kind, path and size; a profile that was not fitted has none. The waiting is
that of one lock, first come first served, in the recorded order of its holders, each call arriving
when it was recorded to.

Distances between distributions: Wasserstein-1, the mean distance between equal quantiles, as a
share of the recorded mean; Kolmogorov-Smirnov, the largest difference of the distribution functions
(scipy.stats.wasserstein_distance, ks_2samp).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from replay.calibration.calls import Calls, recorded_calls
from replay.costs.fitted import SHARES
from replay.costs.profile import Profile
from replay.errors import ReplayError
from replay.trace.store import Trace

DRAWS = 50
"""Replays with drawn factors, pooled."""

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Prediction:
    """Rows as of `_compare`, for service time and for latency with waiting."""

    trace: str
    profile: Profile
    used: dict[str, int]
    rows: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"trace": self.trace, "profile": self.profile.name,
                "profile_summary": self.profile.summary, "calls": self.used, "rows": self.rows,
                "models": {"costs": "work x costs", "spread": "work x costs x a drawn factor"}}


def _factors(calls: Calls, profile: Profile) -> np.ndarray:
    """(DRAWS, calls): how much longer than modelled each call takes, drawn from the spread."""
    n = calls.frame.height
    if profile.fitted is None:
        return np.ones((1, n))
    drawn = np.random.default_rng(0).random((DRAWS, n))
    keys = calls.frame.select("kind", "path", "size")
    found = np.empty((DRAWS, n))
    for key, group in keys.with_row_index().group_by("kind", "path", "size", maintain_order=True):
        at = group["index"].to_numpy()
        logs = np.log(profile.fitted.spread_of(*map(str, key)))
        found[:, at] = np.exp(np.interp(drawn[:, at], SHARES, logs))
    return found


def queued(arrival: np.ndarray, service: np.ndarray) -> np.ndarray:
    """Latency at one lock, first come first served; the last axis is the order of its holders.

    The k-th holder is done at S(k) + max over j <= k of (arrival(j) - S(j - 1)), where S sums up
    service times.
    """
    total = np.cumsum(service, axis=-1)
    return total + np.maximum.accumulate(arrival - (total - service), axis=-1) - arrival


def _nearest(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf"))


def _compare(recorded: np.ndarray, models: dict[str, np.ndarray]) -> dict[str, Any]:
    """Percentiles, their relative errors, and distances, of each model."""
    from scipy.stats import ks_2samp, wasserstein_distance

    row: dict[str, Any] = {"calls": len(recorded), "recorded": {
        name: _nearest(recorded, share) for name, share in PERCENTILES.items()}}
    for model, modelled in models.items():
        values = {name: _nearest(modelled, share) for name, share in PERCENTILES.items()}
        row[model] = {
            **values,
            **{f"{name}_error": values[name] / row["recorded"][name] - 1 for name in PERCENTILES},
            "wasserstein_1": float(wasserstein_distance(recorded, modelled) / recorded.mean()),
            "kolmogorov_smirnov": float(ks_2samp(recorded, modelled, method="asymp").statistic),
        }
    return row


def _groups(frame: pl.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """All calls, those of a kind, and those of a kind and path, by row number; each set once."""
    yield "all", np.arange(frame.height)
    seen = {frame.height}
    indexed = frame.select("kind", "path").with_row_index()
    for keys in (["kind"], ["kind", "path"]):
        for group in indexed.sort(*keys, "index").partition_by(keys, maintain_order=True):
            # A group as large as one before it on its way down is the same calls again.
            if group.height not in seen:
                yield ", ".join(group.select(keys).row(0)), group["index"].to_numpy()
        seen |= set(indexed.group_by(keys).len()["len"].to_list())


def _rows(time: str, frame: pl.DataFrame, models: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    recorded = frame["latency_ns"].to_numpy().astype(np.float64)
    return [{"time": time, "group": name, **_compare(
        recorded[at], {model: values[:, at].ravel() for model, values in models.items()})}
        for name, at in _groups(frame)]


def predict(trace: Trace, profile: Profile) -> Prediction:
    """Compare a profile's times with those of a recording; refuses a profile of another machine."""
    machine, fitted = trace.meta.physmap, profile.fitted
    if machine and fitted and (fitted.arch, fitted.mode) != (machine.arch, machine.mode):
        raise ReplayError(
            f"profile {profile.name!r} was fitted on {fitted.arch} {fitted.mode}, trace "
            f"{trace.meta.name!r} was recorded on {machine.arch} {machine.mode}")
    calls = recorded_calls(trace)
    known = (calls.frame["latency_ns"].is_not_null() & ~calls.frame["failed"]).to_numpy()
    if not known.any():
        raise ReplayError(f"trace {trace.meta.name!r} has no recorded latencies of calls that "
                          "succeeded")
    service = {"costs": (calls.work @ profile.ns())[None]}
    if fitted:
        service["spread"] = service["costs"] * _factors(calls, profile)
    arrival = calls.frame["time_ns"].to_numpy().astype(np.float64)
    waiting = {model: queued(arrival, values) for model, values in service.items()}
    rows = []
    for time, models, mask in (("service", service, known & calls.frame["alone"].to_numpy()),
                               ("latency", waiting, known)):
        if mask.any():
            rows += _rows(time, calls.frame.filter(mask),
                          {model: values[:, mask] for model, values in models.items()})
    return Prediction(trace.meta.name, profile, calls.used(), rows)
