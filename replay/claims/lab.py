"""Runs the replays of all claims in this process; each trace is loaded, each replay done once."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import replay as package
from replay import allocators
from replay.base.errors import InputError
from replay.base.progress import each
from replay.claims.experiment import Claim, Row, Rows, Run, Synthetic
from replay.costs import profile as profiles
from replay.engine.arrivals import Arrivals, arrange
from replay.engine.drive import Workload, replay
from replay.metrics.summary import summary
from replay.physmap import presets
from replay.trace.columns import is_kind
from replay.trace.machine import MachineChoice, machine_for
from replay.trace.requests import to_workload
from replay.trace.store import Trace, load
from replay.trace.synthetic import synthesize

TRACES = Path(package.__file__).parent.parent / "traces"
"""The shipped traces, of a clone; an installed package has none."""


@cache
def trace_of(source: str | Synthetic) -> Trace:
    """A shipped trace by name, or a synthetic one as its command makes it."""
    if isinstance(source, Synthetic):
        return synthesize(source.name, list(source.models), seed=source.seed,
                          duration_s=source.seconds, machine=presets.load(source.physmap))
    return load(shipped(source))


def shipped(name: str) -> Path:
    """The file of a shipped trace; InputError where the package is not that of a clone."""
    path = TRACES / f"{name}.arrow"
    if not path.is_file():
        raise InputError(path, "is missing: `replay claims` replays the shipped traces, which an "
                         "installed package does not have",
                         hint="clone the repository and run `replay claims` there")
    return path


@cache
def _workload(source: str | Synthetic, loop: str) -> Workload:
    return arrange(to_workload(trace_of(source)), Arrivals(loop))


def _settings(run: Run, strategy: str) -> dict[str, str]:
    """The run's options of one strategy."""
    pairs = (text.split("=", 1) for text in run.settings)
    named = ((key.split(".", 1), value) for key, value in pairs)
    return {option: value for (name, option), value in named if name == strategy}


@cache
def _summary(run: Run, strategy: str) -> dict[str, Any]:
    """What `replay run --json` prints of one strategy, and the events that `replay info --json`
    counts; kept, since claims share runs."""
    trace = trace_of(run.trace)
    machine = machine_for(trace.meta, MachineChoice(run.physmap, run.iommu, run.subtract_ram))
    chosen, kernel = allocators.load(strategy), str(trace.meta.provenance.get("kernel", ""))
    outcome = replay(chosen, chosen.as_of(kernel, _settings(run, strategy)), machine,
                     _workload(run.trace, run.loop), profiles.load(machine.arch))
    return {**summary([outcome], trace), "events": _events(trace)}


def _events(trace: Trace) -> dict[str, int]:
    """Mappings in the trace, as `replay info --json` counts them."""
    return {kind: int(is_kind(trace.table, kind).sum()) for kind in ("grant_map", "foreign_map")}


def rows_of(claim: Claim) -> Rows:
    """A row per run and strategy of a claim."""
    found = []
    for run in each(claim.runs, f"claim {claim.number}", "runs"):
        for strategy in run.strategies:
            # Neither label nor neighbours change what a strategy does.
            one = _summary(replace(run, label="", strategies=(strategy,)), strategy)
            found.append(Row(run, strategy, one["run"]["physmap"],
                             {c.name: c.of(one, strategy) for c in claim.columns}))
    return Rows(found)
