"""Synthetic workloads: what backends ask of the allocator, from a seed. Never a recording.

Sizes and lifetimes follow the callers' source (named at each model); arrival times are made up.
Integers only, so that one seed gives the same trace on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

import replay
from replay.base import memory
from replay.base.errors import ReplayError, unknown_name
from replay.base.units import NS_PER_S
from replay.physmap.model import Physmap
from replay.trace.columns import lists
from replay.trace.schema import SCHEMA
from replay.trace.store import Meta, Trace

MS, US = 1_000_000, 1_000
CHECKED_EVERY = 1 << 15
"""Allocations between two looks at the memory taken."""
Page = tuple[int, int]
"""(allocation, its page)."""


@dataclass
class _Event:
    time: int
    kind: str
    task: str
    caller: str
    pid: int
    nr: int
    allocation: int = -1
    pages: list[Page] = field(default_factory=list)
    domid: int | None = None


@dataclass
class _Stream:
    """The events of one workload while it is made, in any order."""

    rng: np.random.Generator
    end_ns: int
    machine: Physmap
    events: list[_Event] = field(default_factory=list)
    allocations: int = 0

    def alloc(self, time: int, who: tuple[str, str, int], nr: int) -> int:
        """Ask for pages; returns the allocation's number."""
        self.allocations += 1
        if self.allocations % CHECKED_EVERY == 0:
            memory.check(f"making {self.end_ns // NS_PER_S} s of requests up",
                         "make a shorter trace")
        self.events.append(_Event(time, "alloc", *who, nr, allocation=self.allocations - 1))
        return self.allocations - 1

    def free(self, time: int, who: tuple[str, str, int], pages: list[Page]) -> None:
        """Return pages in this order; what is beyond the end stays live."""
        if time <= self.end_ns and pages:
            self.events.append(_Event(time, "free", *who, len(pages), pages=pages))

    def whole(self, allocation: int, nr: int) -> list[Page]:
        """All pages of an allocation, in order."""
        return [(allocation, k) for k in range(nr)]

    def between(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return int(self.rng.integers(low, high + 1))

    def spread(self, low: int, doublings: int) -> int:
        """A long-tailed duration: low times a random power of two, and a part of that more."""
        base = low << self.between(0, doublings)
        return base + self.between(0, base)


def netback(s: _Stream) -> None:
    """vifs with 1 to 4 queues of 256 pages each until the vif is torn down.

    xenvif_init_queue(): gnttab_alloc_pages(MAX_PENDING_REQS), drivers/net/xen-netback/interface.c.
    """
    for vif in range(6):
        who = (f"vif{vif + 1}.0", "gnttab_alloc_pages", 1000 + vif)
        time = s.between(0, s.end_ns // 3)
        while time < s.end_ns:
            queues = [s.alloc(time + q * 50 * US, who, 256) for q in range(s.between(1, 4))]
            gone = time + s.spread(s.end_ns // 16, 3)
            for k, queue in enumerate(queues):
                s.free(gone + k * 20 * US, who, s.whole(queue, 256))
            time = gone + s.between(50 * MS, NS_PER_S)


def blkback(s: _Stream) -> None:
    """Page caches of block backends: single pages in, shrunk in tens in arbitrary order.

    gnttab_page_cache_get() takes one page at a time; xen_blkbk shrinks to max_buffer_pages (1024)
    after bursts, gnttab_page_cache_shrink() frees in chunks of ten (drivers/xen/grant-table.c).
    """
    cap = 1024
    for disk in range(4):
        who = (f"{disk + 1}.xvda-0", "gnttab_page_cache_get", 2000 + disk)
        time = s.between(0, 200 * MS)
        cache: list[Page] = []
        while time < s.end_ns:
            burst, used = s.between(1, 352), []
            for _ in range(burst):
                time += s.between(2 * US, 30 * US)
                used.append(cache.pop() if cache else (s.alloc(time, who, 1), 0))
            time += s.spread(200 * US, 5)
            cache += [used[k] for k in s.rng.permutation(len(used))]
            limit = 0 if s.between(0, 19) == 0 else cap if s.between(0, 3) else cap // 8
            while len(cache) > limit:
                chunk = [cache.pop() for _ in range(min(10, len(cache) - limit))]
                time += s.between(5 * US, 20 * US)
                s.free(time, who, chunk)
            time += s.spread(MS, 8)


def mapcache(s: _Stream) -> None:
    """QEMU's map cache: 1 MiB buckets (256 pages), the least recently used one goes.

    xen-mapcache.c, MCACHE_BUCKET_SIZE on 64-bit; each bucket is one privcmd mapping.
    """
    who = ("qemu-system-x86", "alloc_empty_pages", 3000)
    buckets: dict[int, int] = {}
    time = s.between(0, 100 * MS)
    while time < s.end_ns:
        address = s.between(0, 95) if s.between(0, 3) else s.between(0, 1023)
        if address in buckets:
            buckets[address] = buckets.pop(address)
        else:
            if len(buckets) >= 64:
                victim = buckets.pop(next(iter(buckets)))
                s.free(time, who, s.whole(victim, 256))
            time += 30 * US
            buckets[address] = s.alloc(time, who, 256)
        time += s.spread(200 * US, 7)


def migration(s: _Stream) -> None:
    """Live migration: batches of 1024 foreign pages, mapped for milliseconds.

    MAX_BATCH_SIZE, tools/libs/guest/xg_save_restore.h.
    """
    who = ("libxl-save-help", "alloc_empty_pages", 4000)
    time = s.end_ns // 4
    while time < s.end_ns // 2:
        batch = s.alloc(time, who, 1024)
        time += s.between(2 * MS, 9 * MS)
        s.free(time, who, s.whole(batch, 1024))
        time += s.between(MS, 30 * MS)


def gntdev(s: _Stream) -> None:
    """User-space grant mappings; a busy page defers the unmap by 5 ms times its age.

    gnttab_unmap_refs_async(), drivers/xen/grant-table.c (GNTTAB_UNMAP_REFS_DELAY).
    """
    for user in range(3):
        who = (f"vchan-{user}", "gnttab_alloc_pages", 5000 + user)
        time = s.between(0, 50 * MS)
        while time < s.end_ns:
            nr = min(1 << s.between(0, 8), s.between(1, 256))
            allocation = s.alloc(time, who, nr)
            delay, age = s.spread(500 * US, 9), 0
            while s.between(0, 7) == 0:
                age += 1
                delay += 5 * MS * age
            s.free(time + delay, who, s.whole(allocation, nr))
            time += s.spread(300 * US, 6)


def xenbus(s: _Stream) -> None:
    """Rings of devices, 1 to 16 pages, for the device's life.

    xenbus_map_ring_valloc(), XENBUS_MAX_RING_GRANTS (include/xen/xenbus.h).
    """
    for device in range(12):
        who = ("xenwatch", "xenbus_map_ring_hvm", 30)
        time = s.between(0, s.end_ns // 2)
        nr = 1 << s.between(0, 4)
        ring = s.alloc(time, who, nr)
        s.free(time + s.spread(s.end_ns // 8 + device, 3), who, s.whole(ring, nr))


def target(s: _Stream) -> None:
    """`xl mem-set` of dom0: down to three quarters of its memory and up again."""
    full = s.machine.memory.target
    goals = (full, full * 7 // 8, full * 3 // 4, full * 15 // 16, full)
    for k, goal in enumerate(goals):
        time = (k + 1) * s.end_ns // (len(goals) + 1)
        s.events.append(_Event(time, "target", "xenwatch", "", 30, goal))


MODELS: dict[str, Callable[[_Stream], None]] = {
    "netback": netback, "blkback": blkback, "mapcache": mapcache, "migration": migration,
    "gntdev": gntdev, "xenbus": xenbus, "target": target,
}
DEFAULT_MODELS = tuple(name for name in MODELS if name != "target")


def _table(events: list[_Event]) -> pa.Table:
    base: dict[int, int] = {}
    slot = 0
    for event in events:
        if event.kind == "alloc":
            base[event.allocation] = slot
            slot += event.nr
    slots = [np.array([base[a] + k for a, k in e.pages], np.int64) if e.kind == "free" else None
             for e in events]
    n = len(events)
    nr = [e.nr for e in events]
    goal = [e.kind == "target" for e in events]
    first = events[0].time if events else 0
    columns = {
        "time_ns": [e.time - first for e in events], "lock_rank": list(range(n)),
        "kind": [e.kind for e in events], "task": [e.task for e in events],
        "pid": [e.pid for e in events], "caller": [e.caller or None for e in events],
        "nr_pages": [None if g else v for g, v in zip(goal, nr, strict=True)],
        "target_pages": [v if g else None for g, v in zip(goal, nr, strict=True)],
        "slots": lists({k: s for k, s in enumerate(slots) if s is not None}, n),
        "flags": [0] * n, "source": [0] * n, "source_offset": list(range(n)),
    }
    arrays = [columns[f.name].cast(f.type) if isinstance(columns.get(f.name), pa.Array) else
              pa.array(columns.get(f.name, [None] * n), _plain(f.type)).cast(f.type)
              for f in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def synthesize(name: str, models: list[str] | None, *, seed: int, duration_s: int,
               machine: Physmap) -> Trace:
    """A synthetic trace of `duration_s` seconds from the named models (DEFAULT_MODELS if None).

    Raises ReplayError for an unknown model. The same seed, models and duration give the same rows.
    """
    chosen = list(dict.fromkeys(models or DEFAULT_MODELS))
    for model in chosen:
        if model not in MODELS:
            raise unknown_name("workload model", model, list(MODELS))
    if duration_s > 86_400:
        raise ReplayError(f"{duration_s} s is more than a day")
    events: list[_Event] = []
    for model in chosen:
        index = list(MODELS).index(model)
        source = np.random.PCG64(np.random.SeedSequence((seed, index)))
        stream = _Stream(np.random.Generator(source), duration_s * NS_PER_S, machine)
        MODELS[model](stream)
        shift = sum(e.kind == "alloc" for e in events)
        for event in stream.events:
            event.allocation += shift if event.kind == "alloc" else 0
            event.pages = [(a + shift, k) for a, k in event.pages]
        events += stream.events
    order = sorted(range(len(events)), key=lambda k: (events[k].time, k))
    events = [events[k] for k in order]
    count = len(events)
    return Trace(_table(events), Meta(
        name=name if "synthetic" in name else f"synthetic-{name}", synthetic=True,
        description=f"SYNTHETIC: models {', '.join(chosen)}, seed {seed}, {duration_s} s; "
                    "sizes from the callers' source, arrival times made up",
        sources=[], clock={"name": "synthetic", "hz": NS_PER_S, "t0_raw": 0}, provenance={},
        recorded_strategy="", accounting={"records": count, "imported": count, "skipped": {},
                                          "lost": 0},
        anomalies={}, options={"seed": str(seed), "duration_s": str(duration_s),
                               "models": ",".join(chosen)},
        importer=f"replay {replay.__version__}", physmap=machine))
