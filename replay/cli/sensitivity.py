"""`replay sensitivity`: parse, replay once per strategy, move the costs, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from replay.cli.options import AsJson, Sets, TraceFile, color, emit, emit_json, key_values


def sensitivity(
    trace: TraceFile,
    allocator: Annotated[list[str] | None, typer.Option(
        metavar="NAME|FILE.py", help="Strategy; repeatable. Default: the four of the thread.",
    )] = None,
    settings: Sets = None,
    physmap: Annotated[str | None, typer.Option(
        metavar="PRESET|FILE", help="Another machine than the trace's own.")] = None,
    profile: Annotated[str | None, typer.Option(
        metavar="NAME|FILE", help="Cost profile. Default: by architecture.")] = None,
    samples: Annotated[int, typer.Option(
        metavar="N", help="Points of the joint design, a power of two.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the joint design.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Move every cost across its range: which strategy wins where, and what flips it."""
    from replay.report.sensitivity import sensitivity as shown

    data = _found(trace, allocator, key_values(settings), physmap, profile, samples, seed)
    if as_json:
        emit_json(data)
    else:
        emit(shown(data, color=color()))


def _found(path: Path, names: list[str] | None, given: dict[str, str], physmap: str | None,
           profile: str | None, samples: int, seed: int) -> dict[str, Any]:
    from replay.engine import replay
    from replay.runs.plan import Plan, prepared
    from replay.sensitivity.design import sensitivity as compute
    from replay.sensitivity.recost import recost
    from replay.trace.machine import MachineChoice
    from replay.trace.store import load

    p = prepared(load(path), Plan(names or (), given, MachineChoice(physmap), profile))
    made = {name: recost(replay(strategy, p.options[name], p.machine, p.workload, p.costs),
                         p.options[name]) for name, strategy in p.chosen.items()}
    found = compute(made, p.costs, samples=samples, seed=seed)
    return {"trace": p.trace.meta.name, "synthetic": p.trace.meta.synthetic,
            "profile": p.costs.name, "profile_summary": p.costs.summary,
            "physmap": p.machine.name, **found}
