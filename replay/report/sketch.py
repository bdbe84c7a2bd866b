"""A terminal sketch of the physmap, and a curve of live pages over time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich.console import Group, RenderableType

from replay.base.units import human_bytes
from replay.base.width import text_width
from replay.metrics.fragmentation import advertised
from replay.physmap.host import paint
from replay.physmap.model import HostRange, Physmap
from replay.report.telling.tables import count, fitted, notes, share, table

BLOCK_SIGNS = " ▁▂▃▄▅▆▇█"
MAX_LINES = 80
NEAR_BYTES = 1 << 16
"""Alike ranges at most this far apart become one line."""

HOST_WORDS = {"ram_dom0": "RAM of dom0", "ram_other": "RAM of others", "ram_xen": "RAM of Xen",
              "mmio": "device", "reserved": "reserved"}


class Tops:
    """The greatest value in each of `width` equal time steps up to `end_ns`; values come in order.
    """

    def __init__(self, end_ns: int, width: int = 86) -> None:
        self._edges = np.linspace(0, end_ns + 1, width + 1)
        self._most = np.full(width, -1, np.int64)
        self._last = np.full(width, -1, np.int64)

    def add(self, times: np.ndarray, values: np.ndarray) -> None:
        """Values from 0 on, each from its time on."""
        steps = np.searchsorted(self._edges, times, side="right") - 1
        for step, low, high in _spans(steps):
            self._most[step] = max(self._most[step], int(values[low:high].max()))
            self._last[step] = values[high - 1]

    def tops(self) -> list[int]:
        """By step; one in which nothing changes has the value that it began with."""
        found, held = [], 0
        for most, last in zip(self._most.tolist(), self._last.tolist(), strict=True):
            found.append(max(held, most))
            held = last if last >= 0 else held
        return found


def _spans(steps: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Of sorted numbers each, and where it begins and ends."""
    ends = np.flatnonzero(np.diff(steps, append=-1)) + 1
    for low, high in pairwise([0, *ends.tolist()]):
        yield int(steps[low]), low, high


def curve(tops: Sequence[int], height: int = 6) -> str:
    """The values, from left to right, as block characters."""
    if max(tops, default=0) <= 0:
        return "(no live pages)\n"
    room = len(count(max(tops)))
    if len(tops) + room + 2 > text_width():  # several steps to a column, the greatest of each
        parts = np.array_split(np.array(tops), text_width() - room - 2)
        tops = [int(part.max()) for part in parts]
    scaled = np.array(tops) / max(tops) * height * 8
    lines = []
    for level in range(height - 1, -1, -1):
        # What is there at all shows: the lowest line starts at one eighth.
        least = 1 if level == 0 else 0
        cells = np.clip(np.round(scaled - level * 8), np.where(scaled > 0, least, 0), 8)
        lines.append("".join(BLOCK_SIGNS[c] for c in cells.astype(int)))
    labels = [count(max(tops)), *[""] * (height - 2), "0"] if height > 1 else [count(max(tops))]
    return "".join(f"{label:>{room}} │{line}\n"
                   for label, line in zip(labels, lines, strict=True))


@dataclass(frozen=True)
class Segment:
    """A stretch of addresses in which nothing changes, in all views at once."""

    start: int
    end: int
    host: str
    linux: str
    also: str
    ranges: int = 1


def _stem(name: str) -> str:
    """A name without its unit address: `virtio_mmio@a003e00` is one of many `virtio_mmio@`."""
    return re.sub(r"(@[0-9a-f]+|(?<![0-9a-f])[0-9a-f]{6,}\.)", "@", name)


def _alike(a: Segment, b: Segment) -> bool:
    names = [tuple(_stem(t) for t in (s.host, s.linux, s.also)) for s in (a, b)]
    return names[0] == names[1] and b.start - a.end <= NEAR_BYTES


