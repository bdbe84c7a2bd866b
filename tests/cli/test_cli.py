"""The command line as a user meets it: verbs, files, exit codes, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from driving import ROOT, cli, refused, small
import replay
from replay import allocators
from replay.costs.primitives import WORK
from replay.trace.store import load

VERBS = ("import", "info", "run", "verify", "synth", "check-allocator", "list", "record",
         "claims")
PVH = ROOT / "traces" / "pvh-dom0.arrow"
HEAVY = ("numba", "numpy", "polars", "pyarrow", "rich")


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("cli") / "synthetic-small.arrow", seconds=2)


@pytest.fixture(scope="module")
def ran(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with the default strategies."""
    out = tmp_path_factory.mktemp("ran") / "out"
    assert cli("run", trace, "--out", out).code == 0
    return out


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_help_names_every_verb_and_loads_nothing_heavy() -> None:
    code = ("import sys\nfrom replay.cli import main\ntry:\n main(['--help'])\nexcept SystemExit:\n"
            f" pass\nprint([m for m in {HEAVY} if m in sys.modules])")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("[]\n"), ended.stdout[-200:]
    for verb in VERBS:
        assert f"  {verb} " in ended.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str) -> None:
    result = cli(verb, "--help")
    assert result.code == 0
    assert "Usage:" in result.out


def test_a_run_prints_at_most_100_columns_and_writes_what_it_prints(trace: Path, ran: Path,
                                                                    tmp_path: Path) -> None:
    result = cli("run", trace, "--out", tmp_path / "out", "--all")
    assert result.code == 0
    assert result.err == ""
    body = result.out[: result.out.index("Results in ")]
    assert max(len(line) for line in body.splitlines()) <= 100
    assert (tmp_path / "out" / "report.txt").read_text() == body
    assert "MODELLED" in body
    for name in allocators.DEFAULT:
        assert name in body
    assert digests(tmp_path / "out") == digests(ran)


