"""`replay sensitivity`: parse, replay once per strategy, move the costs, print."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.cli.options import AsJson, Sets, TraceFile, color, emit, emit_json, key_values


def sensitivity(
    trace: TraceFile,
    allocator: Annotated[list[str] | None, typer.Option(
        metavar="NAME|FILE.py", help="Strategy; repeatable. Default: the mail thread's four.",
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
    from replay.api import sweep_costs
    from replay.report.sensitivity import sensitivity as shown

    data = sweep_costs(trace, allocator or (), settings=key_values(settings), physmap=physmap,
                       profile=profile, samples=samples, seed=seed)
    if as_json:
        emit_json(data)
    else:
        emit(shown(data, color=color()))
