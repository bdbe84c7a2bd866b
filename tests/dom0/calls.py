"""A seeded load of very many small calls: several tasks map 1 to 4 pages, seldom more.

    python3 calls.py SEED MAPPINGS [TASKS]

Two processes share the mappings, each with half of the tasks; a task maps an area and, once enough
are mapped, gives back any of its process, mostly another task's. Little but the two ioctls is done
in between, so that a million calls of the allocator take minutes, not hours, under emulation.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import sys
import threading
import time

import grants

SIZES = (1, 1, 1, 1, 2, 2, 2, 3, 3, 4) * 20 + (5, 8, 16, 64)
KEEP = 500
"""Areas that a process has mapped once it gives some back."""
PROCESSES = 2
TABLE = 4096
"""Choices drawn ahead, and used again and again: drawing costs more than mapping does."""

Areas = list[tuple[int, int]]


def task(choose: random.Random, mappings: int, device: int, requests: dict[int, bytes],
         areas: Areas) -> None:
    """Map and give back in turn; append and pop of the shared list are atomic."""
    sizes = [choose.choice(SIZES) for _ in range(TABLE)]
    places = [choose.randrange(KEEP) for _ in range(TABLE)]
    buffers = {count: bytearray(request) for count, request in requests.items()}
    index_of = struct.Struct("=8xQ").unpack_from
    released = struct.Struct("=QII").pack
    ioctl, place, release = fcntl.ioctl, grants.PLACE, grants.RELEASE
    for step in range(mappings):
        count = sizes[step % TABLE]
        data = buffers[count]
        ioctl(device, place, data)
        areas.append((index_of(data)[0], count))
        if len(areas) > KEEP:
            index, size = areas.pop(places[step % TABLE])
            ioctl(device, release, released(index, size, 0))


def process(seed: int, number: int, mappings: int, tasks: int) -> None:
    """The tasks of one process; what they leave mapped goes with the process."""
    domain, references = grants.stock(max(SIZES))
    device = os.open(grants.DEVICE, os.O_RDWR)
    requests = {count: grants.request(domain, references[:count]) for count in set(SIZES)}
    areas: Areas = []
    threads = [threading.Thread(target=task, args=(random.Random(f"{seed} {number} {which}"),
                                                   mappings // tasks, device, requests, areas))
               for which in range(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(seed: int, mappings: int, tasks: int = 6) -> int:
    """Run the processes; how many of them failed."""
    began, children = time.monotonic(), []
    for number in range(PROCESSES):
        child = os.fork()
        if not child:
            code = 1
            try:
                process(seed, number, mappings // PROCESSES, tasks // PROCESSES)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    sys.stdout.write(f"calls {seed}: {mappings} mappings in {time.monotonic() - began:.1f} s, "
                     f"{failed} processes failed\n")
    return failed


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
