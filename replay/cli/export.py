"""`replay export`: a run or a trace as a file for another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from replay.base.units import human_bytes
from replay.cli.options import AllowLoss, emit


def export(
    source: Annotated[Path, typer.Argument(
        metavar="TRACE|RUN", help="A trace (.arrow, or a shipped one's name), or a run: a name "
        "that `replay runs` lists, `latest`, a folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The file.")],
    form: Annotated[str, typer.Option(
        "--format", metavar="perfetto", help="For ui.perfetto.dev and trace_processor.")
    ] = "perfetto",
    allow_loss: AllowLoss = False,
) -> None:
    """Write the requests of a run, or the calls of a trace, for a viewer of traces."""
    from replay.api import export as written

    made = written(source, output, form=form, allow_loss=allow_loss)
    emit(f"Written: {made} ({human_bytes(made.stat().st_size)})")
