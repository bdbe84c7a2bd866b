"""The outcome of `replay claims`: one table, and below it what each row rests on."""

from __future__ import annotations

import textwrap
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from replay.report.telling import markdown as md
from replay.report.telling.escapes import bars, plain
from replay.report.telling.tables import (
    count, decimal, duration, notes, pairs, render, share, size, table,
)  # fmt: skip

CLAIM_COLUMNS = ("", "claim", "experiment", "measured", "verdict")
CLAIM_UNITS = {"count": count, "bytes": size, "ns": duration, "share": share, "number": decimal}
COMMAND_WIDTH = 92
NOTE = ("all times are MODELLED (work counts x costs, most of them assumed, + waiting); each "
        "verdict is computed from figures, by a stated rule")
MORE = ("`replay claims --claim N` prints all that was measured for one of them, the rule of its "
        "verdict, remarks, and the commands that reproduce its figures")
REPEAT = ("each figure stands in the JSON of the command, below `allocators.STRATEGY` or at the "
          "path that `replay claims --json` names; events: `replay info TRACE --json`")


def _cells(claim: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table; the rest of what was measured stands behind it."""
    return (str(claim["number"]), claim["claim"], claim["experiment"], claim["outcome"][0],
            claim["verdict"])


def _figures(claim: dict[str, Any], row: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value for a person) of each figure of a row."""
    return [(c["name"], CLAIM_UNITS[c["unit"]](row["figures"][c["name"]]))
            for c in claim["columns"]]


def _where(row: dict[str, Any]) -> str:
    """Trace, what is special about the run, machine."""
    synthetic = " (SYNTHETIC)" if row["synthetic"] else ""
    label = f", {row['label']}" if row["label"] else ""
    return plain(f"{row['trace']}{synthetic}{label}; {row['machine']}")


def shell_lines(command: str) -> list[str]:
    """A command on lines that can be pasted into a shell."""
    lines = textwrap.wrap(command, COMMAND_WIDTH, break_long_words=False, break_on_hyphens=False,
                          subsequent_indent="    ")
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _said(claim: dict[str, Any]) -> list[str]:
    """The whole outcome, the rule, remarks."""
    return [*claim["outcome"], f"rule: {claim['rule']}",
            *(f"note: {caveat}" for caveat in claim["caveats"])]


def _behind(claim: dict[str, Any]) -> list[RenderableType]:
    """What stands below the table for one claim."""
    parts: list[RenderableType] = [
        Text(f"Claim {claim['number']}: {claim['verdict']}", style="bold"), Text(),
        notes(_said(claim))]
    for where in dict.fromkeys(_where(row) for row in claim["rows"]):
        parts += [Text(f"  {where}"), Padding(pairs([
            (plain(row["strategy"]), "; ".join(f"{n} {v}" for n, v in _figures(claim, row)))
            for row in claim["rows"] if _where(row) == where]), (0, 0, 0, 4))]
    lines = [line for command in claim["commands"] for line in shell_lines(command)]
    return [*parts, *(Text(f"  {line}") for line in lines), Text()]


def text(data: dict[str, Any], *, whole: bool = True, color: bool = False) -> str:
    """For a terminal of 100 columns. whole: with what stands behind each row."""
    rows = [row for claim in data["claims"] for row in (_cells(claim), ("",) * len(CLAIM_COLUMNS))]
    shown = table("The mail thread's claims as experiments", CLAIM_COLUMNS, rows, align="rwwww")
    if not whole:
        return render([shown, notes([NOTE, MORE])], color=color)
    return render([shown, notes([NOTE, REPEAT]),
                   *(part for claim in data["claims"] for part in _behind(claim))], color=color)


def main_table(data: dict[str, Any]) -> str:
    """The one table, in Markdown."""
    return "\n".join(md.table(("#", *CLAIM_COLUMNS[1:]), [_cells(c) for c in data["claims"]],
                              escape=bars))


def markdown(data: dict[str, Any]) -> str:
    """The same as GitHub-flavoured Markdown."""
    lines = ["# The mail thread's claims as experiments", "", main_table(data), "", f"* {NOTE}",
             f"* {REPEAT}", ""]
    for claim in data["claims"]:
        lines += [f"## Claim {claim['number']}: {claim['verdict']}", "",
                  *(f"* {said}" for said in _said(claim)), "",
                  *md.table(["run", "strategy", *(c["name"] for c in claim["columns"])],
                            [[_where(row), plain(row["strategy"]),
                              *(value for _, value in _figures(claim, row))]
                             for row in claim["rows"]], escape=bars), "", "```",
                  *(line for command in claim["commands"] for line in shell_lines(command)),
                  "```", ""]
    return "\n".join(lines)
