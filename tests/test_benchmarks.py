"""The benchmarks at their smoke size, so that they cannot rot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from driving import ROOT


def test_each_benchmark_runs_and_states_what_it_computed(tmp_path: Path) -> None:
    # Under xdist the workers' variables would switch pytest-benchmark off.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(ROOT / "benchmarks"), "-p", "no:xdist",
         "--benchmark-only", f"--benchmark-json={tmp_path / 'bench.json'}"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=500,
        env={**environment, "REPLAY_BENCH_SMOKE": "1"})
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]
    found = json.loads((tmp_path / "bench.json").read_text())["benchmarks"]
    replays = [b for b in found if "[" in b["name"]]
    assert len(replays) >= 15
    assert all(b["extra_info"]["size"] for b in found)
    for benchmark in replays:
        assert len(benchmark["extra_info"]["digest"]) == 32, benchmark["name"]
