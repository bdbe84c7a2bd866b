"""Speed of replay itself: measured wall clock, with digests of what was computed.

One core. `extra_info` holds rates, ratios and digests, so that nobody speeds up by changing answers.
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from replay import allocators

from replay.costs import profile
from replay.engine import drive as engine
from replay.engine.batches import begin_whole, room
from replay.engine.drive import Workload, replay
from replay.engine.outcome import Out
from replay.engine.requests import ALLOC, FREE, Requests
from replay.engine.state import NR_WORK
from replay.physmap import presets
from replay.physmap.iomem import without_scratch
from replay.trace.requests import to_workload
from replay.trace.store import load

TRACES = Path(__file__).parents[1] / "traces"
STRATEGIES = ("nop", "pool", "balloon", "hotplug", "hypervisor")


def one_page_stream(pairs: int, depth: int = 1000) -> Workload:
    """Single pages: `depth` live at first, then one freed and one asked for, in arbitrary order."""
    rng = np.random.default_rng(7)
    live = list(range(depth))
    kind, slots, slot = [ALLOC] * depth, [], depth
    for _ in range(pairs // 2):
        k = int(rng.integers(0, depth))
        slots.append(live[k])
        live[k] = slot
        kind += [FREE, ALLOC]
        slot += 1
    kinds = np.array(kind, np.int64)
    alloc = np.cumsum(kinds == ALLOC) - 1
    free = np.cumsum(kinds == FREE) - 1
    n = len(kinds)
    q = Requests(np.arange(n, dtype=np.int64) * 1000, kinds, np.ones(n, np.int64),
                 np.where(kinds == ALLOC, alloc, free), np.array(slots, np.int64))
    return engine.checked(Workload(q, slot, depth, np.arange(n)))


def repeated(workload: Workload, times: int) -> Workload:
    """A recorded stream end to end several times; what is still live is freed in between."""
    q = workload.requests
    freed = np.zeros(workload.nr_slots, bool)
    freed[q.slots[q.slots >= 0]] = True
    rest = np.flatnonzero(~freed)
    span = int(q.time[-1]) + 1000
    parts = []
    for k in range(times):
        first = q.first + np.where(q.kind == ALLOC, k * workload.nr_slots,
                                   k * (len(q.slots) + len(rest)))
        slots = np.where(q.slots < 0, -1, q.slots + k * workload.nr_slots)
        end = [(k + 1) * span - 1] if len(rest) else []
        size = [len(rest)] if len(rest) else []
        at = [(k + 1) * len(q.slots) + k * len(rest)] if len(rest) else []
        parts.append((np.append(q.time + k * span, end), np.append(q.kind, [FREE] * len(end)),
                      np.append(q.pages, size), np.append(first, at),
                      np.append(slots, rest + k * workload.nr_slots)))
    columns = [np.ascontiguousarray(np.concatenate(c), np.int64) for c in zip(*parts, strict=True)]
    stream = Requests(*columns)
    return engine.checked(Workload(stream, workload.nr_slots * times, workload.peak_pages + len(rest),
                                   np.zeros(len(stream.time), np.int64)))


def warm(workload: Workload) -> Out:
    """What the loop fills, in memory that has been touched."""
    out = begin_whole(room(workload.slots, engine.largest(workload)), workload.requests)
    out = out._replace(work=np.full((len(workload) + len(out.work), NR_WORK), 1, np.int64))
    out.work.fill(0)
    out.live.fill(-1)
    out.rows["errno"] = 0
    return out


def timed_replay(benchmark, name: str, workload: Workload, machine, smoke: bool):
    """Time the compiled loop alone, all metrics on, on fresh state and warm output arrays."""
    strategy, costs = allocators.load(name), profile.load(machine.arch)
    outcome = replay(strategy, {}, machine, workload, costs)

    def setup():
        made = strategy.init(machine, engine.most_pages(workload, machine), strategy.values({}))
        out = warm(workload)
        return (made.state, workload.requests, out, costs.vector(made.page_work)), {}

    benchmark.pedantic(strategy.run, setup=setup, rounds=1 if smoke else 7)
    benchmark.extra_info |= {"strategy": name, "physmap": machine.name, "profile": costs.name,
                             "size": f"{len(workload):,} requests"}
    benchmark.extra_info["digest"] = outcome.frames_digest()[:16] + hashlib.sha256(
        outcome.rows.tobytes()).hexdigest()[:16]
    return benchmark.stats.stats


@pytest.mark.parametrize("name", STRATEGIES)
def test_one_page_requests(benchmark, name: str, smoke: bool) -> None:
    workload = one_page_stream(2_000 if smoke else 1_000_000)
    stats = timed_replay(benchmark, name, workload, presets.load("qemu-q35-pvh"), smoke)
    benchmark.extra_info["million_requests_per_s"] = round(len(workload) / stats.median / 1e6, 1)
    benchmark.extra_info["million_requests_per_s_best"] = round(len(workload) / stats.min / 1e6, 1)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("trace", ["pvh-dom0", "arm64-dom0"])
def test_the_mix_of_a_recording(benchmark, trace: str, name: str, smoke: bool) -> None:
    recorded = load(TRACES / f"{trace}.arrow")
    times = 1 if smoke else (40 if trace == "pvh-dom0" else 3)
    workload = repeated(to_workload(recorded), times)
    stats = timed_replay(benchmark, name, workload, without_scratch(recorded.meta.physmap), smoke)
    q = workload.requests
    pages = int(q.pages[q.kind != 2].sum())
    benchmark.extra_info["trace"] = trace
    benchmark.extra_info["million_pages_per_s"] = round(pages / stats.median / 1e6, 1)
    benchmark.extra_info["million_pages_per_s_best"] = round(pages / stats.min / 1e6, 1)
    benchmark.extra_info["pages_per_request"] = round(pages / len(workload), 1)


INTERPRETED = """
import sys, time
sys.path.insert(0, "benchmarks")
from test_speed import one_page_stream, warm
from replay import allocators
from replay.costs import profile
from replay.physmap import presets

