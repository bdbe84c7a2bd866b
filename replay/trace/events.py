"""The events of a trace with all their columns, batch by batch, for what only looks at each once.

Every batch is checked as trace/store.py checks a whole table; what is carried from one to the next
is what trace/decode.py carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from replay.base import memory
from replay.base.errors import InputError
from replay.base.texts import cut_columns
from replay.trace.checks import as_schema
from replay.trace.columns import ragged
from replay.trace.cut import CutFile
from replay.trace.decode import Decoder
from replay.trace.expand import check_events
from replay.trace.meta import Meta
from replay.trace.old import current
from replay.trace.schema import STORED
from replay.trace.start import BEFORE, pages_of
from replay.trace.opening import FileSource, bounds_of, opened, read_head, seen_as_arrow
from replay.trace.store import Trace



@dataclass(frozen=True)
class Events:
    """The events of one trace, in tables of schema.SCHEMA.

    forward: all of them. backward: the named columns alone, the last table first, and checked no
    further than for what Arrow needs. runs: whether `slots` holds runs (trace/stored.py), not a
    number per page. before: pages freed that were live before the recording. rows: how many events,
    as the file stores them.
    """

    meta: Meta
    runs: bool
    before: int
    rows: int
    forward: Callable[[], Iterator[pa.Table]]
    backward: Callable[[Sequence[str]], Iterator[pa.Table]]


def events_of(trace: Trace) -> Events:
    """Those of a trace in memory."""
    parts = [pa.Table.from_batches([batch]) for batch in trace.table.to_batches()]
    before = int(np.count_nonzero(ragged(trace.table, "slots").values == BEFORE))
    return Events(trace.meta, False, before, trace.num_rows, lambda: iter(parts),
                  lambda names: (part.select(names) for part in reversed(parts)))


def open_events(path: Path, allow_loss: bool = False) -> Events:
    """Those of a file of any version. InputError says what is
    wrong with it, here or while its batches are read. allow_loss: of one that was cut, those of
    the whole batches."""
    source = current(seen_as_arrow(path), allow_loss)
    with opened(path, source) as reader:
        meta = read_head(path, reader)[0]
        as_schema(path, reader.schema.empty_table(), STORED)
        bounds = bounds_of(path, reader, meta)
        return Events(meta, True, bounds["before"], int(reader.count_rows()),
                      lambda: _forward(path, source, meta, bounds),
                      lambda names: _backward(path, source, names))


def _forward(path: Path, source: FileSource, meta: Meta, bounds: dict[str, int]
             ) -> Iterator[pa.Table]:
    decoder = Decoder(path, bounds, pages_of(meta.start, "live"))
    row = 0
    for batch in _read(path, source, None):
        batch = as_schema(path, batch, STORED)
        for _ in decoder.parts(batch):
            pass
        kept = check_events(path, batch, meta, row)
        row += kept.num_rows
        yield kept
    if not isinstance(source(), CutFile):
        decoder.end()


def _backward(path: Path, source: FileSource, names: Sequence[str]) -> Iterator[pa.Table]:
    wanted = pa.schema([field for field in STORED if field.name in names])
    for batch in _read(path, source, names):
        yield pa.Table.from_batches([as_schema(path, batch, wanted)])


def _read(path: Path, source: FileSource, names: Sequence[str] | None
          ) -> Iterator[pa.RecordBatch]:
    """The batches as stored: all columns forward, or these alone from the last batch on."""
    options = None
    if names is not None:
        with opened(path, source) as whole:
            options = pa.ipc.IpcReadOptions(included_fields=sorted(
                whole.schema.names.index(name) for name in names))
    with opened(path, source, options) as reader:
        numbers = range(reader.num_record_batches)
        for number in numbers if names is None else reversed(numbers):
            try:
                batch = reader.get_batch(number)
                memory.need(memory.used(), f"{path}: reading it", "split it by time")
                batch.validate(full=True)
            except MemoryError:
                raise
            except (pa.ArrowException, OSError, ValueError) as error:
                raise InputError(path, f"is damaged ({str(error).splitlines()[0]})",
                                 f"batch {number}") from None
            yield cut_columns(batch)
