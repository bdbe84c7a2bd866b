"""`replay gate init`, and what a gate says before anything is committed or accepted."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from replay.gate.config import load_config

from driving import ROOT, cli, metadata, refused, rewrite, small  # isort: skip

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@y")


def git(folder: Path, *words: str) -> str:
    return subprocess.run([*GIT, "-C", str(folder), *words], check=True, capture_output=True,
                          text=True).stdout


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("trace") / "small.arrow")


@pytest.fixture
def folder(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two traces, as the working directory; git does not look above it."""
    for name in ("b.arrow", "traces/a.arrow"):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / name).write_bytes(trace.read_bytes())
    monkeypatch.chdir(tmp_path / "new")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return tmp_path / "new"


def commands(out: str) -> list[list[str]]:
    """What is to be typed."""
    return [shlex.split(line) for line in out.split("Next:\n")[1].splitlines()]


def test_a_check_for_each_trace_that_is_found(folder: Path) -> None:
    done = cli("gate", "init")
    assert done.code == 0, done.err
    assert "gate.toml (2 checks: b, a)" in done.out
    config = load_config(folder / "gate.toml")
    assert [str(c.trace.relative_to(folder)) for c in config.checks] == ["b.arrow", "traces/a.arrow"]


def test_a_file_that_is_there_is_not_written_over(folder: Path) -> None:
    (folder / "gate.toml").write_text("# mine")
    refused("gate", "init", naming=("gate.toml", "--overwrite"))
    assert (folder / "gate.toml").read_text() == "# mine"
    (folder / "gate.toml").unlink()
    (folder / "gate.toml").symlink_to("nowhere")
    refused("gate", "init", naming=("gate.toml", "--overwrite"))
    assert cli("gate", "init", "--overwrite").code == 0
    assert len(load_config(folder / "gate.toml").checks) == 2


def typed(folder: Path, out: str) -> list[int]:
    """Type what it says, in this order; the codes of what replay was asked."""
    codes = []
    for words in commands(out):
        if words[0] == "replay":
            codes.append(cli(*words[1:]).code)
        else:
            git(folder, *words[1:])
    return codes


@pytest.mark.parametrize("repository", ["none", "empty", "with a commit", "that ignores it"])
def test_what_it_says_to_type_ends_in_a_gate_that_passes(repository: str, folder: Path) -> None:
    if repository != "none":
        git(folder, "init", "-q")
    if repository == "with a commit":
        git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    if repository == "that ignores it":
        (folder / ".gitignore").write_text("reports/\n*.arrow\n")
    done = cli("gate", "init")
    assert (done.code, done.err) == (0, "")
    assert ("in no git repository" in done.out) == (repository == "none")
    assert ("git ignores" in done.out) == (repository == "that ignores it")
    assert typed(folder, done.out) == [0, 0]
    assert git(folder, "ls-files").split() == [
        "b.arrow", "gate.toml", "reports/baseline/a.json", "reports/baseline/b.json",
        "traces/a.arrow"]
    since = json.loads(cli("gate", "check", "--json").out)["checks"][0]["since"]
    assert bool(since) == (repository == "with a commit"), "the commit that there was"


@pytest.mark.parametrize("repository", [True, False])
def test_before_anything_is_accepted_a_check_says_what_to_do(repository: bool, folder: Path
                                                             ) -> None:
    if repository:
        git(folder, "init", "-q")
    assert cli("gate", "init").code == 0
    done = cli("gate", "check", "--out", "out", "--openmetrics", "out/m.txt")
    assert (done.code, done.err) == (2, "")
    said = " ".join(done.out.split())
    assert "NOT COMPARED: 2 of 2 checks (b, a): no figures are accepted yet" in said
    assert said.endswith('Next: replay gate accept --why "first figures"')
    for form in ("txt", "md", "html", "xml"):
        text = (folder / f"out/gate.{form}").read_text()
        assert "no accepted figures yet in reports/baseline" in text, form
    assert 'replay_gate_compared{check="a"} 0.0' in (folder / "out/m.txt").read_text()


