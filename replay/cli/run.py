"""`replay run`: parse, replay, write, print."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replay.base.errors import ReplayError
from replay.cli.options import AsJson, TraceFile, columns, emit, emit_json, folded, show
from replay.cli.run_options import takes_run_options
from replay.runs.options import RunOptions

if TYPE_CHECKING:
    from replay.trace.batches import Batches


@takes_run_options()
def run(
    trace: TraceFile,
    options: RunOptions,
    out: Annotated[Path | None, typer.Option(
        metavar="DIR", help="Folder for the results. Default: one of its own in reports/, named by "
        "trace, strategies, options, version and a digest.")] = None,
    overwrite: Annotated[bool, typer.Option(
        "--overwrite", help="Let this run replace another one in its folder.")] = False,
    everything: Annotated[bool, typer.Option(
        "--all", help="Print all tables, not the most telling rows alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replay a trace through the strategies and compare them."""
    from replay.base.files import beside
    from replay.report.telling.next_commands import next_commands
    from replay.report.telling.text import brief, report
    from replay.runs.naming import RUNS_FOLDER
    from replay.runs.replaying import replay_source
    from replay.trace.batches import open_batches

    source = open_batches(trace, options.allow_loss)
    if out is not None:
        _check_out(out, source, options, overwrite)
    with beside(out or RUNS_FOLDER / "run") as aside:
        found = replay_source(source, options, aside)
        folder = out or found.default_folder
        files = found.save(folder, overwrite=overwrite)
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


def _check_out(out: Path, source: Batches, options: RunOptions, overwrite: bool) -> None:
    """Refuse a folder with another run in it before the work, as far as that can be seen."""
    from replay.runs.naming import LATEST
    from replay.runs.own_files import SUMMARY, check_room
    from replay.runs.plan import looked_up
    from replay.runs.rests_on import known_before

    if out.name == LATEST:
        raise ReplayError(f"--out {out}: {LATEST} is the name of the newest run; expected another")
    if (out / SUMMARY).exists():
        known = known_before(source.meta, looked_up(source.meta, options), options)
        check_room(out, known, overwrite)


def _end(data: dict[str, Any]) -> None:
    """Exit code 1 where C code misbehaved or an invariant is broken."""
    for sentence in data["failed_allocators"].values():
        sys.stderr.write(f"replay: {sentence}\n")
    if data["failed_allocators"] or any(
            d["broken_invariants"] for d in data["allocators"].values()):
        raise typer.Exit(1)
