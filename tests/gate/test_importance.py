"""Findings by importance, what is folded, and that all forms of a gate agree."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from replay.report import gated
from replay.report.telling.gate import MOST_FINDINGS, shown
from replay.report.telling.moved import both, moved
from replay.report.telling.worst import Picture, drawn, worst

from driving import cli, small  # isort: skip

FIGURES = {"latency_ns.mean": 0.5, "latency_ns.max": 0.25, "latency_ns.p99": 0.9999,
           "latency_ns.p50": 0.999, "fragmentation.idle_pages.mean": 3.0,
           "hypercalls": 1.0001, "fragmentation.live_pages.mean": 0.8}
"""By which share of what the models give each is said to have been accepted."""
FAILING = ["latency_ns.max", "latency_ns.mean", "fragmentation.live_pages.mean"]
BETTER = ["fragmentation.idle_pages.mean"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gate with large and small changes, and what it wrote in `out` and, of all, in `all`."""
    made = tmp_path_factory.mktemp("gate")
    small(made / "a.arrow", seconds=2)
    (made / "gate.toml").write_text(
        'baseline = "accepted"\n[[check]]\nname = "good"\ntrace = "a.arrow"\nallocators = ["nop"]\n'
        '[[check]]\nname = "bad"\ntrace = "a.arrow"\nallocators = ["balloon", "pool"]\n')
    assert cli("gate", "accept", "--config", made / "gate.toml").code == 0
    path = made / "accepted/bad.json"
    data = json.loads(path.read_text())
    metrics = data["allocators"]["balloon"]["metrics"]
    metrics.update({name: metrics[name] * by for name, by in FIGURES.items()})
    path.write_text(json.dumps(data))
    for name, more in (("out", ()), ("all", ("--all",))):
        assert cli("gate", "check", "--config", made / "gate.toml", "--out", made / name,
                   *more).code == 1
    return made


def rows(folder: Path, out: str = "out") -> dict[str, list[str]]:
    """By form the figures of its rows, in their order."""
    read = {form: (folder / out / f"gate.{form}").read_text() for form in ("txt", "md", "html")}
    [failure] = ElementTree.parse(folder / out / "gate.xml").iter("failure")
    [better] = ElementTree.parse(folder / out / "gate.xml").iter("system-out")
    lines = {"txt": [line.split("   ")[1:] for line in read["txt"].splitlines()
                     if line.startswith("balloon   ")],
             "md": [line.split(" | ")[1:] for line in read["md"].splitlines()
                    if line.startswith("| balloon |")],
             "html": [[html.unescape(cell)] for cell in re.findall(
                 r"<tr><td>balloon</td><td>(.*?)</td>", read["html"].split("<details>")[0])],
             "xml": [line.split("  ")[1:] for line in
                     f"{failure.text}\n{better.text}".splitlines() if line.startswith("balloon  ")]}
    return {form: [next(cell.strip() for cell in line if cell.strip()) for line in found]
            for form, found in lines.items()}


def data_of(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "out/gate.json").read_text())
    return data


def test_json_has_all_and_the_gravest_first(folder: Path) -> None:
    [_, bad] = data_of(folder)["checks"]
    found = [f["metric"] for f in bad["findings"]]
    assert set(found) == set(FIGURES)
    failing = [f["metric"] for f in bad["findings"] if f["status"] != "improved"]
    assert found[:len(failing)] == failing
    assert failing[:3] == FAILING
    ratios = [max(f["ratio"], 1 / f["ratio"]) for f in bad["findings"]][:len(failing)]
    assert ratios == sorted(ratios, reverse=True)


def test_every_form_shows_the_same_rows_in_the_same_order(folder: Path) -> None:
    labels = {f["metric"]: f["label"] for f in data_of(folder)["checks"][1]["findings"]}
    expected = [labels[name] for name in (*FAILING, *BETTER)]
    for form, found in rows(folder).items():
        assert found == expected, form


def test_every_form_tells_what_is_folded_in_the_same_words(folder: Path) -> None:
    _, lines = shown(data_of(folder)["checks"][1])
    assert [line.split(";")[0] for line in lines] == [
        "2 more figures are worse or changed, each by less than 1 %",
        "1 more figure is better, by less than 1 %"]
    for form in ("txt", "md", "html", "xml"):
        text = " ".join(html.unescape((folder / f"out/gate.{form}").read_text()).split())
        assert all(line in text.replace("\\", "") for line in lines), form


def test_all_shows_them(folder: Path) -> None:
    for form, found in rows(folder, "all").items():
        assert len(found) == len(FIGURES), form
        assert "more figure" not in (folder / f"all/gate.{form}").read_text()


def test_on_the_page_what_is_folded_opens(folder: Path) -> None:
    page = (folder / "out/gate.html").read_text()
    assert page.count("<tr><td>balloon</td>") == len(FIGURES)
    assert len(rows(folder)["html"]) == len(FAILING) + len(BETTER)


def test_failed_checks_come_first(folder: Path) -> None:
    text = (folder / "out/gate.txt").read_text()
    assert text.index("\nbad ") < text.index("\ngood ")


def found(ratio: float, size: str, status: str = "regressed") -> dict[str, Any]:
    return {"allocator": "a", "metric": "m", "label": "l", "unit": "ns", "base": 100.0,
            "value": 100 * ratio, "ratio": ratio, "tolerance": "0", "status": status, "size": size}


