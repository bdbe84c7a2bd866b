"""Importing a Xen trace and writing it as Arrow, beside xenalyze on the same file in the same run.

The file is a recording SCALED UP: its windows end to end, each time with the clock moved on. Ours
is timed in the process and as a command (with Python's start); xenalyze writes to /dev/null. The
order alternates from round to round, so that a busy machine slows all of them. With `--keep calls`
no record of this file becomes a row: it is counted and hashed, which is what to hold `xenalyze -s`
against.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from replay.importers.session import import_recording
from replay.importers.source.inputs import plain_bytes
from replay.trace.columns import ints
from replay.trace.store import Trace, load, save

RECORDINGS = Path(os.environ.get("REPLAY_RECORDINGS")
                  or Path(__file__).parents[2] / "shared" / "recordings")
SETTINGS = {"cpu_hz": "2596140000", "xen_version": "4.17.7"}
XENALYZE = shutil.which("xenalyze")
OURS = "import and write"


def made_up() -> bytes:
    """A small file for where there are no recordings: grants on two CPUs in turn."""
    windows = []
    for k in range(40):
        body = b"".join(struct.pack("<IQI", 0x9010F001 + (r & 1), 10**9 + 1000 * (10 * k + r), 3)
                        for r in range(10))
        windows.append(struct.pack("<III", 0x2001F003, k & 1, len(body)) + body)
    return b"".join(windows)


def scaled_up(data: bytes, times: int) -> bytes:
    """The file end to end, each copy after the one before it in time."""
    words = np.frombuffer(data, "<u4")
    headers = words.tolist()
    at, end, low = 0, 0, []
    while at < len(headers):
        if at >= end:
            at, end = at + 3, at + 3 + headers[at + 2] // 4
            continue
        timed = headers[at] >> 31
        if timed:
            low.append(at + 1)
        at += 1 + 2 * timed + (headers[at] >> 28 & 7)
    low = np.array(low)
    ticks = words[low].astype(np.int64) | words[low + 1].astype(np.int64) << 32
    span = int(ticks.max() - ticks.min()) + 1000
    parts = []
    for k in range(times):
        copy, moved = words.copy(), ticks + k * span
        copy[low], copy[low + 1] = moved & 0xFFFFFFFF, moved >> 32
        parts.append(copy.tobytes())
    return b"".join(parts)


def digest(trace: Trace) -> str:
    """Of the columns that a Xen trace fills."""
    found = hashlib.sha256()
    for name in ("time_ns", "cpu", "domid", "nr_pages", "start_pfn", "value", "flags",
                 "source_offset"):
        found.update(ints(trace.table, name).tobytes())
    return found.hexdigest()[:32]


def timed(work: Callable[[], object]) -> float:
    """Wall clock of one call, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def command(*args: str) -> Callable[[], object]:
    """A program in a process of its own, its output thrown away."""
    return lambda: subprocess.run(args, check=True, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)


@pytest.mark.skipif(XENALYZE is None, reason="no xenalyze (package xen-utils)")
def test_import_and_write_beside_xenalyze(benchmark, smoke: bool, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    recording = RECORDINGS / "x86-pv-balloon-target" / "xentrace.bin.gz"
    real, times = recording.is_file() and not smoke, 2 if smoke else 8
    source, made = tmp_path / "scaled.bin", tmp_path / "made.arrow"
    if real:
        with plain_bytes(recording) as plain:
            source.write_bytes(scaled_up(bytes(plain), times))
    else:
        source.write_bytes(scaled_up(made_up(), times))

    def ours(compression: str = "zstd", keep: str = "all", to: Path = made) -> None:
        save(import_recording([source], "scaled", machine_dir=None, settings={
            **SETTINGS, "keep": keep}, probes=None, streamed=True), to, compression)

    sets = [text for item in SETTINGS.items() for text in ("--set", "=".join(item))]
    ours_as_command = (sys.executable, "-c", "from replay.cli import main; main()", "import",
                       str(source), "-o", str(tmp_path / "command.arrow"), *sets)
    runs: dict[str, Callable[[], object]] = {
        OURS: ours,
        "the same with lz4": lambda: ours("lz4"),
        "the same as a command": command(*ours_as_command),
        "with --keep calls": lambda: ours(keep="calls", to=tmp_path / "calls.arrow"),
        "with --keep calls as a command": command(*ours_as_command, "--keep", "calls"),
        "xenalyze -s": command(XENALYZE, "-s", str(source)),
        "xenalyze --dump-all": command(XENALYZE, "--dump-all", str(source))}
    ours()  # compiles, or loads what is compiled
    walls: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 if smoke else 7):
        for name, run in runs.items():
            walls[name].append(timed(run))
    benchmark.pedantic(ours, rounds=1)
    trace = load(made)
    label = (f"{recording.parent.name}, SCALED UP {times} times" if real
             else f"made-up records, {times} times")
    median = {name: statistics.median(wall) for name, wall in walls.items()}
    benchmark.extra_info.update({
        "digest": digest(trace), "file": label, "records": trace.meta.accounting["records"],
        "source_bytes": source.stat().st_size, "trace_bytes": made.stat().st_size,
        "seconds": {name: round(wall, 4) for name, wall in median.items()},
        "ours_is_faster_by": {name: round(wall / median[OURS], 2)
                              for name, wall in median.items() if name != OURS}})
    with capsys.disabled():
        print(f"\n{label}: {trace.meta.accounting['records']:,} records")
        for name, wall in walls.items():
            best = min(wall) / min(walls[OURS])
            print(f"  {name}: {median[name]:.3f} s (best {min(wall):.3f}), "
                  f"{median[name] / median[OURS]:.2f} of ours (best {best:.2f})")
