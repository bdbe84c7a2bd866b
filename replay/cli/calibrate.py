"""`replay calibrate` and `replay predict`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from replay.cli.options import AsJson, TraceFile, check_output, color, emit, emit_json


def calibrate(
    traces: Annotated[list[Path], typer.Argument(
        metavar="TRACE...", help="Recordings of one kind of machine.")],
    output: Annotated[Path, typer.Option(
        "-o", "--output", metavar="FILE.toml", help="The profile.")],
    base: Annotated[str | None, typer.Option(
        "--base", metavar="NAME|FILE", help="Profile that gives what the recordings do not tell. "
        "Default: by architecture.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a cost profile to recorded latencies."""
    # Before numpy loads its BLAS: threads of it make these small matrices slower, up to 14 times
    # on two busy cores, and the order of their sums would depend on the machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from replay.calibration.calibrate import calibrate, load_all
    from replay.costs import profile, written
    from replay.errors import ReplayError
    from replay.metrics.summary import rounded
    from replay.report.calibrated import calibrated

    if output.suffix != ".toml":
        raise ReplayError(f"{output}: expected a file name that ends in .toml")
    check_output(output, traces)
    loaded, hashes = load_all(traces)
    machine = loaded[0].meta.physmap
    costs = profile.load(base or (machine.arch if machine else "x86"))
    found = calibrate(loaded, hashes, costs, output.stem)
    written.save(found.profile, output)
    data = rounded(found.as_dict())
    if as_json:
        emit_json(data)
    else:
        emit(calibrated(data, color=color()) + f"Written: {output}\n")


def predict(
    trace: TraceFile,
    profile: Annotated[str, typer.Option(
        "--profile", metavar="NAME|FILE", help="Cost profile, such as one of `calibrate`.")],
    as_json: AsJson = False,
) -> None:
    """Hold a profile's modelled latencies against those that a trace recorded."""
    from replay.calibration.predict import predict
    from replay.costs import profile as profiles
    from replay.metrics.summary import rounded
    from replay.report.calibrated import predicted
    from replay.trace.store import load

    data = rounded(predict(load(trace), profiles.load(profile)).as_dict())
    if as_json:
        emit_json(data)
    else:
        emit(predicted(data, color=color()))
