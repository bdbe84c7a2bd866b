"""Compiles all kernels: a tiny stream through every strategy, and the importers' own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from replay import allocators
from replay.costs import profile as profiles
from replay.engine.drive import Workload, replay
from replay.c import calls  # noqa: F401  (compiled on import, like the witness's)
from replay.engine.requests import Requests
from replay.metrics import frames  # noqa: F401
from replay.importers import warming
from replay.physmap import presets
from replay.runs.options import RunOptions
from replay.runs.replaying import replay_trace
from replay.trace import batches
from replay.trace.store import Trace, load, save
from replay.trace.synthetic import synthesize
from replay.truth.witness import compiled  # noqa: F401


def warm_up() -> None:
    """Replay a tiny stream through every strategy; run the importers' kernels and `synth`."""
    warming.compile_importers()
    machine = presets.load("qemu-virt-arm64")
    trace = synthesize("made-up", None, seed=0, duration_s=1, machine=machine)
    _pass_through_a_file(trace)
    replay_trace(trace, RunOptions(("pool",)))
    columns = ([0, 10, 20, 30], [0, 1, 0, 1], [2, 2, 1, 1], [0, 0, 2, 2], [0, 1, 2])
    q = Requests(*(np.array(c, np.int64) for c in columns))
    for strategy in allocators.discover().values():
        modes = [{name: choice} for name, option in strategy.options.items()
                 for choice in option.choices] or [{}]
        for given in modes:
            replay(strategy, given, machine, Workload(q, 3, 3, np.arange(4)),
                   profiles.load(machine.arch))
        # The three calls on their own are what `check-allocator` and `verify` use.
        m = strategy.init(machine, 8, strategy.values({})).state
        pages = np.zeros(2, np.int64)
        strategy.alloc(m, 0, 2, pages, 0)
        strategy.free(m, 1, 2, pages, 0)
        strategy.wake(m, 2)


def _pass_through_a_file(trace: Trace) -> None:
    """Written, read whole, and read batch by batch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made-up.arrow"
        save(trace, path)
        load(path)
        read = batches.open_batches(path)
        list(read)
        read.frames_before(1)
