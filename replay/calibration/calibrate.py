"""From recordings to a cost profile, and what is to be said of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from replay.calibration.calls import Calls, joined, recorded_calls
from replay.calibration.solver import MIN_CALLS, Column, Solution, solve
from replay.costs.fitted import SHARES, Fitted, FittedTrace
from replay.costs.profile import PRIMITIVES, Cost, Profile
from replay.errors import ReplayError
from replay.trace.store import Trace, load

MIN_SPREAD = 50
"""Calls from which a group of them has a spread of its own."""


@dataclass(frozen=True)
class Constant:
    """One primitive after the fit.

    status: determined; sum (only that of `others` together is known); held (its counts are made up
    of those of `others`, so that it keeps the base cost); not seen. nr_calls: those that show it.
    """

    name: str
    cost: Cost
    status: str
    others: tuple[str, ...]
    nr_calls: int


@dataclass(frozen=True)
class Calibration:
    """A fitted profile and how well it fits. residuals: see `residuals`."""

    profile: Profile
    constants: tuple[Constant, ...]
    used: dict[str, dict[str, int]]
    residuals: pl.DataFrame

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        assert self.profile.fitted is not None
        return {
            "profile": self.profile.name, "fitted": self.profile.summary,
            "emulated": self.profile.fitted.emulated, "base": self.profile.fitted.base,
            "times": "recorded", "calls": self.used,
            "constants": [{"name": c.name, "ns": c.cost.ns, "low": c.cost.low,
                           "high": c.cost.high, "status": c.status, "others": list(c.others),
                           "calls": c.nr_calls} for c in self.constants],
            "residuals": self.residuals.to_dicts(),
        }


def _kind_of_machine(trace: Trace) -> tuple[str, str, str]:
    """Architecture, dom0 mode, and what emulated it."""
    machine = trace.meta.physmap
    if machine is None:
        raise ReplayError(f"trace {trace.meta.name!r} has no physmap: import it with --machine DIR")
    return machine.arch, machine.mode, str(trace.meta.provenance.get("emulated", ""))


def _one_kind(traces: Sequence[Trace]) -> tuple[str, str, str]:
    first = _kind_of_machine(traces[0])
    for trace in traces[1:]:
        for what, ours, theirs in zip(("architecture", "dom0 mode", "emulator"), first,
                                      _kind_of_machine(trace), strict=True):
            if ours != theirs:
                raise ReplayError(
                    f"traces {traces[0].meta.name!r} and {trace.meta.name!r} are of different "
                    f"machines: {what} {ours or 'none'} and {theirs or 'none'}; fit them apart")
    return first


def residuals(calls: Calls, modelled: np.ndarray) -> pl.DataFrame:
    """Relative errors of the modelled service times, by kind, path and size of the call.

    bias: median of modelled / recorded - 1. p50, p90: quantiles of its magnitude.
    """
    ratio = pl.Series("ratio", modelled) / calls.frame["latency_ns"]
    return (calls.frame.with_columns(error=ratio - 1)
            .group_by("kind", "path", "size")
            .agg(calls=pl.len(), recorded_p50_ns=pl.col("latency_ns").median(),
                 bias=pl.col("error").median(), error_p50=pl.col("error").abs().median(),
                 error_p90=pl.col("error").abs().quantile(0.9, "nearest"))
            .sort("kind", "path", "size"))


def _spread(calls: Calls, modelled: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Recorded over modelled service time, the median taken out, see Fitted.spread."""
    frame = calls.frame.with_columns(
        factor=calls.frame["latency_ns"] / pl.Series("modelled", modelled),
        all=pl.lit("all"), by_path=pl.concat_str("kind", "path", separator="/"),
        by_size=pl.concat_str("kind", "path", pl.col("size").cast(pl.String), separator="/"))
    found = {}
    for level in ("all", "kind", "by_path", "by_size"):
        for (name,), group in frame.group_by(level, maintain_order=True):
            if level == "all" or group.height >= MIN_SPREAD:
                at = np.quantile(group["factor"].to_numpy(), SHARES)
                found[str(name)] = tuple((at / np.median(group["factor"].to_numpy())).tolist())
    return dict(sorted(found.items()))


def _names(columns: Sequence[Column], but: int = -1) -> tuple[str, ...]:
    return tuple(PRIMITIVES[k] for c in columns for k in c.members if k != but)


