"""What is kept of frames that callers get and give back, against counting them one by one."""

from __future__ import annotations

import numpy as np
import pytest

from replay.base.compiled import lowest_bit
from replay.engine.state import new_state, words
from replay.engine.tracking import CHANGES, enter_range, frames_returned, frames_taken
from replay.physmap import presets

BLOCKS, PAGES = 12, 512
"""Free 2 MiB blocks, in sections of four; pages of one."""
FIRST = 1 << 17
"""The first free frame, at a section's start."""


def state() -> np.ndarray:
    m = new_state(presets.load("qemu-virt-arm64"), BLOCKS * PAGES, section_pages=4 * PAGES)
    enter_range(m, FIRST, BLOCKS * PAGES)
    return m


def tables(m: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """(free frames per block, live ones per section, the gauges)."""
    s = words(m)
    block, section = FIRST // PAGES, FIRST // (4 * PAGES)
    return (m[s.table.blocks :][block : block + BLOCKS].tolist(),
            m[s.table.live :][section : section + BLOCKS // 4].tolist(),
            [int(s.gauge.live), int(s.gauge.pinned), int(s.gauge.whole), int(s.table.top)])


def counted(live: set[int]) -> tuple[list[int], list[int], list[int]]:
    """The same, counted."""
    blocks = [PAGES - sum(FIRST + b * PAGES <= f < FIRST + (b + 1) * PAGES for f in live)
              for b in range(BLOCKS)]
    sections = [4 * PAGES - sum(blocks[k : k + 4]) for k in range(0, BLOCKS, 4)]
    whole = "".join("x" if free == PAGES else " " for free in blocks)
    return blocks, sections, [len(live), sum(n > 0 for n in sections), whole.count("x"),
                              max(len(run) for run in whole.split(" "))]


def runs(frames: list[int]) -> int:
    return sum(k == 0 or abs(frames[k] - frames[k - 1]) != 1 for k in range(len(frames)))


@pytest.mark.parametrize("order", ["as it comes", "ascending", "descending"])
def test_tables_and_runs_are_those_counted_one_by_one(order: str) -> None:
    rng, m, live = np.random.default_rng(5), state(), set()
    free = list(range(FIRST, FIRST + BLOCKS * PAGES))
    for count in (0, 1, 2, CHANGES - 1, CHANGES, CHANGES + 1, CHANGES + 2, 3 * CHANGES, 1500):
        some = rng.choice(free, count, replace=False) if order == "as it comes" else (
            np.array(free[:count] if order == "ascending" else free[: -count - 1 : -1]))
        frames = np.concatenate(([-7], some, [-7])).astype(np.int64)
        assert frames_taken(m, frames, 1, count) == runs(some.tolist())
        live |= set(some.tolist())
        free = sorted(set(free) - live)
        assert tables(m) == counted(live)
    back = rng.permutation(sorted(live))
    for part in np.split(back, np.cumsum([1, 2, CHANGES, 700])):
        frames = np.concatenate(([-7], part, [-7])).astype(np.int64)
        frames_returned(m, frames, 1, len(part))
        live -= set(part.tolist())
        assert tables(m) == counted(live)
    assert not live


def test_frames_beyond_the_tables_are_listed_but_not_tracked() -> None:
    m = state()
    before = tables(m)[:2]
    for frames in ([1 << 60], [-5], [1 << 60, (1 << 60) + 1, -5]):
        frames_taken(m, np.array(frames, np.int64), 0, len(frames))
        assert tables(m)[:2] == before


def test_the_lowest_bit_set_is_found() -> None:
    for k in range(63):
        assert lowest_bit((1 << k) | (1 << 62)) == k
