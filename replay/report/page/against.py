"""One page of what differs between two runs: what they rest on, metrics by size of effect, curves
of both in one figure, physmaps side by side, and the requests at which they part."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from replay.compare.diff import diff
from replay.compare.effects import compared
from replay.compare.importance import FOREMOST
from replay.compare.sides import Side
from replay.metrics.timeline import Timeline
from replay.report.page.document import document, vega_lite
from replay.report.page.figure import DASHES, PALETTE, Figure
from replay.report.page.latency import curves, latency_curves, percentiles
from replay.report.page.page import SCRIPTS, of_time_lines, shown, time_lines, titles
from replay.report.page.series import DRAWN_APART, Series
from replay.report.page.words import PAGE_WORDS
from replay.report.telling.escapes import plain
from replay.report.telling.figures import SHOWN
from replay.report.telling.tables import NO_VALUE, duration
from replay.report.telling.telling import told
from replay.runs.run import Run

LETTERS = ("A", "B")
FOLDED = ("negligible", "small")
"""Sizes of effects that are folded, see compare.effects.SIZES."""
WAYS = {"better": "better", "worse": "worse", "differs": "neither way is better",
        "unknown": "one has no value"}
MOST_EFFECTS = 20
"""Shown at once."""

Change = Callable[[dict[str, Any]], str]
"""From A to B, as every form of a comparison says it."""


def pairs_of(a: Run, b: Run) -> list[tuple[str, str]]:
    """The strategies of A and of B that are held against each other: those of one name, or the only
    ones; none where nothing says which."""
    shared = [(name, name) for name in a.allocators if name in b.allocators]
    if not shared and len(a.allocators) == len(b.allocators) == 1:
        return [(next(iter(a.allocators)), next(iter(b.allocators)))]
    return shared


def against(a: Run, b: Run, change: Change) -> str:
    """One HTML document; they have strategies to hold against each other, see pairs_of()."""
    runs, names = (a, b), titles((a, b))
    pairs = pairs_of(a, b)
    called = [plain(x if x == y else f"{x} and {y}") for x, y in pairs]
    sides = [(Side("A", a, x), Side("B", b, y)) for x, y in pairs]
    tables = [compared(pair) for pair in sides]
    effects = _effects(called, tables, change)
    large = [row for row in effects if not row["folded"]]
    series = [Series(f"{letter} {plain(name)}", run, name, k, PALETTE[k % len(PALETTE)],
                     DASHES[side])
              for k, pair in enumerate(pairs)
              for side, (letter, run, name) in enumerate(zip(LETTERS, runs, pair, strict=True))]
    drawn, space, missing = _pictures(series)
    parting = _parting(called, sides)
    part = {
        "id": "f0", "map": space, "strategies": list(enumerate(called)),
        "chosen": _most_different(called, effects), "missing": [plain(line) for line in missing],
        "figures": {figure.name: shown(figure, "f0", " against ".join(names)) for figure in drawn}}
    return document(
        "against.html.j2", SCRIPTS,
        {"figures": {f"f0-{figure.name}": vega_lite(figure.chart) for figure in drawn},
         "maps": {"f0": space or None}},
        part=part, words=PAGE_WORDS, names=names, told=[told(run.summary) for run in runs],
        commands=[plain(run.header.get("command", "")) for run in runs],
        provenance=_provenance(called, tables),
        said=_said(called, tables, parting, change),
        more=[(name, table["verdict"]) for name, table in zip(called, tables, strict=True)
              if table["verdict"]], parting=parting, warnings=_warnings(tables),
        large=large[:MOST_EFFECTS], others=large[MOST_EFFECTS:],
        small=[row for row in effects if row["folded"]])


def _provenance(called: Sequence[str], tables: Sequence[dict[str, Any]]) -> list[list[str]]:
    """What the runs rest on that differs: name, A, B; options by strategy."""
    found: dict[tuple[str, ...], None] = {}
    for name, table in zip(called, tables, strict=True):
        for row in table["provenance"]:
            whose = f" of {name}" if row["name"] == "options" else ""
            found[row["name"].replace("_", " ") + whose, *map(plain, row["values"])] = None
    return [list(row) for row in found]


# -- metrics -------------------------------------------------------------------------------------
def _effects(called: Sequence[str], tables: Sequence[dict[str, Any]], change: Change
             ) -> list[dict[str, Any]]:
    """Of all strategies the metrics that differ: those that say most, the largest effect first,
    then all others likewise."""
    found = []
    for k, (name, table) in enumerate(zip(called, tables, strict=True)):
        for row in table["metrics"]:
            effect = row["effects"][0]
            if effect["verdict"] == "equal":
                continue
            show = SHOWN[row["unit"]]
            found.append({
                "of": k, "strategy": name, "label": row["label"], "a": show(effect["base"]),
                "b": show(effect["value"]), "change": change(effect),
                "verdict": effect["verdict"], "way": WAYS[effect["verdict"]],
                "folded": effect["size"] in (*FOLDED, "unknown"),
                "rank": (row["metric"] not in FOREMOST, -_weight(effect))})
    return sorted(found, key=lambda row: row["rank"])


def _weight(effect: dict[str, Any]) -> float:
    """How far from equal; from or to nothing is furthest."""
    if effect["verdict"] == "unknown":
        return 0.0
    return abs(math.log(effect["ratio"])) if effect["ratio"] else math.inf


def _most_different(called: Sequence[str], effects: Sequence[dict[str, Any]]) -> int:
    """Place of the strategy with most effects that are not folded; -1, all, where none has any."""
    counts = [sum(row["of"] == k and not row["folded"] for row in effects)
              for k in range(len(called))]
    return counts.index(max(counts)) if any(counts) else -1


def _said(called: Sequence[str], tables: Sequence[dict[str, Any]],
          parting: Sequence[dict[str, Any]], change: Change) -> list[str]:
    """A sentence per strategy: whether it answers alike, and what an allocation's mean does."""
    parts = {one["strategy"]: one for one in parting}
    lines = []
    for name, table in zip(called, tables, strict=True):
        rows = {row["metric"]: row["effects"][0] for row in table["metrics"]}
        differ = sum(effect["verdict"] != "equal" for effect in rows.values())
        if name in parts and parts[name]["equal"]:
            lines.append(f"{name}: equal in every request, in frames, path, work and times.")
            continue
        mean = rows["latency_ns.mean"]
        moved = (f"the mean allocation takes {duration(mean['base'])} in A, "
                 f"{duration(mean['value'])} in B ({change(mean)}, modelled)"
                 if mean["verdict"] not in ("equal", "unknown") else
                 "the mean allocation takes as long in both")
        where = f"; they part at request {parts[name]['at']}" if name in parts else ""
        frames = "the same frames" if table["same_frames"][0] else "other frames"
        lines.append(f"{name}: {frames}; {differ} of {len(rows)} metrics differ; {moved}{where}.")
    return lines


