"""trace.dat of trace-cmd."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from replay.importers.dat.container import DAT_MAGIC
from replay.importers.dat.event_format import Symbols
from replay.importers.dat.read import TICK_CLOCKS, read_trace_dat
from replay.importers.dat.ring_buffer import Layout, gather, look, scan_pages
from replay.importers.joining.decoded import rows_of
from replay.importers.joining.normalise import wanted_by
from replay.importers.source.format import Asked, Format
from replay.importers.source.imported import Imported


def _read(asked: Asked) -> tuple[Imported, dict[str, str]]:
    decoded = read_trace_dat(asked.path, wanted_by(asked.probes), asked.scratch)
    if "trace_clock" in asked.settings:  # trace-cmd 3.1 calls that of an instance "local"
        decoded.clock = asked.settings["trace_clock"]
        decoded.unit = "ticks" if decoded.clock in TICK_CLOCKS else "ns"
    return rows_of(decoded, asked)


def _warm(folder: Path) -> None:
    page, none = bytes(4096), np.zeros(0, dtype=np.int64)
    records = scan_pages(page, Layout("<", 4096, 16, 8))
    gather(page, records.at, none, 0, 4, False, "<")
    look(page, records, none, 0, 8, "<", 8)
    Symbols(b"0 T made_up\n")


FORMAT = Format("trace.dat", "trace-cmd's trace.dat", lambda head: head.startswith(DAT_MAGIC),
                _read, _warm)
