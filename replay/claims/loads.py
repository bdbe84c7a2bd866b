"""The streams and machines that several claims share."""

from __future__ import annotations

from replay.claims.experiment import Column, Synthetic

RECORDED_LOADS = ("pvh-dom0", "pv-dom0", "arm64-dom0", "arm64-dom0-no-regions")
SHIPPED = (*RECORDED_LOADS, "synthetic-mixed")

BACKENDS = ("netback", "blkback", "gntdev", "xenbus")
STILL = Synthetic("synthetic-backends", BACKENDS, "qemu-q35-pvh")
MOVING = Synthetic("synthetic-target-moves", (*BACKENDS, "target"), "qemu-q35-pvh")
"""The same requests (each model draws from a seed of its own), while `xl mem-set` moves the target
of dom0 to 7/8, 3/4, 15/16 and all of its memory."""

BOARDS = ("qemu-virt-arm64", "rcar-h3", "zynqmp", "rk3399")
"""Direct-mapped Arm machines whose RAM is known; each preset names its source."""

ASSUMED_FRAMES = ("the recordings do not hold the machine frames of grants: they are assumed, "
                  "drawn "
                  "evenly by a hash from the RAM of other domains; another draw gives other counts")

SECTIONS_ADDED = Column("sections added", "nr_sections")
SLOW_CALLS = Column("slow calls", "slow.count")
FAILED = Column("failed", "failed")
PAGES_OUT = Column("pages out", "work.extent_decrease")
PAGES_BACK = Column("pages back", "work.extent_populate")
RAM_MEAN = Column("RAM given, mean", "fragmentation.ram_given_bytes.mean", "bytes")
RAM_PEAK = Column("RAM given, peak", "fragmentation.ram_given_bytes.peak", "bytes")
P50 = Column("p50", "latency_ns.p50", "ns")
P99 = Column("p99", "latency_ns.p99", "ns")
MAX = Column("max", "latency_ns.max", "ns")
MEAN = Column("mean", "latency_ns.mean", "ns")
COLLISIONS = Column("1:1 collisions", "hazards.identity_collision")
OTHERS_RAM = Column("frames in RAM of others", "hazards.ram_of_others")
HOT_ADDED = Column("hot-added over RAM of others", "hazards.hotplug_over_foreign_ram")
STRUCT_PAGES = Column("struct pages", "fragmentation.memmap_overhead_bytes.end", "bytes")


def listed(names: list[str]) -> str:
    """Names in a sentence, each once."""
    return ", ".join(dict.fromkeys(names)) or "none"