def _warnings(tables: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Label and sentence of each, with the side that it is about where it is one alone."""
    found: dict[tuple[str, str], None] = {}
    for table in tables:
        for w in table["warnings"]:
            whose = "" if len(w["sides"]) == len(LETTERS) else f" ({w['sides'][0]} alone)"
            found[w["label"], plain(w["text"]) + whose] = None
    return list(found)


# -- pictures ------------------------------------------------------------------------------------
def _pictures(series: Sequence[Series]) -> tuple[list[Figure], dict[str, Any], list[str]]:
    """Figures, what the maps are drawn from, and why something is missing."""
    import altair as alt

    if not all(one.run.kept for one in series):
        return [], {}, ["No pictures: one of the runs keeps its summary alone (--no-outcome)."]
    frame = curves(series)
    found = [] if not frame.height else [Figure(
        "latency", "Latency of an allocation in both (modelled)",
        f"A is a full line, B a dashed one, a colour per strategy. {DRAWN_APART}",
        latency_curves(alt, series, frame, "latency"), percentiles(frame, "latency"))]
    lines, said = time_lines(series)
    if not lines:
        return found, {}, said
    made, space = _over_time(series, lines)
    if not space:
        said.append("No maps side by side: the pages of the two machines differ in size.")
    return [*found, *made], space, said


def _over_time(series: Sequence[Series], lines: dict[int, Timeline]
               ) -> tuple[list[Figure], dict[str, Any]]:
    sizes = {int(one.run.header["page_bytes"]) for one in series}
    figures, space = of_time_lines(series, lines)
    return figures, space if len(sizes) == 1 else {}


# -- the requests that part ----------------------------------------------------------------------
def _parting(called: Sequence[str], sides: Sequence[tuple[Side, Side]]) -> list[dict[str, Any]]:
    """Where each strategy parts; nothing of runs that keep no row per request."""
    if not all(side.run.kept for pair in sides for side in pair):
        return []
    return [_parted(name, diff(*pair)) for name, pair in zip(called, sides, strict=True)]


def _parted(name: str, data: dict[str, Any]) -> dict[str, Any]:
    what = {"answer": "the same was asked, and they answer differently", "":
            "", "request": "what was asked differs there; answers behind it are not compared"}
    return {
        "strategy": name, "equal": data["equal"], "what": what[data["kind"]],
        "at": "" if data["equal"] else f"{data['parts_at']:,}",
        "columns": [[row["column"], f"{row['request']:,}", *map(plain, row["values"]),
                     f"{row['rows']:,}"] for row in data["columns"]],
        "context": [_request(one["request"], letter, side) for one in data["context"]
                    for letter, side in zip(LETTERS, one["sides"], strict=True)]}


def _request(number: int, letter: str, side: dict[str, Any] | None) -> list[str]:
    if side is None:
        return [f"{number:,} {letter}", "no such request", *[NO_VALUE] * 6]
    pfn = side.get("first_pfn")
    return [f"{number:,} {letter}", f"{plain(side['kind'])} {side['nr_pages']:,}",
            plain(side["caller"] or NO_VALUE), duration(side["time_ns"]),
            duration(side["wait_ns"]), duration(side["service_ns"]),
            plain(side["path"]) + (f" {plain(side['errno'])}" if side["errno"] else ""),
            NO_VALUE if pfn is None or pfn < 0 else f"{pfn:#x}"]
