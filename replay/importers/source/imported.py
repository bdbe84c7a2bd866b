"""What an importer hands on: rows in the trace's schema, and an account of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from replay.base.anomalies import Anomalies
from replay.base.scratch import Scratch
from replay.importers.source.rows import Rows
from replay.trace.columns import is_kind
from replay.trace.store import Stream


@dataclass
class Imported:
    """One imported stream.

    table: exactly schema.SCHEMA, sorted by time. accounting: records read, imported, skipped by
    reason, lost; records = imported + all skipped. t0_raw: the clock's value at time_ns 0, hz its
    frequency (nanoseconds: 10^9). ticks: the clock's raw value per row, where the importer keeps
    it, so that the rows can be moved to another origin without rounding twice. scale, offset_ns:
    see probes.Decoded. facts: what the recording told of its kernel, for the provenance. stream:
    the rows, where they are made as they are written; the table is empty then.
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
    facts: dict[str, str] = field(default_factory=dict)
    stream: Stream | None = None
    rows: Rows | None = None

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return self.rows.count if self.rows else int(self.table.num_rows)

    @property
    def span_ns(self) -> int:
        """From the first row's time to the last one's."""
        if self.rows:
            return self.rows.last - self.rows.first_times[0]
        times = self.table["time_ns"].to_numpy()
        return int(times[-1] - times[0])

    def select(self, names: Sequence[str], kinds: Sequence[str] = ()) -> pa.Table:
        """Some columns of all rows, or of those of some kinds, in memory."""
        if self.rows:
            return self.rows.select(names, kinds)
        chosen = self.table.filter(pa.array(is_kind(self.table, *kinds))) if kinds else self.table
        return chosen.select(list(names))

    def all_rows(self, scratch: Scratch) -> Rows:
        """The rows, wherever they are."""
        return self.rows or Rows.of(self.table, scratch)
