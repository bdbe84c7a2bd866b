"""`replay claims`: parse, run the experiments, print, write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from replay.base.errors import unknown_name
from replay.cli.options import AsJson, emit, emit_json, show

FORMATS = ("text", "md")


def claims(
    claim: Annotated[list[int] | None, typer.Option(
        metavar="N", help="Number of a claim; repeatable. Prints all that stands behind it. "
        "Default: the table of all.")] = None,
    out: Annotated[Path | None, typer.Option(
        metavar="DIR", help="Also write claims.json, claims.txt and claims.md there, with all "
        "that stands behind the table.")] = None,
    form: Annotated[str, typer.Option(
        "--format", metavar="text|md", help="Of what is printed.")] = "text",
    as_json: AsJson = False,
) -> None:
    """Try the mail thread's claims as experiments: figures, verdict, commands behind it."""
    from replay.api import try_claims
    from replay.report import claims as shown

    if form not in FORMATS:
        raise unknown_name("format", form, list(FORMATS))
    data = try_claims(claim or ())
    if out:
        _write(out, data)
    if as_json:
        emit_json(data)
    elif form == "md":
        emit(shown.markdown(data))
    else:
        show(shown.text, data, whole=bool(claim))


def _write(folder: Path, data: dict[str, Any]) -> None:
    from replay.report import claims as shown
    from replay.base.files import text_writer, write_files

    bodies = {"claims.json": json.dumps(data, indent=1, sort_keys=True) + "\n",
              "claims.txt": shown.text(data), "claims.md": shown.markdown(data)}

    write_files(folder, {name: text_writer(body) for name, body in bodies.items()})
