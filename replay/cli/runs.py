"""`replay runs`: which runs there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from replay.cli.options import AsJson, emit, emit_json, show
from replay.runs.naming import RUNS_FOLDER


def runs(
    home: Annotated[Path, typer.Argument(
        metavar="FOLDER", help="Where they lie, or that of one.")] = RUNS_FOLDER,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first: name, trace, strategies, when, version, size, whether whole."""
    from replay.report.listed_runs import listed_runs
    from replay.runs.finding import HOW_TO_MAKE, latest_name
    from replay.runs.listing import list_runs

    found = list_runs(home)
    newest = latest_name(home)
    if as_json:
        emit_json({"folder": str(home), "latest": newest,
                   "runs": [one.as_dict() for one in found]})
    elif found:
        show(listed_runs, found, newest)
    else:
        emit(f"No runs in {home}; {HOW_TO_MAKE}")
