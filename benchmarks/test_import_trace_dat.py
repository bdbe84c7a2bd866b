"""Importing a trace.dat and writing it as Arrow, beside `trace-cmd report` on the same file.

The file is a recording SCALED UP: its sub-buffers end to end, each time with the clock moved on.
Both are whole commands, from start to exit; trace-cmd writes to /dev/null. The order alternates from round to
round, so that a busy machine slows both.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from in_parts import long_dat

from replay.trace.columns import ints
from replay.trace.store import load

RECORDINGS = Path(os.environ.get("REPLAY_RECORDINGS")
                  or Path(__file__).parents[2] / "shared" / "recordings")
TRACE_CMD = shutil.which("trace-cmd")
NAMES = ("x86-pv-balloon-target", "x86-pv-blkback", "x86-pv-churn", "arm64-regions")
OURS = "import and write"


def timed(work: Callable[[], object]) -> float:
    """Wall clock of one call, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.skipif(TRACE_CMD is None, reason="no trace-cmd")
@pytest.mark.parametrize("name", NAMES)
def test_import_and_write_beside_trace_cmd(benchmark, smoke: bool, tmp_path: Path, name: str,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    folder = RECORDINGS / name
    if not (folder / "trace.dat").is_file():
        pytest.skip("the recordings are not here")
    plain, source, made = (tmp_path / n for n in ("plain.dat", "scaled.dat", "made.arrow"))
    subprocess.run([TRACE_CMD, "convert", "-i", folder / "trace.dat", "--file-version", "6",
                    "-o", plain], check=True, stdout=subprocess.DEVNULL)
    times = 2 if smoke else 6
    long_dat(plain, times, source)

    def ours() -> None:
        subprocess.run([sys.executable, "-c", "from replay.cli import main; main()", "import",
                        str(source), "--machine", str(folder), "-o", str(made), "--quiet"],
                       check=True, stdout=subprocess.DEVNULL)

    def report() -> None:
        subprocess.run([TRACE_CMD, "report", "-t", str(source)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    ours()  # compiles, or loads what is compiled
    walls: dict[str, list[float]] = {OURS: [], "trace-cmd report": []}
    for _ in range(1 if smoke else 3):
        walls[OURS].append(timed(ours))
        walls["trace-cmd report"].append(timed(report))
    benchmark.pedantic(ours, rounds=1)
    trace = load(made)
    found = hashlib.sha256()
    for column in ("time_ns", "cpu", "pid", "nr_pages", "lock_rank", "flags"):
        found.update(ints(trace.table, column).tobytes())
    events = trace.meta.accounting["records"]
    median = {key: statistics.median(wall) for key, wall in walls.items()}
    ratio = median["trace-cmd report"] / median[OURS]
    benchmark.extra_info.update({
        "digest": found.hexdigest()[:32], "file": f"{name}, SCALED UP {times} times",
        "events": events, "rows": trace.table.num_rows,
        "seconds": {key: round(wall, 4) for key, wall in median.items()},
        "ours_is_faster_by": round(ratio, 2)})
    with capsys.disabled():
        print(f"\n{name}, SCALED UP {times} times: {events:,} events, {trace.table.num_rows:,} "
              f"rows\n  ours {median[OURS]:.3f} s ({events / median[OURS] / 1e6:.2f} M events/s), "
              f"trace-cmd report {median['trace-cmd report']:.3f} s: ours is faster by {ratio:.2f}")
