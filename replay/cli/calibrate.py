"""`replay calibrate` and `replay predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from replay.cli.options import AsJson, TraceFile, emit_json, named, show


def calibrate(
    traces: Annotated[list[Path], typer.Argument(
        metavar="TRACE...", help="Recordings of one kind of machine.", callback=named)],
    output: Annotated[Path, typer.Option(
        "-o", "--output", metavar="FILE.toml", help="The profile.")],
    base: Annotated[str | None, typer.Option(
        "--base", metavar="NAME|FILE", help="Profile that gives what the recordings do not tell. "
        "Default: by architecture.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a cost profile to recorded latencies."""
    from replay.api import calibrate_costs
    from replay.metrics.summary import rounded
    from replay.report.calibrated import calibrated

    found = calibrate_costs(traces, output, base)
    data = rounded(found.as_dict())
    if as_json:
        emit_json(data)
    else:
        show(calibrated, data, end=f"Written: {output}\n")


def predict(
    trace: TraceFile,
    profile: Annotated[str, typer.Option(
        "--profile", metavar="NAME|FILE", help="Cost profile, such as one of `calibrate`.")],
    as_json: AsJson = False,
) -> None:
    """Hold a profile's modelled latencies against those that a trace recorded."""
    from replay.api import predict_latency
    from replay.metrics.summary import rounded
    from replay.report.calibrated import predicted

    data = rounded(predict_latency(trace, profile).as_dict())
    if as_json:
        emit_json(data)
    else:
        show(predicted, data)
