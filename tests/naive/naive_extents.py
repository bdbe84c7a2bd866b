"""The naive model of `extents`, from the first paragraphs of its own file."""

from __future__ import annotations

from naive_models import Model
from naive_runs import RunPool, longs


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


MODEL = Model(
    lambda machine, options: NaiveExtents(machine, **options),
    ({}, {"auto_online": True}, {"section_pages": 64, "bounded": False}, {"fill_pages": 3000}),
    page_work=(("array_word",), ("array_word",)), listed=False)
