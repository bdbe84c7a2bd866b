"""What a gate says: in the terminal, as Markdown for a pull request, as JUnit XML, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from replay.report.page.document import document
from replay.report.telling import gate as telling
from replay.report.telling import markdown as md
from replay.report.telling.escapes import cell, fenced, plain, xml_text
from replay.report.telling.gate import CAUSE_COLUMNS, CAUSE_TITLE, NOT_LET_THROUGH, FINDING_COLUMNS
from replay.report.telling.tables import notes, pairs, render, table, warning_rows
from replay.report.telling.worst import drawn, worst

STATUS_STYLES = {"regressed": "bold red", "changed": "yellow", "improved": "green"}
MARKDOWN_ALIGN = "llrrrrl"


def text(data: dict[str, Any], *, color: bool = False, everything: bool = False) -> str:
    """A line per check, what changed, what moved in each, then the verdict and what to type."""
    parts: list[RenderableType] = [
        Text("Model results against the accepted ones (times modelled)", style="bold"),
        table("", ["check", "accepted at", "result"],
              [[plain(c["name"]), telling.since(c), telling.said(c)]
               for c in telling.ordered(data)], left=3)]
    rows, left = telling.causes(data, everything)
    if rows:
        parts += [Text(CAUSE_TITLE, style="bold"), table("", CAUSE_COLUMNS, rows, align="wwww")]
    if left:
        parts.append(notes([left]))
    for one in telling.told(data):
        parts += _check(one, everything)
    parts += warning_rows([(label, f"{said} ({whose})", False)
                           for label, said, whose in telling.mind(data)])
    parts.append(telling.verdict(data))
    parts += [f"Next, if that is meant: {line}" if not one_is_new(data) else f"Next: {line}"
              for line in telling.following(data)]
    return render(parts, color=color)


def one_is_new(data: dict[str, Any]) -> bool:
    """Whether of some check nothing was accepted yet."""
    return any(c["new"] for c in data["checks"])


def _check(one: dict[str, Any], everything: bool) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if one["problem"]:
        parts.append(notes([plain(one["problem"])]))
    if one["findings"]:
        kept, folded = telling.shown(one, everything)
        rows: list[list[str | Text]] = [
            [*telling.cells(f)[:-1],
             Text(telling.WORDS[f["status"]], style=STATUS_STYLES.get(f["status"], ""))]
            for f in kept]
        parts.append(table("", FINDING_COLUMNS, rows, align="lwrrrrl"))
        if folded:
            parts.append(notes([*folded, "--all shows them"]))
        parts.append(pairs([("shown by", telling.command(one))]))
    return [Text(plain(one["name"]), style="bold"), *parts] if parts else []


def markdown(data: dict[str, Any], *, everything: bool = False) -> str:
    """For the comment of a pull request."""
    lines = [f"**Gate {cell(telling.verdict(data))}**", "",
             "Model results of `replay`, times modelled.", "",
             *md.table(["check", "accepted at", "result"],
                       [[c["name"], telling.since(c), telling.said(c)]
                        for c in telling.ordered(data)])]
    rows, left = telling.causes(data, everything)
    if rows:
        lines += ["", f"### {CAUSE_TITLE}", "", *md.table(CAUSE_COLUMNS, rows)]
    if left:
        lines += ["", f"{left}."]
    if picture := worst(data):
        how = f"a bar for now, a stroke where it ended when accepted; {picture.scale}."
        lines += ["", "### The worst one", "", f"{cell(picture.title)}: {how}", "", "```",
                  *map(fenced, drawn(picture)), "```"]
    for one in telling.told(data):
        lines += _section(one, everything)
    if found := telling.mind(data):
        lines += ["", "### Warnings", "",
                  *(f"- **{cell(label)}**: {cell(said)} ({cell(whose)})"
                    for label, said, whose in found)]
    if following := telling.following(data):
        lines += ["", "Next:" if one_is_new(data) else "Next, if that is meant:", "", "```",
                  *map(fenced, following), "```"]
    return "\n".join(lines) + "\n"


def _section(one: dict[str, Any], everything: bool) -> list[str]:
    """A check in Markdown."""
    lines: list[str] = []
    if one["problem"]:
        lines += [cell(one["problem"]), ""]
    if one["findings"]:
        kept, folded = telling.shown(one, everything)
        lines += md.table(FINDING_COLUMNS, [telling.cells(f) for f in kept], MARKDOWN_ALIGN)
        lines += [part for line in folded for part in ("", f"{cell(line)}.")]
        lines += ["", "```", fenced(telling.command(one)), "```"]
    return ["", f"### {cell(one['name'])}", "", *lines] if lines else []


def html(data: dict[str, Any], *, everything: bool = False) -> str:
    """The same as a page in one file, without scripts; what is folded opens there."""
    checks = []
    told = telling.told(data)
    for k, one in enumerate(telling.ordered(data)):
        kept, folded = telling.shown(one, everything)
        rest = [f for f in one["findings"] if not any(f is other for other in kept)]
        checks.append({
            "at": k, "name": plain(one["name"]), "said": telling.said(one),
            "since": telling.since(one), "passed": one["passed"], "cause": telling.cause(one),
            "problem": plain(one["problem"]), "told": any(one is other for other in told),
            "rows": [telling.cells(f) for f in kept], "rest": [telling.cells(f) for f in rest],
            "folded": folded, "command": telling.command(one)})
    picture = worst(data)
    causes, left = telling.causes(data, everything)
    return document("gate.html.j2", [], None, checks=checks, verdict=telling.verdict(data),
                    passed=data["passed"], mind=telling.mind(data), columns=FINDING_COLUMNS,
                    causes=causes, left=left, cause_columns=CAUSE_COLUMNS, cause_title=CAUSE_TITLE,
                    picture=asdict(picture) if picture else None,
                    following=telling.following(data), new=one_is_new(data))


def junit(data: dict[str, Any], *, everything: bool = False) -> str:
    """A suite per check, a case per strategy; what does not pass is a failure, what cannot be
    compared an error."""
    from junitparser import Error, JUnitXml, TestCase, TestSuite

    xml = JUnitXml("replay gate")
    for one in telling.ordered(data):
        suite = TestSuite(xml_text(one["name"]))
        for case in _cases(one, everything, TestCase):
            suite.add_testcase(case)
        if one["problem"]:
            case = TestCase("comparison", xml_text(one["name"]))
            error = Error(xml_text(one["problem"]), "problem")
            error.text = xml_text(telling.cause(one))
            case.result = [error]
            suite.add_testcase(case)
        xml.add_testsuite(suite)
    made: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return made.decode("utf-8") + "\n"


def _cases(one: dict[str, Any], everything: bool, case_type: Any) -> Sequence[Any]:
    from junitparser import Failure

    made = []
    for name in one["strategies"]:
        case = case_type(xml_text(name), xml_text(one["name"]))
        own = [f for f in one["findings"] if f["allocator"] == name]
        bad = [f for f in own if f["status"] in NOT_LET_THROUGH]
        better = [f for f in own if f["status"] == "improved"]
        if bad:
            failure = Failure(xml_text(
                f"{telling.figures(len(bad))} {'is' if len(bad) == 1 else 'are'} not as accepted "
                f"({telling.since(one)}): {telling.cause(one)}"), "regression")
            failure.text = xml_text("\n".join([*_lines(bad, everything),
                                               one["commands"].get(name, "")]))
            case.result = [failure]
        found = [w for w in one["warnings"] if w["strategy"] in ("", name)]
        if found:
            case.system_err = xml_text("\n".join(f"{w['label']}: {w['text']}" for w in found))
        if better:
            case.system_out = xml_text("\n".join(_lines(better, everything)))
        made.append(case)
    return made


def _lines(findings: Sequence[dict[str, Any]], everything: bool) -> list[str]:
    """Findings of a strategy as lines, the small ones folded as in the other forms."""
    kept, folded = telling.shown({"findings": findings}, everything)
    return [*("  ".join(telling.cells(f)) for f in kept), *folded]
