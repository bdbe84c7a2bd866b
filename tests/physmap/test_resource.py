"""The resource tree's kernels against two naive ones, and the cases that the C turns on."""

from __future__ import annotations

import random

import numpy as np
import pytest
from naive_allocators import NaiveResource
from naive_resource import first_fit

from replay.physmap.resource import TREE, find, release, request

TOP = (1 << 62) - 1


class Tree:
    """A compiled tree and its clip ranges in one array."""

    def __init__(self, start: int, last: int, rows=(), cuts=(), room: int = 64) -> None:
        size = TREE.itemsize // 8
        base = 2 * size
        self.m = np.zeros(base + 2 * (len(rows) + room) + 2 * len(cuts), np.int64)
        at = base + 2 * (len(rows) + room)
        self.tree, self.cuts = (self.m[k : k + size].view(TREE)[0] for k in (0, size))
        self.m[:size] = base, len(rows), len(rows) + room, start, last
        self.m[size:base] = at, len(cuts), len(cuts), 0, 0
        for offset, spans in ((base, sorted(rows)), (at, cuts)):
            flat = [value for span in spans for value in span]
            self.m[offset : offset + len(flat)] = flat

    def find(self, size: int, low: int, high: int, align: int) -> tuple[int, int]:
        return tuple(map(int, find(self.m, self.tree, self.cuts, size, (low, high, align))))

    @property
    def rows(self) -> list[tuple[int, int]]:
        at, count = self.tree.at, self.tree.count
        return [tuple(row) for row in self.m[at : at + 2 * count].reshape(-1, 2).tolist()]


def random_case(rng: random.Random):
    """A root, children, cuts and a search, small numbers so that edges meet often."""
    root = rng.choice([0, 0, 16, 100]), rng.choice([900, 1023, 5000])
    rows, at = [], root[0] + rng.choice([0, 0, 1, 30])
    while at < root[1] and rng.random() < 0.85:
        last = min(root[1], at + rng.choice([0, 1, 15, 31, rng.randint(0, 200)]))
        rows.append((at, last))
        at = last + 1 + rng.choice([0, 1, 16, rng.randint(0, 300)])
    cuts = []
    for _ in range(rng.randint(0, 4)):
        low = rng.randint(0, root[1])
        cuts.append((low, low + rng.choice([0, 15, rng.randint(0, 600)])))
    align = 1 << rng.randint(0, 6)
    bounds = rng.choice([(0, TOP), (rng.randint(0, 600), TOP), (0, rng.randint(0, 2000)),
                         tuple(sorted((rng.randint(0, 900), rng.randint(0, 2000))))])
    return root, rows, cuts, rng.choice([1, align, 2 * align, rng.randint(1, 300)]), bounds, align


def test_search_agrees_with_two_naive_ones_on_random_trees() -> None:
    found = 0
    for seed in range(4000):
        root, rows, cuts, size, bounds, align = random_case(random.Random(seed))
        kernel, steps = Tree(*root, rows, cuts).find(size, *bounds, align)
        slow, slow_steps = NaiveResource(*root, rows).find(size, *bounds, align, cuts)
        assert (None if kernel < 0 else kernel, steps) == (slow, slow_steps), f"seed {seed}"
        assert slow == first_fit(root, rows, size, bounds, align, cuts), f"seed {seed}"
        if slow is not None:
            found += 1
            assert slow % align == 0
            assert bounds[0] <= slow
            assert slow + size - 1 <= min(bounds[1], root[1])
            assert all(slow + size - 1 < a or slow > b for a, b in rows)
    assert 500 < found < 3900


def test_request_and_release_agree_with_the_naive_tree() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        root, rows, *_ = random_case(rng)
        tree, slow = Tree(*root, rows), NaiveResource(*root, rows)
        for _ in range(30):
            start = rng.randint(0, root[1] + 20)
            last = start + rng.randint(-1, 60)
            if rng.random() < 0.7:
                done = request(tree.m, tree.tree, start, last) == 0
                assert done == slow.request(start, last), seed
            elif slow.children:
                start = rng.choice(slow.children)[0]
                assert release(tree.m, tree.tree, start) == 0
                slow.release(start)
            assert tree.rows == slow.children, f"seed {seed}"


def test_what_is_requested_and_released_is_as_before() -> None:
    tree = Tree(0, 1000, [(10, 19), (50, 59)])
    assert request(tree.m, tree.tree, 20, 49) == 0
    assert request(tree.m, tree.tree, 49, 49) == -16
    assert release(tree.m, tree.tree, 20) == 0
    assert release(tree.m, tree.tree, 20) == -16
    assert tree.rows == [(10, 19), (50, 59)]


@pytest.mark.parametrize(("rows", "cuts", "size", "bounds", "expected"), [
    ((), (), 16, (0, TOP), 0),
    # The first child begins with the root: the gap before it is no gap.
    (((0, 63),), (), 16, (0, TOP), 64),
    # A child at the root's end closes the search.
    (((0, 63), (64, 1023)), (), 16, (0, TOP), -1),
    (((16, 1023),), (), 16, (0, TOP), 0),
    # The bound is inclusive.
    ((), (), 16, (0, 15), 0),
    ((), (), 16, (0, 14), -1),
    ((), (), 16, (1, TOP), 16),
    # Of a clipped gap the larger part stays, the upper one when both are equal.
    ((), ((512, 521),), 16, (0, TOP), 0),
    ((), ((100, 109),), 16, (0, TOP), 112),
    ((), ((500, 523),), 16, (0, TOP), 528),
    # One gap yields one part: what a second clip leaves is not the first part again.
    ((), ((100, 109), (110, 1023)), 16, (0, TOP), -1),
    # One contiguous extent: two holes of 32 do not make 64.
    (((32, 63), (96, 1023)), (), 64, (0, TOP), -1),
])
def test_a_search_finds_what_the_kernel_would(rows, cuts, size, bounds, expected) -> None:
    assert Tree(0, 1023, rows, cuts).find(size, *bounds, 16)[0] == expected


def test_a_failure_trap_lasts_and_other_regions_stay_unused() -> None:
    """fill_list() releases what iomem_resource refuses, and finds the same one again."""
    xen, iomem = NaiveResource(0, 1023), NaiveResource(0, 1023, [(0, 15)])
    for _ in range(3):
        address, _ = xen.find(64, 0, TOP, 64)
        assert address == 0
        assert xen.request(address, address + 63)
        assert not iomem.request(address, address + 63)
        xen.release(address)