def test_in_an_empty_repository_a_failing_check_speaks_of_no_commit(folder: Path) -> None:
    git(folder, "init", "-q")
    assert cli("gate", "init").code == 0
    assert "Next: git add reports/baseline, and commit it" in cli("gate", "accept").out
    path = folder / "reports/baseline/a.json"
    data = json.loads(path.read_text())
    data["allocators"]["pool"]["metrics"]["latency_ns.mean"] /= 2
    data["accepted"]["code"] = "0" * 16
    path.write_text(json.dumps(data))
    done = cli("gate", "check")
    assert (done.code, done.err) == (1, "")
    assert "before any commit" in done.out
    assert "FAILED: 1 of 2 checks (a): the code; no input changed" in " ".join(done.out.split())


def test_without_a_gate_a_check_names_init(folder: Path) -> None:
    refused("gate", "check", naming=("gate.toml", "replay gate init"))


def test_without_a_trace_it_says_how_to_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                 ) -> None:
    monkeypatch.chdir(tmp_path)
    refused("gate", "init", naming=("no trace", "replay gate init TRACE"))
    assert list(tmp_path.iterdir()) == []


def test_traces_may_be_named(folder: Path) -> None:
    assert cli("gate", "init", "traces/a.arrow", "--config", "job/gate.toml").code == 0
    [check] = load_config(folder / "job/gate.toml").checks
    assert os.path.samefile(check.trace, folder / "traces/a.arrow")
    out = cli("gate", "init", "pvh-dom0").out
    assert "outside of what is committed" in out and "git add gate.toml reports/baseline\n" in out
    [check] = load_config(folder / "gate.toml").checks
    assert os.path.samefile(check.trace, ROOT / "traces/pvh-dom0.arrow")


def test_what_is_no_trace_is_left_out_or_refused_where_it_is_named(folder: Path) -> None:
    (folder / "x.arrow").write_text("no trace")
    done = cli("gate", "init")
    assert done.code == 0 and "left out: x.arrow" in done.out
    assert len(load_config(folder / "gate.toml").checks) == 2
    refused("gate", "init", "x.arrow", "--overwrite", naming=("x.arrow",))
    refused("gate", "init", "gate.toml", "--overwrite", naming=("expected a trace",))
    refused("gate", "init", "gone.arrow", "--overwrite", naming=("gone.arrow",))


def test_a_recording_with_losses_is_said_and_can_be_accepted(folder: Path) -> None:
    path = folder / "b.arrow"
    lossy = rewrite(path, folder / "x.arrow", meta={
        "accounting": {**metadata(path)["accounting"], "lost": 7}})
    lossy.replace(path)
    done = cli("gate", "init")
    assert "b.arrow: 7 records lost while recording; its check says allow_loss = true" in " ".join(
        done.out.split())
    assert [c.allow_loss for c in load_config(folder / "gate.toml").checks] == [True, False]
    assert cli("gate", "accept").code == 0


NAMES = ['a"b', "a'b", "a b", "$(touch hacked)", "a;b", "ä€😀", "-rf", "a\nb", "a\x1b[31mb", "a\x7fb", "a\\b",
         "]]x", "#", "x" * 200, ".hidden", "small", "SMALL"]


def test_traces_of_any_name_get_a_check(trace: Path, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        (tmp_path / f"{name}.arrow").write_bytes(trace.read_bytes())
    done = cli("gate", "init")
    assert done.code == 0, done.err
    assert "\x1b" not in done.out and "\x7f" not in done.out
    config = load_config(tmp_path / "gate.toml")
    assert {c.trace.stem for c in config.checks} == set(NAMES)
    assert len({c.name.lower() for c in config.checks}) == len(NAMES)
    assert "git add -- " in done.out, "what follows are no options"


def test_a_name_that_no_toml_can_hold_is_left_out(folder: Path, trace: Path) -> None:
    odd: Any = os.fsencode(str(folder)) + b"/\xff.arrow"
    Path(os.fsdecode(odd)).write_bytes(trace.read_bytes())
    done = cli("gate", "init")
    assert done.code == 0 and "is no UTF-8" in done.out
    assert len(load_config(folder / "gate.toml").checks) == 2


def test_json_says_the_same(folder: Path) -> None:
    data = json.loads(cli("gate", "init", "--json").out)
    assert [one["path"] for one in data["checks"]] == ["b.arrow", "traces/a.arrow"]
    assert data["commit"] == ["gate.toml", "reports/baseline", "b.arrow", "traces/a.arrow"]
