"""`replay compare` and `replay diff`: parse, compare, print."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.cli.options import AsJson, emit_json, show

WHAT = ("RUN (a name that `replay runs` lists, `latest`, a folder), TRACE.arrow (replayed at its "
        "defaults), or either with :STRATEGY behind it")


def compare(
    sides: Annotated[list[str], typer.Argument(
        metavar="A [B...]", help=f"{WHAT}. Of a single one the strategies are compared, "
        "of a folder all runs in it.")],
    everything: Annotated[bool, typer.Option(
        "--all", help="Print all metrics that differ, however little.")] = False,
    as_json: AsJson = False,
) -> None:
    """Runs, traces or strategies side by side: what differs, how much, and which is better."""
    from replay.api import compare_runs
    from replay.report.compared import comparison

    data = compare_runs(*sides).as_dict()
    if as_json:
        emit_json(data)
    else:
        show(comparison, data, everything=everything)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=f"{WHAT}.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    as_json: AsJson = False,
) -> None:
    """Two outcomes down to the first request where they part; exit 1 if they do."""
    from replay.api import diff_runs
    from replay.report.compared import difference

    data = diff_runs(a, b)
    if as_json:
        emit_json(data)
    else:
        show(difference, data)
    if not data["equal"]:
        raise typer.Exit(1)
