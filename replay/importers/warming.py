"""Compiles what an import runs, by a tiny made-up recording."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from replay.importers.dat.event_format import Symbols
from replay.importers.dat.ring_buffer import Layout, gather, look, scan_pages
from replay.importers.session import import_recording
from replay.importers.xen import read as xentrace

_LINES = (
    (1, 1, "alloc: (xen_alloc_unpopulated_pages+0x0/0x9) nr=1 list_count=3"),
    (1, 2, "page: (xen_alloc_unpopulated_pages+0x7/0x9) page=0xffffea0000000040"),
    (1, 3, "back: (caller+0x1/0x9 <- xen_alloc_unpopulated_pages) ret=0"),
    # a free that overlaps an allocation, so that the search for the lock's order runs as well
    (1, 4, "free: (xen_free_unpopulated_pages+0x0/0x9) nr=1 p={0xffffea0000000040}"),
    (2, 5, "alloc: (xen_alloc_unpopulated_pages+0x0/0x9) nr=1"),
    (2, 6, "page: (xen_alloc_unpopulated_pages+0x7/0x9) page=0xffffea0000000040"),
    (2, 7, "back: (caller+0x1/0x9 <- xen_alloc_unpopulated_pages) ret=0"),
)


def compile_kernels() -> None:
    """Compile, or load from the cache, the kernels of every importer."""
    page = bytes(4096)
    records = scan_pages(page, Layout("<", 4096, 16, 8))
    none = np.zeros(0, dtype=np.int64)
    gather(page, records.at, none, 0, 4, False, "<")
    look(page, records, none, 0, 8, "<", 8)
    Symbols(b"0 T made_up\n")
    with tempfile.TemporaryDirectory() as folder:
        xentrace.compile_kernels(Path(folder))
        path = Path(folder) / "made-up.txt"
        path.write_text("".join(f"{'task':>16}-{pid:<7} [000] ..... {time}: {rest}\n"
                                for pid, time, rest in _LINES), encoding="ascii")
        import_recording([path], "made-up", machine_dir=None, settings={"cpu_hz": "1000000000"},
                         probes=None)
