"""Imports in parts of any size, and of files that are longer than any recording."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from replay.importers.dat.read import open_container

PARTS = ("WINDOW_EVENTS", "PART_LINES", "PART_ROWS", "PART_CALLS", "QUIET_CALLS", "WALKED_CALLS",
         "PLACED_CALLS", "MOVES_AT_ONCE")
PAGES = ("WALKED_PAGES", "PART_FRAMES", "PART_SLOTS", "LEAST_GROWTH")
"""What is worked on at a time, by the names that modules know it by."""


def in_parts(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """So many events, rows or calls are worked on at a time, and all lie in files."""
    values = dict.fromkeys(PARTS, size) | dict.fromkeys(PAGES, 8 * size)
    values |= {"PART_BYTES": 4096, "LEAST_PART_BYTES": 4096, "HELD_BYTES": 0, "MOST_MAPPED": 0}
    for name, module in list(sys.modules.items()):
        if name.startswith("replay."):
            for key, value in values.items():
                if key in vars(module):
                    monkeypatch.setattr(module, key, value)


def long_dat(source: Path, times: int, path: Path) -> None:
    """A version 6 file with each CPU's sub-buffers so many times, each later than the last."""
    data = source.read_bytes()
    _, container = open_container(source, data)
    (buffer,) = container.buffers
    pages = {cpu: np.frombuffer(data, np.uint8, size, at).reshape(-1, buffer.page_bytes)
             for cpu, at, size in buffer.cpus}
    stamps = np.concatenate([p[:, :8].copy().view("<u8")[:, 0] for p in pages.values()])
    span = int(stamps.max() - stamps.min()) + 10**9
    table = data.rindex(b"flyrecord\0") + 10
    begin = at = min(at for _, at, _ in buffer.cpus)
    head = bytearray(data[:begin])
    for cpu, _, size in buffer.cpus:
        struct.pack_into("<QQ", head, table + 16 * cpu, at, size * times)
        at += size * times
    with path.open("wb") as file:
        file.write(head)
        for cpu, _, _ in buffer.cpus:
            for k in range(times):
                copy = pages[cpu].copy()
                stamp = copy[:, :8].copy().view("<u8")[:, 0] + np.uint64(k * span)
                copy[:, :8] = stamp[:, None].view(np.uint8)
                file.write(copy.tobytes())