def segments(machine: Physmap, sections: Sequence[tuple[int, int, str]]) -> list[Segment]:
    """The address space cut at every edge of every view, alike neighbours joined."""
    page = machine.page_bytes
    views = [
        paint(machine.host),
        paint([HostRange(c.start, c.end, "mmio", c.name) for c in machine.iomem]),
        paint([HostRange(a, b, "reserved", f"region {k}")
               for k, (a, b) in enumerate(machine.regions, 1)]),
        paint([HostRange(s * page, (s + nr) * page, "reserved", f"+ {name or 'section'}")
               for s, nr, name in sections if nr > 0]),
    ]
    edges = sorted({e for view in views for r in view for e in (r.start, r.end)})
    at = [0] * len(views)
    found: list[Segment] = []
    for start, end in pairwise(edges):
        texts = []
        for k, view in enumerate(views):
            while at[k] < len(view) and view[at[k]].end <= start:
                at[k] += 1
            inside = at[k] < len(view) and view[at[k]].start <= start
            hit = view[at[k]] if inside else None
            words = "" if hit is None else hit.name
            if k == 0 and hit is not None:
                about = "" if hit.name == hit.type else hit.name
                words = f"{HOST_WORDS[hit.type]} {about}".strip()
            texts.append(words)
        if not any(texts):
            continue
        new = Segment(start, end, texts[0], texts[1], " ".join(t for t in texts[2:] if t))
        if found and _alike(found[-1], new):
            last = found.pop()
            same = (last.host, last.linux, last.also) == (new.host, new.linux, new.also)
            new = Segment(last.start, end, _stem(last.host), _stem(last.linux), last.also,
                          last.ranges + (0 if same and last.end == start else 1))
            if new.ranges == 1:
                new = Segment(last.start, end, last.host, last.linux, last.also)
        found.append(new)
    return found


def physmap_table(machine: Physmap, sections: Sequence[tuple[int, int, str]]) -> RenderableType:
    """The address space line by line: the host's view, Linux's, and what lies on top of them.

    sections: (first frame, pages, name) of what was added to the map.
    """
    lines = segments(machine, sections)
    digits = max((len(f"{s.end - 1:x}") for s in lines), default=8)
    wide = 22 if digits < 12 else 20
    rows = []
    for s in lines[:MAX_LINES]:
        times = f" x{s.ranges}" if s.ranges > 1 else ""
        rows.append([f"{s.start:0{digits}x}-{s.end - 1:0{digits}x}",
                     human_bytes(s.end - s.start), fitted(s.host, wide - len(times)) + times,
                     fitted(s.linux, wide), fitted(s.also, 60)])
    parts: list[RenderableType] = [table(
        f"Physmap {fitted(machine.name, 40)}",
        ["addresses (hex)", "size", "machine memory", "Linux's tree", "on top"],
        rows, align="lrllw")]
    if len(lines) > MAX_LINES:
        parts.append(notes([f"{len(lines) - MAX_LINES:,} more lines left out"]))
    if machine.regions:
        parts.append(regions_table(machine))
    return Group(*parts)


def regions_table(machine: Physmap) -> RenderableType:
    """The extended regions, and how much of each Linux can take in whole sections."""
    data = advertised(machine)
    rows = []
    for k, r in enumerate(data["regions"], 1):
        lost = r["bytes"] - r["usable_bytes"]
        why = ""
        if not data["in_order"]:
            why = "out of order or overlapping: none is used"
        elif r["below_pluggable_bytes"]:
            why = "below the pluggable range"
        elif lost:
            why = "less than whole sections"
        rows.append([f"region {k}", f"{r['start']:x}-{r['end'] - 1:x}", human_bytes(r["bytes"]),
                     human_bytes(r["usable_bytes"]), share(r["usable_bytes"] / r["bytes"]), why])
    used = data["usable_bytes"] / data["bytes"]
    rows.append(["all", "", human_bytes(data["bytes"]), human_bytes(data["usable_bytes"]),
                 share(used), ""])
    return table(f"Extended regions: usable in sections of {human_bytes(machine.section_bytes)}",
                 ["", "addresses (hex)", "size", "usable", "share", "why not all"], rows,
                 align="llrrrl")
