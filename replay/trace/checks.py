"""Whether a table of events keeps what the engine and the importers rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.base.arrow import compute as pc
from replay.base.errors import InputError
from replay.base.units import MAX_PAGES
from replay.engine.drive import MAX_TIME_NS
from replay.trace.columns import ragged
from replay.trace.meta import Meta
from replay.trace.schema import KINDS, SCHEMA


def check_frames(path: Path, table: pa.Table, meta: Meta, first: int = 0) -> None:
    """Frames of the allocator lie in the machine's address space, or the import has said so.

    first: the number of the table's first row.
    """
    if meta.physmap is None or meta.anomalies.get("frames_outside_physmap"):
        return
    top = meta.physmap.top_pfn
    ends = pc.min_max(pc.list_flatten(table["frames"])).as_py()
    if ends["min"] is None or (ends["min"] >= -1 and ends["max"] < top):
        return
    frames = ragged(table, "frames")
    bad = (frames.values < -1) | (frames.values >= top)
    if bad.any():
        at = int(np.argmax(bad))
        row = int(np.searchsorted(frames.start, at, side="right")) - 1
        raise InputError(path, f"frame {int(frames.values[at]):#x} lies beyond the physmap, which "
                         f"ends at frame {top:#x}", f"row {first + row}")


def as_schema(path: Path, table: Any, schema: pa.Schema) -> Any:
    """A table or batch with the schema's columns, each of its type."""
    if table.schema.names != schema.names:
        extra = sorted(set(table.schema.names) - set(schema.names))
        missing = sorted(set(schema.names) - set(table.schema.names))
        raise InputError(path, f"columns differ: unknown {extra}, missing {missing}"
                         if extra or missing else "columns are in another order")
    if table.schema.equals(schema):
        return table
    for field, its in zip(schema, table.schema, strict=True):
        if not any(akin(field.type) and akin(its.type) for akin in AKIN):
            raise InputError(path, f"column {field.name} is of the wrong type: {its.type}, "
                             f"expected {field.type}")
    try:
        return table.cast(schema)
    except MemoryError:
        raise
    except (pa.ArrowException, ValueError) as error:
        raise InputError(path, f"a column has the wrong type ({str(error).splitlines()[0]})",
                         ) from None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or (
        pa.types.is_dictionary(kind) and _is_text(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_integer(
        kind.value_type)


AKIN = (pa.types.is_integer, _is_text, _is_list)
"""Columns may be of another width than the schema's, and of no other kind."""


def check_values(path: Path, batch: pa.RecordBatch, meta: Meta, first: int) -> None:
    """Numbers of a batch that no replay looks at are within their bounds, those columns
    that it has. first: the number of its first row."""
    _check_numbers(path, batch)
    if "frames" in batch.schema.names:
        check_frames(path, pa.Table.from_batches([batch]), meta, first)


def _check_numbers(path: Path, rows: Any) -> None:
    for name in ("nr_pages", "start_pfn"):
        if name in rows.schema.names:
            low, top = pc.min_max(rows[name]).as_py().values()
            if top is not None and (top > MAX_PAGES * 64 or low < 0):
                raise InputError(path, f"{name} holds {low if low < 0 else top}, "
                                 f"expected 0 to {MAX_PAGES * 64}")


def check_table(path: Path, table: pa.Table, first: int = 0, last: int = 0) -> pa.Table:
    """first: the number of the table's first row; last: the time of the row before it."""
    table = as_schema(path, table, SCHEMA)
    time = table["time_ns"]
    if time.null_count:
        raise InputError(path, "a row has no time_ns")
    ns = time.to_numpy()
    if len(ns):
        _check_time(path, ns, first, last)
    _check_numbers(path, table)
    kinds = table["kind"]
    names = {name for chunk in kinds.chunks for name in chunk.dictionary.to_pylist()}
    if kinds.null_count or not names <= set(KINDS):  # a name that no row has does no harm
        names = set(pc.unique(kinds).to_pylist())
    if unknown := names - set(KINDS):
        raise InputError(path, f"unknown event kinds {sorted(map(str, unknown))}")
    return table


def _check_time(path: Path, ns: np.ndarray, first: int, last: int) -> None:
    if ns.min() < 0 or ns.max() > MAX_TIME_NS:
        row = int(np.argmax((ns < 0) | (ns > MAX_TIME_NS)))
        raise InputError(path, f"time_ns is {ns[row]}, expected 0 to 2^53", f"row {first + row}")
    if ns[0] < last or (ns[1:] < ns[:-1]).any():
        before = np.concatenate(([last], ns[:-1]))
        row = int(np.argmax(ns < before))
        raise InputError(path, f"time_ns runs backwards ({before[row]} to {ns[row]})",
                         f"row {first + row}", "sort the trace by time")
