"""The forms that a report of runs takes: files, or a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from replay.base.errors import ReplayError, unknown_name
from replay.base.files import check_output, write_files, written
from replay.runs.run import Run

PICTURES: Final = ("svg", "png")
FORMS: Final = ("html", "md", "csv", "txt", *PICTURES)


def write(runs: Sequence[Run], output: Path | None, form: str, home: Path | None = None
          ) -> list[Path]:
    """Write it, by default into `home`, else the folder of the first run; the files."""
    if form not in FORMS:
        raise unknown_name("format", form, list(FORMS))
    target = output if output is not None else (home or runs[0].folder or Path()) / (
        "figures" if form in PICTURES else f"report.{form}")
    if form in PICTURES:
        from replay.report.page.formats import pictures

        if target.is_file():
            raise ReplayError(f"{target}: is a file, expected a folder for the figures")
        made = pictures(list(runs), form)
        write_files(target, {name: partial(Path.write_bytes, data=body)
                             for name, body in made.items()})
        return [target / name for name in sorted(made)]
    check_output(target, [])
    body = text_of(runs, form)
    with written(target) as aside:
        aside.write_text(body, encoding="utf-8")
    return [target]


def text_of(runs: Sequence[Run], form: str) -> str:
    """The report as a text: html, md, csv or txt."""
    if form not in FORMS:
        raise unknown_name("format", form, list(FORMS))
    if form in PICTURES:
        raise ReplayError(f"{form}: is a file per figure, and needs a folder: name one")
    if form == "html":
        from replay.report.compared import change
        from replay.report.page.against import against, pairs_of
        from replay.report.page.page import page

        if len(runs) == 2 and pairs_of(*runs):
            return against(runs[0], runs[1], change)
        return page(list(runs))
    from replay.report.page import formats

    return {"md": formats.markdown, "csv": formats.table, "txt": formats.text}[form](list(runs))
