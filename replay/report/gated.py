"""What a gate says: in the terminal, as Markdown for a pull request, as JUnit XML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from replay.report.compared import change
from replay.report.page.document import document
from replay.report.telling import markdown as md
from replay.report.telling.escapes import cell, fenced, plain, xml_text
from replay.report.telling.figures import SHOWN
from replay.report.telling.tables import (
    NO_VALUE, fitted, notes, pairs, render, table, warning_rows,
)  # fmt: skip
from replay.report.telling.telling import WARNING_KINDS

WORDS = {"regressed": "worse", "changed": "changed", "improved": "better", "ok": "as accepted"}
STATUS_STYLES = {"regressed": "bold red", "changed": "yellow", "improved": "green"}
FINDING_COLUMNS = ("strategy", "figure", "accepted", "now", "change", "allowed", "")
ALIGN = "llrrrrl"


def said(checked: dict[str, Any]) -> str:
    """One check in a few words."""
    if checked["problem"]:
        return "cannot be compared"
    counts = Counter(f["status"] for f in checked["findings"])
    parts = [f"{counts[s]:,} {WORDS[s]}" for s in ("regressed", "changed", "improved") if counts[s]]
    return ", ".join(parts) or f"all {sum(checked['counts'].values()):,} figures as accepted"


def since(checked: dict[str, Any]) -> str:
    """Which commit the baseline was accepted at, and how many came since."""
    if not checked["since"]:
        return "a commit that is not known"
    n = checked["commits"]
    behind = "" if n is None else f" ({n:,} commit{'' if n == 1 else 's'} ago)"
    return f"{plain(checked['since'])}{behind}"


def _value(finding: dict[str, Any], name: str) -> str:
    value = finding[name]
    if isinstance(value, str):
        return plain(value)[:16]
    return SHOWN[finding["unit"]](value)


def _cells(finding: dict[str, Any]) -> list[str]:
    moved = NO_VALUE
    if finding["ratio"] is not None or isinstance(finding["base"], int | float):
        value, base = finding["value"], finding["base"]
        moved = change({"change": None if value is None or base is None else value - base,
                        "ratio": finding["ratio"], "base": base, "value": value})
    allowed = finding["tolerance"] if finding["tolerance"] != "0" else "none"
    return [fitted(finding["allocator"], 18), finding["label"], _value(finding, "base"),
            _value(finding, "value"), moved, allowed, WORDS[finding["status"]]]


def mind(data: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(label, sentence, checks) of each warning of the replays, said once for all that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in data["checks"]:
        for w in one["warnings"]:
            text = f"{w['strategy']}: {w['text']}" if w["strategy"] else w["text"]
            found.setdefault((w["label"], text), []).append(plain(one["name"]))
    order = [kind.label for kind in WARNING_KINDS.values()]
    ran = sum(bool(one["strategies"]) for one in data["checks"])
    return [(label, plain(text), f"all {ran} checks" if len(names) == ran > 1 else ", ".join(names))
            for (label, text), names in sorted(found.items(), key=lambda f: order.index(f[0][0]))]


def verdict(data: dict[str, Any]) -> str:
    """The last line: whether the gate is open."""
    bad = [c["name"] for c in data["checks"] if not c["passed"]]
    better = sum(f["status"] == "improved" for c in data["checks"] for f in c["findings"])
    tail = f"; {better:,} figures are better than accepted" if better else ""
    if data["strict"] and better and not bad:
        return f"FAILED (--strict): {better:,} figures are better than accepted; accept them"
    if bad:
        return (f"FAILED: {len(bad)} of {len(data['checks'])} checks ("
                f"{', '.join(bad)}){tail}")
    return f"passed: {len(data['checks'])} checks{tail}"


def text(data: dict[str, Any], *, color: bool = False) -> str:
    """A line per check, then what changed in each, then the verdict."""
    parts: list[RenderableType] = [table(
        "Model results against the accepted ones (times modelled)",
        ["check", "accepted at", "result"],
        [[c["name"], since(c), said(c)] for c in data["checks"]], left=3)]
    for one in data["checks"]:
        if not (one["problem"] or one["findings"] or one["provenance"]):
            continue
        parts.append(Text(one["name"], style="bold"))
        if one["problem"]:
            parts.append(notes([plain(one["problem"])]))
        if one["provenance"]:
            parts.append(table("", ["rests on", "then", "now"],
                               [[name.replace("_", " "), fitted(a, 40), fitted(b, 40)]
                                for name, a, b in one["provenance"]], left=3))
        if one["findings"]:
            rows: list[list[str | Text]] = [
                [*_cells(f)[:-1],
                 Text(WORDS[f["status"]], style=STATUS_STYLES.get(f["status"], ""))]
                for f in one["findings"]]
            parts.append(table("", FINDING_COLUMNS, rows, align="lwrrrrl"))
            parts.append(pairs([("shown by", _command(one))]))
    parts += warning_rows([(label, f"{said} ({whose})", False)
                           for label, said, whose in mind(data)])
    parts.append(verdict(data) + "\n")
    return render(parts, color=color)


def _command(one: dict[str, Any]) -> str:
    """What reproduces a check's findings: one strategy's command, or that of all."""
    named = list(one["commands"].values())
    return plain(named[0] if len(named) == 1 else one["command"])


def markdown(data: dict[str, Any]) -> str:
    """For the comment of a pull request."""
    lines = [f"**Gate {verdict(data)}**", "", "Model results of `replay`, times modelled.", "",
             *md.table(["check", "accepted at", "result"],
                       [[c["name"], since(c), said(c)] for c in data["checks"]])]
    if data["checks"] and (found := mind(data)):
        lines += ["", "### Warnings", "",
                  *(f"- **{cell(label)}**: {cell(text)} ({cell(whose)})"
                    for label, text, whose in found)]
    for one in data["checks"]:
        if not (one["problem"] or one["findings"] or one["provenance"]):
            continue
        lines += ["", f"### {cell(one['name'])}", ""]
        if one["problem"]:
            lines += [cell(one["problem"]), ""]
        if one["provenance"]:
            lines += [*md.table(["rests on", "then", "now"], [
                [name, fitted(a, 60), fitted(b, 60)] for name, a, b in one["provenance"]]), ""]
        if one["findings"]:
            lines += md.table(FINDING_COLUMNS, [_cells(f) for f in one["findings"]], ALIGN)
            lines += ["", "```", fenced(_command(one)), "```"]
    return "\n".join(lines) + "\n"


def html(data: dict[str, Any]) -> str:
    """The same as a page in one file, without scripts."""
    checks = [{
        "at": k, "name": plain(c["name"]), "said": said(c), "since": since(c),
        "passed": c["passed"], "problem": plain(c["problem"]),
        "told": bool(c["problem"] or c["findings"] or c["provenance"]),
        "provenance": [[plain(v) for v in row] for row in c["provenance"]],
        "rows": [_cells(f) for f in c["findings"]], "command": _command(c)}
        for k, c in enumerate(data["checks"])]
    return document("gate.html.j2", [], None, checks=checks, verdict=verdict(data),
                    passed=data["passed"], mind=mind(data),
                    columns=[*FINDING_COLUMNS[:-1], "result"])


def junit(data: dict[str, Any]) -> str:
    """A suite per check, a case per strategy; what does not pass is a failure, what cannot be
    compared an error."""
    from junitparser import Error, JUnitXml, TestCase, TestSuite

    xml = JUnitXml("replay gate")
    for one in data["checks"]:
        suite = TestSuite(xml_text(one["name"]))
        for case in _cases(one, TestCase):
            suite.add_testcase(case)
        if one["problem"]:
            case = TestCase("comparison", xml_text(one["name"]))
            case.result = [Error(xml_text(one["problem"]), "problem")]
            suite.add_testcase(case)
        xml.add_testsuite(suite)
    made: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return made.decode("utf-8") + "\n"


def _cases(one: dict[str, Any], case_type: Any) -> Sequence[Any]:
    from junitparser import Failure

    made = []
    for name in one["strategies"]:
        case = case_type(xml_text(name), xml_text(one["name"]))
        bad = [f for f in one["findings"]
               if f["allocator"] == name and f["status"] in ("regressed", "changed")]
        if bad:
            lines = ["  ".join(_cells(f)) for f in bad]
            failure = Failure(xml_text(f"{len(bad)} figures are not as accepted at {since(one)}"),
                              "regression")
            failure.text = xml_text("\n".join([*lines, one["commands"].get(name, "")]))
            case.result = [failure]
        found = [w for w in one["warnings"] if w["strategy"] in ("", name)]
        if found:
            case.system_err = xml_text("\n".join(f"{w['label']}: {w['text']}" for w in found))
        better = [f for f in one["findings"]
                  if f["allocator"] == name and f["status"] == "improved"]
        if better:
            case.system_out = xml_text("\n".join("  ".join(_cells(f)) for f in better))
        made.append(case)
    return made
