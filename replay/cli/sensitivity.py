"""`replay sensitivity`: parse, replay once per strategy, move the costs, print."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from replay.cli.options import AsJson, TraceFile, emit_json, show
from replay.cli.run_options import takes_run_options
from replay.runs.options import RunOptions


@takes_run_options("allocators", "settings", "physmap", "profile")
def sensitivity(
    trace: TraceFile,
    options: RunOptions,
    samples: Annotated[int, typer.Option(
        metavar="N", help="Points of the joint design, a power of two.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the joint design.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Move every cost across its range: which strategy wins where, and what flips it."""
    from replay.api import sweep_costs
    from replay.report.sensitivity import sensitivity as shown

    data = sweep_costs(trace, samples=samples, seed=seed, **asdict(options))
    if as_json:
        emit_json(data)
    else:
        show(shown, data)
