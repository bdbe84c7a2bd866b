"""Runs by their names, the newest one, and folders of runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import replay
from replay.base.errors import InputError, ReplayError
from replay.cli.completion import values_of
from replay.runs.finding import find, latest, point_latest
from replay.runs.naming import RUNS_FOLDER
from replay.runs.run import Run

from driving import cli, refused, small  # isort: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    trace = small(tmp_path_factory.mktemp("traces") / "t.arrow")
    return [replay.run_trace(trace, names) for names in (["nop"], ["pool", "nop"])]


@pytest.fixture(autouse=True)
def saved(runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two runs in reports/, the second the newest."""
    here = tmp_path / "here"  # what lies beside tmp_path is of other tests
    here.mkdir()
    monkeypatch.chdir(here)
    for run in runs:
        run.save()
    folders = [run.default_folder for run in runs]
    assert point_latest(folders[-1]) == ""
    return folders


def test_a_run_has_a_folder_of_its_own(saved: list[Path]) -> None:
    assert len(set(saved)) == 2
    assert {path.parent for path in saved} == {RUNS_FOLDER}
    assert os.readlink(RUNS_FOLDER / "latest") == saved[1].name


def test_it_is_found_by_name_folder_file_or_as_the_latest(saved: list[Path]) -> None:
    one = saved[1]
    for word in (one, Path(one.name), Path("latest"), RUNS_FOLDER / "latest"):
        found, = find(word)
        assert found.resolve() == one.resolve(), word
    assert find(one / "summary.json") == [one / "summary.json"]
    assert replay.read_run("latest").summary == replay.read_run(one.name).summary


def test_a_folder_of_runs_stands_for_all_of_them_once(saved: list[Path]) -> None:
    assert find(RUNS_FOLDER) == sorted(saved)
    with pytest.raises(ReplayError, match="holds 2 runs, expected one"):
        replay.read_run(RUNS_FOLDER)
    assert replay.report_text(RUNS_FOLDER, form="txt") == replay.report_text(*sorted(saved), form="txt")
    assert replay.write_report(RUNS_FOLDER, form="csv") == [RUNS_FOLDER / "report.csv"]
    assert replay.write_report(saved[0], form="csv") == [saved[0] / "report.csv"]


def test_verbs_take_names(saved: list[Path]) -> None:
    names = [path.name for path in saved]
    assert cli("report", "latest", "--format", "md", "-o", "-").code == 0
    both = cli("compare", *names, "--json")
    assert both.code == 0
    assert cli("compare", "reports", "--json").out == cli(
        "compare", *(f"reports/{name}" for name in sorted(names)), "--json").out
    assert cli("compare", f"{names[0]}:nop", "latest:pool").code == 0
    assert cli("diff", f"{names[0]}:nop", "latest:nop").code == 0
    refused("diff", "reports", "latest:nop", naming=("holds 2 runs",))


def test_an_unknown_name_is_told_with_those_that_are_there(saved: list[Path]) -> None:
    near = saved[1].name[:-1] + "_"
    for words in (("report", near), ("compare", near), ("diff", near, near)):
        refused(*words, naming=(f"Did you mean '{saved[1].name}'?", "latest"))
    with pytest.raises(ReplayError, match="Did you mean"):
        replay.read_run(near)
    refused("compare", "pvh-dom", naming=("pvh-dom0",))


@pytest.mark.parametrize("word", ["../x", "a\x1b[2J", "..", ".", "/etc", "x" * 300, "-", "a\nb"])
def test_words_that_lead_elsewhere_are_no_names(word: str) -> None:
    refused("report", "--", word)
    refused("compare", "--", word)


@pytest.mark.parametrize("body", ["../x", "/etc", "", "none", "a\0b", "x" * 255, "\n", "latest"])
def test_a_newest_run_is_one_that_lies_beside(body: str) -> None:
    (RUNS_FOLDER / "latest").unlink()
    (RUNS_FOLDER / "latest").write_text(body)
    with pytest.raises(InputError, match="does not name a run beside it"):
        latest()
    refused("report", "latest", naming=("does not name a run",))


