"""The naive models under the calls that test_lockstep.py makes; see naive_allocators.py."""

from __future__ import annotations

from fractions import Fraction

import naive_allocators as slow
from naive_hypervisor import NaiveHypervisor


class Asleep(Exception):
    """The call sleeps on a wait queue."""


def runs(frames):
    """Runs of neighbouring frames, up or down, in the order given."""
    return sum(k == 0 or abs(frames[k] - frames[k - 1]) != 1 for k in range(len(frames)))


def _whole(frames, block):
    counts = {}
    for frame in frames:
        counts[frame // block] = counts.get(frame // block, 0) + 1
    return sorted(b for b, count in counts.items() if count == block)


def unusable_index(frames, block):
    """Share of the free frames that are not in a whole free block."""
    return 1 - Fraction(len(_whole(frames, block)) * block, len(frames))


def largest_run(frames, block):
    """Share of the free frames in the longest run of whole free blocks."""
    best = length = 0
    before = None
    for b in _whole(frames, block):
        length = length + 1 if before is not None and b == before + 1 else 1
        best, before = max(best, length), b
    return Fraction(best * block, len(frames))


class _Rows:
    def __init__(self, tree):
        self.tree = tree

    @property
    def rows(self):
        return self.tree.children


class _Model:
    def __init__(self, model):
        self.model = model

    @property
    def iomem(self):
        return _Rows(self.model.iomem)

    @property
    def sections(self):
        return [(start, nr) for _, start, nr, _ in self.model.sections]

    def alloc(self, now, nr):
        error, frames = self.model.alloc(now, nr)
        if error == -slow.E_WAIT:
            raise Asleep
        return error, frames

    def free(self, now, pages):
        self.model.free(now, pages)


class NaivePool(_Model):
    """The pool on iomem_resource, or on the hypervisor's regions."""

    def __init__(self, machine, regions):
        x86 = regions is not None and machine.arch == "x86"
        super().__init__(NaiveHypervisor(machine) if regions or x86
                         else slow.NaivePool(machine))

    @property
    def free_list(self):
        return self.model.free_list

    @free_list.setter
    def free_list(self, frames):
        self.model.free_list = frames


class NaiveBalloon(_Model):
    """The balloon driver; `ballooned` begins with the list's head."""

    def __init__(self, machine, ram, *, hotplug_unpopulated, can_hotplug, auto_online):
        super().__init__(slow.NaiveBalloon(
            machine, hotplug_unpopulated=hotplug_unpopulated, memory_hotplug=can_hotplug,
            auto_online=auto_online))
        assert self.model.ram == ram

    def wake(self, now):
        self.model.wake(now)

    @property
    def ballooned(self):
        return self.model.free_list[::-1]

    @ballooned.setter
    def ballooned(self, frames):
        self.model.live -= set(frames)
        self.model.free_list = frames[::-1]

    current = property(lambda self: self.model.current)
    total = property(lambda self: self.model.total)
    available = property(lambda self: self.model.available)
    target = property(lambda self: self.model.target,
                      lambda self, pages: setattr(self.model, "target", pages))
    unpopulated = property(lambda self: self.model.unpopulated,
                           lambda self, pages: setattr(self.model, "unpopulated", pages))
    wake_at = property(lambda self: self.model.wake_at,
                       lambda self, time: setattr(self.model, "wake_at", time))
