"""What the drift lane says: in the terminal, as JSON, JUnit XML, Markdown and a page of trends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
from rich.console import RenderableType

from replay.base.units import NS_PER_S
from replay.report.page.trends import page
from replay.report.telling import markdown as md
from replay.report.telling.drift import commits, name, short, verdict, whose
from replay.report.telling.escapes import cell, xml_text
from replay.report.telling.tables import duration, fitted, notes, render, table

SERIES_TITLES = {"measured": "measured speed (wall clock of benchmarks)",
                 "recorded": "RECORDED latency (of calls in traces)"}
HEAD = ["figure", "of", "since", "commits", "before", "after", "change", "nights"]


def _cells(one: dict[str, Any], change: dict[str, Any], wide: bool) -> list[str]:
    return [fitted(name(one), 200 if wide else 36), fitted(whose(one), 100 if wide else 16),
            change["day"], commits(change, 100 if wide else 27),
            duration(NS_PER_S * change["before"]), duration(NS_PER_S * change["after"]),
            f"{100 * change['share']:+.1f} %", str(change["nights_since"])]


def _rows(data: dict[str, Any], kind: str, *, wide: bool) -> list[list[str]]:
    return [_cells(one, change, wide) for one in data["series"] if one["kind"] == kind
            for change in one["changes"]]


def text(data: dict[str, Any], *, color: bool = False) -> str:
    """A line per change, oldest first within a series, then the verdict."""
    parts: list[RenderableType] = []
    for kind, said in SERIES_TITLES.items():
        if rows := _rows(data, kind, wide=False):
            parts.append(table(f"Changes of {said}, median of a day", HEAD, rows,
                               align="wwlwrrrr"))
    if said := short(data):
        parts.append(notes([said]))
    parts.append(verdict(data) + "\n")
    return render(parts, color=color)


def markdown(data: dict[str, Any]) -> str:
    """For the comment of a pull request."""
    lines = [f"**Drift: {cell(verdict(data))}**"]
    for kind, said in SERIES_TITLES.items():
        if rows := _rows(data, kind, wide=True):
            lines += ["", f"Changes of {said}, median of a day.", "",
                      *md.table(HEAD, rows, "llllrrrr")]
    if said := short(data):
        lines += ["", f"{said[:1].upper()}{said[1:]}."]
    return "\n".join(lines) + "\n"


def junit(data: dict[str, Any]) -> str:
    """A suite per kind, a case per series. A warning is text of a case that passes, since the lane
    only warns; a series too short to judge is skipped."""
    from junitparser import JUnitXml, Skipped, TestCase, TestSuite

    xml = JUnitXml("replay drift")
    for kind in SERIES_TITLES:
        suite = TestSuite(kind)
        for one in data["series"]:
            if one["kind"] != kind:
                continue
            case = TestCase(xml_text(name(one)), xml_text(f"{kind}.{whose(one)}"))
            said = ["  ".join(_cells(one, change, True)) for change in one["changes"]]
            if one["nights"] < data["least_nights"]:
                case.result = [Skipped(f"{one['nights']} nights")]
            elif one["warned"]:
                case.system_err = xml_text("\n".join(["WARNING: slower", *said]))
            elif said:
                case.system_out = xml_text("\n".join(said))
            suite.add_testcase(case)
        if len(suite):
            xml.add_testsuite(suite)
    made: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return made.decode("utf-8") + "\n"


def files(data: dict[str, Any], series: Sequence[tuple[tuple[Any, ...], pl.DataFrame]]
          ) -> dict[str, str]:
    """All forms by file name. series: the nights of each, as gate.drift.series_of() gives them."""
    return {"drift.json": json.dumps(data, indent=1, sort_keys=True) + "\n",
            "drift.xml": junit(data), "drift.md": markdown(data), "drift.txt": text(data),
            "drift.html": page(data, series)}
