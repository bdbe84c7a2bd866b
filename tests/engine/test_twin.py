"""One stream, three ways of running the kernels: compiled, interpreted, bounds-checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib, json
from replay import allocators
from replay.costs import profile
from replay.engine.conformance import _workload
from replay.engine.drive import replay
from replay.physmap import presets

found = {}
for name in allocators.discover():
    for preset in ("qemu-q35-pv", "qemu-virt-arm64", "qemu-virt-arm64-no-regions"):
        machine = presets.load(preset).with_changes(
            section_bytes=1 << 21, clip=(), iomem=presets.load(preset).iomem)
        o = replay(allocators.load(name), {}, machine, _workload(), profile.load("x86"), check=True)
        assert not o.broken, o.broken
        found[f"{name} {preset}"] = [o.frames_digest(), hashlib.sha256(
            o.rows.tobytes() + o.work.tobytes() + b"".join(
                counts.tobytes() for counts in o.histograms.values())).hexdigest(),
            sorted(o.areas.items()), sorted(o.peaks.items()), sorted(o.tallies.items())]
print(json.dumps(found))
"""


def digests(**environment: str) -> dict:
    done = subprocess.run([sys.executable, "-c", PROGRAM], env={**os.environ, **environment},
                          capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def compiled() -> dict:
    return digests()


def test_interpreted_kernels_give_the_same_frames_times_work_and_integrals(compiled: dict) -> None:
    assert digests(NUMBA_DISABLE_JIT="1") == compiled
    assert len(compiled) == 21


def test_bounds_checked_kernels_give_the_same_and_raise_nothing(compiled: dict) -> None:
    assert digests(NUMBA_BOUNDSCHECK="1") == compiled
