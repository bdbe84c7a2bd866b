"""From recordings to a cost profile, and what is to be said of it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from replay.base.errors import ReplayError
from replay.base.progress import each, step
from replay.calibration.calls import Calls, joined, recorded_calls
from replay.calibration.predict import compare, kinds, service_models
from replay.calibration.solver import FLOOR_NS, MIN_CALLS, Column, Solution, intervals, solve
from replay.calibration.wakes import wake_cost
from replay.costs.fitted import SHARES, STEPS, Fitted, FittedTrace, groups
from replay.costs.primitives import Cost
from replay.costs.primitives import PRIMITIVES, WAKE_LATENCY
from replay.costs.profile import Profile
from replay.trace.store import Trace, load
from replay.trace.weight import check_whole

MIN_SPREAD = 50
"""Calls from which a group of them has a spread of its own."""

LIMITS = (1e-9, 1e9)
"""Of a factor; beyond them is no recording of a kernel."""

TERMS = (*PRIMITIVES, *STEPS)
NO_STEP = Cost(0.0, 0.0, 0.0, "no cost of its own")

HELD_OUT_BLOCKS = 20
"""Runs of neighbouring calls: every other one is held out to see how well the rest predict it."""


@dataclass(frozen=True)
class Constant:
    """One primitive, or one of STEPS, after the fit.

    status: determined; bounded (from above only: the interval reaches down to nothing); sum (only
    that of `others` together is known); the rest keep the base cost: held (its counts are made up
    of those of `others`), few (calls) and not seen. nr_calls: those that show it.
    """

    name: str
    cost: Cost
    status: str
    others: tuple[str, ...]
    nr_calls: int


@dataclass(frozen=True)
class Calibration:
    """A fitted profile and how well it fits. residuals, held_out: see the functions."""

    profile: Profile
    constants: tuple[Constant, ...]
    used: list[dict[str, Any]]
    residuals: pl.DataFrame
    held_out: list[dict[str, Any]]

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
            "residuals": self.residuals.to_dicts(), "held_out": self.held_out,
        }


def _kind_of_machine(trace: Trace) -> tuple[str, str, str, int]:
    """Architecture, dom0 mode, what emulated it, and its page size."""
    machine = trace.meta.physmap
    if machine is None:
        raise ReplayError(f"trace {trace.meta.name!r} has no physmap: import it with --machine DIR")
    return (machine.arch, machine.mode, str(trace.meta.provenance.get("emulated", "")),
            machine.page_bytes)


def _one_kind(traces: Sequence[Trace]) -> tuple[str, str, str, int]:
    first = _kind_of_machine(traces[0])
    for trace in traces[1:]:
        for what, ours, theirs in zip(("architecture", "dom0 mode", "emulator", "page size"),
                                      first, _kind_of_machine(trace), strict=True):
            if ours != theirs:
                raise ReplayError(
                    f"traces {traces[0].meta.name!r} and {trace.meta.name!r} are of different "
                    f"machines: {what} {ours or 'none'} and {theirs or 'none'}; fit them apart")
    return first


def residuals(calls: Calls, modelled: np.ndarray) -> pl.DataFrame:
    """Relative errors of the modelled service times, by kind, path and size of the call.

    bias: median of modelled / recorded - 1. p50, p90: quantiles of its magnitude.
    """
    ratio = pl.Series("ratio", modelled) / calls.frame["service_ns"]
    return (calls.frame.with_columns(error=ratio - 1)
            .group_by("kind", "path", "size")
            .agg(calls=pl.len(), recorded_p50_ns=pl.col("service_ns").median(),
                 bias=pl.col("error").median(), error_p50=pl.col("error").abs().median(),
                 error_p90=pl.col("error").abs().quantile(0.9, "nearest"))
            .sort("kind", "path", "size"))


def _spread(calls: Calls, modelled: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Recorded over modelled service time, see Fitted.spread."""
    factor = np.clip(_target(calls) / np.maximum(modelled, FLOOR_NS), *LIMITS)
    keys, parts = ("kind", "path", "pages", "cold"), defaultdict(list)
    for key, group in calls.frame.select(keys).with_row_index().group_by(keys, maintain_order=True):
        for name in groups(*key):
            parts[name].append(factor[group["index"].to_numpy()])
    found = {name: np.concatenate(values) for name, values in sorted(parts.items())}
    return {name: tuple(np.quantile(values, SHARES).tolist()) for name, values in found.items()
            if "/" not in name or len(values) >= MIN_SPREAD}


