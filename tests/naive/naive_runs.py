"""Slow, obvious, independent models of the two strategies that keep runs of frames and no list.

genpool from lib/genalloc.c, lib/bitmap.c (Linux 6.1) and the patch of 20 June 2022; extents from
the first paragraphs of its own file.
"""

from __future__ import annotations

import re

import naive_allocators as naive


class RunPool(naive.NaivePool):
    """The pool's refill; what is kept of the frames is the subclass's affair."""

    free_list = property(lambda self: sorted(self.free_frames()), lambda self, _: None)

    def did(self, **counts):
        """Words and struct pages of a search stand for the list's operations: no slow path."""
        self.slow |= not set(counts) <= {"array_word", "list_pop", "list_push"}
        self.work.update(counts)

    def map_pages(self, address, pages, kind):
        self.did(memmap_page=pages, section_map=-(-pages // self.section))
        self.log(address, pages, kind)
        self.add(address // self.page, pages)


class Chunk:
    """A region of a gen_pool: one byte per page, 1 if it is taken."""

    def __init__(self, start, pages):
        self.start, self.taken = start, bytearray(pages)

    def runs(self):
        """(start, length) of the free runs, ascending."""
        return [(run.start(), len(run[0])) for run in re.finditer(b"\0+", self.taken)]


def longs(start, end):
    """64-bit words that the bits [start, end) touch."""
    return (end - 1) // 64 - start // 64 + 1 if end > start else 0


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


class NaiveExtents(RunPool):
    def __init__(self, machine, **options):
        self.bins = {}  # number -> [(first, length)], head first
        self.open = []  # frames of the open run, ascending
        super().__init__(machine, **options)

    def free_frames(self):
        return self.open + [frame for rows in self.bins.values() for first, length in rows
                            for frame in range(first, first + length)]

    @staticmethod
    def bin(length):
        if length < 16:
            return length
        log = length.bit_length() - 1
        return 8 * log - 16 + (8 * length // 2**log - 8)

    def runs(self):
        return [run for rows in self.bins.values() for run in rows]

    def leave(self, run):
        rows = self.bins[self.bin(run[1])]
        at = rows.index(run)
        rows.pop(at)
        if at == 0:
            self.did(array_word=1 if rows else 2)
        else:
            self.did(array_word=1, list_push=1 + (at < len(rows)))

    def enter(self, run):
        rows = self.bins.setdefault(self.bin(run[1]), [])
        self.did(array_word=1 if rows else 2, list_push=1 if rows else 0)
        rows.insert(0, run)

    def carve(self, run, nr):
        first, length = run
        self.leave(run)
        if nr < length:
            self.enter((first + nr, length - nr))
        # The first page is read; the last one's tag changes, and the page that is first now.
        ends = {first + length - 1} | {first + nr for _ in range(nr < length)}
        self.did(list_pop=1, list_push=len(ends - {first}))
        return list(range(first, first + nr))

    def release(self, first, length):
        below = [run for run in self.runs() if sum(run) == first]
        above = [run for run in self.runs() if run[0] == first + length]
        whole = (first - sum(n for _, n in below), length + sum(n for _, n in below + above))
        self.did(list_pop=2, list_push=(not below) + (whole[1] > 1))
        if above:
            self.leave(above[0])
        if below:
            self.did(list_pop=int(below[0][1] > 1))
            if self.bin(below[0][1]) == self.bin(whole[1]):
                rows = self.bins[self.bin(whole[1])]
                rows[rows.index(below[0])] = whole
                return
            self.leave(below[0])
        self.enter(whole)

    def add(self, start, pages):
        self.release(start, pages)

    def used(self, lowest):
        """The first bin in use from `lowest` on, or 256."""
        found = min([k for k, rows in self.bins.items() if rows and k >= lowest], default=256)
        self.did(array_word=longs(lowest, min(found, 255) + 1))
        return found

    def fit(self, nr):
        own = self.bins.get(self.bin(nr))
        self.did(array_word=1)
        if own:
            if own[0][1] >= nr:
                return own[0]
            self.did(list_pop=1)
        k = self.used(self.bin(nr) + 1)
        return self.bins[k][0] if k < 256 else None

    def longest(self):
        k = max(k for k, rows in self.bins.items() if rows)
        self.did(array_word=longs(k, 256))
        return self.bins[k][0]

    def _alloc(self, nr, frames):
        free = len(self.free_frames())
        if free < nr:
            error = self.fill_list(nr - free)
            if error:
                return error, []
        if nr == 1:
            if not self.open:
                run = self.bins[self.used(1)][0]
                self.open = self.carve(run, min(run[1], 128))
            return 0, [self.open.pop(0)]
        got = []
        while len(got) < nr:
            run = self.fit(nr - len(got))
            if run is None:
                self.close()
                run = self.fit(nr - len(got))
            if run is None and not got and len(self.free_frames()) < self.section:
                run = None if self.fill_list(nr) else self.fit(nr)
            run = run or self.longest()
            got += self.carve(run, min(run[1], nr - len(got)))
        return 0, got

    def _free(self, frames):
        rest = list(frames)
        while rest:
            row = 1
            for step in (1, -1):
                while row < len(rest) and rest[row] == rest[0] + step * row:
                    row += 1
                if row > 1:
                    break
            row, rest = sorted(rest[:row]), rest[row:]
            together = sorted(self.open + row)
            if self.open and len(together) <= 128 and together[-1] - together[0] < len(together):
                self.open = together
            else:
                self.release(row[0], len(row))
                if len(row) > 128:
                    self.close()

    def close(self):
        if self.open:
            opened, self.open = self.open, []
            self.release(opened[0], len(opened))


MODELS = {"genpool": NaiveGenpool, "extents": NaiveExtents}


def naive_strategy(name, machine, options):
    """The naive model of any strategy with typed options."""
    if name in MODELS:
        return MODELS[name](machine, **options)
    return naive.naive_strategy(name, machine, options)
