"""What a gate names as the cause: the input that changed, or else the code."""

from __future__ import annotations

import html
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import replay
from replay.gate.baseline import load
from replay.gate.config import Check
from replay.gate.inputs import costs_in, inputs_of
from replay.physmap import presets
from replay.runs.options import RunOptions

from driving import cli, rewrite, small  # isort: skip

CHECK = 'baseline = "accepted"\n[[check]]\ntrace = "small.arrow"\nallocators = ["pool"]\n'
COST = '[cost.{name}]\nns = {ns}\nlow = 1\nhigh = 90000000\nsource = "assumed"\n'
PROFILE = 'name = "{name}"\nsummary = "made"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small(tmp_path / "small.arrow", seconds=2)
    profile(tmp_path, list_pop=3)
    (tmp_path / "gate.toml").write_text(CHECK + 'profile = "costs.toml"\n')
    accept(tmp_path)
    return tmp_path


def profile(folder: Path, **costs: int) -> None:
    (folder / "costs.toml").write_text(PROFILE.format(name="made") + "".join(
        COST.format(name=name, ns=ns) for name, ns in costs.items()))


def accept(folder: Path) -> None:
    done = cli("gate", "accept", "--config", folder / "gate.toml", "--why", "first")
    assert done.code == 0, done.err


def checked(folder: Path, code: int = 1) -> dict[str, Any]:
    done = cli("gate", "check", "--config", folder / "gate.toml", "--out", folder / "out", "--json")
    assert done.code == code, done.out + done.err
    data: dict[str, Any] = json.loads(done.out)
    return data


def inputs(data: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(one[key] for key in ("group", "name", "then", "now"))
            for one in data["checks"][0]["cause"]["inputs"]]


def forms(folder: Path) -> dict[str, str]:
    """Each form as running text, its own escapes undone."""
    out = folder / "out"
    [case] = ElementTree.parse(out / "gate.xml").iter("testcase")
    found = {"txt": (out / "gate.txt").read_text(),
             "md": html.unescape((out / "gate.md").read_text()).replace("\\", ""),
             "html": html.unescape((out / "gate.html").read_text()),
             "xml": " ".join(failure.attrib["message"] for failure in case.iter("failure"))}
    return {form: " ".join(text.split()) for form, text in found.items()}


def edited(folder: Path, change: Any) -> None:
    """Alter the accepted file."""
    path = folder / "accepted/small.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def halved(data: dict[str, Any]) -> None:
    data["allocators"]["pool"]["metrics"]["latency_ns.mean"] /= 2


def test_a_cost_is_named_alone(folder: Path) -> None:
    profile(folder, list_pop=5)
    assert inputs(checked(folder)) == [("costs_ns", "list_pop", 3, 5)]
    for form, text in forms(folder).items():
        assert "list_pop 3 -> 5 ns" in text, form
        assert "array_word" not in text and "…" not in text, form


def test_of_many_costs_the_one_that_changed_most_comes_first(folder: Path) -> None:
    profile(folder, list_pop=4, list_push=60, lock=41, hypercall=81)
    assert [name for _, name, *_ in inputs(checked(folder))] == [
        "list_push", "hypercall", "list_pop", "lock"]
    assert all("and 1 more" in text for text in forms(folder).values())


def test_an_option_is_named_alone(folder: Path) -> None:
    with (folder / "gate.toml").open("a") as file:
        file.write('loop = "asap"\n')
    assert inputs(checked(folder)) == [("options", "loop", None, "asap")]
    for form, text in forms(folder).items():
        assert "option loop default -> asap" in text, form


def test_an_option_of_a_strategy_is_named_as_it_was_set_and_as_it_is(folder: Path) -> None:
    with (folder / "gate.toml").open("a") as file:
        file.write('settings = {"pool.section_pages" = 65536}\n')
    assert inputs(checked(folder)) == [
        ("options", "settings.pool.section_pages", None, "65536"),
        ("strategies", "pool.section_pages", 0, 65536)]


