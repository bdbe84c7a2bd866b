"""A trace: one Arrow IPC file that needs nothing else.

Written with pyarrow (which keeps schema metadata), imports with zstd, `synth` with lz4;
everything a replay needs is in the metadata under the key `replay`, as JSON. A file is refused with
a sentence when it is not one of ours, is newer, or breaks a promise that the engine relies on.

The account (`Meta.accounting`) holds every record of the sources:

    records = imported + the sum of skipped

records: those read, a window's header (xentrace) and an event of no interest included. imported:
those that became a row, or part of one (an entry and its return are one row). skipped: the others,
by a reason each. lost: what the tracers say they could not write, or wrote over; such records are
not in the sources, so they stand beside the sum, and a row of kind `lost` says where, if known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from replay.base import memory
from replay.base.ahead import ahead
from replay.base.errors import ReplayError, unknown_name
from replay.base.notebook import shown
from replay.base.printable import plain
from replay.base.files import written
from replay.base.progress import advance, step
from replay.base.texts import cut_columns
from replay.trace.checks import as_schema, check_frames, check_table
from replay.trace.columns import is_kind
from replay.trace.cut import CutFile
from replay.trace.expand import Expander
from replay.trace.late import exchange, with_room
from replay.trace.meta import Meta
from replay.trace.old import current
from replay.trace.opening import (
    KEY, bounds_of, check_meta, metadata, opened, read_head, seen_as_arrow,
)  # fmt: skip
from replay.trace.schema import SCHEMA, STORED
from replay.trace.start import pages_of
from replay.trace.stored import compact, without_calls

COMPRESSIONS = ("zstd", "lz4", "none")
ASKING_KINDS = ("alloc", "free", "target")
"""Kinds of rows that a replay asks a strategy for."""
BATCH_ROWS = 1 << 17
"""Columns of a batch are compressed side by side: with half of it that takes a quarter longer."""


@dataclass(frozen=True)
class Stream:
    """Rows that are made as they are written, so that they are never in memory all at once.

    rows: how many. kinds: how many of each kind have which flags. batches: begins with the first;
    of BATCH_ROWS each but for the last. They are of schema.STORED where Meta.bounds says what they
    need, else of schema.SCHEMA and without allocator calls. beside: whether the next batch is made
    while one is written, which takes the room of two. afterwards: the metadata and the kinds, where
    they are known only when all batches were made; until then rows is about how many.
    """

    rows: int
    kinds: dict[str, Counter[int]]
    batches: Callable[[], Iterator[pa.RecordBatch]]
    beside: bool = True
    afterwards: Callable[[], tuple[Meta, dict[str, Counter[int]]]] | None = None


@dataclass(frozen=True)
class Trace:
    """Events (columns of schema.SCHEMA, sorted by time) and what the file says of itself.

    stream: the rows, where the table is empty because they have not been made.
    """

    table: pa.Table
    meta: Meta
    stream: Stream | None = None

    def __repr__(self) -> str:
        return plain(f"<Trace {self.meta.name}: {self.num_rows:,} events, {self.meta.kind}>")

    def _repr_html_(self) -> str:
        meta = self.meta
        facts = [("events", f"{self.num_rows:,}"), ("recorded strategy", meta.recorded_strategy),
                 ("kernel", str(meta.provenance.get("kernel", ""))),
                 ("machine", meta.physmap.name if meta.physmap else ""),
                 ("records lost", f"{meta.lost:,}" if meta.lost else ""),
                 ("description", meta.description)]
        return shown(f"Trace {meta.name}", [meta.kind], [], [f for f in facts if f[1]])

    @property
    def num_rows(self) -> int:
        """How many events."""
        return self.stream.rows if self.stream else int(self.table.num_rows)


def in_memory(trace: Trace) -> Trace:
    """The trace; ReplayError if its rows are made only when they are saved."""
    if trace.stream is not None:
        raise ReplayError(f"trace {trace.meta.name!r}: its rows are not in memory, since they were "
                          "made as they were saved; give the file, or load_trace() of it")
    return trace


def check_compression(name: str) -> None:
    """ReplayError unless it is one of COMPRESSIONS."""
    if name not in COMPRESSIONS:
        raise unknown_name("compression", name, list(COMPRESSIONS))


def save(trace: Trace, path: Path, compression: str = "zstd") -> Trace:
    """Write aside, then rename: a reader never sees half a trace. The trace, as it is known then.

    compression: one of COMPRESSIONS. Of 1.3 million rows of a Xen trace zstd makes 5 MB in 0.10 s,
    lz4 14 MB in 0.06 s, and none 214 MB in 0.09 s: the empty columns are written too.
    """
    check_compression(compression)
    with step(f"writing {path.name}", trace.num_rows, "rows"):
        meta, batches = _stored(trace)
        stream = trace.stream
        afterwards = stream.afterwards if stream else None
        if stream is None or afterwards is None:
            write(path, meta, batches, compression)
            return trace
        write(path, meta, batches, compression, lambda: afterwards()[0])
        meta, kinds = afterwards()
        rows = sum(sum(flags.values()) for flags in kinds.values())
        return replace(trace, meta=meta, stream=replace(
            stream, rows=rows, kinds=kinds, afterwards=None))


def _stored(trace: Trace) -> tuple[Meta, Iterator[pa.RecordBatch]]:
    """A trace as it stands in a file."""
    if trace.stream:
        batches = trace.stream.batches()
        batches = ahead(batches) if trace.stream.beside else batches
        if trace.meta.bounds or trace.stream.afterwards:
            return trace.meta, batches
        return replace(trace.meta, bounds={}), map(without_calls, batches)
    table = trace.table.cast(SCHEMA).combine_chunks()
    if not is_kind(table, *ASKING_KINDS).any():
        return (replace(trace.meta, bounds={}),
                map(without_calls, table.to_batches(max_chunksize=BATCH_ROWS)))
    made = compact(table, trace.meta.name, trace.meta.start)
    return replace(trace.meta, bounds=made.bounds), made.batches(BATCH_ROWS)


def write(path: Path, meta: Meta, batches: Iterable[pa.RecordBatch], compression: str,
          afterwards: Callable[[], Meta] | None = None) -> None:
    """Write batches of schema.STORED, which share their dictionaries.

    afterwards: what is to stand in place of `meta` once all of them are written.
    """
    said = metadata(meta)[KEY]
    said = with_room(said) if afterwards else said
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
    with written(path) as aside:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(
                sink, STORED.with_metadata({KEY: said}), options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)
                advance(batch.num_rows)
        if afterwards:
            exchange(aside, said, metadata(afterwards())[KEY])


def load(path: Path, allow_loss: bool = False) -> Trace:
    """Read and check a trace of any version; InputError says what is wrong with the file.

    allow_loss: of a file that was cut, take the whole batches.
    """
    with opened(path, current(seen_as_arrow(path), allow_loss)) as reader:
        meta = read_head(path, reader)[0]
        table = pa.Table.from_batches(_expanded(path, reader, meta), SCHEMA)
    table = check_table(path, table)
    check_frames(path, table, meta)
    return Trace(table, replace(meta, bounds={}))


def _read(path: Path, reader: Any) -> Iterator[pa.RecordBatch]:
    """The batches of a file, which may hold far more than its size says."""
    size = memory.used()
    with step(f"reading {path.name}", reader.count_rows(), "rows"):
        for k in range(reader.num_record_batches):
            batch = reader.get_batch(k)
            # Not nbytes, which follows offsets that nobody has looked at.
            size += batch.get_total_buffer_size()
            memory.need(size, f"{path}: reading it", "split it by time")
            batch.validate(full=True)
            yield cut_columns(batch)
            advance(batch.num_rows)


def _expanded(path: Path, reader: Any, meta: Meta) -> Iterator[pa.RecordBatch]:
    """The batches of a file of this version as those of SCHEMA."""
    bounds = bounds_of(path, reader, meta)
    expander = Expander(path, bounds, pages_of(meta.start, "live"))
    for batch in _read(path, reader):
        yield expander.batch(as_schema(path, batch, STORED))
    if not isinstance(reader, CutFile):
        expander.decoder.end()


def check(path: Path, trace: Trace) -> Trace:
    """Refuse, in the name of its source, a trace that load() would refuse; the rows of a stream as
    they are made.
    """
    check_meta(path, trace.meta)
    if trace.stream is None:
        check_frames(path, check_table(path, trace.table), trace.meta)
        return trace
    make = trace.stream.batches
    return replace(trace, stream=replace(
        trace.stream, batches=lambda: checked(path, trace.meta, make())))


def checked(path: Path, meta: Meta, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches of schema.SCHEMA, each of them checked."""
    row = last = 0
    for batch in batches:
        table = check_table(path, pa.Table.from_batches([batch]), row, last)
        check_frames(path, table, meta, row)
        yield batch
        row, last = row + batch.num_rows, batch["time_ns"][-1].as_py()
