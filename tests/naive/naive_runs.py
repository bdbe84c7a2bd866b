"""What the naive models share that keep runs of frames and no list."""

from __future__ import annotations

import naive_allocators as naive


class RunPool(naive.NaivePool):
    """The pool's refill; what is kept of the frames is the subclass's affair."""

    free_list = property(lambda self: sorted(self.free_frames()), lambda self, _: None)

    def did(self, **counts):
        """Words and struct pages of a search stand for the list's operations: no slow path."""
        self.slow |= not set(counts) <= {"array_word", "list_pop", "list_push"}
        self.work.update(counts)

    def add_seed(self, frames):
        self.add(frames[0], len(frames))

    def map_pages(self, address, pages, kind):
        self.did(memmap_page=pages, section_map=-(-pages // self.section), **self.mapped(pages))
        self.log(address, pages, kind)
        self.add(address // self.page, pages)


def longs(start, end):
    """64-bit words that the bits [start, end) touch."""
    return (end - 1) // 64 - start // 64 + 1 if end > start else 0
