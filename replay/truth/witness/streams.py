"""Seeded streams: a random machine and stream per seed, through a model and a kernel tree."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from replay import allocators
from replay.base.errors import unknown_name
from replay.c.kernel_tree.build import arch_init, bounds_search, build
from replay.c.kernel_tree.source import POOL_SOURCE, Tree
from replay.c.library import Library, strategy
from replay.engine.state import span, words
from replay.physmap.model import Physmap
from replay.truth.witness.compiled import run, serve_by_balloon
from replay.truth.witness.lockstep import (
    F_ALLOCS,
    F_AT,
    F_DONE,
    F_FAILED,
    F_LISTS,
    F_OURS,
    F_PASSES,
    F_SECTIONS,
    F_SLEPT,
    F_THEIRS,
    F_TREES,
    F_WHAT,
    MAX_SLEEPERS,
    difference,
)
from replay.truth.witness.machines import random_machine

PEAK = 1 << 14
STREAM = 4_000
"""Requests of one seed, unless fewer are asked for."""
STRATEGIES = ("pool", "hypervisor", "balloon", "hotplug")
COUNTS = {"requests": F_DONE, "allocations": F_ALLOCS, "failed": F_FAILED, "slept": F_SLEPT,
          "thread_passes": F_PASSES, "trees_compared": F_TREES, "lists_compared": F_LISTS,
          "sections": F_SECTIONS}


@dataclass
class Result:
    """What the streams of one strategy gave: counts, and the first difference in words."""

    strategy: str
    kernel: str
    seeds: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    difference: str = ""
    seed: int = -1


def serves(tree: Tree, name: str) -> bool:
    """Whether this kernel has the strategy: the pool since 5.9, regions on Arm since 5.17."""
    if name == "pool":
        return (tree.path / POOL_SOURCE).is_file()
    return name != "hypervisor" or bool(arch_init(tree, "arm64"))


def suits(name: str, machine: Physmap, seeds_memory: bool) -> bool:
    """Whether a kernel would serve this machine by this strategy; x86 has 4 KiB pages only."""
    if machine.arch == "x86" and machine.page_bytes != 4096:
        return False
    unusable = machine.mode == "pvh" and any(c.name == "Unusable memory" for c in machine.iomem)
    if name == "pool":
        return machine.arch == "x86" and not (seeds_memory and unusable)
    if name == "hypervisor":
        return machine.arch == "arm64" or seeds_memory
    return True


def machine_for(name: str, rng: random.Random, seeds_memory: bool) -> Physmap:
    """The next random machine that suits the strategy."""
    while True:
        machine = random_machine(rng)
        if suits(name, machine, seeds_memory):
            return machine


def _options(name: str, rng: random.Random, tree: Tree) -> tuple[dict[str, Any], bool]:
    """The model's options, and whether the kernel is built with memory hotplug."""
    hotplug = rng.random() < 0.8
    bounds = {"bounded": bounds_search(tree)} if name in ("pool", "hypervisor") else {}
    return {"memory_hotplug": hotplug, "auto_online": rng.random() < 0.7,
            "scrub": rng.random() < 0.5, **bounds}, hotplug


def _parameters(name: str, rng: random.Random, machine: Physmap, requests: int,
                library: Library) -> np.ndarray:
    handle = library.handle
    address = {what: ctypes.cast(getattr(handle, what), ctypes.c_void_p).value or 0
               for what in ("replay_list", "shim_balloon_list", "shim_tree")}
    targets = rng.choice([0, 2, 10])
    return np.array([
        rng.getrandbits(62), requests, rng.choice([1, 40, 700, 5000]), rng.choice([35, 50, 65]),
        PEAK - 5000, targets, machine.memory.current + rng.choice([0, 0, 900]),
        address["replay_list"], address["shim_balloon_list"], address["shim_tree"],
        rng.choice([10, 60, 95])], np.int64)


def run_stream(name: str, tree: Tree, seed: int, requests: int, result: Result) -> None:
    """One seed; adds to the counts, and keeps the first difference."""
    rng = random.Random(f"{name} {seed}")
    seeds_memory = bool(arch_init(tree, "x86"))
    machine = machine_for(name, rng, seeds_memory)
    options, hotplug = _options(name, rng, tree)
    model = allocators.load(name)
    a = model.init(machine, PEAK, {**model.values({}), **options}).state
    if name in ("balloon", "hotplug"):
        serve_by_balloon(a)
    built = build(tree, machine.arch, machine.page_bytes, hotplug)
    opened: list[Any] = []
    given = {"auto_online": options.get("auto_online", False), "scrub": options.get("scrub", True),
             "ballooned": name in ("balloon", "hotplug"), "hotplug_unpopulated": name == "hotplug"}
    b = strategy(built.path, opened=opened).init(machine, PEAK, given).state
    for m in (a, b):
        m[span("work")] = words(m).dirty = 0
    library = next(item for item in opened if isinstance(item, Library))
    p = _parameters(name, rng, machine, requests, library)
    f = np.zeros(16, np.int64)
    table = np.zeros((4 + 2 * MAX_SLEEPERS, PEAK + 1024), np.int64)
    room = np.zeros(len(a), np.int64)
    run(a, b, p, f, table, room)
    library.close()
    result.seeds += 1
    for count, word in COUNTS.items():
        result.counts[count] += int(f[word])
    if f[F_WHAT]:
        result.difference = (
            f"request {int(f[F_DONE])}: {difference(int(f[F_WHAT]))} [{int(f[F_AT])}] is "
            f"{int(f[F_OURS])} in the model, {int(f[F_THEIRS])} in the kernel "
            f"(machine {machine.arch} {machine.mode}, {machine.page_bytes} byte pages)")
    elif words(a).fault or words(b).fault:
        fault = int(words(a).fault or words(b).fault)
        result.difference = f"an internal bound was hit (fault {fault})"
    if result.difference:
        result.seed = seed


def run_streams(name: str, tree: Tree, requests: int, first_seed: int = 0,
                begin: Callable[[int], None] = lambda seed: None) -> Result:
    """Seeds from first_seed on until so many requests are done, or something differs.

    begin: called with each seed before its stream.
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy of the kernel's", name, list(STRATEGIES))
    result, seed = Result(name, tree.name), first_seed
    if not serves(tree, name):
        return result
    while result.counts["requests"] < requests and not result.difference:
        begin(seed)
        run_stream(name, tree, seed, min(STREAM, requests - result.counts["requests"]), result)
        seed += 1
    return result
