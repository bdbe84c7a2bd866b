"""What the drift lane says of a series, in words."""

from __future__ import annotations

from typing import Any

from replay.report.telling.escapes import plain
from replay.report.telling.tables import fitted



def name(one: dict[str, Any]) -> str:
    """A series in a few words: a benchmark without its file, or which latency of which trace."""
    figure: str = plain(one["figure"]).rpartition("::")[2]
    return figure if one["kind"] == "measured" else f"{plain(one['trace'])}: {figure}"


def whose(one: dict[str, Any]) -> str:
    """The machine, and what emulated it."""
    emulated = f", emulated by {one['emulated']}" if one["emulated"] else ""
    return plain(f"{one['machine']}{emulated}")


def commits(change: dict[str, Any], width: int) -> str:
    """The last commit of the old level and the first of the new."""
    before, after = change["commit_before"] or "?", change["commit"] or "?"
    return fitted(before if before == after else f"{before}..{after}", width)


def short(data: dict[str, Any]) -> str:
    """How many series are too short; empty where none is."""
    few = sum(one["nights"] < data["least_nights"] for one in data["series"])
    return "" if not few else (f"{few} of {len(data['series'])} series have fewer than "
                               f"{data['least_nights']} nights: nothing is said of them yet")


def verdict(data: dict[str, Any]) -> str:
    """The last line."""
    slower = [name(one) for one in data["series"] if one["warned"]]
    if slower:
        return (f"WARNING: {len(slower)} of {len(data['series'])} series slower since one of "
                f"the last {data['recent_nights']} nights: {', '.join(slower[:5])}"
                + (" ..." if len(slower) > 5 else ""))
    return (f"no series of {len(data['series'])} is slower since one of the last "
            f"{data['recent_nights']} nights")
