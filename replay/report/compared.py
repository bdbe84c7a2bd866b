"""What `replay compare` and `replay diff` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from replay.base.width import fitting
from replay.compare.importance import by_importance
from replay.report.telling.escapes import plain
from replay.report.telling.figures import SHOWN
from replay.report.telling.tables import (
    NO_VALUE, duration, fitted, heading, notes, pairs, render, share, table, warning_rows,
)  # fmt: skip
from replay.report.telling.telling import WARNING_KINDS

VERDICT_STYLES = {"better": "green", "worse": "red"}
MOST_DIFFERENCES = 20
"""Rows of a table, unless all are asked for."""


def comparison(data: dict[str, Any], *, everything: bool = False, color: bool = False) -> str:
    """Of each group of sides: what came out, what they rest on, the metrics that differ by their
    importance, the requests in pairs. everything: all metrics that differ."""
    parts: list[RenderableType] = []
    said: set[tuple[str, ...]] = set()
    for one in data["tables"]:
        labels = [side["label"] for side in one["sides"]]
        parts += [*_verdict(one), *_provenance(one, labels), *_warnings(one, labels, said),
                  *_metrics(one, labels, everything), *_paired(one, labels)]
    parts.append(notes([
        "all times are MODELLED (work counts x costs + waiting); nothing else is a time",
        "each is held against the first; metrics that are equal on all sides are left out",
        *([] if everything else ["--all prints all that differ, --json every metric"])]))
    return render(parts, color=color)


def _verdict(one: dict[str, Any]) -> list[RenderableType]:
    said = one.get("verdict", ())
    return [Text("Verdict", style="bold"), notes(said, style="")] if said else []


def _provenance(one: dict[str, Any], labels: Sequence[str]) -> list[RenderableType]:
    title = "What the runs differ in, besides the strategies"
    if not one["provenance"]:
        return [Text(f"{title}: nothing", style="bold"), ""]
    rows = [[row["name"].replace("_", " "), *(plain(v) for v in row["values"])]
            for row in one["provenance"]]
    return [table(title, ["", *(heading(n, 24) for n in labels)], rows,
                  align="l" + "w" * len(labels))]


def _warnings(one: dict[str, Any], labels: Sequence[str], said: set[tuple[str, ...]]
              ) -> list[RenderableType]:
    """What to mind of the runs, and of which of them; what tables before this one said is left out.
    """
    rows = []
    for w in one["warnings"]:
        key = (w["label"], w["text"], *w["sides"])
        if key not in said:
            whose = "" if w["sides"] == labels else f" ({', '.join(map(plain, w['sides']))})"
            rows.append((w["label"], plain(w["text"]) + whose, WARNING_KINDS[w["kind"]].fails))
        said.add(key)
    return warning_rows(rows)


def _metrics(one: dict[str, Any], labels: Sequence[str], everything: bool
             ) -> list[RenderableType]:
    matters, small = by_importance(one["metrics"])
    rows = [*matters, *small] if everything else matters[:MOST_DIFFERENCES]
    if not matters and not small:
        return [Text(f"{_named(labels)}: equal in every metric", style="bold"), ""]
    found: list[RenderableType] = []
    per_table = fitting(42, 30)  # beside the first side, which each is held against
    cells = [_row(row) for row in rows]
    for part in range(0, len(labels) - 1, per_table):
        names = labels[1 + part:][:per_table]
        found.append(table(
            "What differs, the most important first (times modelled)",
            ["", heading(labels[0], 12), *(heading(n, 26) for n in names)],
            [[label, base, *its[part:][:per_table]] for label, base, its in cells]))
    left = [f"{len(matters) - MOST_DIFFERENCES} further metrics"] if (
        len(matters) > MOST_DIFFERENCES) else []
    left += [f"{len(small)} whose difference is below 1 %"] if small else []
    return found if everything or not left else [*found, notes([f"left out: {', '.join(left)}"])]


def _named(labels: Sequence[str]) -> str:
    return ", ".join(plain(label) for label in labels)


def _row(row: dict[str, Any]) -> tuple[str, str, list[Text]]:
    show = SHOWN[row["unit"]]
    cells = []
    for value, effect in zip(row["values"][1:], row["effects"], strict=True):
        verdict = effect["verdict"]
        said = show(value)
        if verdict not in ("equal", "unknown"):
            said += f"  {change(effect)}"
        word = verdict if verdict in VERDICT_STYLES and effect["size"] != "negligible" else ""
        cells.append(Text(f"{said}  {word:<6}", style=VERDICT_STYLES.get(word, "")))
    return fitted(row["label"], 26), show(row["values"][0]), cells


def change(effect: dict[str, Any]) -> str:
    """The change as people say it: a percentage, from a factor of two on that factor."""
    ratio = effect["ratio"]
    if effect["change"] is None:
        return NO_VALUE
    if not effect["change"]:
        return "equal"
    if ratio is None:
        return "from none" if not effect["base"] else "to none" if not effect["value"] else NO_VALUE
    if ratio >= 2:
        return f"{_factor(ratio)} times"
    if ratio <= 0.5:
        return f"1/{_factor(1 / ratio)}"
    percent = 100 * (ratio - 1)
    return f"{percent:+.1f} %" if abs(percent) >= 0.05 else "under 0.1 %"


def _factor(ratio: float) -> str:
    """To two digits, whole from ten on."""
    digits = max(0, len(f"{ratio:.0f}") - 2)
    return f"{round(ratio, -digits):,.0f}" if ratio >= 9.95 else f"{ratio:.2g}"


def _paired(one: dict[str, Any], labels: Sequence[str]) -> list[RenderableType]:
    rows = []
    for name, same, pair, why in zip(labels[1:], one["same_frames"], one["paired"],
                                     one["unpaired"], strict=True):
        if pair is None:
            rows.append([plain(name), *[NO_VALUE] * 6, why or "other requests"])
            continue
        rows.append([plain(name), f"{pair['calls']:,}", share(pair["faster"]),
                     share(pair["slower"]), share(pair["equal"]), _signed(pair["median_change_ns"]),
                     f"{pair['cliffs_delta']:+.3f} {pair['size']}", "same" if same else "differ"])
    return [table(f"The same requests, each held against {fitted(labels[0], 30)} (modelled)",
                  ["", "calls", "faster", "slower", "equal", "median change", "Cliff's delta",
                   "frames"], rows, align="wrrrrrrr")]


def _signed(ns: float) -> str:
    return ("+" if ns > 0 else "-" if ns < 0 else "") + duration(abs(ns))


# -- diff ------------------------------------------------------------------------------------------
def difference(data: dict[str, Any], *, color: bool = False) -> str:
    """Equal, or where two outcomes part, with the requests before it."""
    labels = [plain(side["label"]) for side in data["sides"]]
    head = pairs([("A", f"{labels[0]}: {data['requests'][0]:,} requests"),
                  ("B", f"{labels[1]}: {data['requests'][1]:,} requests")])
    mind = _warnings(data, [side["label"] for side in data["sides"]], set())
    if data["equal"]:
        return render([head, *mind, "Equal in every request: errno, frames, path, work and times."],
                      color=color)
    at = data["parts_at"]
    what = {"answer": "the same was asked, and they answer differently",
            "request": "what was asked differs there; answers behind it are not compared"}
    columns = [[row["column"], f"{row['request']:,}", *(plain(v) for v in row["values"]),
                f"{row['rows']:,}"] for row in data["columns"]]
    parts: list[RenderableType] = [
        head, *mind, Text(f"They part at request {at:,}: {what[data['kind']]}", style="bold"), ""]
    if columns:
        parts.append(table("Where each column differs first",
                           ["column", "request", "A", "B", "rows that differ"], columns))
    parts.append(_requests(data))
    if data["only_in_one"]:
        parts.append(notes(["columns that one of them lacks: "
                            + ", ".join(plain(n) for n in data["only_in_one"])]))
    return render(parts, color=color)


def _requests(data: dict[str, Any]) -> RenderableType:
    rows = []
    for one in data["context"]:
        for letter, side in zip("AB", one["sides"], strict=True):
            if side is None:
                rows.append([f"{one['request']:,} {letter}", "no such request", *[""] * 7])
                continue
            pfn = side.get("first_pfn")
            rows.append([
                f"{one['request']:,} {letter}", f"{side['kind']} {side['nr_pages']:,}",
                fitted(side["caller"] or "", 18), duration(side["time_ns"]),
                duration(side["wait_ns"]), duration(side["service_ns"]),
                f"{side['path']}" + (f" {side['errno']}" if side["errno"] else ""),
                NO_VALUE if pfn is None or pfn < 0 else f"{pfn:#x}", f"{side['runs']:,}"])
    return table("The requests before and where they part (times modelled)",
                 ["request", "pages", "caller", "at", "wait", "in the lock", "path", "first pfn",
                  "runs"], rows, align="lllrrrlrr")