def _names(columns: Sequence[Column], but: int = -1) -> tuple[str, ...]:
    return tuple(TERMS[k] for c in columns for k in c.members if k != but)


def _constants(solution: Solution, ends: tuple[np.ndarray, np.ndarray], base: Profile,
               fitted: Fitted) -> tuple[Constant, ...]:
    """One entry per term, in the order of TERMS; ends: intervals of the columns."""
    said, costs = fitted.sentence(), {**dict.fromkeys(TERMS, NO_STEP), **base.costs}
    found: dict[str, Constant] = {}
    for column, factor, low, high in zip(solution.columns, solution.factor, *ends, strict=True):
        nr = int((column.counts > 0).sum())
        for k in column.members:
            name = TERMS[k]
            unit = costs[name].ns or 1.0
            others = _names([column], but=k)
            ns, least, most = factor * unit, low * unit, high * unit
            source = f"{said}; {nr:,} calls show it"
            if others:
                source += (f"; only its sum with {', '.join(others)} is known, split as in "
                           f"profile {base.name}")
            status = "sum" if others else "determined" if least > most / 100 else "bounded"
            found[name] = Constant(name, Cost(float(ns), float(least), float(most), source),
                                   status, others, nr)
    for column in solution.held:
        for k in column.members:
            cost, nr = costs[TERMS[k]], int((column.counts > 0).sum())
            status, why = (("held", "it occurs only along with other work") if nr >= MIN_CALLS
                           else ("few", f"only {nr} calls show it"))
            source = f"{cost.source}; not determined by the recording: {why}"
            found[TERMS[k]] = Constant(TERMS[k], replace(cost, source=source), status,
                                       _names(solution.columns), nr)
    for name in TERMS:
        cost = costs[name]
        source = f"{cost.source}; not determined by the recording: it does not occur"
        found.setdefault(name, Constant(name, replace(cost, source=source), "not seen", (), 0))
    return tuple(found[name] for name in TERMS)


def _wake_latency(traces: Sequence[Trace], base: Profile, fitted: Fitted) -> Constant:
    """From a wake-up of the balloon thread to its pass: median, and 5th and 95th percentile."""
    found = wake_cost(traces)
    if found is None:
        cost = base.costs[WAKE_LATENCY]
        source = f"{cost.source}; not determined by the recording: it shows too few wake-ups"
        return Constant(WAKE_LATENCY, replace(cost, source=source), "few", (), 0)
    nr, (low, middle, high) = found
    source = (f"{fitted.sentence()}; median of {nr:,} wake-ups with the wait for the lock, from "
              "the 5th to the 95th percentile")
    return Constant(WAKE_LATENCY, Cost(middle, low, high, source), "determined", (), nr)


