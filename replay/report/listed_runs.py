"""The runs of a folder as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.padding import Padding
from rich.text import Text

from replay.base.units import human_bytes
from replay.report.telling.escapes import plain
from replay.report.telling.tables import render
from replay.runs.listing import ListedRun
from replay.runs.naming import LATEST

TO_THE_MINUTE = len("2026-01-01T00:00")


def listed_runs(found: Sequence[ListedRun], newest: str, *, color: bool = False) -> str:
    """Each run's name, and below it what it is. newest: the name of that which is."""
    parts: list[Text | Padding] = []
    for one in found:
        mark = f"  ({LATEST})" if one.name == newest else ""
        parts += [Text(plain(one.name) + mark, style="bold"), Padding(_about(one), (0, 0, 0, 4))]
    return render(parts, color=color)


def _about(one: ListedRun) -> Text:
    when = one.when[:TO_THE_MINUTE].replace("T", " ")
    facts = [f"{plain(one.trace)}: {plain(', '.join(one.strategies))}" if one.strategies else "",
             f"version {plain(one.version)}" if one.version else "", f"{when} UTC",
             human_bytes(one.size), f"NOT WHOLE: {plain(one.wrong)}" if one.wrong else "whole"]
    return Text("; ".join(filter(None, facts)))
