"""The claims: their commands give their figures, and their verdicts follow from them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from driving import ROOT, cli, refused

from replay.claims import found, lab
from replay.claims.contiguity import RIVALS
from replay.claims.experiment import Column, Row, Rows, Synthetic
from replay.claims.found import CLAIMS, claims
from replay.claims.hypervisor import OTHER_BOOT, OURS, QUERY
from replay.claims.lab import rows_of
from replay.claims.loads import MOVING, STILL
from replay.report.claims import main_table, shell_lines, text

NUMBERS = tuple(range(1, 11))
Summaries = dict[str, Any]


def change(rows: Rows, column: str, value: float, strategy: str = "", **wanted: Any) -> Rows:
    """The rows with another figure in those of a strategy and of runs with these attributes."""
    picked = rows.of(strategy, **wanted)
    assert picked, (strategy, wanted)
    assert column in picked[0].figures
    return Rows(replace(r, figures=r.figures | {column: value}) if r in picked else r for r in rows)


def word(number: int, rows: Rows) -> str:
    return CLAIMS[number].judge(rows).word


def moved_as_still(rows: Rows, *strategies: str) -> Rows:
    """Claim 2 with strategies whose callers do not notice the target."""
    still = {r.strategy: r.figures for r in rows.of(trace=STILL)}
    return Rows(replace(r, figures=still[r.strategy]) if r.run.trace is MOVING
                and r.strategy in strategies else r for r in rows)


def without(rows: Rows, column: str, **wanted: Any) -> Rows:
    return change(rows, column, 0, **wanted)


C = "1:1 collisions"
FLIPS = {
    1: {"measured": ("supported", lambda r: r),
        "hotplug adds as many on recordings": (
            "depends", lambda r: change(r, "sections added", 1, "hotplug", trace="pvh-dom0",
                                        loop="open")),
        "hotplug adds more on a recording": (
            "supported", lambda r: change(r, "sections added", 99, "hotplug", trace="pvh-dom0")),
        "the pool adds more once": (
            "refuted", lambda r: change(r, "sections added", 99, "pool", trace="pv-dom0")),
        "the pool moves pages": (
            "refuted", lambda r: change(r, "pages out", 1e9, "pool", trace="pv-dom0"))},
    2: {"measured": ("supported", lambda r: r),
        "the pool's callers wait": ("refuted", lambda r: change(r, "wait, max", 9e9, "pool",
                                                               trace=MOVING)),
        "the pool's caller waits in the recording": (
            "refuted", lambda r: change(r, "wait, max", 1, "pool", trace="counted/target")),
        "the pool gives RAM": ("refuted", lambda r: change(r, "RAM given, peak", 1, "pool",
                                                          trace=STILL)),
        "hotplug is not entangled": ("depends", lambda r: moved_as_still(r, "hotplug")),
        "none is entangled": ("depends", lambda r: moved_as_still(r, "hotplug", "balloon"))},
    3: {"measured": ("supported", lambda r: r),
        "other calls": ("refuted", lambda r: change(r, "frees", 1, "pool", trace="pv-dom0")),
        "the pool refuses": ("depends", lambda r: change(r, "failed", 1, "pool",
                                                         trace="pv-dom0"))},
    4: {"measured": ("refuted", lambda r: r),
        "no longer call": ("depends", lambda r: without(r, "max")),
        "nor a window": ("supported", lambda r: without(without(r, "max"),
                                                        "frames in device windows")),
        "slower": ("refuted", lambda r: change(without(r, "max"), "p99", 1e9, "pool",
                                               trace="pvh-dom0")),
        "more RAM": ("refuted", lambda r: change(without(r, "max"), "RAM given, mean", 1e12,
                                                 "pool"))},
    5: {"measured": ("depends", lambda r: r),
        "the balloon gives more": ("supported", lambda r: change(r, "RAM given, mean", 1e9,
                                                                 "balloon")),
        "the balloon gives nothing": ("refuted", lambda r: without(r, "RAM given, mean")),
        "no slow call less": ("refuted", lambda r: change(r, "slow calls", 1e9, "pool",
                                                          trace="pv-dom0"))},
    6: {"measured": ("depends", lambda r: r),
        "none": ("refuted", lambda r: without(r, C)),
        "every board, either way": ("supported", lambda r: change(r, C, 1)),
        "every board, IOMMU on": ("depends", lambda r: change(r, C, 1, iommu="on"))},
    7: {"measured": ("depends", lambda r: r),
        "some are left": ("refuted", lambda r: change(r, C, 1, "pool", subtract_ram="all")),
        "none before": ("refuted", lambda r: without(r, C)),
        "what is known is enough": ("supported", lambda r: without(r, C, subtract_ram="known"))},
    8: {"measured": ("depends", lambda r: r),
        "all served": ("supported", lambda r: change(r, "failed", 0, "balloon")),
        "all streams refused": ("refuted", lambda r: change(r, "failed", 1, "balloon")),
        "not safe": ("refuted", lambda r: change(r, C, 1, "balloon", trace="pvh-dom0"))},
    9: {"measured": ("depends", lambda r: r),
        "regions are hit": ("refuted", lambda r: change(r, C, 1, "hypervisor", label=OURS)),
        "answers are hit": ("refuted", lambda r: change(r, C, 1, settings=QUERY)),
        "the pool is not": ("refuted", lambda r: change(r, C, 0, "pool")),
        "nothing goes wrong": ("supported", lambda r: without(
            without(r, "pages from stale answers"), C, strategy="hypervisor", label=OTHER_BOOT))},
    10: {"measured": ("depends", lambda r: r),
         "both fast": ("supported", lambda r: change(change(r, "p50", 1), "mean", 1)),
         "all slow": ("refuted", lambda r: change(change(r, "p50", 1, "pool"), "mean", 1, "pool")),
         "more runs": ("refuted", lambda r: change(r, "runs per request", 0.5, "pool"))},
}


@pytest.mark.parametrize("number", NUMBERS)
def test_the_verdict_follows_from_the_figures(number: int) -> None:
    rows = rows_of(CLAIMS[number])
    said = {case: word(number, make(rows)) for case, (_, make) in FLIPS[number].items()}
    assert said == {case: expected for case, (expected, _) in FLIPS[number].items()}


@pytest.mark.parametrize("number", NUMBERS)
def test_its_commands_print_its_figures(number: int, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, in a folder that holds the shipped traces and nothing else."""
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    monkeypatch.chdir(tmp_path)
    (claim,) = claims([number])["claims"]
    printed: dict[str, Summaries] = {}
    for command in claim["commands"]:
        name, *words = shlex.split(" ".join(line.rstrip("\\") for line in shell_lines(command)))
        assert name == "replay"
        ran = cli(*words)
        assert ran.code == 0, (command, ran.err)
        if words[0] == "run":
            printed[command] = json.loads(ran.out)
    for row in claim["rows"]:
        summary = printed[row["commands"][-1]]
        if any(c["path"].startswith("events.") for c in claim["columns"]):
            info = cli("info", f"traces/{row['trace']}.arrow", "--json")
            summary["events"] = json.loads(info.out)["events"]
        for c in claim["columns"]:
            found = Column(c["name"], c["path"], c["unit"]).of(summary, row["strategy"])
            assert found == row["figures"][c["name"]], (row["commands"], c)
        assert row["machine"] == summary["run"]["physmap"]
        assert row["synthetic"] == summary["run"]["synthetic"]