def held_out(parts: Sequence[Calls], base: Profile, origin: Fitted) -> list[dict[str, Any]]:
    """Per trace of the origin and kind, how well every other block of its calls is predicted.

    By a fit to the blocks between, so the load is the same; of another recording `predict` is off
    by what differs as well.
    """
    sizes = [c.frame.height for c in parts]
    odd = [pl.Series(np.arange(n) * HELD_OUT_BLOCKS // n % 2 == 1) for n in sizes]
    seen = joined([c.where(~out) for c, out in zip(parts, odd, strict=True)])
    if seen.frame.height < MIN_CALLS:
        return []
    unseen = [c.where(out) for c, out in zip(parts, odd, strict=True)]
    with step("fitting to every other block"):
        ns, steps, spread = _typical(seen, _solved(seen, base), base)
    fitted = replace(origin, steps=steps, spread=spread)
    return [{"trace": trace.name, "kind": kind, **compare(_target(c)[at], {
        model: values[:, at] for model, values in service_models(c, ns, fitted).items()})}
        for trace, c in zip(origin.traces, unseen, strict=True) for kind, at in kinds(c.frame)]


def _target(calls: Calls) -> np.ndarray:
    return calls.frame["service_ns"].to_numpy().astype(np.float64)


def _terms_ns(base: Profile) -> np.ndarray:
    """Base costs of TERMS: of the steps none."""
    return np.concatenate((base.ns(), np.zeros(len(STEPS))))


def _solved(calls: Calls, base: Profile) -> Solution:
    """The fit; a step that nearly all calls or hardly any had is not told from a call as such."""
    counts = calls.counts()
    steps = counts[:, len(PRIMITIVES):]
    had = steps.sum(axis=0)
    steps[:, (had < MIN_SPREAD) | (had > len(steps) - MIN_SPREAD)] = 0
    return solve(counts, _terms_ns(base), _target(calls))


def _typical(calls: Calls, solution: Solution, base: Profile
             ) -> tuple[np.ndarray, tuple[float, ...], dict[str, tuple[float, ...]]]:
    """(costs in ns by primitive, steps, spread) of a fit."""
    ns = _terms_ns(base)
    for column, factor in zip(solution.columns, solution.factor, strict=True):
        for k in column.members:
            ns[k] = factor * (ns[k] or 1.0)
    n = len(PRIMITIVES)
    return ns[:n], tuple(ns[n:].tolist()), _spread(calls, calls.counts() @ ns)


def calibrate(traces: Sequence[Trace], hashes: Sequence[str], base: Profile,
              name: str) -> Calibration:
    """Fit a profile to the service times of recordings of one kind of machine.

    hashes: SHA-256 of each trace's file. base: what gives the costs that the recordings do not
    tell, and the proportions of those of which they tell the sum.
    """
    arch, mode, emulated, page_bytes = _one_kind(traces)
    base = base.for_pages(page_bytes)
    recorded = [recorded_calls(trace) for trace in each(traces, "replaying", "traces")]
    parts = [calls.service() for calls in recorded]
    for trace, calls, part in zip(traces, recorded, parts, strict=True):
        if not part.frame.height:
            reasons = ", ".join(f"{n} {what.replace('_', ' ')}"
                                for what, n in calls.used().items() if n and what != "calls")
            raise ReplayError(f"trace {trace.meta.name!r} has no call whose service time is known "
                              f"({reasons or 'no calls'})")
    calls = joined(parts)
    if calls.frame.height < MIN_CALLS:
        named = ", ".join(f"trace {trace.meta.name!r}" for trace in traces)
        raise ReplayError(f"{named}: {calls.frame.height} calls of known service time, a fit needs "
                          f"{MIN_CALLS}")
    with step("fitting"):
        solution = _solved(calls, base)
    ns, steps, spread = _typical(calls, solution, base)
    listed = tuple(FittedTrace(t.meta.name, sha, p.frame.height)
                   for t, sha, p in zip(traces, hashes, parts, strict=True))
    fitted = Fitted(listed, arch, mode, emulated, base.name, steps, spread)
    ends = intervals(solution, calls.counts(), _target(calls))
    constants = (*_constants(solution, ends, base, fitted), _wake_latency(traces, base, fitted))
    costs = {c.name: c.cost for c in constants if c.name in (*PRIMITIVES, WAKE_LATENCY)}
    profile = Profile(name, fitted.sentence(), costs, fitted)
    used = [{"trace": t.meta.name, **c.used()} for t, c in zip(traces, recorded, strict=True)]
    typical = service_models(calls, ns, fitted)["costs"][0]
    return Calibration(profile, constants, used, residuals(calls, typical),
                       held_out(parts, base, fitted))


def load_all(paths: Sequence[Path]) -> tuple[list[Trace], list[str]]:
    """The traces and the SHA-256 of their files; a file named twice would count twice."""
    check_whole(paths, "calibrate")
    traces: list[Trace] = []
    hashes: list[str] = []
    for path in paths:
        traces.append(load(path))
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha in hashes:
            raise ReplayError(f"{path}: is the same recording as {paths[hashes.index(sha)]}")
        hashes.append(sha)
    return traces, hashes
