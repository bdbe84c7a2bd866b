"""`replay report`: the page in a real browser, and the other formats."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from replay.metrics.timeline import INSTANTS, TIMELINE_TABLES, instants, timeline
from replay.base.alike import Counting
from replay.report.page.latency import curve
from replay.runs.run import read_run

from browsing import a_browser, hovered, opened, walked  # noqa: F401  isort: skip
from run_folders import change_run
from driving import ROOT, cli, refused  # isort: skip
from made_outcomes import outcome  # isort: skip
from needs import needs_browser  # isort: skip

EVIL = "<img src=x onerror=window.hacked=1>"
ENDS = "</script><script>window.hacked=2</script>\u2028\u202e"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "pvh"
    done = cli("run", ROOT / "traces/pvh-dom0.arrow", "--out", folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    done = cli("report", run)
    assert done.code == 0, done.err
    return run / "report.html"


@pytest.fixture(scope="module")
def hostile(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with the strings of somebody who wants into the reader's browser."""
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("hostile") / "run"))
    for name in ("outcome-{}.arrow", "timeline-{}.json"):
        (folder / name.format("balloon")).rename(folder / name.format(EVIL))

    def change(data: dict[str, Any]) -> None:
        for name in ("trace", "physmap", "kernel", "mode", "profile_summary"):
            data["run"][name] = f"{EVIL}{ENDS}"
        data["order"][0] = EVIL
        data["allocators"][EVIL] = data["allocators"].pop("balloon")
        for one in data["allocators"].values():
            for row in one["latency_by_caller"]:
                row["caller"] = f"{EVIL}{ENDS}{row['caller']}"
            for row in one["hazard_examples"]:
                row["what"] = ENDS

    change_run(folder, change)
    for path in folder.glob("timeline-*.json"):
        line = json.loads(path.read_text())
        line["holders"]["caller"] = [f"{EVIL}{ENDS}{name}" for name in line["holders"]["caller"]]
        path.write_text(json.dumps(line))
    assert cli("report", folder).code == 0
    return folder / "report.html"


@needs_browser
def test_strings_of_a_hostile_run_stay_text(browser: Any, hostile: Path) -> None:
    from selenium.webdriver.common.by import By

    opened(browser, hostile)
    assert EVIL in browser.find_element(By.TAG_NAME, "body").text
    hovered(browser, "#f0-by-caller .mark-symbol path", "<img")
    browser.execute_script("document.querySelector('.map').focus()")
    assert EVIL in " ".join(walked(browser, 0, 64 * 8))
    assert browser.execute_script("return window.hacked === undefined")
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    assert browser.execute_script("return document.scripts.length") == 5


