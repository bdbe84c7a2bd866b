"""`replay gate`: what it lets through, what it says, and that it never leaves half a baseline."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from replay.gate.baseline import difference, load
from replay.gate.config import Amount, load_config
from replay.report.telling.escapes import cell
from replay.report.telling.tables import duration

from driving import ROOT, cli, refused  # isort: skip

BASE = 'baseline = "accepted"\n[[check]]\ntrace = "small.arrow"\nallocators = ["pool"]\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small synthetic trace, its gate.toml and accepted figures."""
    folder = tmp_path_factory.mktemp("gate")
    assert cli("synth", "-o", folder / "small.arrow", "--seconds", 2).code == 0
    (folder / "gate.toml").write_text(BASE)
    done = cli("gate", "accept", "--config", folder / "gate.toml", "--why", "the first")
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    for name in ("small.arrow", "gate.toml"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    (tmp_path / "accepted").mkdir()
    (tmp_path / "accepted/small.json").write_bytes((made / "accepted/small.json").read_bytes())
    return tmp_path


def changed(folder: Path, metric: str, by: float) -> float:
    """Move one accepted figure, as if the model had been otherwise then; gives the true one."""
    path = folder / "accepted/small.json"
    data = json.loads(path.read_text())
    value: float = data["allocators"]["pool"]["metrics"][metric]
    data["allocators"]["pool"]["metrics"][metric] = value * by
    path.write_text(json.dumps(data))
    return value


def gate(folder: Path, *args: object) -> Any:
    return cli("gate", "check", "--config", folder / "gate.toml", *args)


def tolerating(folder: Path, *tables: str) -> None:
    text = BASE + "".join(f"[[tolerance]]\n{table}\n" for table in tables)
    (folder / "gate.toml").write_text(text)


def test_accepted_figures_pass(folder: Path) -> None:
    done = gate(folder)
    assert done.code == 0, done.out
    assert "passed: 1 check\n" in done.out
    data = json.loads(gate(folder, "--json").out)
    assert data["passed"]
    assert data["checks"][0]["counts"]["ok"] > 40


def test_a_worse_figure_fails_and_names_the_command_that_shows_it(folder: Path) -> None:
    value = changed(folder, "latency_ns.mean", 0.5)
    done = gate(folder)
    assert done.code == 1
    assert "FAILED" in done.out
    assert "+100.0 %" in done.out
    [one] = json.loads(gate(folder, "--json").out)["checks"]
    [finding] = one["findings"]
    assert (finding["metric"], finding["status"]) == ("latency_ns.mean", "regressed")
    words = shlex.split(one["commands"]["pool"])
    assert words[0] == "replay"
    shown = json.loads(cli(*words[1:], "--out", folder / "again", "--json").out)
    assert shown["allocators"]["pool"]["latency_ns"]["mean"] == value == finding["value"]


def test_an_improvement_is_reported_and_passes_unless_strict(folder: Path) -> None:
    changed(folder, "latency_ns.mean", 2)
    done = gate(folder)
    assert done.code == 0
    assert "1 figure is better than accepted" in " ".join(done.out.split())
    assert gate(folder, "--strict").code == 1


@pytest.mark.parametrize(("metric", "by", "status"), [
    ("fragmentation.largest_free_run.mean", 0.9, "improved"),
    ("fragmentation.largest_free_run.mean", 1.1, "regressed"),
    ("fragmentation.live_pages.mean", 0.9, "changed"),
    ("latency_ns.p50", 1.5, "improved"),
])
def test_direction_is_the_metrics(folder: Path, metric: str, by: float, status: str) -> None:
    changed(folder, metric, by)
    [one] = json.loads(gate(folder, "--json").out)["checks"]
    assert [f["status"] for f in one["findings"]] == [status]


@pytest.mark.parametrize(("tables", "code"), [
    (['metric = "latency_ns.*"\nworse = "150 %"'], 0),
    (['metric = "latency_ns.*"\nworse = "99 %"'], 1),
    (['metric = "latency_ns.mean"\nworse = 1e9'], 0),
    (['metric = "latency_ns.mean"\nworse = 0.001'], 1),
    (['metric = "latency_ns.mean"\ndirection = "ignore"'], 0),
    (['metric = "latency_ns.mean"\ndirection = "higher"'], 0),
    (['metric = "latency_ns.mean"\nworse = "150 %"\nallocator = "balloon"'], 1),
    (['metric = "latency_ns.mean"\nworse = "150 %"\ncheck = "sm*"'], 0),
    (['metric = "*"\nworse = "150 %"', 'metric = "latency_ns.mean"\nworse = "1 %"'], 1),
    (['metric = "latency_ns.mean"\nworse = "1 %"', 'metric = "*"\nworse = "150 %"'], 0),
])
def test_tolerances(folder: Path, tables: list[str], code: int) -> None:
    changed(folder, "latency_ns.mean", 0.5)
    tolerating(folder, *tables)
    assert gate(folder).code == code


def test_other_frames_fail_even_where_no_figure_moves(folder: Path) -> None:
    path = folder / "accepted/small.json"
    data = json.loads(path.read_text())
    data["allocators"]["pool"]["frames_digest"] = "0" * 64
    path.write_text(json.dumps(data))
    assert gate(folder).code == 1
    tolerating(folder, 'metric = "*"\nworse = "1000 %"')
    assert gate(folder).code == 1
    tolerating(folder, 'metric = "frames_digest"\ndirection = "ignore"')
    assert gate(folder).code == 0


def test_a_strategy_more_or_less_fails(folder: Path) -> None:
    (folder / "gate.toml").write_text(BASE.replace('"pool"', '"pool", "balloon"'))
    [one] = json.loads(gate(folder, "--json").out)["checks"]
    assert [(f["allocator"], f["base"], f["value"]) for f in one["findings"]] == [
        ("balloon", "missing", "there")]
    assert gate(folder).code == 1


def test_what_cannot_be_compared_is_two_and_the_rest_is_compared(folder: Path) -> None:
    (folder / "gate.toml").write_text(
        BASE + '[[check]]\nname = "new"\ntrace = "small.arrow"\nallocators = ["nop"]\n'
        '[[check]]\ntrace = "gone.arrow"\n')
    done = gate(folder, "--json")
    assert done.code == 2
    checks = {c["name"]: c for c in json.loads(done.out)["checks"]}
    assert checks["small"]["passed"]
    assert "gate accept" in checks["new"]["problem"]
    assert "gone" in checks["gone"]["problem"]
    assert gate(folder, "--only", "small").code == 0
    refused("gate", "check", "--config", folder / "gate.toml", "--only", "smal", naming=("small",))


def test_another_trace_under_the_same_name_is_no_regression(folder: Path) -> None:
    cli("synth", "-o", folder / "small.arrow", "--seconds", 2, "--seed", 9)
    done = gate(folder)
    assert done.code == 2
    assert "other requests" in " ".join(done.out.split())


def test_other_costs_are_said_first(folder: Path) -> None:
    text = BASE.replace('allocators', 'profile = "arm64"\nallocators')
    (folder / "gate.toml").write_text(text)
    done = gate(folder)
    assert done.code == 1
    assert done.out.index("What changed") < done.out.index("profile") < done.out.index("strategy")


def test_a_trace_with_losses_is_refused_unless_allowed(folder: Path, monkeypatch: Any) -> None:
    from replay.trace.meta import Meta

    monkeypatch.setattr(Meta, "lost", property(lambda _: 7))
    done = gate(folder)
    assert done.code == 2
    assert "7 records lost" in " ".join(done.out.split()), "whatever the path's length wraps"
    monkeypatch.setattr(Meta, "losses_unknown", property(lambda _: 7))
    done = gate(folder)
    assert done.code == 2
    assert "an unknown number of records lost" in " ".join(done.out.split())
    (folder / "gate.toml").write_text(BASE + "allow_loss = true\n")
    done = gate(folder)
    assert done.code == 0
    assert "records lost" in done.out, "the accepted recording had none, and that is said"


def test_accept_prints_a_short_table(folder: Path) -> None:
    value = changed(folder, "latency_ns.mean", 2)
    changed(folder, "fragmentation.idle_pages.mean", 1.001)
    done = cli("gate", "accept", "--config", folder / "gate.toml", "--dry-run")
    rows = [line.split() for line in done.out.splitlines()]
    assert ["strategy", "figure", "before", "after", "change"] in rows
    [row] = [row for row in rows if row[:2] == ["pool", "mean"]]
    assert row[2:] == [*duration(2 * value).split(), *duration(value).split(), "-50.0", "%"]
    assert "1 more figure is better, by less than 1 %" in " ".join(done.out.split())
    assert "{" not in done.out and "frames_digest" not in done.out
    every = cli("gate", "accept", "--config", folder / "gate.toml", "--all").out
    assert "listed, unused pages, mean" in every and "1 more figure" not in every
    assert "1 of 1 baselines changed" in every
    again = cli("gate", "accept", "--config", folder / "gate.toml")
    assert again.out == "small: as accepted\n0 of 1 baselines changed\n"


def test_accept_of_a_first_baseline_says_how_many(folder: Path) -> None:
    (folder / "accepted/small.json").unlink()
    done = cli("gate", "accept", "--config", folder / "gate.toml")
    assert re.match(r"small: \d\d figures of 1 strategy, the first ones accepted\n", done.out)


def test_accept_is_a_readable_change_of_text(folder: Path) -> None:
    before = (folder / "accepted/small.json").read_bytes()
    done = cli("gate", "accept", "--config", folder / "gate.toml", "--why", "nothing")
    assert "small: as accepted" in done.out
    assert (folder / "accepted/small.json").read_bytes() == before
    changed(folder, "latency_ns.mean", 2)
    moved = (folder / "accepted/small.json").read_bytes()
    dry = cli("gate", "accept", "--config", folder / "gate.toml", "--dry-run", "--diff").out
    assert (folder / "accepted/small.json").read_bytes() == moved
    signs = [line for line in dry.splitlines() if line[:1] in "+-" and line[:3] not in
             ("+++", "---")]
    assert [line for line in signs if "latency_ns" in line] == [
        line for line in signs if "commit" not in line and "why" not in line]
    assert cli("gate", "accept", "--config", folder / "gate.toml").code == 0
    assert gate(folder).code == 0


def test_reports_for_machines_and_people(folder: Path) -> None:
    changed(folder, "latency_ns.mean", 0.5)
    changed(folder, "latency_ns.p50", 4)
    out = folder / "out"
    assert gate(folder, "--out", out).code == 1
    first = {p.name: p.read_bytes() for p in out.iterdir()}
    assert sorted(first) == [
        "gate.html", "gate.json", "gate.md", "gate.txt", "gate.xml"]
    xml = ElementTree.fromstring(first["gate.xml"])
    [case] = xml.iter("testcase")
    assert case.attrib["name"] == "pool"
    [failure] = case.iter("failure")
    assert "replay run" in (failure.text or "")
    [better] = case.iter("system-out")
    assert "p50" in (better.text or "")
    assert "| pool | mean |" in first["gate.md"].decode()
    page = first["gate.html"].decode()
    assert "<td>pool</td><td>mean</td>" in page and "script-src 'none'" in page
    assert "<script" not in page
    assert gate(folder, "--out", out).code == 1
    assert {p.name: p.read_bytes() for p in out.iterdir()} == first


def test_markdown_stays_text() -> None:
    assert cell("a|b<script>`x`\n[y](z)") == (
        r"a\|b&lt;script&gt;\`x\`\\n\[y\](z)")


@pytest.mark.parametrize(("text", "said"), [
    ("[[check]", "not TOML"), ("", "check"), ("check = []", "check"),
    (BASE + "colour = 1\n", "colour"), (BASE + 'name = "../up"\n', "check.0.name"),
    (BASE + '[[check]]\ntrace = "small.arrow"\n', "two checks"),
    (BASE + '[[tolerance]]\nmetric = "latency_ns.p5O"\n', "latency_ns.p5O"),
    (BASE + '[[tolerance]]\nmetric = "*"\nworse = "2"\n', "2 %"),
    (BASE + '[[tolerance]]\nmetric = "*"\nworse = "nan %"\n', "worse"),
    (BASE + '[[tolerance]]\nmetric = "*"\nworse = -1\n', "worse"),
    (BASE + '[[tolerance]]\nmetric = "*"\ndirection = "up"\n', "direction"),
    ('[[check]]\ntrace = "small.txt"\n', "small.txt"),
])
def test_a_wrong_gate_toml_is_refused(folder: Path, text: str, said: str) -> None:
    (folder / "gate.toml").write_text(text)
    refused("gate", "check", "--config", folder / "gate.toml", naming=("gate.toml", said))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"accepted": 1}', '{"x": NaN}', "\x00"])
