"""The naive model of `genpool`, from lib/genalloc.c, lib/bitmap.c (Linux 6.1) and the patch of 20
June 2022.
"""

from __future__ import annotations

import re

from naive_models import Model
from naive_runs import RunPool, longs


class Chunk:
    """A region of a gen_pool: one byte per page, 1 if it is taken."""

    def __init__(self, start, pages):
        self.start, self.taken = start, bytearray(pages)

    def runs(self):
        """(start, length) of the free runs, ascending."""
        return [(run.start(), len(run[0])) for run in re.finditer(b"\0+", self.taken)]


class NaiveGenpool(RunPool):
    def __init__(self, machine, *, contiguous=True, **options):
        self.chunks = []  # newest first
        self.contiguous = contiguous
        super().__init__(machine, **options)

    def free_frames(self):
        return [c.start + k for c in self.chunks for first, pages in c.runs()
                for k in range(first, first + pages)]

    def add(self, start, pages):
        self.chunks.insert(0, Chunk(start, pages))
        self.did(array_word=-(-pages // 64))

    def read(self, bits, start, end, value):
        """find_next_bit() and find_next_zero_bit() below `end`."""
        at = bits.find(value, start, end)
        at = end if at < 0 else at
        self.did(array_word=longs(start, min(at, end - 1) + 1))
        return at

    def scan(self, bits, nr):
        """The words that gen_pool_best_fit() reads."""
        size, start = len(bits), 0
        while True:
            at = self.read(bits, start, size, 0)
            if at + nr > size:
                return
            start = self.read(bits, at, at + nr, 1) + 1
            if start <= at + nr:
                continue
            end = self.read(bits, at + nr, size, 1)
            if end - at == nr:
                return
            start = end + 1

    def pick(self, fits):
        """Best fit: the shortest, then the lowest."""
        return min(fits, key=lambda run: (run[1], run[0]))

    def one_run(self, nr):
        """gen_pool_alloc()."""
        for chunk in self.chunks:
            self.did(list_pop=1)
            if chunk.taken.count(0) < nr:
                continue
            self.scan(chunk.taken, nr)
            fits = [run for run in chunk.runs() if run[1] >= nr]
            if fits:
                at = self.pick(fits)[0]
                chunk.taken[at : at + nr] = b"\1" * nr
                self.did(list_push=longs(at, at + nr))
                return list(range(chunk.start + at, chunk.start + at + nr))
        return None

    def _alloc(self, nr, frames):
        if self.contiguous:
            got = self.one_run(nr)
            if got is None:
                error = self.fill_list(nr)
                if error:
                    return error, []
                got = self.one_run(nr)
            return 0, got
        self.did(list_pop=len(self.chunks))
        free = len(self.free_frames())
        if free < nr:
            self.did(list_pop=len(self.chunks))
            error = self.fill_list(nr - free)
            if error:
                return error, []
        return 0, [self.one_run(1)[0] for _ in range(nr)]

    def _free(self, frames):
        for frame in frames:
            passed = 0
            for chunk in self.chunks:
                if chunk.start <= frame < chunk.start + len(chunk.taken):
                    assert chunk.taken[frame - chunk.start]
                    chunk.taken[frame - chunk.start] = 0
                    break
                passed += 1
            if passed:
                self.did(list_pop=passed)


MODEL = Model(
    lambda machine, options: NaiveGenpool(machine, **options),
    ({}, {"contiguous": False}, {"auto_online": True}, {"section_pages": 32, "contiguous": False},
     {"fill_pages": 3000}),
    page_work=(("array_word",), ("list_pop", "list_push")), listed=False)
