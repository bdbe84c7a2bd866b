"""Modelled latencies of a recording's own calls, held against the recorded ones.

Two models are compared. Costs alone: each call takes work x costs, and steps more after a pause
of its CPU. Costs and spread: that time multiplied by a factor drawn from what the calibration saw
of calls of the same kind, path, size and pause. A profile that was not fitted has no steps and no
spread. The waiting is
that of one lock, first come first served, in a closed loop: a task asks again when its call has
returned and as much time has passed as in the recording.

Distances between distributions: Wasserstein-1, the mean distance between equal quantiles, as a
share of the recorded mean; Kolmogorov-Smirnov, the largest difference of the distribution functions
(scipy.stats.wasserstein_distance, ks_2samp).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from replay.base.errors import ReplayError
from replay.base.progress import each
from replay.calibration.calls import Calls, recorded_calls
from replay.costs.fitted import FITTED, SHARES, STEPS, Fitted
from replay.costs.primitives import PRIMITIVES
from replay.costs.profile import Profile
from replay.trace.store import Trace

DRAWS = 20
"""Replays with drawn factors, pooled."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Prediction:
    """Rows as of `compare`, for service time and for latency with waiting.

    guessed: primitives of these calls whose costs no recording determined, with the calls' number.
    warnings: what to mind of the trace and the costs, as dictionaries.
    """

    trace: str
    profile: Profile
    used: dict[str, int]
    guessed: dict[str, int]
    rows: list[dict[str, Any]]
    warnings: list[dict[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"trace": self.trace, "profile": self.profile.name,
                "profile_summary": self.profile.summary, "calls": self.used,
                "guessed": self.guessed, "rows": self.rows, "warnings": self.warnings,
                "models": {"costs": "work x costs", "spread": "work x costs x a drawn factor"}}


def _factors(calls: Calls, fitted: Fitted) -> np.ndarray:
    """(DRAWS, calls): how much longer than modelled each call takes, drawn from the spread."""
    drawn = np.random.default_rng(0).random((DRAWS, calls.frame.height))
    keys = ("kind", "path", "pages", "cold")
    for key, group in calls.frame.select(keys).with_row_index().group_by(keys, maintain_order=True):
        at = group["index"].to_numpy()
        logs = np.log(fitted.spread_of(*key))
        drawn[:, at] = np.exp(np.interp(drawn[:, at], SHARES, logs))
    return drawn


def service_models(calls: Calls, ns: np.ndarray, fitted: Fitted | None) -> dict[str, np.ndarray]:
    """(draws, calls) modelled service times in ns, by model; ns: costs by primitive."""
    steps = fitted.steps if fitted else np.zeros(len(STEPS))
    costs = (calls.counts() @ np.concatenate((ns, steps)))[None]
    return {"costs": costs, **({"spread": costs * _factors(calls, fitted)} if fitted else {})}


def thinking(pid: np.ndarray, arrival: np.ndarray, took: np.ndarray
             ) -> tuple[np.ndarray, np.ndarray]:
    """(previous, think): each call's predecessor in its task, -1 without one, and the ns between
    the end of that one and this call's arrival; without one the arrival itself."""
    order = np.lexsort((arrival, pid))
    follows = np.flatnonzero(pid[order][1:] == pid[order][:-1]) + 1
    previous = np.full(len(pid), -1)
    previous[order[follows]] = order[follows - 1]
    since = np.where(previous >= 0, arrival[previous] + took[previous], 0)
    return previous, np.maximum(arrival - since, 0)


def queued(previous: np.ndarray, think: np.ndarray, service: np.ndarray) -> np.ndarray:
    """Latency of each call at one lock, first come first served; see `thinking`."""
    after = dict(zip(previous.tolist(), range(len(previous)), strict=True))
    coming = [(float(think[k]), k) for k in np.flatnonzero(previous < 0).tolist()]
    heapq.heapify(coming)
    latency, times, pauses = np.zeros(len(service)), service.tolist(), think.tolist()
    free = 0.0
    while coming:
        at, k = coming[0]
        free = max(free, at) + times[k]
        latency[k] = free - at
        if k in after:
            heapq.heapreplace(coming, (free + pauses[after[k]], after[k]))
        else:
            heapq.heappop(coming)
    return latency


def _waiting(calls: Calls, models: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(draws, calls) modelled latencies, by model."""
    frame = calls.frame
    arrival = frame["time_ns"].to_numpy().astype(np.float64)
    # A call whose return is not recorded is taken to have lasted as modelled.
    took = frame["latency_ns"].fill_null(pl.Series(models["costs"][0])).to_numpy()
    previous, think = thinking(frame["pid"].to_numpy(), arrival, took)
    return {model: np.stack([queued(previous, think, row)
                             for row in each(list(values), "queueing", "draws")])
            for model, values in models.items()}


def _nearest(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf"))


def compare(recorded: np.ndarray, models: dict[str, np.ndarray]) -> dict[str, Any]:
    """Percentiles of recorded and (draws, calls) modelled ns, their relative errors, distances."""
    from scipy.stats import ks_2samp, wasserstein_distance

    row: dict[str, Any] = {"calls": len(recorded), "recorded": {
        name: _nearest(recorded, share) for name, share in QUANTILES.items()}}
    for model, modelled in models.items():
        values = {name: _nearest(modelled, share) for name, share in QUANTILES.items()}
        row[model] = {
            **values,
            **{f"{name}_error": values[name] / row["recorded"][name] - 1 for name in QUANTILES},
            "wasserstein_1": float(wasserstein_distance(recorded, modelled.ravel())
                                   / recorded.mean()),
        }
        with np.errstate(divide="ignore"):  # its p-value, for a sample or two; not used
            row[model]["kolmogorov_smirnov"] = float(
                ks_2samp(recorded, modelled.ravel(), method="asymp").statistic)
    return row


def kinds(frame: pl.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Calls of each kind, by row number: of both together a median would say nothing."""
    for kind in ("alloc", "free"):
        if len(at := np.flatnonzero((frame["kind"] == kind).to_numpy())):
            yield kind, at


def _groups(frame: pl.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Calls of each kind and, where it has several, of each path, by row number."""
    for kind, at in kinds(frame):
        yield kind, at
        paths = frame["path"][at]
        for path in sorted(paths.unique()) if paths.n_unique() > 1 else []:
            yield f"{kind}, {path}", at[(paths == path).to_numpy()]


def _rows(time: str, calls: Calls, models: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """One comparison per group of the calls whose `time` was recorded."""
    known = (calls.frame[f"{time}_ns"].is_not_null() & ~calls.frame["failed"]).to_numpy()
    frame = calls.frame.filter(known)
    recorded = frame[f"{time}_ns"].to_numpy().astype(np.float64)
    shown = {model: values[:, known] for model, values in models.items()}
    return [{"time": time, "group": name, **compare(
        recorded[at], {model: values[:, at] for model, values in shown.items()})}
        for name, at in each(list(_groups(frame)), f"comparing {time} times", "groups")]


def predict(trace: Trace, profile: Profile) -> Prediction:
    """Compare a profile's times with those of a recording; refuses a profile of another machine."""
    machine, fitted = trace.meta.physmap, profile.fitted
    if machine and fitted and (fitted.arch, fitted.mode) != (machine.arch, machine.mode):
        raise ReplayError(
            f"profile {profile.name!r} was fitted on {fitted.arch} {fitted.mode}, trace "
            f"{trace.meta.name!r} was recorded on {machine.arch} {machine.mode}")
    profile = profile.for_pages(machine.page_bytes) if machine else profile
    calls = recorded_calls(trace)
    if not (calls.frame["latency_ns"].is_not_null() & ~calls.frame["failed"]).any():
        raise ReplayError(f"trace {trace.meta.name!r} has no recorded latencies of calls that "
                          "succeeded")
    service = service_models(calls, profile.ns(), fitted)
    rows = _rows("service", calls, service) + _rows("latency", calls, _waiting(calls, service))
    counts = (calls.service().work > 0).sum(axis=0).tolist()
    guessed = {name: n for name, n in zip(PRIMITIVES, counts, strict=True)
               if n and not profile.costs[name].source.startswith(FITTED)}
    return Prediction(trace.meta.name, profile, calls.used(), guessed, rows)
