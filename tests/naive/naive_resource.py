"""A slow resource search, written from the behaviour of Linux's kernel/resource.c (6.1, 6.12).

Independent of replay/physmap/resource.py on purpose: no arrays, no compiled code. Inclusive ends.
"""

from __future__ import annotations

Span = tuple[int, int]


def clipped(gap: Span, cuts: list[Span]) -> Span:
    """`gap` after each cut in turn; the larger remainder is kept, the upper one if equal."""
    low, high = gap
    for start, last in cuts:
        if high < start or low > last:
            continue
        remainders = [(last + 1, high), (low, start - 1)]
        low, high = max(remainders, key=lambda rest: max(rest[1] + 1 - rest[0], 0))
    return low, high


def gaps(root: Span, children: list[Span]) -> list[Span]:
    """The gaps in the order a search visits them, empty ones left out."""
    out = []
    at = root[0]
    for start, last in children:
        if at < start:
            out.append((at, start - 1))
        at = last + 1
        if last == root[1]:
            return out
    return [*out, (at, root[1])] if at <= root[1] else out


def first_fit(root: Span, children: list[Span], size: int, bounds: Span, align: int,
              cuts: list[Span]) -> int | None:
    """Address of the first gap that, clipped, holds `size` bytes at `align`; None is -EBUSY."""
    for low, high in gaps(root, sorted(children)):
        low, high = clipped((max(low, bounds[0]), min(high, bounds[1])), cuts)
        at = -(-low // align) * align
        if at + size - 1 <= high:
            return at
    return None


def fill(root: Span, children: list[Span], size: int, bounds: Span, cuts: list[Span],
         limit: int) -> list[int]:
    """Addresses of up to `limit` allocations of one section each, until -EBUSY."""
    taken = list(children)
    out: list[int] = []
    while len(out) < limit:
        at = first_fit(root, taken, size, bounds, size, cuts)
        if at is None:
            break
        out.append(at)
        taken.append((at, at + size - 1))
    return out