def test_all_are_there_and_the_docs_show_the_table_as_printed() -> None:
    data = claims()
    assert [c["number"] for c in data["claims"]] == list(NUMBERS)
    shown = text(data)
    assert max(map(len, shown.split("\n"))) <= 100
    assert "SYNTHETIC" in shown
    for claim in data["claims"]:
        assert f"Claim {claim['number']}: {claim['verdict'][:60]}" in shown
        assert claim["word"] in ("supported", "refuted", "depends")
        assert claim["verdict"].startswith(claim["word"])
        assert all(set(r["figures"]) == {c["name"] for c in claim["columns"]}
                   for r in claim["rows"])
    assert main_table(data) in (ROOT / "docs/pages/claims.md").read_text(encoding="utf-8"), \
        "the table in docs/pages/claims.md is not what `replay claims --format md` prints"


def test_the_same_bytes_in_every_process() -> None:
    outputs = [subprocess.run(
        [sys.executable, "-c", "from replay.cli import main; main()",
         "claims", "--claim", "2", "--claim", "5", "--json"],
        capture_output=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")]
    assert outputs[0] == outputs[1]
    assert [c["number"] for c in json.loads(outputs[0])["claims"]] == [2, 5]


def test_out_holds_what_is_printed(tmp_path: Path) -> None:
    printed = cli("claims", "--claim", "4", "--format", "md", "--out", tmp_path / "new")
    assert printed.code == 0
    assert {p.name for p in (tmp_path / "new").iterdir()} == {
        "claims.json", "claims.md", "claims.txt"}
    assert (tmp_path / "new" / "claims.md").read_text(encoding="utf-8") == printed.out
    as_text = cli("claims", "--claim", "4")
    assert (tmp_path / "new" / "claims.txt").read_text(encoding="utf-8") == as_text.out


def test_what_does_not_exist_is_refused_with_a_sentence() -> None:
    refused("claims", "--claim", "11", naming=("claim 11", "1 to 10"))
    refused("claims", "--claim", "0", naming=("claim 0",))
    refused("claims", "--format", "pdf", naming=("pdf", "text"))


def test_outside_a_clone_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                             ) -> None:
    monkeypatch.setattr(lab, "TRACES", tmp_path / "traces")
    monkeypatch.setattr(found, "rows_of", lambda claim: pytest.fail("replayed before it was sure"))
    for words in ((), ("--claim", "4"), ("--out", tmp_path / "out")):
        said = refused("claims", *words, naming=("traces", "an installed package does not have"))
        assert said.endswith("clone the repository and run `replay claims` there\n")
    assert not (tmp_path / "out").exists()


def test_a_strategy_of_claim_10_is_only_named() -> None:
    claim = CLAIMS[10]
    assert all(run.strategies == ("pool", *RIVALS) for run in claim.runs)


def test_synthetic_streams_are_labelled_and_differ_in_the_target_alone() -> None:
    assert isinstance(STILL, Synthetic)
    rows: dict[str, Row] = {r.run.trace_name: r for r in rows_of(CLAIMS[2]).of("pool")}
    assert set(rows) == {STILL.name, MOVING.name, "counted/target"}
    assert {name for name in rows if name.startswith("synthetic")} == {STILL.name, MOVING.name}
    assert set(MOVING.models) - set(STILL.models) == {"target"}