def test_a_link_that_leads_out_is_none(saved: list[Path], tmp_path: Path) -> None:
    saved[0].rename(tmp_path / "elsewhere")
    (RUNS_FOLDER / "latest").unlink()
    (RUNS_FOLDER / "latest").symlink_to("../elsewhere")
    with pytest.raises(InputError):
        latest()


def test_without_links_a_file_names_it(saved: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    (RUNS_FOLDER / "latest").unlink()
    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert "a file with the name" in point_latest(saved[0])
    assert (RUNS_FOLDER / "latest").read_text() == saved[0].name + "\n"
    assert latest() == saved[0]
    assert "a file with the name" in point_latest(saved[1])
    assert latest() == saved[1]


@pytest.mark.parametrize("folder", [False, True])
def test_what_else_is_called_latest_stays(folder: bool, saved: list[Path]) -> None:
    link = RUNS_FOLDER / "latest"
    link.unlink()
    link.mkdir() if folder else link.write_text("my notes")
    assert "stays as it is" in point_latest(saved[0])
    assert link.is_dir() if folder else link.read_text() == "my notes"


def test_only_runs_in_reports_become_the_latest(runs: list[Run], saved: list[Path]) -> None:
    runs[0].save("elsewhere/a")
    assert point_latest(Path("elsewhere/a")) == ""
    assert [path.name for path in Path("elsewhere").iterdir()] == ["a"]
    assert latest() == saved[1]


def test_the_name_latest_is_kept_for_it(tmp_path: Path) -> None:
    trace = small(tmp_path / "x.arrow")
    refused("run", trace, "--out", "reports/latest", naming=("newest run",))


def test_runs_are_listed(saved: list[Path]) -> None:
    os.utime(saved[0] / "summary.json", (10**9, 10**9))
    printed = cli("runs")
    assert printed.code == 0
    assert printed.out.index(saved[1].name) < printed.out.index(saved[0].name)
    assert "2001-09-09 01:46 UTC" in printed.out
    data = json.loads(cli("runs", "--json").out)
    assert data["latest"] == saved[1].name
    assert [one["name"] for one in data["runs"]] == [saved[1].name, saved[0].name]
    first = data["runs"][1]
    size = sum(path.stat().st_size for path in saved[0].iterdir())
    assert first == {"name": saved[0].name, "trace": "synthetic-t", "strategies": ["nop"], "size": size,
                     "when": "2001-09-09T01:46:40+00:00", "version": replay.__version__,
                     "whole": True, "wrong": ""}
    assert json.loads(cli("runs", saved[0], "--json").out)["runs"] == [first]


def test_runs_that_are_not_whole_say_why(saved: list[Path]) -> None:
    (saved[0] / "timeline-nop.json").unlink()
    data = json.loads((saved[1] / "summary.json").read_text())
    data["run"]["trace"] = 7
    (saved[1] / "summary.json").write_text(json.dumps(data))
    wrong = {one["name"]: one["wrong"] for one in json.loads(cli("runs", "--json").out)["runs"]}
    assert wrong[saved[0].name] == "timeline-nop.json is missing"
    assert "run.trace" in wrong[saved[1].name]
    assert "NOT WHOLE: timeline-nop.json is missing" in " ".join(cli("runs").out.split())


def test_a_run_that_is_being_made_is_none_yet(saved: list[Path]) -> None:
    saved[0].rename(RUNS_FOLDER / ".run.123.parts-abc")
    assert [one.name for one in replay.list_runs()] == [saved[1].name]


def test_a_folder_without_runs() -> None:
    Path("none").mkdir()
    assert cli("runs", "none").out == "No runs in none; `replay run TRACE` makes one\n"
    assert json.loads(cli("runs", "none", "--json").out)["runs"] == []
    refused("runs", "nowhere", naming=("no such folder",))


def test_names_are_completed(saved: list[Path]) -> None:
    found = [one.value for one in values_of("report", "RUN...", "runs", "synthetic-t-") if one.type == "plain"]
    assert found == sorted(path.name for path in saved)
    assert "latest" in [one.value for one in values_of("compare", "A [B...]", "sides", "la")]