def test_a_hostile_page_holds_no_live_markup(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "</script><script>window" not in text
    assert "\u202e" not in text
    assert text.count("<script") == 5


def test_the_page_is_small_and_the_same_each_time(run: Path, page: Path, tmp_path: Path) -> None:
    assert page.stat().st_size < 3_000_000
    again = tmp_path / "again.html"
    assert cli("report", run, "-o", again).code == 0
    assert again.read_bytes() == page.read_bytes()
    text = page.read_text()
    assert "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'" in text
    assert "MODELLED" in text
    assert "RECORDED times: of an emulator" in text


def test_all_shipped_traces_give_small_pages(tmp_path: Path) -> None:
    for trace in sorted((ROOT / "traces").glob("*.arrow")):
        assert cli("run", trace, "--allocator", "pool", "--allocator", "balloon", "--allocator",
                   "extents", "--allocator", "genpool", "--out", tmp_path / trace.stem).code == 0
        assert cli("report", tmp_path / trace.stem).code == 0
        made = tmp_path / trace.stem / "report.html"
        assert made.stat().st_size < 3_000_000, trace.stem
        assert ("SYNTHETIC" in made.read_text()) == (trace.stem == "synthetic-mixed")


def test_other_formats(run: Path, hostile: Path, tmp_path: Path) -> None:
    for form in ("md", "csv", "txt"):
        assert cli("report", run, "--format", form, "-o", tmp_path / f"r.{form}").code == 0
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    metrics = read_run(run).metrics()
    assert len(rows) == metrics.height
    for row, value in zip(rows, metrics["value"], strict=True):
        assert row["value"] == "" if value is None else float(row["value"]) == pytest.approx(value)
    assert (tmp_path / "r.txt").read_text() == (run / "report.txt").read_text()
    assert "| p50 |" in (tmp_path / "r.md").read_text()
    assert cli("report", hostile.parent, "--format", "md", "-o", tmp_path / "h.md").code == 0
    assert "<img" not in (tmp_path / "h.md").read_text()


def test_figures_as_files(run: Path, tmp_path: Path) -> None:
    for form in ("svg", "png"):
        assert cli("report", run, "--format", form, "-o", tmp_path / form).code == 0
        assert {p.stem for p in (tmp_path / form).iterdir()} >= {"latency", "physmap", "factors"}
    ElementTree.parse(tmp_path / "svg/physmap.svg")
    assert (tmp_path / "png/physmap.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_spreadsheets_get_no_formulas(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    change_run(folder, lambda data: data["run"].update(trace="=HYPERLINK(1)"))
    assert cli("report", folder, "--format", "csv").code == 0
    rows = csv.DictReader((folder / "report.csv").read_text().splitlines())
    assert {row["run"] for row in rows} == {"'=HYPERLINK(1)"}


def test_a_run_without_time_lines_still_gives_a_page(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    (folder / "timeline-pool.json").unlink()
    assert cli("report", folder).code == 0
    assert "No pictures of space over time" in (folder / "report.html").read_text()


def test_a_strategy_that_served_nothing_has_a_page_too(tmp_path: Path) -> None:
    """No region is left where all RAM of the host is taken out: nothing is ever handed out."""
    args = ("run", ROOT / "traces/arm64-dom0.arrow", "--allocator", "hypervisor", "--physmap",
            "qemu-virt-arm64", "--iommu", "off", "--subtract-ram", "all")
    assert cli(*args, "--out", tmp_path / "none").code == 0
    assert not read_run(tmp_path / "none").timeline("hypervisor").cells.height
    assert cli("report", tmp_path / "none").code == 0
    assert cli(*args, "--allocator", "balloon", "--out", tmp_path / "one").code == 0
    assert cli("report", tmp_path / "one").code == 0
    assert "The physmap" in (tmp_path / "one/report.html").read_text()


@pytest.mark.parametrize(("damage", "said"), [
    (lambda d: d.pop("cells"), "cells"), (lambda d: d["cells"].pop("what"), "cells"),
    (lambda d: d["cells"]["cell"].append(1), "one length"),
    (lambda d: d["states"].update(cell=[10**6] * len(d["states"]["cell"])), "states.cell"),
    (lambda d: d["gauges"].update(time_ns=["x"] * INSTANTS), "gauges"),
    (lambda d: d["ages"].update(age_s=[None] * len(d["ages"]["age_s"])), "ages.age_s"),
    (lambda d: d["cells"].update(nr_pages=[0] * len(d["cells"]["cell"])), "cells.nr_pages"),
    (lambda d: d["cells"]["start_pfn"].reverse(), "cells.start_pfn"),
    (lambda d: d["cells"]["cell"].reverse(), "cells.cell"),
    (lambda d: d["states"].update(holder=[99] * len(d["states"]["cell"])), "states.holder"),
    (lambda d: d["states"].update({"from": [-1] * len(d["states"]["cell"])}), "states.from"),
    (lambda d: d["ages"].update(row=[47] * len(d["ages"]["row"])), "ages.row"),
])
def test_a_damaged_time_line_is_said_in_the_page(run: Path, tmp_path: Path, damage: Any,
                                                 said: str) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    data = json.loads((folder / "timeline-pool.json").read_text())
    damage(data)
    (folder / "timeline-pool.json").write_text(json.dumps(data))
    assert cli("report", folder).code == 0
    text = (folder / "report.html").read_text()
    assert "timeline-pool.json" in text
    assert said in text


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    refused("report", tmp_path, naming=(tmp_path, "summary.json"))
    refused("report", run, "--format", "pdf", naming=("pdf",))
    refused("report", run, "-o", tmp_path, naming=("is a directory",))
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    path = folder / "outcome-pool.arrow"
    path.write_bytes(path.read_bytes()[:5000])
    (folder / "report.html").unlink(missing_ok=True)
    refused("report", folder, naming=("outcome-pool.arrow",))
    assert not (folder / "report.html").exists()


# -- what the figures are made from ----------------------------------------------------------------
def test_a_curve_is_the_nearest_rank() -> None:
    values = np.arange(1, 1001)
    counting = Counting()
    for part in (values[:300], values[300:], values[:0]):
        counting.add(part)
    tail, ns = curve(counting.counts())
    for at, value in zip(tail[:-1], ns[:-1], strict=True):
        assert value == pytest.approx(1000 * (1 - 1 / at), abs=1)
    assert ns[-1] == 1000


def test_the_time_line_counts_what_is_there() -> None:
    calls: list[tuple[Any, ...]] = [("alloc", 0, 2), ("alloc", 300, 1), ("free", 500, [0]),
                                    ("free", 700, [1, 2])]
    frames = [4096, 4600, 4097]
    sections = [(100, 4096, 2048, 0)]
    o = outcome(calls, [(0, 1, 0, 0, 1)] * 4, frames, sections=sections, duration_ns=1000)
    made = timeline(o)
    assert {name: getattr(made, name).columns for name in TIMELINE_TABLES} == {
        name: list(columns) for name, columns in TIMELINE_TABLES.items()}
    at = instants(700, INSTANTS)
    life = [(0, 500), (0, 700), (300, 700)]
    for k, t in enumerate(at.tolist()):
        live = [f for f, (a, b) in zip(frames, life, strict=True) if a <= t < b]
        row = made.gauges.row(k, named=True)
        assert row["live_pages"] == len(live)
        assert row["section_pages"] == (2048 if t >= 100 else 0)
        if t >= 100:
            broken = len({f // 512 for f in live}) * 512 - len(live)
            assert row["unusable_free_index"] == pytest.approx(broken / (2048 - len(live)))
    live_cells = made.states.join(made.cells, on="cell")
    assert set(live_cells["start_pfn"]) == {4096, 4096 + 504 // 512 * 512}
    first = made.states.filter(pl.col("from") == 0)
    assert first["live_pages"].to_list() == [2]
