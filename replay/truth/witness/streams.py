"""Seeded streams: a random machine and stream per seed, through a model and a kernel tree."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from replay import allocators
from replay.base.compiled import words_in
from replay.base.errors import unknown_name
from replay.c.kernel_tree.build import arch_init, bounds_search, build, pools_extra_memory
from replay.c.kernel_tree.source import POOL_SOURCE, Tree
from replay.c.library import Library, strategy
from replay.engine.failing import arm, counted
from replay.engine.faults import FAULT_KINDS, NO_FAULTS, Faults
from replay.engine.start import Start, begin
from replay.engine.state import ram_frames, span, words
from replay.engine.strategy import Strategy
from replay.physmap.model import Physmap
from replay.truth.witness.compiled import run, serve_by_balloon
from replay.truth.witness.lockstep import FOUND, STREAM, difference, found_in, room_for, stream_in
from replay.truth.witness.machines import random_machine

MOST_LIVE = 1 << 14
"""Pages that are live at most, of sleeping calls too."""
PER_SEED = 4_000
"""Of one seed, unless fewer are asked for."""
STRATEGIES = ("pool", "hypervisor", "balloon", "hotplug")
COUNTED = ("requests", "allocations", "failed", "slept", "thread_passes", "trees_compared",
           "lists_compared", "sections")
"""What of a FOUND is added up over the streams."""
PAGE_BY_PAGE = ("alloc_page", "xen_alloc_p2m_entry", "set_phys_to_machine", "populate")
RATIOS, RATIOS_PER_PAGE = (2, 3, 5, 30), (30, 300, 4000, 40_000)
"""Of so many calls one fails, in a stream with failures; of those that are made page by page."""


@dataclass
class Result:
    """What the streams of one strategy gave: counts, and the first difference in words."""

    strategy: str
    kernel: str
    seeds: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULT_KINDS, 0))
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
    bounds = {"bounded": bounds_search(tree), "extra_memory": pools_extra_memory(tree)} \
        if name in ("pool", "hypervisor") else {}
    return {"memory_hotplug": hotplug, "auto_online": rng.random() < 0.7,
            "scrub": rng.random() < 0.5, "seeding": name != "pool" and bool(arch_init(tree, "x86")),
            **bounds}, hotplug


def faults_for(name: str, seed: int, machine: Physmap) -> Faults:
    """What fails in a stream: nothing in half of them."""
    rng = random.Random(f"faults of {name} {seed}")
    if rng.random() < 0.5:
        return NO_FAULTS
    kinds = rng.sample(list(FAULT_KINDS), rng.randint(1, len(FAULT_KINDS)))
    ratios = {kind: (1, rng.choice(RATIOS_PER_PAGE if kind in PAGE_BY_PAGE else RATIOS))
              for kind in kinds}
    limit = max(1, machine.memory.current + rng.randint(-60, 900)) if rng.random() < 0.3 else 0
    return Faults(ratios, limit, seed)


def _parameters(name: str, rng: random.Random, machine: Physmap, requests: int,
                library: Library) -> np.ndarray:
    """A STREAM."""
    handle = library.handle
    address = {what: ctypes.cast(getattr(handle, what), ctypes.c_void_p).value or 0
               for what in ("replay_list", "shim_balloon_list", "shim_tree", "shim_lost")}
    made = np.zeros(words_in(STREAM), np.int64)
    p = stream_in(made)
    p.targets = rng.choice([0, 2, 10])
    p.seed, p.requests = rng.getrandbits(62), requests
    p.most, p.calm = rng.choice([1, 40, 700, 5000]), rng.choice([35, 50, 65])
    p.peak, p.full = MOST_LIVE - 5000, machine.memory.current + rng.choice([0, 0, 900])
    p.list, p.balloon_list = address["replay_list"], address["shim_balloon_list"]
    p.tree, p.quick = address["shim_tree"], rng.choice([10, 60, 95])
    p.lost = address["shim_lost"]
    return made


def started(rng: random.Random, machine: Physmap) -> tuple[Physmap, Start]:
    """A start of life: as at boot, or after the target went down."""
    pages = rng.choice([0, 0, 1, 700, 3000])
    pages = rng.randint(0, min(pages, len(ram_frames(machine)) // 2))
    if not pages:
        return machine, Start()
    memory = machine.memory
    return machine.with_changes(memory=replace(memory, target=memory.current)), Start(balloon=pages)


def _begun(strategy: Strategy, machine: Physmap, values: dict[str, Any], start: Start
           ) -> np.ndarray:
    """One side's state."""
    if not start.given:
        return strategy.init(machine, MOST_LIVE, values).state
    return begin(strategy, machine, MOST_LIVE, values, start).setup.state


def run_stream(name: str, tree: Tree, seed: int, requests: int, result: Result,
               faults: Faults | None = None) -> None:
    """One seed; adds to the counts, and keeps the first difference. faults: instead of those that
    the seed has."""
    rng = random.Random(f"{name} {seed}")
    seeds_memory = bool(arch_init(tree, "x86"))
    machine, start = started(rng, machine_for(name, rng, seeds_memory))
    options, hotplug = _options(name, rng, tree)
    failing = faults_for(name, seed, machine) if faults is None else faults
    model = allocators.load(name)
    a = _begun(model, machine, {**model.values({}), **options}, start)
    if name in ("balloon", "hotplug"):
        serve_by_balloon(a)
    by_pool = name in ("pool", "hypervisor")
    built = build(tree, machine.arch, machine.page_bytes, hotplug, by_pool)
    opened: list[Any] = []
    given = {"auto_online": options.get("auto_online", False), "scrub": options.get("scrub", True),
             "hotplug_unpopulated": name == "hotplug"}
    b = _begun(strategy(built.path, opened=opened), machine, given, start)
    for m in (a, b):
        m[span("work")] = words(m).dirty = 0
        arm(m, failing)
    libraries = [item for item in opened if isinstance(item, Library)]
    library = libraries[-1]  # begin() may try a machine before the one it begins with
    stream = _parameters(name, rng, machine, requests, library)
    found = np.zeros(words_in(FOUND), np.int64)
    run(a, b, stream, found, room_for(len(a), MOST_LIVE + 1024))
    for one in libraries:
        one.close()
    result.seeds += 1
    f = found_in(found)
    for count in COUNTED:
        result.counts[count] += int(f[count])
    for kind, (failed, _) in counted(a).items():
        result.faults[kind] += failed
    if f.what:
        result.difference = (
            f"request {f.requests}: {difference(int(f.what))} [{f.at}] is "
            f"{f.ours} in the model, {f.theirs} in the kernel "
            f"(machine {machine.arch} {machine.mode}, {machine.page_bytes} byte pages"
            f"{failing.said()})")
    elif words(a).fault or words(b).fault:
        fault = int(words(a).fault or words(b).fault)
        result.difference = f"an internal bound was hit (fault {fault})"
    if result.difference:
        result.seed = seed


def run_streams(name: str, tree: Tree, requests: int, first_seed: int = 0,
                begin: Callable[[int], None] = lambda seed: None,
                faults: Faults | None = None) -> Result:
    """Seeds from first_seed on until so many requests are done, or something differs.

    begin: called with each seed before its stream. faults: see run_stream().
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy of the kernel's", name, list(STRATEGIES))
    result, seed = Result(name, tree.name), first_seed
    if not serves(tree, name):
        return result
    while result.counts["requests"] < requests and not result.difference:
        begin(seed)
        run_stream(name, tree, seed, min(PER_SEED, requests - result.counts["requests"]), result,
                   faults)
        seed += 1
    return result
