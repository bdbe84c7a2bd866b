"""Rows of a trace from what differs."""

from __future__ import annotations

import pyarrow as pa
from replay.trace.schema import SCHEMA



def events(*rows: dict) -> pa.Table:
    """Rows with nulls where nothing is given."""
    return pa.Table.from_pylist(
        [{name: row.get(name, 0 if name in ("flags", "source") else None) for name in SCHEMA.names}
         for row in rows], SCHEMA)