def _constants(solution: Solution, base: Profile, fitted: Fitted) -> tuple[Constant, ...]:
    """One entry per primitive, in the order of PRIMITIVES."""
    said = fitted.sentence()
    found: dict[str, Constant] = {}
    for column, factor, low, high, nr in zip(
            solution.columns, solution.factor, solution.low, solution.high, solution.nr_calls,
            strict=True):
        for k in column.members:
            name = PRIMITIVES[k]
            unit = base.costs[name].ns or 1.0
            others = _names([column], but=k)
            ns, ends = factor * unit, (low * unit, high * unit)
            if nr < MIN_CALLS:
                ends = (min(ns, base.costs[name].low), max(ns, base.costs[name].high))
            source = f"{said}; {nr:,} calls show it"
            if others:
                source += (f"; only its sum with {', '.join(others)} is known, split as in "
                           f"profile {base.name}")
            found[name] = Constant(name, Cost(float(ns), float(ends[0]), float(ends[1]), source),
                                   "sum" if others else "determined", others, int(nr))
    for column in solution.held:
        for k in column.members:
            cost = base.costs[PRIMITIVES[k]]
            found[PRIMITIVES[k]] = Constant(
                PRIMITIVES[k], Cost(cost.ns, cost.low, cost.high, f"{cost.source}; not determined "
                                    "by the recording: it occurs only along with other work"),
                "held", _names(solution.columns), int((column.counts > 0).sum()))
    for name in PRIMITIVES:
        cost = base.costs[name]
        found.setdefault(name, Constant(
            name, Cost(cost.ns, cost.low, cost.high,
                       f"{cost.source}; not determined by the recording: it does not occur"),
            "not seen", (), 0))
    return tuple(found[name] for name in PRIMITIVES)


def _fitted(parts: Sequence[Calls], traces: Sequence[Trace], hashes: Sequence[str],
            base: Profile, spread: dict[str, tuple[float, ...]]) -> Fitted:
    arch, mode, emulated = _one_kind(traces)
    listed = tuple(FittedTrace(t.meta.name, sha, p.frame.height)
                   for t, sha, p in zip(traces, hashes, parts, strict=True))
    return Fitted(listed, arch, mode, emulated, base.name, spread)


def calibrate(traces: Sequence[Trace], hashes: Sequence[str], base: Profile,
              name: str) -> Calibration:
    """Fit a profile to the service times of recordings of one kind of machine.

    hashes: SHA-256 of each trace's file. base: what gives the costs that the recordings do not
    tell, and the proportions of those of which they tell the sum.
    """
    _one_kind(traces)
    recorded = [recorded_calls(trace) for trace in traces]
    parts = [calls.service() for calls in recorded]
    for trace, calls, part in zip(traces, recorded, parts, strict=True):
        if not part.frame.height:
            reasons = ", ".join(f"{n} {what.replace('_', ' ')}"
                                for what, n in calls.used().items() if n and what != "calls")
            raise ReplayError(f"trace {trace.meta.name!r} has no call whose service time is known "
                              f"({reasons or 'no calls'})")
    calls = joined(parts)
    target = calls.frame["latency_ns"].to_numpy().astype(np.float64)
    solution = solve(calls.work, base.ns(), target)
    constants = _constants(solution, base, _fitted(parts, traces, hashes, base, {}))
    costs = {c.name: c.cost for c in constants}
    modelled = calls.work @ np.array([costs[name].ns for name in PRIMITIVES])
    fitted = _fitted(parts, traces, hashes, base, _spread(calls, modelled))
    profile = Profile(name, fitted.sentence(), costs, fitted)
    return Calibration(profile, constants,
                       {t.meta.name: c.used() for t, c in zip(traces, recorded, strict=True)},
                       residuals(calls, modelled))


def load_all(paths: Sequence[Path]) -> tuple[list[Trace], list[str]]:
    """The traces and the SHA-256 of their files; a file named twice would count twice."""
    traces: list[Trace] = []
    hashes: list[str] = []
    for path in paths:
        traces.append(load(path))
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha in hashes:
            raise ReplayError(f"{path}: is the same recording as {paths[hashes.index(sha)]}")
        hashes.append(sha)
    return traces, hashes
