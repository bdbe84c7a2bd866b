"""What `replay gate accept` prints: the figures that move, check by check."""

from __future__ import annotations

import shlex
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from replay.report.telling import gate as telling
from replay.report.telling.escapes import plain
from replay.report.telling.tables import notes, render, table

MOVED_COLUMNS = ("strategy", "figure", "before", "after", "change")


def text(data: dict[str, Any], *, color: bool = False, everything: bool = False) -> str:
    """A short table per check of which figures move, and how many files change."""
    parts: list[RenderableType] = []
    for one in data["checks"]:
        if one["findings"]:
            parts += _moved(one, everything)
        else:
            parts.append(f"{plain(one['name'])}: {_unmoved(one)}")
    return render([*parts, *_end(data)], color=color)


def diffs(data: dict[str, Any], *, color: bool = False) -> str:
    """The change of each file, as it is: nothing of it is wrapped or left out."""
    lines = [line for one in data["checks"]
             for line in (one["diff"].split("\n") if one["changed"] else
                          [f"{one['name']}: {_unmoved(one)}"])]
    return "".join(f"{plain(line)}\n" for line in lines) + render(_end(data), color=color)


def _end(data: dict[str, Any]) -> list[str]:
    """How many files change, and what to type next."""
    changed = sum(one["changed"] for one in data["checks"])
    word = "would change" if data["dry_run"] else "changed"
    said = [f"{changed} of {len(data['checks'])} baselines {word}"]
    if changed and data["in_checkout"] and not data["dry_run"]:
        force = "-f " if data["ignored"] else ""
        said.append(f"Next: git add {force}{shlex.quote(plain(data['baseline']))}, and commit it")
    return said


def _moved(one: dict[str, Any], everything: bool) -> list[RenderableType]:
    kept, folded = telling.shown(one, everything)
    rows: list[list[str | Text]] = [[*telling.cells(f)[:len(MOVED_COLUMNS)]] for f in kept]
    return [Text(f"{plain(one['name'])}: {telling.cause(one)}", style="bold"),
            table("", MOVED_COLUMNS, rows, align="lwrrr"),
            *([notes([*folded, "--all shows them, --diff the change of the file"])]
              if folded else [])]


def _unmoved(one: dict[str, Any]) -> str:
    """A check of which no accepted figure moves."""
    if one["new"]:
        count = len(one["strategies"])
        return (f"{telling.figures(one['figures'])} of {count} strateg"
                f"{'y' if count == 1 else 'ies'}, the first ones accepted")
    if not one["changed"]:
        return "as accepted"
    why = telling.cause(one) or "what they rest on is told one by one now"
    return f"no figure moves; {why}"
