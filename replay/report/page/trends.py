"""`drift.html`: a small chart per series of the history, those that became slower first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from replay.base.units import NS_PER_S
from replay.gate.history import SERIES
from replay.report.page.document import document, vega_lite
from replay.report.page.figure import NS_LABEL, PALETTE
from replay.report.telling.drift import commits, name, short, verdict, whose
from replay.report.telling.escapes import plain
from replay.report.telling.tables import duration

DIGITS = 4
"""Of a night's value in the page."""

POINT = "#2f87c9"
"""Of nights: seen on white and on black."""

WHOSE_TIMES = {"measured": "measured, wall clock", "recorded": "RECORDED by the trace"}
SERIES_KEYS = ("figure", "size", "trace", "strategy", "physmap", "profile", "machine")


def _chart(kind: str, changed: bool) -> dict[str, Any]:
    """Nights as points, levels as lines, changes as rules; the rows come from the page's data."""
    import altair as alt

    def rows(called: str) -> Any:
        return alt.NamedData(name=called)

    value = alt.Y("ns:Q", scale=alt.Scale(zero=False, nice=True),
                  axis=alt.Axis(title=kind, labelExpr=NS_LABEL, tickCount=4))
    day = alt.X("day:T", title=None, axis=alt.Axis(tickCount=6, labelOverlap=True,
                                                   format="%Y-%m-%d"))
    nights = alt.Chart(rows("nights")).mark_circle(
        size=22, color=POINT, opacity=0.9).encode(
        x=day, y=value, tooltip=[
            alt.Tooltip("when:N", title="night"), alt.Tooltip("said:N", title=kind),
            alt.Tooltip("commit:N", title="commit")])
    levels = alt.Chart(rows("levels")).mark_line(color=POINT, strokeWidth=2).encode(
        x=day, y=value, detail="level:N")
    if not changed:
        return vega_lite(alt.layer(levels, nights).properties(height=170))
    changes = alt.Chart(rows("changes"))
    look = alt.Color("slower:N", legend=None, scale=alt.Scale(
        domain=[True, False], range=[PALETTE[1], PALETTE[2]]))
    rules = changes.mark_rule(strokeWidth=2, strokeDash=[5, 3]).encode(x=day, color=look)
    marks = changes.mark_point(filled=True, size=130, opacity=1).encode(
        x=day, y=value, color=look, shape=alt.Shape("slower:N", legend=None, scale=alt.Scale(
            domain=[True, False], range=["triangle-up", "triangle-down"])),
        tooltip=[alt.Tooltip("when:N", title="since"), alt.Tooltip("said:N", title="change"),
                 alt.Tooltip("commit:N", title="commits")])
    return vega_lite(alt.layer(levels, nights, rules, marks).properties(height=170))


def _said(one: dict[str, Any], least: int) -> str:
    """What became of the series, in words; least: nights before a change can be told."""
    now = f"Last: {duration(NS_PER_S * one['seconds'])}"
    if one["nights"] < least:
        return f"Nights so far: {one['nights']}, of {least} that it takes. {now}."
    if not one["changes"]:
        return f"No change of level in {one['nights']} nights. {now}."
    last = one["changes"][-1]
    word = "Slower" if last["after"] > last["before"] else "Faster"
    more = f", the last of {len(one['changes'])} changes" if len(one["changes"]) > 1 else ""
    return (f"{word} by {100 * abs(last['share']):.1f} % since {last['day']}"
            f" ({last['nights_since']} nights{more}). {now}.")


def _part(k: int, one: dict[str, Any], least: int) -> dict[str, Any]:
    about = [(key, plain(one[key])) for key in SERIES_KEYS if one[key]]
    return {
        "id": f"s{k}", "title": name(one), "warned": one["warned"], "kind": one["kind"],
        "said": _said(one, least),
        "about": about + ([("emulated by", plain(one["emulated"]) + "; not a time of hardware")]
                          if one["emulated"] else []),
        "nights": one["nights"], "whose": whose(one), "times": WHOSE_TIMES[one["kind"]],
        "changes": [[c["day"], commits(c, 80), duration(NS_PER_S * c["before"]),
                     duration(NS_PER_S * c["after"]), f"{100 * c['share']:+.1f} %",
                     str(c["nights_since"])] for c in one["changes"]]}


def _numbers(one: dict[str, Any], nights: pl.DataFrame, known: dict[str, int]) -> dict[str, Any]:
    """Of one series what its chart shows: days since 1970, ns, number of the commit."""
    first = date(1970, 1, 1)
    days = [(day - first).days for day in nights["day"].to_list()]
    at = [days.index((date.fromisoformat(c["day"]) - first).days) for c in one["changes"]]
    levels = ([one["changes"][0]["before"], *(c["after"] for c in one["changes"])] if at
              else [float(np.median(nights["seconds"].to_numpy()))])
    return {
        "times": one["kind"], "days": days,
        "ns": [float(f"{NS_PER_S * v:.{DIGITS}g}") for v in nights["seconds"].to_list()],
        "commits": [known.setdefault(plain(c), len(known)) for c in nights["commit"].to_list()],
        "levels": [float(f"{NS_PER_S * v:.{DIGITS}g}") for v in levels],
        "changes": [{"at": k, "commits": commits(c, 80), "slower": c["after"] > c["before"],
                     "said": f"{100 * c['share']:+.1f} %"}
                    for k, c in zip(at, one["changes"], strict=True)]}


def page(data: dict[str, Any], series: Sequence[tuple[tuple[Any, ...], pl.DataFrame]]) -> str:
    """One HTML document. series: the nights of each, as gate.drift.series_of() gives them."""
    nights = dict(series)
    known: dict[str, int] = {}
    numbers = {f"c{k}": _numbers(one, nights[tuple(one[key] for key in SERIES)], known)
               for k, one in enumerate(data["series"])}
    return document(
        "trends.html.j2", ["draw.js", "trends.js"],
        {"charts": {kind: [_chart(said, False), _chart(said, True)]
                    for kind, said in WHOSE_TIMES.items()}, "commits": list(known),
         "series": numbers},
        parts=[_part(k, one, data["least_nights"]) for k, one in enumerate(data["series"])],
        verdict=verdict(data),
        warned=data["warned"], short=short(data), recent=data["recent_nights"])
