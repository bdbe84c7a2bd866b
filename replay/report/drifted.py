"""What the drift lane says in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from replay.report.tables import duration, fitted, notes, plain, render, table
from replay.units import NS_PER_S


def _name(one: dict[str, Any]) -> str:
    return fitted(one["benchmark"].rpartition("::")[2], 50)


def text(data: dict[str, Any], *, color: bool = False) -> str:
    """A line per change, oldest first within a series, then the verdict."""
    rows = [[_name(one), fitted(one["machine"], 16), change["day"],
             fitted(f"{change['commit_before'] or '?'}..{change['commit'] or '?'}", 27),
             duration(NS_PER_S * change["before"]), duration(NS_PER_S * change["after"]),
             f"{100 * change['share']:+.1f} %",
             str(change["nights_since"])]
            for one in data["series"] for change in one["changes"]]
    short = sum(one["nights"] < data["least_nights"] for one in data["series"])
    parts: list[RenderableType] = []
    if rows:
        parts.append(table(
            "Changes of measured speed (wall clock, median of a day)",
            ["benchmark", "machine", "since", "commits", "before", "after", "change", "nights"],
            rows, left=4))
    if short:
        said = (f"{short} of {len(data['series'])} series have fewer than "
                f"{data['least_nights']} nights: nothing is said of them yet")
        parts.append(notes([said]))
    parts.append(verdict(data) + "\n")
    return render(parts, color=color)


def verdict(data: dict[str, Any]) -> str:
    """The last line."""
    slower = [plain(_name(one)) for one in data["series"]
              if any(c["recent"] and c["after"] > c["before"] for c in one["changes"])]
    if slower:
        return (f"WARNING: {len(slower)} of {len(data['series'])} series slower since one of "
                f"the last {data['recent_nights']} nights: {', '.join(slower[:5])}"
                + (" ..." if len(slower) > 5 else ""))
    return (f"no series of {len(data['series'])} is slower since one of the last "
            f"{data['recent_nights']} nights")
