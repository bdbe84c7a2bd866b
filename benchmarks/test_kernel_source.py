"""The kernel's own C under the same engine against the compiled model, side by side in one run."""

from __future__ import annotations

import hashlib
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_speed import TRACES, one_page_stream, repeated, warm

from replay import allocators

from replay.c.kernel_tree import build, source
from replay.c.library import strategy
from replay.costs import profile
from replay.engine import drive as engine
from replay.engine.drive import Workload
from replay.physmap import presets
from replay.physmap.iomem import without_scratch
from replay.physmap.model import Physmap
from replay.trace.requests import to_workload
from replay.trace.store import load

CALLS = {"pool": {}, "balloon": {"auto_online": 0}, "hotplug": {"hotplug_unpopulated": 1}}


def once(chosen: Any, given: dict[str, Any], machine: Physmap, w: Workload) -> tuple[float, Any]:
    """Seconds in the loop, and the rows and frames it gave."""
    values = {**chosen.values({}), **given}
    made = chosen.init(machine, engine.most_pages(w, machine), values)
    out = warm(w)
    costs = profile.load(machine.arch).vector(made.page_work)
    start = time.perf_counter()
    chosen.run(made.state, w.requests, out, costs)
    return time.perf_counter() - start, out


def load_of(which: str, smoke: bool) -> tuple[Workload, Physmap]:
    if which == "one page":
        return one_page_stream(2_000 if smoke else 1_000_000), presets.load("qemu-q35-pvh")
    recorded = load(TRACES / "pvh-dom0.arrow")
    return (repeated(to_workload(recorded), 1 if smoke else 40),
            without_scratch(recorded.meta.physmap))


@pytest.mark.skipif(not source.installed(), reason="no linux-source package: make kernel-source")
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("which", ["one page", "pvh-dom0"])
def test_kernel_source_against_model(benchmark, which: str, name: str, smoke: bool) -> None:
    tree = source.open_tree(Path(source.installed()[0]))
    w, machine = load_of(which, smoke)
    model = allocators.load(name)
    by_pool = name not in ("balloon", "hotplug")  # else built without CONFIG_XEN_UNPOPULATED_ALLOC
    kernel = strategy(build.build(tree, machine.arch, machine.page_bytes,
                                  unpopulated=by_pool).path)
    times: dict[str, list[float]] = {"model": [], "kernel": []}
    for _ in range(2 if smoke else 9):
        seconds, ours = once(model, {}, machine, w)
        times["model"].append(seconds)
        seconds, theirs = once(kernel, CALLS[name], machine, w)
        times["kernel"].append(seconds)
        assert np.array_equal(ours.rows, theirs.rows)
        assert np.array_equal(ours.frames, theirs.frames)
    benchmark.pedantic(lambda: None, rounds=1)
    rate = {side: len(w) / statistics.median(t) / 1e6 for side, t in times.items()}
    ratio = statistics.median(k / m for k, m in zip(times["kernel"], times["model"], strict=True))
    benchmark.extra_info.update({
        "kernel": tree.name, "digest": hashlib.sha256(ours.rows.tobytes()).hexdigest()[:32],
        "million_requests_per_s": round(rate["kernel"], 1),
        "model_million_requests_per_s": round(rate["model"], 1),
        "model_is_faster_by": round(ratio, 2)})
