"""Files of the first schema version, turned into the current one as they are opened.

Their rows are those of schema.SCHEMA, in which each page has a slot of its own. They are turned
batch by batch, and what comes of it lies in memory or, where it is much, in a file without a name;
so all that reads a trace knows one form of it, checks it in one way, and takes no more memory for
an old one.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from replay.base import memory
from replay.base.errors import InputError, ReplayError
from replay.base.progress import advance, step
from replay.base.scratch import HELD_BYTES, Growing, Scratch
from replay.trace.calls import Calls, calls_of
from replay.trace.checks import check_frames, check_table
from replay.trace.columns import ragged
from replay.trace.meta import Meta
from replay.trace.opening import FileSource, KEY, OLD_VERSION, metadata, opened, read_head, readable
from replay.trace.placing import Moves
from replay.trace.schema import STORED
from replay.trace.stored import compacted, moves_of, resized, without_calls

ROWS_AT_ONCE: Final = 1 << 16
BATCH_ROWS: Final = 1 << 17
PLACING_BYTES: Final = 9
"""To number a page: its slot, and half a byte for each slot of twice as many, see slots.py."""
PACKED: Final = pa.ipc.IpcWriteOptions(compression="lz4")


def current(path: Path, allow_loss: bool = False, live_bytes: int = 0) -> FileSource:
    """A source for opening.opened() that gives the rows of the current version, whatever the file's
    is. InputError says what is wrong with one of the first. allow_loss: see readable(). live_bytes:
    what the caller takes at least for each page that is live at once; pages are not numbered where
    that would not do."""
    source = readable(path, allow_loss)
    with opened(path, source) as reader:
        meta, version = read_head(path, reader)
        if version != OLD_VERSION:
            return source
        with step(f"reading {path.name}", reader.count_rows(), "rows"):
            return _turned(_Old(path, reader, meta), live_bytes)


class _Old:
    """The rows of one file."""

    def __init__(self, path: Path, reader: Any, meta: Meta) -> None:
        self.path, self.reader, self.meta = path, reader, meta

    def tables(self) -> Iterator[pa.Table]:
        """All rows in parts, each of them checked."""
        row = last = 0
        for number in range(self.reader.num_record_batches):
            try:
                batch = self.reader.get_batch(number)
                batch.validate(full=True)
            except MemoryError:
                raise
            except (pa.ArrowException, OSError, ValueError) as error:
                raise InputError(self.path, f"is damaged or truncated "
                                 f"({str(error).splitlines()[0]})", f"batch {number}") from None
            for at in range(0, batch.num_rows, ROWS_AT_ONCE):
                part = pa.Table.from_batches([batch.slice(at, ROWS_AT_ONCE)]).combine_chunks()
                table = check_table(self.path, part, row, last)
                check_frames(self.path, table, self.meta, row)
                yield table
                row, last = row + table.num_rows, table["time_ns"][-1].as_py()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The same as batches."""
        return (batch for table in self.tables() for batch in table.to_batches())


class _Found:
    """What all calls do with slots. rows: of the file. target: the highest. last: time of the last
    row. asks: whether any row is a request. most: pages that are live at once, at least."""

    def __init__(self, old: _Old, scratch: Scratch) -> None:
        self.rows = self.target = self.last = self.most = self._live = 0
        self.asks = False
        self._columns = {name: Growing(scratch) for name in Moves._fields}
        for table in old.tables():
            self._add(table, old.meta.name)
            advance(table.num_rows)
            scratch.relax()

    def _add(self, table: pa.Table, name: str) -> None:
        calls, listed = calls_of(table), ragged(table, "slots")
        part = moves_of(calls, listed, name, self.rows)
        part = part._replace(slot_at=part.slot_at + self._columns["slots"].count)
        for name, column in self._columns.items():
            column.append(getattr(part, name))
        self._weigh(calls)
        self.asks |= bool((calls.alloc | calls.free | calls.target).any())
        self.target = max(self.target, int(calls.goal[calls.target].max(initial=0)))
        self.rows, self.last = self.rows + table.num_rows, int(calls.time[-1])

    def _weigh(self, calls: Calls) -> None:
        """Those that failed are live for a while, nobody has said yet how long."""
        taken = np.where(calls.alloc, calls.pages, 0)
        live = self._live + np.cumsum(np.where(calls.errno < 0, 0, taken)
                                      - np.where(calls.free, calls.pages, 0))
        self._live = int(live[-1])
        self.most = max(self.most, int(live.max()), int(taken.max()))

    @property
    def moves(self) -> Moves:
        return Moves(**{name: column.array for name, column in self._columns.items()})


def _turned(old: _Old, live_bytes: int) -> FileSource:
    """The same rows as a file of the current version. InputError names the row that cannot be."""
    scratch = Scratch()
    try:
        found = _Found(old, scratch)
        if not found.asks:
            return _written(replace(old.meta, bounds={}), resized((
                pa.Table.from_batches([without_calls(batch)]) for batch in old.batches()),
                BATCH_ROWS), found.rows, scratch)
        memory.need(memory.used() + found.most * (PLACING_BYTES + live_bytes),
                    f"numbering {found.most:,} pages that are live at once", "split it by time")
        made = compacted(found.moves, found.rows, found.target, found.last, old.meta.name,
                         old.meta.start, scratch, lambda _: old.batches())
    except InputError:
        raise
    except ReplayError as error:
        raise InputError(old.path, str(error)) from None
    meta = replace(old.meta, bounds=made.bounds)
    return _written(meta, made.batches(BATCH_ROWS), found.rows, scratch)


def _written(meta: Meta, batches: Iterator[pa.RecordBatch], rows: int, scratch: Scratch
             ) -> FileSource:
    """A file of these batches."""
    schema = STORED.with_metadata({KEY: metadata(meta)[KEY]})
    if rows * len(STORED.names) * 8 <= HELD_BYTES:
        held = pa.BufferOutputStream()
        _write(held, schema, batches)
        whole = held.getvalue()
    else:
        file = scratch.file()
        with os.fdopen(os.dup(file.number), "wb") as sink:
            _write(sink, schema, batches)
        whole = pa.py_buffer(mmap.mmap(file.number, 0, prot=mmap.PROT_READ))
    return lambda: pa.BufferReader(whole)


def _write(sink: Any, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    with pa.ipc.new_file(sink, schema, options=PACKED) as writer:
        for batch in batches:
            writer.write_batch(batch)
