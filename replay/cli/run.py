"""`replay run`: parse, replay, write, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from replay.base.files import folder_name
from replay.cli.options import AsJson, TraceFile, columns, emit, emit_json, folded, show
from replay.cli.run_options import takes_run_options
from replay.runs.options import RunOptions


@takes_run_options()
def run(
    trace: TraceFile,
    options: RunOptions,
    out: Annotated[Path | None, typer.Option(
        metavar="DIR", help="Folder for the results. Default: reports/<trace>/.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a trace through the strategies and compare them."""
    from replay.base.files import beside
    from replay.report.telling.text import report
    from replay.runs.replaying import replay_source
    from replay.trace.batches import open_batches

    folder = out or Path("reports") / folder_name(trace)
    with beside(folder) as aside:
        found = replay_source(open_batches(trace, options.allow_loss), options, aside)
        files = found.save(folder)
    if as_json:
        emit_json(found.summary)
    else:
        written = folded(f"Results: {', '.join(files)} in {folder}/") + "\n"
        if columns() is None:
            emit(found.text + written)
        else:
            show(report, found.summary, end=written)
    _end(found.summary)


def _end(data: dict[str, Any]) -> None:
    """Exit code 1 where C code misbehaved or an invariant is broken."""
    for sentence in data["failed_allocators"].values():
        sys.stderr.write(f"replay: {sentence}\n")
    if data["failed_allocators"] or any(
            d["broken_invariants"] for d in data["allocators"].values()):
        raise typer.Exit(1)
