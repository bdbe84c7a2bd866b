"""Tables of results: each is in a page, each row has its commit, and the writers read real output."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from driving import ROOT, cli

PAGES = sorted((ROOT / "docs/pages").rglob("*.md"))
NAMES = sorted(path.stem for path in (ROOT / "docs/results").glob("*.json"))


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """docs/results.py, which is no part of the package, writing to a folder of the test's."""
    spec = importlib.util.spec_from_file_location("replay_results", ROOT / "docs/results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in NAMES:
        (tmp_path / f"{name}.json").write_bytes((ROOT / f"docs/results/{name}.json").read_bytes())
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    return module


def test_each_result_stands_in_one_page_and_each_place_has_its_result(results: Any) -> None:
    named = [found for page in PAGES for found in results.PLACE.findall(page.read_text("utf-8"))]
    assert sorted(named) == NAMES
    likely = [line for page in PAGES for line in page.read_text("utf-8").splitlines()
              if line.startswith("[results")]
    assert len(likely) == len(named), "a line that names results is not of the form that is drawn"


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_as_wide_as_the_head_and_have_a_commit(name: str, results: Any) -> None:
    found = results.load(name)
    assert found["rows"]
    for row in found["rows"]:
        assert len(row["cells"]) == len(found["columns"])
        assert re.fullmatch(r"[0-9a-f]{7}\+?", row["commit"])
        shown = results.filled(f"[results: {name}](../results/{name}.json)")
        assert f"`{row['commit']}`" in shown
        assert f"| {row['cells'][-1]} |" in shown
    results.save(name, found)
    assert (results.FOLDER / f"{name}.json").read_bytes() == (
        ROOT / f"docs/results/{name}.json").read_bytes()


def measured(size: str, **extra: Any) -> dict[str, Any]:
    """As pytest-benchmark writes it."""
    stats = {"median": 0.25}
    return {"commit_info": {"id": "0123456789abcdef", "dirty": True},
            "machine_info": {"cpu": {"count": 4, "brand_raw": "Some CPU"}},
            "benchmarks": [
                {"name": "test_one_page_requests[pool]", "stats": stats,
                 "extra_info": {"size": size, "million_requests_per_s": 81.2}},
                {"name": "test_import_and_write_beside_trace_cmd[x86-pv-churn]", "stats": stats,
                 "extra_info": {"size": size, "file": "x86-pv-churn, SCALED UP 6 times",
                                "events": 3_000_000, "ours_is_faster_by": 4.2,
                                "seconds": {"import and write": 1.5}} | extra},
                {"name": "test_help", "stats": stats, "extra_info": {"size": size}}]}


def test_what_was_measured_anew_takes_the_place_of_older_rows(
        results: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "night.json"
    path.write_text(json.dumps(measured("full")))
    results.main("bench", str(path))
    rows = [row["cells"] for row in results.load("bench")["rows"] if row["commit"] == "0123456+"]
    assert rows == [
        ["help", "full", "seconds", "0.25"],
        ["import and write beside trace cmd", "x86-pv-churn, SCALED UP 6 times", "times as fast",
         "4.2"],
        ["import and write beside trace cmd", "x86-pv-churn, SCALED UP 6 times",
         "million records/s: import and write", "2"],
        ["one page requests", "pool", "million requests/s", "81.2"]]
    names = [row["cells"][0] for row in results.load("bench")["rows"]]
    assert names.count("import and write beside trace cmd") == 2
    assert "import and write beside xenalyze" in names
    assert "4 cores, Some CPU" in capsys.readouterr().out


def test_the_smoke_size_measures_nothing(results: Any, tmp_path: Path) -> None:
    path = tmp_path / "night.json"
    path.write_text(json.dumps(measured("smoke")))
    with pytest.raises(SystemExit, match="smoke size"):
        results.main("bench", str(path))


def test_what_verify_prints_becomes_a_row(results: Any, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "git", lambda *args: "abcdef0123" if "HEAD" in args else "")
    printed = cli("verify", ROOT / "traces/pvh-dom0.arrow", "--json").out
    (tmp_path / "pvh-dom0.verified").write_text(printed)
    results.main("verify", str(tmp_path / "pvh-dom0.verified"))
    found = json.loads(printed)
    [row] = [r for r in results.load("verify")["rows"] if r["cells"][0] == "pvh-dom0"]
    assert row["commit"] == "abcdef0"
    assert row["cells"] == ["pvh-dom0", "pool", "equal", f"{found['frames_checked']:,}",
                            f"{found['frames_equal']:,}", f"{found['frames_learned']:,}", "0",
                            "errno of every call"]
    found["parts"][0]["equal"] = False
    (tmp_path / "pvh-dom0.verified").write_text(json.dumps(found))
    results.main("verify", str(tmp_path / "pvh-dom0.verified"))
    [row] = [r for r in results.load("verify")["rows"] if r["cells"][0] == "pvh-dom0"]
    assert row["cells"][2] == "DIFFERS"


def case(name: str, ended: str = "") -> str:
    return (f'<testcase classname="tests.t" name="n"><properties><property name="case" '
            f'value="{name}"/></properties>{ended}</testcase>')


def test_a_case_is_right_if_all_of_its_tests_pass(results: Any, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "git", lambda *args: "abcdef0123" if "HEAD" in args else "")
    path, before = tmp_path / "cases.xml", len(results.load("cases")["rows"])
    path.write_text("<testsuites><testsuite>" + case("a") + case("a") + case("b") + case("b", (
        '<failure message="no"/>')) + case("c", "<skipped/>") + case("d", "<error/>")
        + '<testcase name="of none"/></testsuite></testsuites>')
    results.main("cases", str(path))
    rows = [row["cells"] for row in results.load("cases")["rows"] if row["commit"] == "abcdef0"]
    assert rows == [["a", "2", "2", "right"], ["b", "2", "1", "WRONG"], ["d", "1", "0", "WRONG"]]
    assert len(results.load("cases")["rows"]) == before + 3


def mutant(name: str, said: str, equivalent: bool = False) -> dict[str, Any]:
    return {"mutant": name, "kernel": "9.9.1", "strategy": "pool", "said": said, "seed": 0,
            "equivalent": equivalent}


def test_mutants_of_a_kernel_become_a_row(results: Any) -> None:
    found = [mutant("one", "differs"), mutant("two", ""), mutant("three", "", True)]
    assert results.mutant_rows(found, "abcdef0") == [
        {"cells": ["9.9.1", "3", "1", "1", "two"], "commit": "abcdef0"}]
    with pytest.raises(SystemExit, match="noticed, though called equivalent: four"):
        results.mutant_rows([mutant("four", "differs", True)], "abcdef0")


def test_the_totals_are_sums_of_the_tables(results: Any) -> None:
    """The cases that are not right, and what was not compared, count as that."""
    for name, rows in {
            "witness": [["1", "1,000", "equal", "has none", "DIFFERS", "equal"],
                        ["2", "50", "equal", "equal", "equal", "equal"]],
            "verify": [["r", "pool", "equal", "2,000", "1,990", "0", "0", ""],
                       ["r", "balloon driver", "equal", "0", "0", "5", "0", ""],
                       ["s", "pool", "equal", "7", "7", "0", "0", ""]],
            "mutants": [["1", "48", "47", "1", "none"], ["2", "5", "4", "0", "x"]],
            "cases": [["a", "1", "1", "right"], ["b", "1", "0", "WRONG"]]}.items():
        results.save(name, results.load(name) | {
            "rows": [{"cells": row, "commit": "abcdef0"} for row in rows]})
    assert [line.strip("| ").split(" | ")[1:] for line in results.totals().splitlines()[2:]] == [
        ["2 kernels", "3,200", "6 of 7 strategies equal"],
        ["2 recordings", "2,007", "1,997 equal"],
        ["2 kernels", "53", "51 noticed, 1 change nothing"],
        ["2 cases", "2", "1 right"]]


def test_the_totals_stand_in_one_page(results: Any) -> None:
    [page] = [page for page in PAGES if results.TOTALS in page.read_text("utf-8")]
    shown = results.filled(page.read_text("utf-8"))
    assert "results/" not in shown.replace("docs/results", "")
    assert "| frames of recordings |" in shown