def test_a_damaged_baseline_is_a_sentence(folder: Path, text: str) -> None:
    (folder / "accepted/small.json").write_text(text)
    done = gate(folder)
    assert done.code == 2
    assert "small.json" in done.out
    assert "version control" in " ".join(done.out.split())
    refused("gate", "accept", "--config", folder / "gate.toml", naming=("small.json",))


def test_amounts() -> None:
    assert Amount(relative=0.02).allows(-2, 100)
    assert not Amount(relative=0.02).allows(2.1, 100)
    assert Amount(absolute=3).allows(3, 0)
    assert not Amount().allows(1e-9, 100)


def test_a_full_disk_changes_nothing(folder: Path, monkeypatch: Any) -> None:
    changed(folder, "latency_ns.mean", 2)
    before = (folder / "accepted/small.json").read_bytes()

    def full(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        refused("gate", "accept", "--config", folder / "gate.toml", naming=("No space",))
    assert (folder / "accepted/small.json").read_bytes() == before
    assert [p.name for p in (folder / "accepted").iterdir()] == ["small.json"]


def test_two_jobs_at_once_and_a_killed_one(folder: Path) -> None:
    """All write the same; whoever is last, the file is whole."""
    changed(folder, "latency_ns.mean", 2)
    program = [sys.executable, "-c", "from replay.cli import main; main()", "gate", "accept",
               "--config", str(folder / "gate.toml")]
    jobs = [subprocess.Popen(program, stdout=subprocess.DEVNULL) for _ in range(3)]
    jobs[0].kill()
    assert [job.wait() for job in jobs[1:]] == [0, 0]
    jobs[0].wait()
    assert load(folder / "accepted", "small") is not None
    assert gate(folder).code == 0


def test_the_shipped_gate_names_every_shipped_trace() -> None:
    config = load_config(ROOT / "gate.toml")
    assert {c.trace.name for c in config.checks} == {p.name for p in ROOT.glob("traces/*.arrow")}
    assert all(load(config.baseline, c.name) for c in config.checks)


def test_the_shipped_baseline_is_what_this_version_gives() -> None:
    """What the nightly job runs, whole."""
    done = cli("gate", "check", "--config", ROOT / "gate.toml")
    assert done.code == 0, done.out


def test_the_difference_of_a_new_baseline_starts_from_nothing(folder: Path) -> None:
    new = load(folder / "accepted", "small")
    assert new is not None
    assert difference("small", None, new).startswith("--- /dev/null\n+++ b/small.json")