def test_another_machine_is_named_not_told_part_by_part(folder: Path) -> None:
    with (folder / "gate.toml").open("a") as file:
        file.write('physmap = "xen-hvm"\n')
    found = inputs(checked(folder))
    assert [(group, name) for group, name, *_ in found] == [
        ("machine", "name"), ("options", "physmap")]


def test_of_the_same_machine_the_part_that_changed_is_named(folder: Path) -> None:
    machine = presets.load("qemu-q35-pvh")
    (folder / "m.toml").write_text(presets.to_toml(machine))
    with (folder / "gate.toml").open("a") as file:
        file.write('physmap = "m.toml"\n')
    accept(folder)
    (folder / "m.toml").write_text(presets.to_toml(machine).replace(
        f"available = {machine.memory.available}", "available = 4242"))
    data = checked(folder, code=0)  # it moves nothing here, and is said all the same
    assert inputs(data) == [("machine", "memory.available", machine.memory.available, 4242)]
    told = forms(folder)
    assert "machine: memory.available" in told["txt"] and "passed: 1 check" in told["txt"]
    assert "No figure moved, though this changed: machine: memory.available" in told["html"]


def test_of_another_trace_the_kinds_of_events_are_counted(folder: Path) -> None:
    small(folder / "small.arrow", "xenbus", seconds=3)
    data = checked(folder, code=2)
    named = {name: (then, now) for group, name, then, now in inputs(data) if group == "trace"}
    told = Counter(replay.load_trace(folder / "small.arrow").table["kind"].to_pylist())
    assert {name.removeprefix("events.") for name in named} >= {"alloc", "file", "pages"}
    assert all(named[f"events.{kind}"][1] == told[kind] for kind in ("alloc", "free"))
    assert "trace: alloc" in forms(folder)["txt"]
    [error] = ElementTree.parse(folder / "out/gate.xml").iter("error")
    assert "trace: alloc" in (error.text or "")
    assert "FAILED: 1 of 1 check (small): trace: " in forms(folder)["txt"]


def test_other_times_of_the_same_requests_are_the_trace_not_the_code(folder: Path) -> None:
    path = folder / "small.arrow"
    rewrite(path, folder / "moved.arrow", columns={
        "time_ns": lambda times: [time * 2 for time in times]})
    (folder / "moved.arrow").replace(path)
    with (folder / "gate.toml").open("a") as file:
        file.write('loop = "open"\n')
    halve_idle = "fragmentation.idle_pages.mean"
    edited(folder, lambda data: data["allocators"]["pool"]["metrics"].update({halve_idle: 1.0}))
    names = {(group, name) for group, name, *_ in inputs(checked(folder))}
    assert {("trace", "file"), ("trace", "last_event_ns")} <= names
    assert ("header", "requests_digest") not in names


def test_where_no_input_changed_it_is_the_code(folder: Path) -> None:
    def other(data: dict[str, Any]) -> None:
        halved(data)
        data["accepted"]["code"] = "0" * 16
        data["accepted"]["replay_version"] = "0.0.9"
    edited(folder, other)
    data = checked(folder)
    assert data["checks"][0]["cause"]["code"] == "changed" and inputs(data) == []
    for form, text in forms(folder).items():
        assert f"the code (replay 0.0.9 -> {replay.__version__}); no input changed" in text, form


def test_the_code_is_told_by_its_commits(folder: Path) -> None:
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x",
                               *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", "gate.toml")
    git("commit", "-qm", "first")
    first = git("rev-parse", "HEAD")[:12]
    accept_again = cli("gate", "accept", "--config", folder / "gate.toml", "--why", "again")
    assert "as accepted" in accept_again.out, "nothing but the commit would change"
    (folder / "accepted/small.json").unlink()
    accept(folder)
    git("commit", "-q", "--allow-empty", "-m", "second")

    def other(data: dict[str, Any]) -> None:
        halved(data)
        data["accepted"]["code"] = "0" * 16
    edited(folder, other)
    checked(folder)
    second = git("rev-parse", "HEAD")[:12]
    assert f"the code (commit {first} -> {second}); no input changed" in forms(folder)["md"]
    assert f"{first} (1 commit ago)" in forms(folder)["txt"]


