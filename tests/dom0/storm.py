"""A seeded load of many tasks that share the allocator, with pages freed by other tasks.

    python3 storm.py SEED [NAME=VALUE...]

In each process `makers` map areas, in `bursts` of about `steps` with up to `idle` seconds between
them, and `reapers` unmap areas that any maker of the process mapped, in random order; so do makers
when `pages` are mapped. One area in ten has a file of its own, whose closing gives its pages back;
some areas are left for the end of the process. `touch` is the share of areas that are mapped into
the process too, so that the kernel makes the grant mappings. `sizes` is mixed (1 to 300 pages) or
small (1 to 4, seldom more).
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import grants

LEFT = 6
"""Areas of a process that its end gives back."""
STOCK = 300
MIXED = (
    lambda choose: choose.randint(1, 300),
    lambda choose: choose.choice((1, 1, 1, 2, 3, 4, 7)),
    lambda choose: choose.choice((255, 256, 257, 300, 11, 1)),
    lambda choose: min(300, 1 + int(choose.expovariate(1 / 25))),
)
SMALL = (
    lambda choose: choose.choice((1, 1, 1, 1, 2, 2, 3, 4)),
    lambda choose: choose.choice((1, 2, 2, 3, 4)),
    lambda choose: 1 if choose.random() < 0.98 else choose.randint(5, 64),
)
SIZES = {"mixed": MIXED, "small": SMALL}


@dataclass
class Plan:
    """What a storm is made of."""

    processes: int = 4
    makers: int = 4
    reapers: int = 2
    bursts: int = 10
    steps: int = 30
    idle: float = 3.0
    pages: int = 9000
    touch: float = 0.6
    sizes: str = "mixed"


class Area(NamedTuple):
    """One mapping of a process."""

    device: int
    own: bool
    index: int
    count: int
    pages: mmap.mmap | None


@dataclass
class Shared:
    """What the tasks of one process share."""

    makers: int
    device: int
    domain: int
    references: list[int]
    live: list[Area] = field(default_factory=list)
    pages: int = 0
    made: int = 0
    others: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, choose: random.Random, keep: int = 0) -> Area | None:
        """Any area, which is then the caller's to drop; None where only `keep` are left."""
        with self.lock:
            if len(self.live) <= keep:
                return None
            return self.live.pop(choose.randrange(len(self.live)))

    def drop(self, area: Area) -> None:
        """Give the pages back, by unmapping or by the end of the area's own file."""
        if area.own:
            os.close(area.device)
        if area.pages is not None:
            area.pages.close()
        if not area.own:
            grants.release(area.device, area.index, area.count)
        with self.lock:
            self.pages -= area.count
            self.others += 1

    def make(self, choose: random.Random, count: int, touch: float) -> None:
        """Map an area of so many pages."""
        with self.lock:
            self.pages += count
            self.made += 1
        own = choose.random() < 0.1
        device = os.open(grants.DEVICE, os.O_RDWR) if own else self.device
        at = choose.randrange(len(self.references))
        index = grants.place(device, self.domain, (self.references * 2)[at:at + count])
        pages = None
        if choose.random() < touch:
            pages = mmap.mmap(device, count * mmap.PAGESIZE, offset=index)
            pages[0] = 1
        with self.lock:
            self.live.append(Area(device, own, index, count, pages))


def maker(shared: Shared, plan: Plan, number: int, choose: random.Random,
          gate: threading.Barrier) -> None:
    """Maps areas, and unmaps any when too many pages are mapped."""
    sizes = SIZES[plan.sizes]
    for burst in range(plan.bursts):
        size = sizes[(number + burst) % len(sizes)]
        for _ in range(max(1, int(plan.steps * choose.choice((0.3, 1, 1, 2))))):
            count = size(choose)
            while shared.pages + count > plan.pages:
                area = shared.take(choose)
                if area is None:
                    break
                shared.drop(area)
            shared.make(choose, count, plan.touch)
            if plan.idle and choose.random() < 0.3:
                time.sleep(choose.random() * 0.02)
        gate.wait()
        time.sleep(plan.idle * choose.random())
    with shared.lock:
        shared.makers -= 1


def reaper(shared: Shared, plan: Plan, choose: random.Random) -> None:
    """Unmaps areas of the makers until those are done."""
    while True:
        over = not shared.makers
        area = shared.take(choose, LEFT)
        if area is not None:
            shared.drop(area)
        elif over:
            return
        if not over:
            busy = shared.pages > plan.pages // 2
            time.sleep(choose.random() * (0.001 if busy or not plan.idle else 0.03))


def process(seed: int, plan: Plan, number: int) -> None:
    """The tasks of one process."""
    domain, references = grants.stock(STOCK)
    shared = Shared(plan.makers, os.open(grants.DEVICE, os.O_RDWR), domain, references)
    gate = threading.Barrier(plan.makers)
    tasks = []
    for which in range(plan.makers + plan.reapers):
        choose = random.Random(f"{seed} {number} {which}")
        made = which < plan.makers
        tasks.append(threading.Thread(
            target=maker if made else reaper,
            args=(shared, plan, number + which, choose, gate) if made else (shared, plan, choose)))
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    sys.stdout.write(f"process {number}: {shared.made} areas mapped, {shared.others} given back, "
                     f"{len(shared.live)} left to its end\n")
    sys.stdout.flush()


def main(seed: int, plan: Plan) -> int:
    """Run the processes; how many of them failed."""
    began, children = time.monotonic(), []
    for number in range(plan.processes):
        child = os.fork()
        if not child:
            code = 1
            try:
                process(seed, plan, number)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    sys.stdout.write(f"storm {seed}: {time.monotonic() - began:.1f} s, {failed} processes failed\n")
    return failed


def options(words: list[str]) -> Plan:
    """A plan with these NAME=VALUE set."""
    plan = Plan()
    for name, value in (word.split("=") for word in words):
        setattr(plan, name, type(getattr(plan, name))(value))
    return plan


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), options(sys.argv[2:])))
