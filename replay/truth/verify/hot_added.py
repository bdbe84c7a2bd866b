"""Pages of hot-added sections on their way to the balloon's list, as the recording shows them come.

add_memory_resource() runs with balloon_mutex dropped, and xen_online_page() (drivers/xen/balloon.c)
appends one block of the buddy allocator at a time, ascending, each under the mutex: callers have it
in between. How many blocks are there is fed from the recording; what follows is the model's to say.
"""

from __future__ import annotations

import numpy as np

from replay.base.units import BUDDY_PAGES
from replay.engine.state import section_log, words
from replay.engine.tracking import hold_range
from replay.trace.columns import NONE


class HotAdded:
    """The pages of the sections in the model's log that its list has not got yet.

    Without evidence that a block came, none comes: a section that is not onlined stays off the
    list. Where blocks are not of BUDDY_PAGES, the remainder is a difference.
    """

    def __init__(self, m: np.ndarray) -> None:
        self.m, self.block = m, BUDDY_PAGES[int(words(m).page_bytes)]
        self.blocks = 0
        """Blocks that were fed."""
        self._sections = 0
        self._waiting: list[list[int]] = []
        """[next page to come, end] of each section, in the order in which they were added."""

    def _look(self) -> bool:
        """Take up what the model has added since; whether any page is still to come."""
        log = section_log(self.m)
        for row in log[self._sections :]:
            self._waiting.append([int(row.start_pfn), int(row.start_pfn + row.nr_pages)])
        self._sections = len(log)
        self._waiting = [w for w in self._waiting if w[0] < w[1]]
        return bool(self._waiting)

    def before(self, listed: int, frames: np.ndarray) -> None:
        """Feed the blocks that were there before a call or a pass, which had the mutex throughout.

        listed: list_count in the lock; where it is NONE, the frames tell that left the list.
        """
        if not self._look():
            return
        if listed == NONE:
            self._by_frames(frames)
            return
        missing = max(0, listed - int(words(self.m).count)) // self.block
        for waiting in self._waiting:
            blocks = min(missing, (waiting[1] - waiting[0]) // self.block)
            self._feed(waiting, blocks, 0)
            missing -= blocks

    def _by_frames(self, frames: np.ndarray) -> None:
        """The first page that leaves a block is its last one; pages before it lay above it."""
        listed = int(words(self.m).count)
        for above, frame in enumerate(frames[: listed + 1].tolist()):
            for waiting in self._waiting:
                if waiting[0] <= frame < waiting[1] and (frame + 1) % self.block == 0:
                    self._feed(waiting, (frame + 1 - waiting[0]) // self.block, above)
                    return

    def _feed(self, waiting: list[int], blocks: int, above: int) -> None:
        """Put so many blocks on the list, below the first `above` pages."""
        if blocks == 0:
            return
        m = self.m
        s = words(m)
        top = int(s.list + s.count)
        head = m[top - above : top].copy()
        hold_range(m, waiting[0], blocks * self.block)
        end = int(s.list + s.count)
        m[top - above : end - above] = m[top:end].copy()
        m[end - above : end] = head
        waiting[0] += blocks * self.block
        self.blocks += blocks
