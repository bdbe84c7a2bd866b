"""Runs do not mix: whose files lie in a folder, and what a run may do to them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import replay
from replay.base.errors import InputError
from replay.runs.own_files import held
from replay.runs.run import Run

from driving import cli, refused, small  # isort: skip

MINE = {"summary.json", "report.txt", "outcome-nop.arrow", "timeline-nop.json"}


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("traces") / "t.arrow")


@pytest.fixture(scope="module")
def nop(trace: Path) -> Run:
    return replay.run_trace(trace, ["nop"])


@pytest.fixture(scope="module")
def pool(trace: Path) -> Run:
    return replay.run_trace(trace, ["pool"])


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


def test_the_same_run_goes_into_its_folder_again(nop: Run, tmp_path: Path) -> None:
    nop.save(tmp_path)
    cli("report", tmp_path)
    before = content(tmp_path)
    assert set(before) == MINE | {"report.html"}
    nop.save(tmp_path)
    assert content(tmp_path) == before, "what was made of it stays, too"


def test_another_run_does_not_go_into_it(nop: Run, pool: Run, tmp_path: Path) -> None:
    nop.save(tmp_path)
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"holds another run \(it differs in strategies\)"):
        pool.save(tmp_path)
    assert content(tmp_path) == before


def test_what_an_overwritten_run_left_goes(nop: Run, pool: Run, tmp_path: Path) -> None:
    pool.save(tmp_path)
    assert cli("report", tmp_path, "--format", "md").code == 0
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/1-latency.svg").write_text("<svg/>")
    nop.save(tmp_path, overwrite=True)
    assert names(tmp_path) == MINE
    assert not (tmp_path / "figures").exists()
    assert replay.read_run(tmp_path).outcome("nop").height


@pytest.mark.parametrize("name", ["mine.txt", "figures/mine.svg.txt", "sub/x", "outcome.arrow"])
def test_a_foreign_file_is_named_and_nothing_changes(
        name: str, nop: Run, pool: Run, tmp_path: Path) -> None:
    pool.save(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = content(tmp_path)
    with pytest.raises(InputError, match=name.partition("/")[0]):
        nop.save(tmp_path, overwrite=True)
    assert content(tmp_path) == before
    pool.save(tmp_path)
    assert content(tmp_path) == before, "the same run may lie beside other files"


@pytest.mark.parametrize("name", ["summary.json", "report.txt", "report.html",
                                  "outcome-nop.arrow", "timeline-other.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_the_users_with_a_name_of_a_run_s_is_not_replaced(
        name: str, overwrite: bool, nop: Run, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=f"{name}: is no file of a run"):
        nop.save(tmp_path, overwrite=overwrite)
    assert content(tmp_path) == {name: b"{}"}


def test_a_link_is_no_file_of_a_run(nop: Run, pool: Run, tmp_path: Path) -> None:
    (folder := tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("mine")
    pool.save(folder)
    (folder / "report.html").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match=r"report\.html: is no file of a run"):
        nop.save(folder, overwrite=True)
    assert (tmp_path / "precious").read_text() == "mine"


def test_outcomes_that_a_kill_left_without_a_summary(nop: Run, pool: Run, tmp_path: Path) -> None:
    pool.save(tmp_path)
    for name in ("summary.json", "report.txt"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"outcome-pool\.arrow: is of another run"):
        nop.save(tmp_path)
    pool.save(tmp_path)
    assert replay.read_run(tmp_path).outcome("pool").height
    (tmp_path / "summary.json").unlink()
    nop.save(tmp_path, overwrite=True)
    assert names(tmp_path) == MINE


def test_a_half_overwritten_run_is_seen_and_overwritten_again(
        nop: Run, pool: Run, tmp_path: Path) -> None:
    pool.save(tmp_path / "a")
    nop.save(tmp_path / "b")
    for name in ("outcome-nop.arrow", "timeline-nop.json"):  # a kill between two renames
        (tmp_path / "b" / name).replace(tmp_path / "a" / name)
    listed, = replay.list_runs(tmp_path / "a")
    assert listed.wrong == "outcome-nop.arrow is of another run"
    nop.save(tmp_path / "a", overwrite=True)
    assert names(tmp_path / "a") == MINE
    assert not replay.list_runs(tmp_path / "a")[0].wrong


def test_what_a_killed_command_left_is_no_foreign_file(
        nop: Run, pool: Run, tmp_path: Path) -> None:
    pool.save(tmp_path)
    left = tmp_path / ".summary.json.999999999.part"
    left.write_text("{")
    os.utime(left, (0, 0))
    assert held(tmp_path).foreign == []
    nop.save(tmp_path, overwrite=True)
    assert names(tmp_path) == MINE


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"run": 1}', b"\xff" * 9, b"[" * 99_999,
                                  b'{"run": {}}'])
def test_a_summary_that_is_none_is_foreign(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(body)
    assert held(tmp_path).foreign == [tmp_path / "summary.json"]


@pytest.mark.parametrize("summary", [
    {"run": {"replay_version": 1}}, {"run": {"replay_version": ""}, "allocators": [1]},
    {"run": {"replay_version": ""}, "allocators": {"nop": 3}, "failed_allocators": 7}])
def test_a_summary_of_odd_values_is_of_another_run(
        summary: dict[str, object], nop: Run, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="holds another run"):
        nop.save(tmp_path)
    nop.save(tmp_path, overwrite=True)
    assert names(tmp_path) == MINE


def test_the_command_refuses_before_it_replays(
        trace: Path, nop: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as options, machine and costs tell."""
    nop.save(tmp_path)
    before = content(tmp_path)
    monkeypatch.setattr("replay.runs.replaying.replay_source", lambda *_: pytest.fail("replayed"))
    for words, differs in ((("--allocator", "pool"), "strategies"), (
            ("--allocator", "nop", "--iommu", "off"), "machine"), (
            ("--allocator", "nop", "--profile", "arm64"), "cost profile, costs")):
        said = refused("run", trace, *words, "--out", tmp_path)
        assert f"holds another run (it differs in {differs}" in said and "--overwrite" in said
    assert content(tmp_path) == before


def test_the_command_overwrites(trace: Path, pool: Run, tmp_path: Path) -> None:
    pool.save(tmp_path)
    again = ("run", trace, "--allocator", "nop", "--out", tmp_path)
    assert cli(*again, "--overwrite").code == 0
    assert names(tmp_path) == MINE
    assert cli(*again).code == 0
    assert replay.list_runs(tmp_path)[0].wrong == ""


def test_a_file_where_a_folder_is_expected(nop: Run, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputError, match="cannot be written"):
        nop.save(tmp_path / "x")