machine = presets.load("qemu-virt-arm64").with_changes(section_bytes=1 << 21)
strategy, costs = allocators.load("pool"), profile.load("x86")
w, best = one_page_stream(20_000), 1e9
for _ in range(3):
    setup, out = strategy.init(machine, 8192, strategy.values({})), warm(w)
    start = time.perf_counter()
    strategy.run(setup.state, w.requests, out, costs.vector(setup.page_work))
    best = min(best, time.perf_counter() - start)
print(best)
"""


def test_interpreted_against_compiled(benchmark, smoke: bool) -> None:
    """The time is that of the interpreted run, with start-up."""
    def run(**environment: str) -> float:
        done = subprocess.run([sys.executable, "-c", INTERPRETED], capture_output=True, text=True,
                              env={**os.environ, **environment}, check=True)
        return float(done.stdout)

    compiled = run()
    interpreted = benchmark.pedantic(run, kwargs={"NUMBA_DISABLE_JIT": "1"}, rounds=1)
    benchmark.extra_info |= {"strategy": "pool", "size": "3 x 20,000 requests"}
    benchmark.extra_info["compiled_is_faster_by"] = round(interpreted / compiled)


PROGRAM = """
import atexit, sys
from pathlib import Path
from replay.cli import main

def peak():
    # Not getrusage(): that counts what the parent held at the time of the fork.
    status = Path("/proc/self/status").read_text()
    sys.stderr.write(status.split("VmHWM:")[1].split()[0])

atexit.register(peak)
main()
"""


def _command(*args: str) -> int:
    """Run the command line in a process of its own; its peak memory in KiB."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", PROGRAM, *args], check=True, text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    return int(done.stderr)


def test_help(benchmark, smoke: bool) -> None:
    benchmark.pedantic(lambda: _command("--help"), rounds=1 if smoke else 9, warmup_rounds=1)


@pytest.mark.parametrize("trace", ["pvh-dom0", "pv-dom0", "arm64-dom0"])
def test_a_warm_run_with_four_strategies(benchmark, trace: str, smoke: bool,
                                         tmp_path: Path) -> None:
    """Wall time with start-up; `records` says from how many recorded events the trace was made."""
    peaks: list[int] = []
    benchmark.pedantic(
        lambda: peaks.append(_command("run", str(TRACES / f"{trace}.arrow"), "--out",
                                      str(tmp_path / "out"))),
        rounds=1 if smoke else 5, warmup_rounds=1)
    recorded = load(TRACES / f"{trace}.arrow")
    summary = (tmp_path / "out" / "summary.json").read_bytes()
    benchmark.extra_info.update({
        "trace": trace, "physmap": recorded.meta.physmap.name,
        "digest": hashlib.sha256(summary).hexdigest()[:32], "peak_memory_mib": max(peaks[1:]) // 1024,
        "events": len(recorded.table), "records": recorded.meta.accounting["records"],
        "requests": len(to_workload(recorded))})


def processor_s() -> float:
    """Seconds of a processor that commands have taken so far."""
    taken = resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken.ru_utime + taken.ru_stime


@pytest.mark.parametrize("seconds", [20, 1600, 4000])
def test_synth(benchmark, seconds: int, smoke: bool, tmp_path: Path,
               capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command with start-up: rows a second by the clock, and per second of a core."""
    path, peaks, wall, cores = tmp_path / "synthetic.arrow", [], [], []

    def made() -> None:
        begun, before = time.perf_counter(), processor_s()
        peaks.append(_command("synth", "-o", str(path), "--seed", "1", "--seconds",
                              str(1 if smoke else seconds)))
        wall.append(time.perf_counter() - begun)
        cores.append(processor_s() - before)

    benchmark.pedantic(made, rounds=1 if smoke else 3, warmup_rounds=1)
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        rows = reader.count_rows()
    rates = {"with start-up": rows / min(wall[1:]) / 1e6,
             "with start-up, per second of a core": rows / min(cores[1:]) / 1e6}
    benchmark.extra_info |= {
        "digest": hashlib.sha256(path.read_bytes()).hexdigest()[:32], "rows": rows,
        "million_rows_per_s": {key: round(rate, 2) for key, rate in rates.items()},
        "peak_memory_mib": max(peaks[1:]) // 1024, "bytes_per_row": round(path.stat().st_size / rows)}
    with capsys.disabled():
        print(f"\nsynth, {seconds:,} s, {rows:,} rows: "
              + "; ".join(f"{rate:.2f} million rows/s {key}" for key, rate in rates.items())
              + f"; peak {max(peaks[1:]) >> 10} MiB")
