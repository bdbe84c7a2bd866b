"""A seeded allocator load for a dom0: grants pages to itself and maps them, in changing batches.

    python3 load.py SEED STEPS [SIZE,SIZE... [PAUSE]]

Each mapping makes the kernel call gnttab_alloc_pages(), and each unmapping gnttab_free_pages().
Up to PAUSE seconds (none: 0) pass between any two of them.
With a guest's grants (GRANTS, see grants.py) those are mapped instead.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import time

import grants

MAX_LIVE = 900
"""Pages granted at once; the module's default limit is 1,024."""
SIZES = (1, 1, 1, 2, 4, 8, 11, 32, 64, 128)


class Source:
    """Where references come from: pages granted for each mapping, or a guest's."""

    def __init__(self) -> None:
        self.guest = grants.given()
        self.domain = self.guest[0] if self.guest else 0
        self.alloc = -1 if self.guest else os.open(grants.ALLOC, os.O_RDWR)

    def take(self, count: int) -> tuple[int, list[int]]:
        if self.guest:
            return 0, self.guest[1][:count]
        return grants.grant(self.alloc, count)

    def give(self, index: int, count: int) -> None:
        if not self.guest:
            grants.revoke(self.alloc, index, count)


def main(seed: int, steps: int, sizes: tuple[int, ...] = SIZES, pause: float = 0) -> None:
    """Map and unmap `steps` times, then give all back."""
    choose = random.Random(seed)
    source = Source()
    device = os.open(grants.DEVICE, os.O_RDWR)
    live: list[tuple[int, int, int, mmap.mmap]] = []

    def think() -> None:
        if pause:
            time.sleep(choose.random() * pause)

    def drop(which: int) -> None:
        think()
        granted, index, count, pages = live.pop(which)
        pages.close()
        grants.release(device, index, count)
        source.give(granted, count)

    for _ in range(steps):
        count = choose.choice(sizes)
        while live and sum(one[2] for one in live) + count > MAX_LIVE:
            drop(choose.randrange(len(live)))
        think()
        granted, references = source.take(count)
        index = grants.place(device, source.domain, references)
        pages = mmap.mmap(device, count * mmap.PAGESIZE, offset=index)
        pages[0] = 1
        live.append((granted, index, count, pages))
        if choose.random() < 0.4:
            drop(choose.randrange(len(live)))
    while live:
        drop(len(live) - 1)
    sys.stdout.write(f"load {seed}: {steps} mappings\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]),
         tuple(int(size) for size in sys.argv[3].split(",")) if sys.argv[3:] else SIZES,
         float(sys.argv[4]) if sys.argv[4:] else 0)
