"""Compiles kernels ahead: each part by doing something small that runs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from replay import allocators
from replay.base.errors import unknown_name
from replay.base.leftovers import temporary_folder
from replay.costs import profile as profiles
from replay.engine.drive import Workload, replay
from replay.engine.requests import Requests
from replay.engine.strategy import Strategy
from replay.physmap import presets
from replay.physmap.model import Physmap
from replay.runs.compiling import compile_side_by_side
from replay.trace.store import Trace, load, save


def warm_up(names: list[str]) -> None:
    """Compile the parts of these names here; without names all, side by side.

    ReplayError: there is no part of that name.
    """
    if names:
        run_parts(names)
    else:
        compile_side_by_side(list(parts()))


def run_parts(names: list[str]) -> None:
    """Run what is compiled for these parts, in this process; without names for all."""
    known = parts()
    for name in names:
        if name not in known:
            raise unknown_name("part", name, list(known))
    for name in names or known:
        known[name]()


def parts() -> dict[str, Callable[[], None]]:
    """What can be compiled apart from the rest, the longest first."""
    loops = {f"loop:{name}": partial(_loop, strategy)
             for name, strategy in allocators.discover().items()}
    return {**loops, "c": _c, "witness": _witness, "calls": _calls,
            "importers": _importers, "traces": _traces, "shipped": _shipped}


def _machine() -> Physmap:
    return presets.load("qemu-virt-arm64")


def _importers() -> None:
    from replay.importers import warming

    warming.compile_importers()


def _loop(strategy: Strategy) -> None:
    """A tiny stream, in all modes that the strategy has."""
    machine = _machine()
    columns = ([0, 10, 20, 30], [0, 1, 0, 1], [2, 2, 1, 1], [0, 0, 2, 2], [0, 1, 2])
    q = Requests(*(np.array(c, np.int64) for c in columns))
    modes = [{name: choice} for name, option in strategy.options.items()
             for choice in option.choices] or [{}]
    for given in modes:
        replay(strategy, given, machine, Workload(q, 3, 3, np.arange(4)),
               profiles.load(machine.arch))


def _calls() -> None:
    """The three calls on their own, which are what `check-allocator` and `verify` use."""
    for strategy in allocators.discover().values():
        m = strategy.init(_machine(), 8, strategy.values({})).state
        pages = np.zeros(2, np.int64)
        strategy.alloc(m, 0, 2, pages, 0)
        strategy.free(m, 1, 2, pages, 0)
        strategy.wake(m, 2)


def _c() -> None:
    from replay.c import calls
    from replay.engine.batches import room

    word = np.zeros(1, np.int64)
    calls.run.prepare(word, Requests(*[word] * 5), room(1, 1), word)


def _witness() -> None:
    from replay.truth.witness.compiled import run
    from replay.truth.witness.lockstep import Room

    word, table = np.zeros(1, np.int64), np.zeros((1, 1), np.int64)
    run.prepare(word, word, word, word, Room(word, table, table, word, word))


def _traces() -> None:
    """Made, replayed, written, read whole and batch by batch, in pages of another size too."""
    from replay.runs.options import RunOptions
    from replay.runs.replaying import replay_trace
    from replay.trace import batches
    from replay.trace.repaged import Repaged
    from replay.trace.synthetic import synthesize

    trace: Trace = synthesize("made-up", None, seed=0, duration_s=1, machine=_machine())
    with temporary_folder() as folder:
        path = Path(folder) / "made-up.arrow"
        save(trace, path)
        load(path)
        read = batches.open_batches(path)
        list(read)
        read.frames_before(1)
        list(Repaged(read, 65536))
    replay_trace(trace, RunOptions(("nop",)))


def _shipped() -> None:
    """What recorded traces have and made-up ones have not, by the shipped ones: all are replayed,
    the smallest goes through the verbs that ask more of one."""
    from replay import api
    from replay.runs.options import RunOptions
    from replay.runs.replaying import replay_source
    from replay.trace.batches import open_batches
    from replay.trace.shipped import shipped_traces

    paths = sorted(shipped_traces().values(), key=lambda path: path.stat().st_size)
    with temporary_folder() as folder:
        for path in paths:
            replay_source(open_batches(path), RunOptions(), folder)
        for path in paths[:1]:
            api.describe_trace(path)
            api.verify_trace(path)
            api.sweep_costs(path, samples=64)
            api.calibrate_costs([path], folder / "fitted.toml")
            api.convert_trace(path, folder / "converted.arrow")
