"""Benchmarks: `make bench JSON=FILE` measures, REPLAY_BENCH_SMOKE=1 only shows that they run."""

from __future__ import annotations

import os

import pytest

SMOKE = os.environ.get("REPLAY_BENCH_SMOKE") == "1"


@pytest.fixture(scope="session")
def smoke() -> bool:
    """Tiny sizes, one round: for the tests, so that benchmarks cannot rot."""
    return SMOKE


@pytest.fixture(autouse=True)
def size(request: pytest.FixtureRequest) -> None:
    """How large it was goes with each result, so that no history mixes sizes."""
    if "benchmark" in request.fixturenames:
        benchmark = request.getfixturevalue("benchmark")
        benchmark.extra_info["size"] = "smoke" if SMOKE else "full"
