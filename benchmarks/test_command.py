"""What a user waits for: `replay run` as a whole process, its time and its memory.

The traces are made here, a request of one page after the other, as long as asked for; they are
SYNTHETIC. One core unless a benchmark says otherwise. `start_up_s` is what the same command takes
with a trace of a few requests.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from test_speed import _command

from replay.physmap import presets
from replay.trace.schema import STORED
from replay.trace.meta import Meta
from replay.trace.store import BATCH_ROWS, write

DEPTH = 1000
"""Pages that are live; each request after these frees or allocates one."""


def one_page_rows(rows: int) -> Iterator[pa.RecordBatch]:
    """DEPTH allocations, then frees in arbitrary order, each with an allocation behind it."""
    order = np.random.default_rng(7).permutation(DEPTH)
    kinds = pa.array(["alloc", "free"])
    task, caller = pa.array(["1.xvda-0"]), pa.array(["gnttab_page_cache_get"])
    for a in range(0, rows, BATCH_ROWS):
        at = np.arange(a, min(rows, a + BATCH_ROWS))
        later = np.maximum(at - DEPTH, 0)
        free = (at >= DEPTH) & (later % 2 == 0)
        slot = np.where(at < DEPTH, at, order[later // 2 % DEPTH])
        n, ends = len(at), np.concatenate(([0], np.cumsum(2 * free)))
        runs = np.stack((slot[free], np.ones(int(free.sum()), np.int64)), axis=1).ravel()
        zeros = np.zeros(n, np.int16)
        columns = {
            "time_ns": at * 1000, "lock_rank": at,
            "kind": pa.DictionaryArray.from_arrays(pa.array(free.astype(np.int16)), kinds),
            "task": pa.DictionaryArray.from_arrays(pa.array(zeros), task),
            "caller": pa.DictionaryArray.from_arrays(pa.array(zeros), caller),
            "pid": np.full(n, 2000, np.int32), "nr_pages": np.ones(n, np.int64),
            "slot": pa.array(slot, mask=free),
            "slots": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(runs),
                                              mask=pa.array(~free)),
            "flags": np.zeros(n, np.int32), "source": zeros, "source_offset": at}
        yield pa.RecordBatch.from_arrays(
            [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type)
             for f in STORED], schema=STORED)


def one_page_trace(path: Path, rows: int) -> Path:
    """A trace file of so many requests."""
    write(path, Meta(
        name="synthetic-one-page", synthetic=True, description="SYNTHETIC: one page at a time",
        sources=[], clock={"name": "synthetic", "hz": 10**9, "t0_raw": 0}, provenance={},
        recorded_strategy="", anomalies={}, physmap=presets.load("qemu-q35-pvh"),
        accounting={"records": rows, "imported": rows, "skipped": {}, "lost": 0},
        bounds={"slots": DEPTH, "live_pages": DEPTH, "request_pages": 1, "target_pages": 0,
                "before": 0, "last_ns": (rows - 1) * 1000}), one_page_rows(rows), "lz4")
    return path


@pytest.fixture(scope="module")
def traces(smoke: bool, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By number of requests: a short trace, and two long ones of which one is ten times the
    other."""
    folder = tmp_path_factory.mktemp("traces")
    sizes = (2_000, 4_000, 8_000) if smoke else (2_000, 2_000_000, 20_000_000)
    return {n: one_page_trace(folder / f"{n}.arrow", n) for n in sizes}


