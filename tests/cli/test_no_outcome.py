"""`replay run --no-outcome`: the summary alone, and what other verbs make of such a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import replay
from replay.base.errors import ReplayError

from driving import ROOT, cli, refused  # isort: skip

TRACE = ROOT / "traces/pvh-dom0.arrow"
TWO = ("--allocator", "pool", "--allocator", "balloon")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert cli("run", TRACE, *TWO, "--out", folder).code == 0
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, its summary alone, in a folder where all of it was before."""
    folder = tmp_path_factory.mktemp("runs") / "bare"
    assert cli("run", TRACE, *TWO, "--out", folder).code == 0
    assert cli("run", TRACE, *TWO, "--no-outcome", "--out", folder).code == 0
    return folder


def test_it_writes_the_same_summary_and_nothing_beside_the_report(whole: Path, bare: Path) -> None:
    assert sorted(p.name for p in bare.iterdir()) == ["report.txt", "summary.json"]
    a, b = (json.loads((p / "summary.json").read_text()) for p in (whole, bare))
    assert b["run"].pop("outcome") == "not kept"
    assert a == b
    assert (whole / "report.txt").read_text() == (bare / "report.txt").read_text()


def test_what_needs_a_row_per_request_says_so(bare: Path) -> None:
    refused("diff", f"{bare}:pool", f"{bare}:balloon", naming=(bare, "--no-outcome"))
    run = replay.read_run(bare)
    for ask in (run.outcome, run.timeline):
        with pytest.raises(ReplayError, match="--no-outcome"):
            ask("pool")
    with pytest.raises(ReplayError, match="--no-outcome"):
        replay.run_trace(TRACE, ["nop"], no_outcome=True).outcome("nop")


def test_compare_and_report_leave_out_what_is_not_there(whole: Path, bare: Path,
                                                        tmp_path: Path) -> None:
    done = cli("compare", f"{whole}:pool", f"{bare}:pool", "--json")
    table, = json.loads(done.out)["tables"]
    assert (table["paired"], table["unpaired"], table["same_frames"]) == (
        [None], ["not kept"], [True])
    assert "not kept" in cli("compare", bare).out
    page = tmp_path / "page.html"
    assert cli("report", bare, "-o", page).code == 0
    assert "keeps its summary alone" in page.read_text()
    assert "in pairs</" not in page.read_text()
