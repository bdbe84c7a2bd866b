"""The workload models: who asks, and what each step of theirs does.

A step is a function of the world, the actor's number and the time; it writes at most one row, at
that time, and returns when the next step is. Sizes and lifetimes follow the callers' source, named
at each; arrival times are made up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from replay.base.compiled import inline
from replay.base.units import NS_PER_S
from replay.trace.synthetic.agenda import plan
from replay.trace.synthetic.draws import between, spread
from replay.trace.synthetic.rows import alloc, free, free_last, target
from replay.trace.synthetic.state import World

MS, US = 1_000_000, 1_000
LATER_THAN_ALL = 1 << 62
"""When the next step of an actor is that has none."""
QUEUE_PAGES = 256
BURST, CACHE_PAGES, SHRINK_PAGES = 352, 1024, 10
ADDRESSES, BUCKETS, BUCKET_PAGES = 1024, 64, 256
BATCH_PAGES = 1024
SIXTEENTHS = (16, 14, 12, 15, 16)
"""Of the machine's memory: the targets."""
IDLE, GETTING, SHRINKING, MAPPING, MAPPED = range(5)
"""What an actor is doing."""


@inline
def _netback(w: World, k: int, now: int) -> int:
    """vifs with 1 to 4 queues of 256 pages each until the vif is torn down.

    xenvif_init_queue(): gnttab_alloc_pages(MAX_PENDING_REQS), drivers/net/xen-netback/interface.c.
    """
    vif = w.actors[k]
    if vif.left == 0:
        vif.left = between(vif, 1, 4)
        vif.until = now + spread(vif, w.counts[0].end // 16, 3)
    plan(w, vif.until, k, alloc(w, k, now, QUEUE_PAGES), QUEUE_PAGES)
    vif.until += 20 * US
    vif.left -= 1
    return now + 50 * US if vif.left else vif.until + between(vif, 50 * MS, NS_PER_S)


@inline
def _blkback(w: World, k: int, now: int) -> int:
    """Page caches of block backends: single pages in, shrunk in tens in arbitrary order.

    gnttab_page_cache_get() takes one page at a time; xen_blkbk shrinks to max_buffer_pages (1024)
    after bursts, gnttab_page_cache_shrink() frees in chunks of ten (drivers/xen/grant-table.c).
    """
    disk = w.actors[k]
    cache, in_use = w.cache[disk.number], w.in_use[disk.number]
    if disk.phase == SHRINKING:
        chunk = min(SHRINK_PAGES, disk.cached - disk.until)
        free_last(w, k, now, cache, disk.cached, chunk)
        disk.cached -= chunk
    elif disk.phase == GETTING:
        in_use[disk.used] = alloc(w, k, now, 1)
        disk.used += 1
        disk.left -= 1
    else:
        disk.left = between(disk, 1, BURST)
    if disk.phase != SHRINKING:
        while disk.left > 0:
            now += between(disk, 2 * US, 30 * US)
            if disk.cached == 0:
                disk.phase = GETTING
                return now
            disk.cached -= 1
            in_use[disk.used] = cache[disk.cached]
            disk.used += 1
            disk.left -= 1
        now += spread(disk, 200 * US, 5)
        _return_pages(disk, cache, in_use)
        disk.until = _limit(disk)
    if disk.cached > disk.until:
        disk.phase = SHRINKING
        return now + between(disk, 5 * US, 20 * US)
    disk.phase = IDLE
    return now + spread(disk, MS, 8)


@inline
def _return_pages(disk: Any, cache: Any, in_use: Any) -> None:
    """The pages of a burst go back to the cache in any order (Fisher and Yates)."""
    while disk.used > 0:
        disk.used -= 1
        chosen = between(disk, 0, disk.used)
        cache[disk.cached] = in_use[chosen]
        in_use[chosen] = in_use[disk.used]
        disk.cached += 1


@inline
def _limit(disk: Any) -> int:
    """To how many pages the cache shrinks: now and then to none."""
    if between(disk, 0, 19) == 0:
        return 0
    return CACHE_PAGES if between(disk, 0, 3) else CACHE_PAGES // 8


@inline
def _mapcache(w: World, k: int, now: int) -> int:
    """QEMU's map cache: 1 MiB buckets (256 pages), the least recently used one goes.

    xen-mapcache.c, MCACHE_BUCKET_SIZE on 64-bit; each bucket is one privcmd mapping.
    """
    qemu = w.actors[k]
    if qemu.phase == MAPPING:
        w.buckets[qemu.until].slot = alloc(w, k, now, BUCKET_PAGES)
        _make_newest(w, qemu.until)
        qemu.cached += 1
        qemu.phase = IDLE
        return now + spread(qemu, 200 * US, 7)
    address = between(qemu, 0, 95) if between(qemu, 0, 3) else between(qemu, 0, ADDRESSES - 1)
    if w.buckets[address].slot >= 0:
        _take_out(w, address)
        _make_newest(w, address)
        return now + spread(qemu, 200 * US, 7)
    if qemu.cached >= BUCKETS:
        oldest = _ends(w).newer
        free(w, k, now, w.buckets[oldest].slot, BUCKET_PAGES)
        w.buckets[oldest].slot = -1
        _take_out(w, oldest)
        qemu.cached -= 1
    qemu.until, qemu.phase = address, MAPPING
    return now + 30 * US


@inline
def _ends(w: World) -> Any:
    """The bucket of no address, in which the ends of the list of mapped addresses meet."""
    return w.buckets[w.buckets.shape[0] - 1]


@inline
def _take_out(w: World, address: int) -> None:
    """Out of the list of mapped addresses."""
    bucket = w.buckets[address]
    w.buckets[bucket.older].newer = bucket.newer
    w.buckets[bucket.newer].older = bucket.older


@inline
def _make_newest(w: World, address: int) -> None:
    bucket, ends = w.buckets[address], _ends(w)
    bucket.older, bucket.newer = ends.older, ADDRESSES
    w.buckets[ends.older].newer = address
    ends.older = address


@inline
def _migration(w: World, k: int, now: int) -> int:
    """Live migration: batches of 1024 foreign pages, mapped for milliseconds.

    MAX_BATCH_SIZE, tools/libs/guest/xg_save_restore.h.
    """
    helper = w.actors[k]
    if helper.phase == MAPPED:
        free(w, k, now, helper.slot, BATCH_PAGES)
        helper.phase = IDLE
        return now + between(helper, MS, 30 * MS)
    if now >= w.counts[0].end // 2:
        return LATER_THAN_ALL
    helper.slot, helper.phase = alloc(w, k, now, BATCH_PAGES), MAPPED
    return now + between(helper, 2 * MS, 9 * MS)


@inline
def _gntdev(w: World, k: int, now: int) -> int:
    """User-space grant mappings; a busy page defers the unmap by 5 ms times its age.

    gnttab_unmap_refs_async(), drivers/xen/grant-table.c (GNTTAB_UNMAP_REFS_DELAY).
    """
    user = w.actors[k]
    pages = min(1 << between(user, 0, 8), between(user, 1, 256))
    slot = alloc(w, k, now, pages)
    gone, age = now + spread(user, 500 * US, 9), 0
    while between(user, 0, 7) == 0:
        age += 1
        gone += 5 * MS * age
    plan(w, gone, k, slot, pages)
    return now + spread(user, 300 * US, 6)


@inline
def _xenbus(w: World, k: int, now: int) -> int:
    """Rings of devices, 1 to 16 pages, for the device's life.

    xenbus_map_ring_valloc(), XENBUS_MAX_RING_GRANTS (include/xen/xenbus.h).
    """
    device = w.actors[k]
    pages = 1 << between(device, 0, 4)
    gone = now + spread(device, w.counts[0].end // 8 + device.number, 3)
    plan(w, gone, k, alloc(w, k, now, pages), pages)
    return LATER_THAN_ALL


@inline
def _target(w: World, k: int, now: int) -> int:
    """`xl mem-set` of dom0: down to three quarters of its memory and up again."""
    toolstack, c = w.actors[k], w.counts[0]
    target(w, k, now, c.full * SIXTEENTHS[toolstack.left] // 16)
    toolstack.left += 1
    if toolstack.left == len(SIXTEENTHS):
        return LATER_THAN_ALL
    return _goal_time(toolstack.left, c.end)


@inline
def _goal_time(goal: int, end: int) -> int:
    return (goal + 1) * end // (len(SIXTEENTHS) + 1)


class Model(NamedTuple):
    """tasks, pids: of its actors, one each. caller: "" for what is no call."""

    tasks: tuple[str, ...]
    caller: str
    pids: tuple[int, ...]


def _several(task: str, first: int, count: int, caller: str, pid: int) -> Model:
    return Model(tuple(task.format(first + k) for k in range(count)), caller,
                 tuple(range(pid, pid + count)))


MODELS = {
    "netback": _several("vif{}.0", 1, 6, "gnttab_alloc_pages", 1000),
    "blkback": _several("{}.xvda-0", 1, 4, "gnttab_page_cache_get", 2000),
    "mapcache": Model(("qemu-system-x86",), "alloc_empty_pages", (3000,)),
    "migration": Model(("libxl-save-help",), "alloc_empty_pages", (4000,)),
    "gntdev": _several("vchan-{}", 0, 3, "gnttab_alloc_pages", 5000),
    "xenbus": Model(("xenwatch",) * 12, "xenbus_map_ring_hvm", (30,) * 12),
    "target": Model(("xenwatch",), "", (30,)),
}
TASKS = tuple(dict.fromkeys(task for model in MODELS.values() for task in model.tasks))
CALLERS = tuple(dict.fromkeys(model.caller for model in MODELS.values() if model.caller)) + ("",)
DEFAULT_MODELS = tuple(name for name in MODELS if name != "target")
NETBACK, BLKBACK, MAPCACHE, MIGRATION, GNTDEV, XENBUS = range(6)


@inline
def begin(w: World, k: int) -> int:
    """When an actor takes its first step."""
    actor, end = w.actors[k], w.counts[0].end
    if actor.model == NETBACK:
        return between(actor, 0, end // 3)
    if actor.model == BLKBACK:
        return between(actor, 0, 200 * MS)
    if actor.model == MAPCACHE:
        return between(actor, 0, 100 * MS)
    if actor.model == MIGRATION:
        return end // 4
    if actor.model == GNTDEV:
        return between(actor, 0, 50 * MS)
    if actor.model == XENBUS:
        return between(actor, 0, end // 2)
    return _goal_time(0, end)


@inline
def step(w: World, k: int, now: int) -> int:
    """What actor k does now; when its next step is."""
    model = w.actors[k].model
    if model == BLKBACK:
        return _blkback(w, k, now)
    if model == GNTDEV:
        return _gntdev(w, k, now)
    if model == MAPCACHE:
        return _mapcache(w, k, now)
    if model == MIGRATION:
        return _migration(w, k, now)
    if model == NETBACK:
        return _netback(w, k, now)
    if model == XENBUS:
        return _xenbus(w, k, now)
    return _target(w, k, now)
