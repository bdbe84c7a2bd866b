"""`replay run`: parse, replay, write, print."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
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
    everything: Annotated[bool, typer.Option(
        "--all", help="Print all tables, not the most telling rows alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replay a trace through the strategies and compare them."""
    from replay.base.files import beside
    from replay.report.telling.next_commands import next_commands
    from replay.report.telling.text import brief, report
    from replay.runs.replaying import replay_source
    from replay.trace.batches import open_batches

    folder = out or Path("reports") / folder_name(trace)
    with beside(folder) as aside:
        found = replay_source(open_batches(trace, options.allow_loss), options, aside)
        files = found.save(folder)
    if as_json:
        emit_json(found.summary)
    else:
        made = report if everything else partial(
            brief, after=next_commands(found.summary, str(trace), str(folder)))
        _show(made, found.summary, f"Results in {folder}/: {', '.join(_shortened(files))}")
    _end(found.summary)


def _show(made: Callable[..., str], data: dict[str, Any], written: str) -> None:
    end = folded(written) + "\n"
    if columns() is None:
        emit(made(data) + end)
    else:
        show(made, data, end=end)


def _shortened(files: list[str]) -> list[str]:
    """The files, those of which there is one per strategy as one."""
    kinds = {name.split("-")[0]: name for name in files}
    many = [f"{kind}-*{Path(name).suffix}" for kind, name in kinds.items() if kind != name]
    return [*(name for name in files if name in kinds), *many]


def _end(data: dict[str, Any]) -> None:
    """Exit code 1 where C code misbehaved or an invariant is broken."""
    for sentence in data["failed_allocators"].values():
        sys.stderr.write(f"replay: {sentence}\n")
    if data["failed_allocators"] or any(
            d["broken_invariants"] for d in data["allocators"].values()):
        raise typer.Exit(1)