def test_where_nothing_changed_nothing_is_blamed(folder: Path) -> None:
    edited(folder, halved)
    assert checked(folder)["checks"][0]["cause"]["code"] == "same"
    for form, text in forms(folder).items():
        assert "neither an input nor the code changed" in text or form == "txt", form
        assert "the code (" not in text, form


def test_an_input_and_the_code_are_both_said(folder: Path) -> None:
    edited(folder, lambda data: data["accepted"].update(code="0" * 16))
    profile(folder, list_pop=5)
    checked(folder)
    for form, text in forms(folder).items():
        assert "list_pop 3 -> 5 ns; the code changed too" in text, form


def old(data: dict[str, Any]) -> None:
    """As files were before inputs were kept."""
    data["provenance"]["costs_ns"] = ", ".join(
        f"{name}={ns:g}" for name, ns in sorted(data.pop("inputs")["costs_ns"].items()))
    for name in ("code", "replay_version"):
        del data["accepted"][name]


def test_an_old_file_is_read_and_says_what_it_does_not_hold(folder: Path) -> None:
    edited(folder, old)
    assert checked(folder, code=0)["passed"]
    edited(folder, halved)
    data = checked(folder)
    cause = data["checks"][0]["cause"]
    assert cause["not_recorded"] == ["trace", "machine", "options", "strategies"]
    assert cause["code"] == "not recorded"
    for form, text in forms(folder).items():
        assert "not recorded" in text, form
    assert "what was not recorded: the trace's events, the machine" in forms(folder)["md"]


def test_an_old_file_still_tells_its_costs_one_by_one(folder: Path) -> None:
    edited(folder, old)
    profile(folder, list_pop=5, grace_period=18_000_001)
    assert inputs(checked(folder)) == [("costs_ns", "list_pop", 3, 5)], "six digits were kept"


def test_accept_renews_an_old_file(folder: Path) -> None:
    new = load(folder / "accepted", "small")
    edited(folder, old)
    done = cli("gate", "accept", "--config", folder / "gate.toml", "--why", "first")
    assert "no figure moves; what they rest on is told one by one now" in done.out
    assert load(folder / "accepted", "small") == new


@pytest.mark.parametrize("text", [
    "", "lock", "lock=", "lock=40,", "lock=1_0", "lock=nan", "lock=1e999", "lock=-1", "a b=1",
    "lock=40, scrub=x", "ł=1"])
def test_what_is_no_text_of_costs_tells_nothing(text: str) -> None:
    assert costs_in(text) is None


def test_costs_of_a_text() -> None:
    assert costs_in("grace_period=1.8e+07, lock=40, word=1.5") == {
        "grace_period": 1.8e7, "lock": 40, "word": 1.5}


def test_strategies_in_files_are_known_by_their_content(folder: Path) -> None:
    path = folder / "mine.py"
    run = replay.run_trace(folder / "small.arrow", ["nop"], no_outcome=True)
    found = []
    for body in ("a = 1\n", "a = 2\n"):
        path.write_text(body)
        check = Check("c", folder / "small.arrow", RunOptions(allocators=(str(path),)))
        found.append(inputs_of(check, run, {})["strategies"]["mine.py.file"])
    assert found[0] != found[1]


def test_where_a_checkout_lies_is_no_input(folder: Path, tmp_path_factory: Any,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path_factory.mktemp("elsewhere") / "copy"
    folder.rename(there)
    assert inputs(checked(there, code=0)) == []
    monkeypatch.chdir(there)
    done = cli("gate", "accept", "--why", "from within")
    assert "as accepted" in done.out
