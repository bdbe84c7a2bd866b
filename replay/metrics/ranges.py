"""Ranges of the host's memory map in which a frame has no business to be."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from replay.physmap.host import paint
from replay.physmap.model import HostRange, Physmap

APERTURES = ("PCI ", "pcie@", "pci@")
"""iomem names of windows in which a device may appear later."""


class Ranges:
    """Disjoint ranges of the host's map, to find frames in: which one, and its name."""

    def __init__(self, machine: Physmap, claims: Iterable[HostRange]) -> None:
        page = machine.page_bytes
        self.painted = paint(list(claims))
        self.start = np.array([r.start // page for r in self.painted], np.int64)
        self.end = np.array([-(-r.end // page) for r in self.painted], np.int64)

    def find(self, frames: np.ndarray) -> np.ndarray:
        """Index of the range that holds each frame, -1 where none does."""
        at = np.searchsorted(self.start, frames, side="right") - 1
        if not len(self.start):
            return at
        return np.where((at >= 0) & (frames < self.end[np.maximum(at, 0)]), at, -1)

    def name(self, at: int) -> str:
        """What a range is: its name, else its type."""
        return self.painted[at].name or self.painted[at].type


def windows(machine: Physmap) -> Ranges:
    """Device memory: the host's MMIO ranges, and the PCI windows of Linux's tree."""
    apertures = [HostRange(c.start, c.end, "mmio", c.name) for c in machine.iomem
                 if c.name.startswith(APERTURES)]
    return Ranges(machine, [*apertures, *(h for h in machine.host if h.type == "mmio")])


def foreign_ram(machine: Physmap) -> Ranges:
    """The same where a frame of dom0's is one of the machine's, else nothing."""
    return others_ram(machine) if machine.direct_mapped else Ranges(machine, ())


def others_ram(machine: Physmap) -> Ranges:
    """Machine RAM that is not dom0's."""
    return Ranges(machine, [h for h in machine.host if h.type in ("ram_other", "ram_xen")])
