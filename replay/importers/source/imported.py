"""What an importer hands on: rows in the trace's schema, and an account of the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from replay.base.anomalies import Anomalies
from replay.importers.source.rows import Rows
from replay.trace.store import Stream


@dataclass
class Imported:
    """One imported stream.

    table: exactly schema.SCHEMA, sorted by time. accounting: records read, imported, skipped by
    reason, lost; records = imported + all skipped. t0_raw: the clock's value at time_ns 0, hz its
    frequency (nanoseconds: 10^9). ticks: the clock's raw value per row, where the importer keeps
    it, so that the rows can be moved to another origin without rounding twice. scale, offset_ns:
    see probes.Decoded. stream: the rows, where they are made as they are written; the table is
    empty then.
    """

    table: pa.Table
    anomalies: Anomalies
    accounting: dict[str, Any]
    t0_raw: int
    hz: int
    clock: str = ""
    ticks: np.ndarray | None = None
    scale: tuple[int, int] | None = None
    offset_ns: int = 0
    notes: list[str] = field(default_factory=list)
    stream: Stream | None = None
    rows: Rows | None = None
