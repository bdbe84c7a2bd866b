"""What the recorder's probes cost a call: the same loop without them, and with ever fewer of them.

    python3 cost.py [STEPS]

In a dom0, as root, with `replay` to be found: each step maps grants and gives them back, which is
one allocation and one free of so many pages. Prints a table: microseconds per step at the median,
and what the probes add per allocator call. Under an emulator that counts instructions (CLOCK=
instructions) times are multiples of executed instructions, and not of the host.
"""

from __future__ import annotations

import fcntl
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from load import _grant, _ioctl, struct

SIZES = (1, 10, 100)
EVENTS = Path("/sys/kernel/tracing/instances/replay/events/replay")
LEVELS = (("all probes", ()), ("without those inside the lock", ("*_locked*", "*_unlock*")),
          ("and without one per page", ("xen_alloc_p2m_entry",)),
          ("and without any", ("*",)))


def step(device: int, references: list[int]) -> float:
    """One allocation and one free, in microseconds."""
    count = len(references)
    data = bytearray(struct.pack("=IIQ", count, 0, 0))
    for reference in references:
        data += struct.pack("=II", 0, reference)
    began = time.perf_counter_ns()
    fcntl.ioctl(device, _ioctl(0, 24), data)
    index, = struct.unpack_from("=Q", data, 8)
    fcntl.ioctl(device, _ioctl(1, 16), struct.pack("=QII", index, count, 0))
    return (time.perf_counter_ns() - began) / 1000


def times(steps: int, device: int, references: list[int]) -> list[float]:
    """The median of each size."""
    return [statistics.median([step(device, references[:size]) for _ in range(steps)])
            for size in SIZES]


def main(steps: int) -> None:
    """Measure and print."""
    alloc, device = (os.open(f"/dev/xen/{name}", os.O_RDWR) for name in ("gntalloc", "gntdev"))
    references = _grant(alloc, max(SIZES))[1]
    times(20, device, references)
    bare = times(steps, device, references)
    table = [("no recording", bare)]
    subprocess.run(["replay", "record", "start", "--dir", "/root/cost", "--no-xentrace"],
                   check=True, stdout=subprocess.DEVNULL)
    for name, switched_off in LEVELS:
        for pattern in switched_off:
            for event in EVENTS.glob(pattern):
                if (event / "enable").is_file():
                    (event / "enable").write_text("0")
        table.append((name, times(steps, device, references)))
    subprocess.run(["replay", "record", "stop", "--discard", "--dir", "/root/cost"], check=True,
                   stdout=subprocess.DEVNULL)
    table.append(("no recording, again", times(steps, device, references)))
    sys.stdout.write(f"{steps} steps each; us per step of " +
                     ", ".join(f"{size} pages" for size in SIZES) + "; added per call\n")
    for name, found in table:
        added = [(one - base) / 2 for one, base in zip(found, bare)]  # noqa: B905
        sys.stdout.write(f"{name:32}" + "".join(f"{one:10.1f}" for one in found) + "   "
                         + "".join(f"{one:10.1f}" for one in added) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 200)
