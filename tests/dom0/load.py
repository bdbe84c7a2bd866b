"""A seeded allocator load for a dom0: grants pages to itself and maps them, in changing batches.

    python3 load.py SEED STEPS [SIZE,SIZE...]

Each mapping makes the kernel call gnttab_alloc_pages(), and each unmapping gnttab_free_pages().
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import struct
import sys

MAX_LIVE = 900
"""Pages granted at once; the module's default limit is 1,024."""
DOMAIN = 0
SIZES = (1, 1, 1, 2, 4, 8, 11, 32, 64, 128)


def _ioctl(number: int, size: int) -> int:
    return size << 16 | ord("G") << 8 | number


def _grant(alloc: int, count: int) -> tuple[int, list[int]]:
    size = max(24, 16 + 4 * count)
    data = bytearray(struct.pack("=HHIQ", DOMAIN, 1, count, 0).ljust(size, b"\0"))
    fcntl.ioctl(alloc, _ioctl(5, 24), data)
    index, = struct.unpack_from("=Q", data, 8)
    return index, list(struct.unpack_from(f"={count}I", data, 16))


def _map(device: int, references: list[int]) -> tuple[int, mmap.mmap]:
    count = len(references)
    data = bytearray(struct.pack("=IIQ", count, 0, 0))
    for reference in references:
        data += struct.pack("=II", DOMAIN, reference)
    fcntl.ioctl(device, _ioctl(0, 24), data)
    index, = struct.unpack_from("=Q", data, 8)
    return index, mmap.mmap(device, count * mmap.PAGESIZE, offset=index)


def main(seed: int, steps: int, sizes: tuple[int, ...] = SIZES) -> None:
    """Map and unmap `steps` times, then give all back."""
    choose = random.Random(seed)
    alloc = os.open("/dev/xen/gntalloc", os.O_RDWR)
    device = os.open("/dev/xen/gntdev", os.O_RDWR)
    live: list[tuple[int, int, int, mmap.mmap]] = []

    def drop(which: int) -> None:
        granted, index, count, pages = live.pop(which)
        pages.close()
        fcntl.ioctl(device, _ioctl(1, 16), struct.pack("=QII", index, count, 0))
        fcntl.ioctl(alloc, _ioctl(6, 16), struct.pack("=QII", granted, count, 0))

    for _ in range(steps):
        count = choose.choice(sizes)
        while live and sum(one[2] for one in live) + count > MAX_LIVE:
            drop(choose.randrange(len(live)))
        granted, references = _grant(alloc, count)
        index, pages = _map(device, references)
        pages[0] = 1
        live.append((granted, index, count, pages))
        if choose.random() < 0.4:
            drop(choose.randrange(len(live)))
    while live:
        drop(len(live) - 1)
    sys.stdout.write(f"load {seed}: {steps} mappings\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]),
         tuple(int(size) for size in sys.argv[3].split(",")) if sys.argv[3:] else SIZES)
