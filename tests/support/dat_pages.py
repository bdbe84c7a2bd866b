"""Sub-buffers of a made trace.dat."""

from __future__ import annotations

from pathlib import Path
from dat_files import (
    LITTLE,
)
from replay.importers.dat.read import read_trace_dat
from replay.importers.source.probes import Decoded

event, alloc, page, small = LITTLE.event, LITTLE.alloc, LITTLE.page, LITTLE.small


def decode(tmp_path: Path, data: bytes) -> Decoded:
    """Decode bytes as a file."""
    path = tmp_path / "t.dat"
    path.write_bytes(data)
    return read_trace_dat(path)
