"""Compiles all kernels: a tiny stream through every strategy, and the importers' own."""

from __future__ import annotations

import numpy as np

from replay import allocators
from replay.costs import profile as profiles
from replay.engine.drive import Workload, replay
from replay.c import calls  # noqa: F401  (compiled on import, like the witness's)
from replay.engine.requests import Requests
from replay.metrics import frames  # noqa: F401
from replay.importers import warming
from replay.physmap import presets
from replay.truth.witness import compiled  # noqa: F401


def warm_up() -> None:
    """Replay a tiny stream through every strategy and run the importers' kernels."""
    warming.compile_importers()
    machine = presets.load("qemu-virt-arm64")
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