def test_two_processes_write_the_same_bytes(trace: Path, ran: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-c", "from replay.cli import main; main()"]
    subprocess.run([*program, "run", str(trace), "--out", str(tmp_path / "out")], check=True,
                   stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert digests(tmp_path / "out") == digests(ran)


def test_the_files_of_a_run(ran: Path) -> None:
    names = {p.name for p in ran.iterdir()}
    assert names == {"summary.json", "report.txt",
                     *(f"outcome-{name}.arrow" for name in allocators.DEFAULT),
                     *(f"timeline-{name}.json" for name in allocators.DEFAULT)}


def test_json_is_the_summary(trace: Path, ran: Path, tmp_path: Path) -> None:
    result = cli("run", trace, "--json", "--out", tmp_path)
    data = json.loads(result.out)
    assert data == json.loads((ran / "summary.json").read_text())
    for one in data["allocators"].values():
        assert set(one["latency_ns"]) >= {"p50", "p90", "p99", "p99_9", "p99_99", "max", "mean"}
        assert {"requests", "failed", "pages_allocated", "fragmentation", "hazards", "work"} <= set(
            one)
        assert len(one["frames_digest"]) == 64


@pytest.mark.parametrize("name", allocators.DEFAULT)
def test_an_outcome_has_a_row_per_request_that_adds_up(name: str, ran: Path, trace: Path) -> None:
    with pa.OSFile(str(ran / f"outcome-{name}.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    rows = table.to_pylist()
    assert len(rows) == len(load(trace).table)
    one = json.loads((ran / "summary.json").read_text())["allocators"][name]
    allocs = [r for r in rows if r["kind"] == "alloc"]
    assert len(allocs) == one["requests"]
    assert sum(r["errno"] < 0 for r in allocs) == one["failed"]
    assert all(r["latency_ns"] == r["wait_ns"] + r["service_ns"] for r in rows)
    assert {r["path"] for r in rows} <= {"fast", "slow", "slept"}
    assert max(r["latency_ns"] for r in allocs if not r["errno"]) == one["latency_ns"]["max"]
    for primitive in WORK:
        in_rows = sum(r[f"work_{primitive}"] for r in rows)
        background = one["background"].get(primitive, 0)
        assert in_rows + background == one["work"][primitive], primitive
    assert b"modelled" in table.schema.metadata[b"replay"]


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version
    assert cli("--version").out == f"replay {version('replay')}\n"


def test_a_trace_where_a_run_is_expected_is_told_apart(trace: Path) -> None:
    assert f"is a trace, expected a run; `replay run {trace}`" in refused("report", trace)


def test_the_default_folder(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("run", trace, "--allocator", "nop").code == 0
    made, = (p for p in (tmp_path / "reports").iterdir() if not p.is_symlink())
    assert made.name.startswith(f"{trace.stem}-nop-{replay.__version__}-")
    assert (made / "summary.json").is_file()


def test_options_physmap_and_profile_change_the_result_and_are_named(trace: Path,
                                                                     tmp_path: Path) -> None:
    result = cli("run", trace, "--out", tmp_path, "--json", "--allocator", "pool", "--physmap",
                 "rcar-h3", "--profile", "x86", "--set", "pool.section_pages=65536")
    data = json.loads(result.out)
    assert data["run"]["physmap"] == "rcar-h3"
    assert data["run"]["profile"] == "x86"
    assert not data["run"]["physmap_of_trace"]
    assert data["allocators"]["pool"]["options"]["section_pages"] == 65536


def test_lost_records_stand_in_the_header(trace: Path, tmp_path: Path) -> None:
    from driving import metadata, rewrite
    accounting = {**metadata(trace)["accounting"], "lost": 4711}
    lossy = rewrite(trace, tmp_path / "lossy.arrow", meta={"accounting": accounting})
    result = cli("run", lossy, "--out", tmp_path / "out", "--allocator", "nop")
    assert "DATA LOSS" in result.out
    assert "4,711 records lost while recording" in " ".join(result.out.split())
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["run"]["records_lost"] == 4711


@pytest.mark.parametrize(("lost", "said"), [
    (2, "an unknown number of records lost"), (9, "7 and an unknown number of records lost")])
def test_losses_of_unknown_number_are_said_to_be_unknown(
        trace: Path, tmp_path: Path, lost: int, said: str) -> None:
    from driving import metadata, rewrite
    accounting = {**metadata(trace)["accounting"], "lost": lost}
    lossy = rewrite(trace, tmp_path / "lossy.arrow", meta={
        "accounting": accounting, "anomalies": {"records_lost": lost, "losses_unknown": 2}})
    told = " ".join(cli("info", lossy).out.split())
    number = said.removesuffix(" of records lost").removeprefix("an ")
    for words in (f"DATA LOSS: {said}", f"as the tracer reports {number}",
                  f"data loss {number} records lost"):
        assert words in told
    run = cli("run", lossy, "--out", tmp_path / "out", "--allocator", "nop")
    assert said in " ".join(run.out.split())
    written = json.loads((tmp_path / "out" / "summary.json").read_text())["run"]
    assert (written["records_lost"], written["losses_unknown"]) == (lost, 2)
    for form in ("html", "md", "txt"):
        assert cli("report", tmp_path / "out", "--format", form, "-o", tmp_path / form).code == 0
        assert said in " ".join((tmp_path / form).read_text().split())


def test_check_tests_the_invariants(trace: Path, tmp_path: Path) -> None:
    assert cli("run", trace, "--out", tmp_path, "--check").code == 0


OWN_HELPER = """
from replay.base.compiled import inline

@inline
def _frame(at, k):
    return at + k

@compiled
def alloc("""


def test_a_strategy_of_ones_own_is_found_compiled_by_the_next_process(trace: Path, tmp_path: Path
                                                                      ) -> None:
    """One process compiles its loop, helpers of its own and all; the next one loads it."""
    source = (ROOT / "replay" / "allocators" / "nop.py").read_text()
    source = source.replace('name="nop"', 'name="mine"').replace("= at + k", "= _frame(at, k)")
    (tmp_path / "mine.py").write_text(source.replace("\n@compiled\ndef alloc(", OWN_HELPER))
    words = ("run", trace, "--out", tmp_path / "out", "--json", "--allocator",
             tmp_path / "mine.py", "--allocator", "nop")
    program = ("import atexit, sys; from replay.cli import main; atexit.register(lambda: print("
               "'numba' in sys.modules, file=sys.stderr)); main()")
    for turn in ("first", "second"):
        result = subprocess.run([sys.executable, "-c", program, *words], capture_output=True,
                                text=True, check=False)
        assert result.returncode == 0, result.stderr
        data = json.loads(result.stdout)
        assert data["order"] == ["mine", "nop"]
        mine, nop = (data["allocators"][name]["frames_digest"] for name in data["order"])
        assert mine == nop
        assert turn == "first" or result.stderr.endswith("False\n"), "compiled once more"


def test_info_as_text_and_as_json() -> None:
    text = cli("info", PVH)
    assert text.code == 0
    assert max(len(line) for line in text.out.splitlines()) <= 100
    assert "QEMU TCG" in text.out
    data = json.loads(cli("info", PVH, "--json").out)
    assert data["name"] == "pvh-dom0"


def test_a_synthetic_trace_says_so_and_is_the_same_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        result = cli("synth", "-o", tmp_path / name / "synthetic-x.arrow", "--seed", 5, "--seconds",
                     2, "--model", "netback", "--model", "target")
        assert result.code == 0, result.err
    first, second = (tmp_path / n / "synthetic-x.arrow" for n in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert "SYNTHETIC" in cli("info", first).out
    assert cli("run", first, "--out", tmp_path / "out").code == 0


def test_verify_of_a_shipped_trace_is_equal() -> None:
    result = cli("verify", PVH, "--json")
    data = json.loads(result.out)
    assert result.code == 0
    assert data["equal"]
    assert data["frames_checked"] == data["frames_equal"] > 1000
    assert data["differences"] == []
    assert "EQUAL" in cli("verify", PVH).out


def test_verify_of_a_falsified_trace_says_where(tmp_path: Path) -> None:
    from driving import rewrite

    def falsify(frames: list[list[int] | None]) -> list[list[int] | None]:
        rows = [r for r, f in enumerate(frames) if f and len(f) == 1 and f[0] > 0]
        row = rows[len(rows) // 2]
        return [*frames[:row], [frames[row][0] + 1], *frames[row + 1 :]]  # type: ignore[index]

    false = rewrite(PVH, tmp_path / "false.arrow", columns={"frames": falsify})
    result = cli("verify", false, "--json")
    assert result.code == 1
    first = json.loads(result.out)["differences"][0]
    assert {"time_ns", "event", "recorded", "model"} <= set(first)
    assert "DIFFER" in cli("verify", false).out


def test_list_names_what_there_is() -> None:
    out = cli("list").out
    for word in (*allocators.discover(), "rcar-h3", "x86", "--set pool.section_pages="):
        assert word in out


FTRACE = """# tracer: nop
#
 blkback-100 [000] ..... 1000: xen_alloc: (xen_alloc_unpopulated_pages+0x0/0x1d0) nr=0x1 a=0x0
 surprise
"""


def test_import_accounts_for_every_line(tmp_path: Path) -> None:
    source = tmp_path / "trace.txt"
    source.write_text(FTRACE)
    result = cli("import", source, "-o", tmp_path / "t.arrow", "--set", "trace_clock=x86-tsc",
                 "--set", "cpu_hz=2000000000", "--set", "description=by hand")
    assert result.code == 0, result.err
    made = load(tmp_path / "t.arrow")
    counts = made.meta.accounting
    assert counts["records"] == counts["imported"] + sum(counts["skipped"].values())
    assert made.meta.description == "by hand"
    assert "lines unmatched" in result.out.replace("_", " ")


@pytest.mark.parametrize("loading", ["replay.cli", "typer", "replay.cli.run", "pyarrow"])
def test_an_interrupt_while_loading_is_no_traceback(loading: str) -> None:
    code = ("import importlib.abc, os, runpy, signal, sys\n"
            "class Interrupt(importlib.abc.MetaPathFinder):\n"
            "    def find_spec(self, name, path, target=None):\n"
            f"        if name == {loading!r}: os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Interrupt())\n"
            "sys.argv = ['replay', 'run', 'traces/pvh-dom0.arrow']\n"
            "runpy.run_module('replay', run_name='__main__')\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert done.returncode in (-signal.SIGINT, 130)


def test_what_is_listed_can_be_read_by_programs() -> None:
    found = json.loads(cli("list", "--json").out)
    assert {"balloon", "hotplug", "pool", "hypervisor"} <= set(found["strategies"])
    assert found["strategies"]["pool"]["options"]["section_pages"]["what"]
    assert "qemu-q35-pvh" in found["machines"]
    assert "x86" in found["cost_profiles"]