def test_where_all_are_small_the_largest_is_shown() -> None:
    kept, lines = shown({"findings": [found(1.009, "negligible"), found(1.001, "negligible")]})
    assert len(kept) == 1 and lines[0].startswith("1 more figure is worse")


def test_many_large_ones_are_folded_and_not_called_small() -> None:
    kept, [line] = shown({"findings": [found(2 - k / 100, "moderate") for k in range(30)]})
    assert len(kept) == MOST_FINDINGS
    assert line.startswith("10 more figures are worse or changed; the largest change: a, l, +80.0 %")


def test_other_frames_are_never_folded() -> None:
    frames = {**found(1, "none", "changed"), "ratio": None, "base": "ab", "value": "cd"}
    kept, _ = shown({"findings": [*(found(2 - k / 100, "moderate") for k in range(30)), frames]})
    assert kept[-1] is frames and len(kept) == MOST_FINDINGS + 1


def test_the_picture_is_of_the_worst_one(folder: Path) -> None:
    picture = worst(data_of(folder))
    assert isinstance(picture, Picture)
    assert picture.title == "max, modelled, of bad"
    assert [bar.strategy for bar in picture.bars] == ["balloon", "pool"]
    balloon, pool = picture.bars
    assert balloon.now == pytest.approx(4 * balloon.accepted)
    assert pool.now == pool.accepted and pool.status == ""
    assert "(+300.0 %)" in balloon.said
    lines = drawn(picture)
    md = (folder / "out/gate.md").read_text()
    assert all(line in md for line in lines)
    assert lines[0].index("|") < len(lines[0].rstrip("█"))
    page = (folder / "out/gate.html").read_text()
    assert page.count("<svg") == 2 and page.count('class="worse"') == 1
    assert f'width="{100 * balloon.accepted:.3f}%"' in page


def checks(*pairs: tuple[float, float]) -> dict[str, Any]:
    """A gate's data where strategies s0, s1, ... have these values of one metric."""
    base, value = pairs[0]
    return {"checks": [{"name": "c", "problem": "", "passed": False, "findings": [
        {**found(2, "large"), "allocator": "s0", "base": base, "value": value}],
        "figures": {f"s{k}": {"m": {"accepted": a, "now": b}} for k, (a, b) in enumerate(pairs)}}]}


@pytest.mark.parametrize(("pairs", "scale", "lengths"), [
    ([(10, 20), (5, 5)], "all on one scale", [(0.5, 1), (0.25, 0.25)]),
    ([(10, 40), (9000, 9000)], "each against its own accepted figure", [(0.25, 1), (0.25, 0.25)]),
    ([(0, 5), (0, 0)], "all on one scale", [(0, 1), (0, 0)]),
    ([(0, 5), (900, 900)], "each against its own accepted figure", [(0, 1), (1, 1)]),
    ([(-3, 5)], "all on one scale", [(0, 1)]),
    ([(1e-320, 1e19)], "each against its own accepted figure", [(1, 1)]),
    ([(0, 0)], "all on one scale", [(0, 0)])])
def test_lengths_of_bars(pairs: Any, scale: str, lengths: Any) -> None:
    picture = worst(checks(*pairs))
    assert picture is not None and picture.scale == scale
    assert [(bar.accepted, bar.now) for bar in picture.bars] == [
        (pytest.approx(a), pytest.approx(b)) for a, b in lengths]
    assert all(line.count("|") == 1 for line in drawn(picture))


@pytest.mark.parametrize(("base", "value", "said"), [
    (100, 104.7, "+4.7 %"), (100, 50, "-50.0 %"), (100, 200, "+100.0 %"), (100, 999, "+899.0 %"),
    (1, 490, "490 times"), (490, 1, "490 times less"), (1, 10, "10 times"), (1, 4.9e7, "49 million times"),
    (1e-300, 1e19, "countless times"), (100, 100.0000006, "up < 0.1 %"), (100, 99.9999, "down < 0.1 %"),
    (0, 5, "from 0"), (5, 0, "to 0"), (5, 5, "none"), (None, 5, "-"), ("a", "b", "-"),
    (-5, 5, "changed its sign"), (-5, -10, "+100.0 %")])
def test_changes_are_written_as_people_write_them(base: Any, value: Any, said: str) -> None:
    assert moved(base, value) == said
    assert not re.search(r"\de[+-]\d", said)


@pytest.mark.parametrize(("unit", "base", "value", "said"), [
    ("ns", 43, 45, ("43 ns", "45 ns")),
    ("ns", 13_712_345, 13_712_346, ("13,712,345 ns", "13,712,346 ns")),
    ("share", 0.00693126, 0.00693154, ("0.6931 %", "0.6932 %")),
    ("bytes", 20 << 20, (20 << 20) + 1, ("20,971,520 B", "20,971,521 B")),
    ("pages", 93.4095, 93.41, ("93.409", "93.41")), ("count", 5, 5, ("5", "5")),
    ("ns", None, 5, ("-", "5 ns")), ("", "ab" * 40, "\x1b[1m", ("ab" * 6, "\\x1b[1m"))])
def test_two_values_are_told_apart(unit: str, base: Any, value: Any, said: Any) -> None:
    assert both(unit, base, value) == said


def test_forms_are_the_same_for_the_same_data(folder: Path) -> None:
    data = data_of(folder)
    for form in (gated.text, gated.markdown, gated.html, gated.junit):
        assert form(data) == form(json.loads(json.dumps(data)))
    assert gated.markdown(data) == (folder / "out/gate.md").read_text()
