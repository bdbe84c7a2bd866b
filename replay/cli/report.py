"""`replay report`: read runs, make a page, tables or figures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from replay.cli.options import emit
from replay.cli.outputs import STANDARD_OUTPUT


def report(
    runs: Annotated[list[Path], typer.Argument(
        metavar="RUN...", help="Runs: names as `replay runs` lists them, `latest`, or folders; "
        "of a folder with several, all of them.")],
    output: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="FILE|DIR", help="Default: report.html (md, csv, txt) in the "
        "folder of the first run, or that of all runs; a folder `figures` there for svg and png. "
        "-: standard output."),
    ] = None,
    form: Annotated[str, typer.Option(
        "--format", metavar="html|md|csv|txt|svg|png", help="html: one file with everything in "
        "it. svg, png: a file per figure.")] = "html",
) -> None:
    """Make a report of one run or several: tables, curves, the physmap over time."""
    from replay.api import report_text, write_report

    if output == STANDARD_OUTPUT:
        emit(report_text(*runs, form=form))
        return
    files = write_report(*runs, output=output, form=form)
    emit(f"Written: {', '.join(str(path) for path in files)}")
