"""Workload models as loops over one actor each: all events first, then sorted. Pages are objects.

Slow and held in memory whole; written from what the models say of themselves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

MS, US, S = 10**6, 10**3, 10**9
WORD = 1 << 64


def finalize(x: int) -> int:
    """SplitMix64's."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


@dataclass
class Random:
    """SplitMix64."""

    state: int

    @classmethod
    def of(cls, seed: int, model: int, number: int) -> Random:
        """An actor's own."""
        state = 0
        for part in (seed, model, number):
            state = finalize((state + 0x9E3779B97F4A7C15 + part) % WORD)
        return cls(state)

    def next(self) -> int:
        """64 bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) % WORD
        return finalize(self.state)

    def between(self, low: int, high: int) -> int:
        """Of the interval's numbers, the one as far along as the draw is along all words."""
        return low + self.next() * (high - low + 1) // WORD

    def spread(self, low: int, doublings: int) -> int:
        """low times a power of two, and up to as much again."""
        base = low << self.between(0, doublings)
        return base + self.between(0, base)


@dataclass(eq=False)
class Page:
    """A page; which is known by when it was allocated: see numbered()."""

    number: int = -1


@dataclass
class Event:
    """kind, time, and the pages; of a target their number."""

    kind: str
    time: int
    pages: list[Page] = field(default_factory=list)
    goal: int = 0


Actor = Callable[[Random, int, int, int], Iterator[Event]]
"""Takes its random numbers, its number, the end in ns, the machine's target in pages."""


def pages(count: int) -> list[Page]:
    """New ones."""
    return [Page() for _ in range(count)]


def netback(rng: Random, number: int, end: int, full: int) -> Iterator[Event]:
    time = rng.between(0, end // 3)
    while time < end:
        queues = [pages(256) for _ in range(rng.between(1, 4))]
        gone = time + rng.spread(end // 16, 3)
        for k, queue in enumerate(queues):
            yield Event("alloc", time + k * 50 * US, queue)
            yield Event("free", gone + k * 20 * US, queue)
        time = gone + len(queues) * 20 * US + rng.between(50 * MS, S)


def blkback(rng: Random, number: int, end: int, full: int) -> Iterator[Event]:
    time, cache = rng.between(0, 200 * MS), []
    while time < end:
        used = []
        for _ in range(rng.between(1, 352)):
            time += rng.between(2 * US, 30 * US)
            if not cache:
                cache = pages(1)
                yield Event("alloc", time, list(cache))
            used.append(cache.pop())
        time += rng.spread(200 * US, 5)
        while used:
            k = rng.between(0, len(used) - 1)
            used[k], used[-1] = used[-1], used[k]
            cache.append(used.pop())
        least = 0 if rng.between(0, 19) == 0 else 1024 if rng.between(0, 3) > 0 else 128
        while len(cache) > least:
            time += rng.between(5 * US, 20 * US)
            yield Event("free", time, [cache.pop() for _ in range(min(10, len(cache) - least))])
        time += rng.spread(MS, 8)


def mapcache(rng: Random, number: int, end: int, full: int) -> Iterator[Event]:
    mapped: OrderedDict[int, list[Page]] = OrderedDict()
    time = rng.between(0, 100 * MS)
    while time < end:
        often = rng.between(0, 3) > 0
        address = rng.between(0, 95 if often else 1023)
        if address in mapped:
            mapped.move_to_end(address)
        else:
            if len(mapped) == 64:
                yield Event("free", time, mapped.popitem(last=False)[1])
            time += 30 * US
            mapped[address] = pages(256)
            yield Event("alloc", time, mapped[address])
        time += rng.spread(200 * US, 7)


def migration(rng: Random, number: int, end: int, full: int) -> Iterator[Event]:
    time = end // 4
    while time < end // 2:
        batch = pages(1024)
        yield Event("alloc", time, batch)
        time += rng.between(2 * MS, 9 * MS)
        yield Event("free", time, batch)
        time += rng.between(MS, 30 * MS)


def gntdev(rng: Random, number: int, end: int, full: int) -> Iterator[Event]:
    time = rng.between(0, 50 * MS)
    while time < end:
        size = 2 ** rng.between(0, 8)
        mapped = pages(min(size, rng.between(1, 256)))
        yield Event("alloc", time, mapped)
        gone, deferred = time + rng.spread(500 * US, 9), 0
        while rng.between(0, 7) == 0:
            deferred += 1
            gone += deferred * 5 * MS
        yield Event("free", gone, mapped)
        time += rng.spread(300 * US, 6)


def xenbus(rng: Random, number: int, end: int, full: int) -> Iterator[Event]:
    time = rng.between(0, end // 2)
    ring = pages(2 ** rng.between(0, 4))
    yield Event("alloc", time, ring)
    yield Event("free", time + rng.spread(end // 8 + number, 3), ring)


def target(rng: Random, number: int, end: int, full: int) -> Iterator[Event]:
    for k, goal in enumerate((full, full * 7 // 8, full * 3 // 4, full * 15 // 16, full), 1):
        yield Event("target", k * end // 6, goal=goal)


MODELS: dict[str, tuple[int, int, Actor]] = {
    "netback": (0, 6, netback), "blkback": (1, 4, blkback), "mapcache": (2, 1, mapcache),
    "migration": (3, 1, migration), "gntdev": (4, 3, gntdev), "xenbus": (5, 12, xenbus),
    "target": (6, 1, target)}
"""Place among the models, how many actors, and what each does."""


def events(models: list[str], seed: int, end: int, full: int) -> list[Event]:
    """All that happens before the end, in order; of one time, first what belongs to the first."""
    found = [event for place, count, actor in (MODELS[name] for name in models)
             for number in range(count)
             for event in actor(Random.of(seed, place, number), number, end, full)]
    found = sorted((event for event in found if event.time < end), key=lambda event: event.time)
    count = 0
    for event in found:
        if event.kind == "alloc":
            for page in event.pages:
                page.number, count = count, count + 1
    return found