@pytest.fixture
def one_core() -> Iterator[None]:
    """What is started here runs on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def _run(trace: Path, *more: str) -> tuple[float, int]:
    """(seconds, peak memory in MiB) of a run."""
    begin = time.perf_counter()
    peak = _command("run", str(trace), "--overwrite", "--out",
                    str(trace.parent / "out"), *more)
    return time.perf_counter() - begin, peak // 1024


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "out" / "summary.json").read_bytes()).hexdigest()[:32]


@pytest.mark.parametrize("kept", ["outcome", "summary"])
def test_one_page_requests_of_a_whole_run(benchmark, kept: str, traces: dict[int, Path],
                                          one_core: None, smoke: bool) -> None:
    short, middle, long = traces
    # Of the smoke sizes nothing is left without the start-up.
    more = ["--allocator", "pool", *(["--no-outcome"] if kept == "summary" else [])]
    _run(traces[short], *more)
    start_up = min(_run(traces[short], *more)[0] for _ in range(1 if smoke else 3))
    seconds, peaks = [], {}
    for n in (middle, long):
        seconds = [_run(traces[n], *more) for _ in range(1 if smoke or n == middle else 2)]
        peaks[n] = max(peak for _, peak in seconds)
    benchmark.pedantic(_run, args=(traces[long], *more), rounds=1)
    best = min(benchmark.stats.stats.min, *(s for s, _ in seconds))
    benchmark.extra_info |= {
        "strategy": "pool", "size": f"{long:,} requests", "digest": _digest(traces[long].parent),
        "million_requests_per_s": round(long / best / 1e6, 2),
        "million_requests_per_s_without_start_up": round(
            long / max(best - start_up, 1e-3) / 1e6, 2),
        "start_up_s": round(start_up, 2),
        "peak_memory_mib": {f"{n:,}": peak for n, peak in peaks.items()}}


def test_four_strategies_beside_one(benchmark, traces: dict[int, Path], smoke: bool) -> None:
    """On all cores."""
    long = max(traces)
    one = min(_run(traces[long], "--allocator", "pool", "--no-outcome")[0]
              for _ in range(1 if smoke else 2))
    benchmark.pedantic(_run, args=(traces[long], "--no-outcome"), rounds=1 if smoke else 2)
    benchmark.extra_info |= {
        "size": f"{long:,} requests", "digest": _digest(traces[long].parent),
        "cores": os.cpu_count(), "four_take_as_long_as": round(benchmark.stats.stats.min / one, 2)}


OBJECT = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
"""A request of a libCacheSim trace of type oracleGeneral."""
LRU = """
import sys
import libcachesim
reader = libcachesim.TraceReader(
    trace=sys.argv[1], trace_type=libcachesim.TraceType.ORACLE_GENERAL_TRACE,
    reader_init_params=libcachesim.ReaderInitParam(ignore_obj_size=True))
print(libcachesim.LRU(cache_size=int(sys.argv[2])).process_trace(reader))
"""


def objects(path: Path, requests: int) -> Path:
    """So many requests for DEPTH objects of one size, in arbitrary order."""
    found = np.zeros(requests, OBJECT)
    found["time"] = np.arange(requests) // 1000
    found["id"] = np.random.default_rng(7).integers(0, DEPTH, requests)
    found["size"], found["next"] = 1, -2
    found.tofile(path)
    return path


@pytest.mark.skipif(not importlib.util.find_spec("libcachesim"),
                    reason="no libcachesim (pip install -e .[bench])")
def test_beside_libcachesim(benchmark, traces: dict[int, Path], smoke: bool, tmp_path: Path
                            ) -> None:
    """As many requests, of one page here and of one object there; whole processes in turns, on
    all cores, each with the least that it prints."""
    long = max(traces)
    trace, made = traces[long], objects(tmp_path / "objects.bin", long)
    more = ("--allocator", "pool", "--no-outcome")

    def lru() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", LRU, str(made), str(DEPTH // 2)], check=True,
                       stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin

    walls = [(_run(trace, *more)[0], lru()) for _ in range(1 if smoke else 3)]
    benchmark.pedantic(_run, args=(trace, *more), rounds=1)
    ours, theirs = (min(wall) for wall in zip(*walls, strict=True))
    benchmark.extra_info |= {
        "size": f"{long:,} requests", "digest": _digest(trace.parent),
        "million_requests_per_s": {"replay run, summary alone": round(long / ours / 1e6, 2),
                                   "libCacheSim, LRU": round(long / theirs / 1e6, 2)},
        "ours_is_faster_by": round(theirs / ours, 2)}
