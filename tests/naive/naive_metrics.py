"""Slow and obvious statistics that the metrics are held against."""

from __future__ import annotations

from typing import Any


def percentile(ordered: list[int], ten_thousandths: int) -> tuple[int, int]:
    """The least sample that enough samples do not exceed, and how many rank above it."""
    for rank, value in enumerate(ordered, start=1):
        if rank * 10_000 >= ten_thousandths * len(ordered):
            return value, len(ordered) - rank
    raise AssertionError("no samples")


def collisions(scratch: list[tuple[int, int, int]], theirs: Any) -> list[int]:
    """Per 1:1 entry, the scratch pages of its frame that live at a time when it does."""
    return [sum(1 for frame, begin, end in scratch
                if frame == theirs.frame[k] and begin < theirs.to_ns[k] and theirs.from_ns[k] < end)
            for k in range(len(theirs.frame))]
