"""A trace for a replay, batch by batch: what is in memory does not grow with the file.

    batches = open_batches(path)
    for batch in batches:
        batch.requests, batch.event, batch.task.texts, ...

Only the columns that a replay needs are read, by the rows as they are stored, and each row is
checked before it is handed out (trace/decode.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.base.arrow import compute as pc
from replay.base import memory
from replay.base.compiled import compiled
from replay.base.errors import InputError
from replay.engine.drive import LARGEST_REQUEST
from replay.engine.start import Start
from replay.trace.checks import as_schema, check_frames, check_values
from replay.trace.columns import NONE, ints
from replay.trace.cut import CutFile
from replay.trace.decode import COLUMNS_READ, Batch, Decoder
from replay.trace.expand import without_releases
from replay.trace.schema import STORED
from replay.trace.start import BEFORE, pages_of, start_of
from replay.trace.meta import Meta
from replay.trace.old import current
from replay.trace.opening import bounds_of, metadata, opened, read_head, seen_as_arrow
from replay.trace.store import BATCH_ROWS, Trace, load
from replay.trace.stored import compact
from replay.trace.weight import SLOT_BYTES, SLOT_BYTES_EACH

COLUMNS_BEFORE = ("slots", "frames")
"""What tells the frames of pages that were live before the recording."""
TELLING = ("pid", "errno")
"""What tells which calls failed, and whose they were."""


class Batches:
    """The requests of one trace, as often as they are asked for.

    meta: what it says of itself. cut: whether the file was. bounds: what its rows need at most, see
    trace/stored.py. rows: of the file. whole: all of the trace in memory, for what cannot do with
    less. file: whether `path` is what it is read from.
    """

    def __init__(self, path: Path, source: Callable[[], Any],
                 trace: Callable[[], Trace], file: bool = False) -> None:
        self.path, self._source, self.whole, self.file = path, source, trace, file
        self._checked, self._unread = not file, list[str]()
        with opened(path, source) as reader:
            self.meta: Meta = read_head(path, reader)[0]
            self.cut = isinstance(reader, CutFile)
            missing = [name for name in (*COLUMNS_READ, *COLUMNS_BEFORE)
                       if name not in reader.schema.names]
            if missing:
                raise InputError(path, f"columns differ: missing {missing}")
            if file:
                as_schema(path, reader.schema.empty_table(), STORED)
                self._unread = [name for name in STORED.names if name not in COLUMNS_READ]
            self.bounds = bounds_of(path, reader, self.meta)
            self.rows = int(reader.count_rows())

    def __iter__(self) -> Iterator[Batch]:
        """Batches in their order, none of them empty. InputError names batch and row.

        The first time the columns that no replay reads are checked with them, so that all verbs
        take the same files."""
        return (batch for batch, _ in self.told())

    def told(self, *besides: str) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """The same, each with what columns of numbers say of its requests, NONE where nothing and
        for the frees that are made up."""
        decoder = Decoder(self.path, self.bounds, pages_of(self.meta.start, "live"))
        checked = self._checked
        wanted = {*COLUMNS_READ, *besides, *(() if checked else self._unread)}
        for number, batch in enumerate(self._read(wanted)):
            if not checked:
                self._validate(batch, number)
            begin = int(decoder.carried["event"][0])
            values: dict[str, np.ndarray] = {}
            for part in decoder.parts(batch):
                if besides and not values:
                    values = self._besides(batch, besides, number)
                told = {name: np.full(len(part.event), NONE) for name in values}
                for name, column in values.items():
                    told[name][~part.added] = column[part.event[~part.added] - begin]
                yield part, told
            if not checked:
                check_values(self.path, batch, self.meta, begin)
        if not self.cut:
            decoder.end()
        self._checked = True

    def _validate(self, batch: pa.RecordBatch, number: int) -> None:
        try:
            batch.validate(full=True)
        except MemoryError:
            raise
        except (pa.ArrowException, ValueError) as error:
            raise self._damaged(error, number) from None

    def times(self) -> Iterator[np.ndarray]:
        """The times of all rows that are not made up, in ns, batch by batch."""
        for batch in self._read(("time_ns", "kind")):
            yield without_releases(batch)["time_ns"].to_numpy()

    def _besides(self, batch: pa.RecordBatch, names: tuple[str, ...], number: int
                 ) -> dict[str, np.ndarray]:
        """Columns of a batch without the rows that were made up."""
        for name in names:
            if batch[name].type != STORED.field(name).type:
                raise self._damaged(ValueError(f"{name} is of type {batch[name].type}"), number)
        kept = pa.Table.from_batches([without_releases(batch)])
        return {name: ints(kept, name) for name in names}

    @cached_property
    def kinds(self) -> set[str]:
        """Kinds of rows that there may be: those of the first batch's dictionary."""
        found: set[str] = set()
        for batch in islice(self._read(("kind",)), 1):
            self._validate(batch, 0)
            found.update(batch["kind"].dictionary.to_pylist())
        return found

    @cached_property
    def start(self) -> Start | None:
        """What a replay begins with, if in mid-life. Reads the file where it frees pages that were
        live before."""
        before = self.bounds["before"]
        frames = self.frames_before(before) if before else np.zeros(0, np.int64)
        return start_of(self.meta.start, self.meta.recorded_strategy, {0: frames})

    def frames_before(self, count: int) -> np.ndarray:
        """Of the first `count` freed pages that were live before, the recorded frames, -1 where the
        rows do not hold them. Reads the whole file."""
        memory.need(memory.used() + 8 * count, f"{self.path}: {count} pages live before",
                    "split it by time")
        frames, done = np.full(count, -1, np.int64), np.zeros(1, np.int64)
        row = 0
        for number, batch in enumerate(self._read(COLUMNS_BEFORE)):
            self._validate(batch, number)
            check_frames(self.path, pa.Table.from_batches([batch]), self.meta, row)
            row += batch.num_rows
            _live_before(*_lists(batch["slots"]), *_lists(batch["frames"]), frames, done)
        return frames

    def _read(self, columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
        """The batches as stored, these columns alone."""
        with opened(self.path, self._source) as whole:
            wanted = sorted(whole.schema.names.index(name) for name in columns)
            schema = pa.schema([STORED.field(whole.schema.names[k]) for k in wanted])
        options = pa.ipc.IpcReadOptions(included_fields=wanted)
        with opened(self.path, self._source, options) as reader:
            for number in range(reader.num_record_batches):
                try:
                    batch = reader.get_batch(number)
                except MemoryError:
                    raise
                except (pa.ArrowException, OSError, ValueError) as error:
                    raise self._damaged(error, number) from None
                memory.need(memory.used(), f"{self.path}: reading it", "split it by time")
                yield as_schema(self.path, batch, schema)

    def _damaged(self, error: Exception, number: int) -> InputError:
        return InputError(self.path, f"is damaged ({str(error).splitlines()[0]})",
                          f"batch {number}")


def open_batches(path: Path, allow_loss: bool = False) -> Batches:
    """The batches of a trace file; InputError says what is wrong with it. allow_loss: of one that
    was cut those that are whole."""
    source = current(seen_as_arrow(path), allow_loss, SLOT_BYTES + SLOT_BYTES_EACH)
    return Batches(path, source, lambda: load(path, allow_loss), file=True)


def batches_of(trace: Trace, path: Path | None = None) -> Batches:
    """The same of a trace in memory, whose rows are written there once more. path: for errors."""
    made = compact(trace.table.combine_chunks(), trace.meta.name, trace.meta.start)
    wanted = [name for name in STORED.names if name in (*COLUMNS_READ, *COLUMNS_BEFORE, *TELLING)]
    schema = pa.schema([STORED.field(name) for name in wanted],
                       metadata(replace(trace.meta, bounds=made.bounds)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in made.batches(BATCH_ROWS):
            writer.write_batch(batch.select(wanted))
    rows = sink.getvalue()
    return Batches(path or Path(trace.meta.name), lambda: pa.BufferReader(rows), lambda: trace)


def _lists(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists as where each ends, and all values, -1 where one is null."""
    column = pc.fill_null(column, pa.scalar([], column.type)) if column.null_count else column
    values = pc.fill_null(column.values, -1) if column.values.null_count else column.values
    return (column.offsets.to_numpy().astype(np.int64),
            values.to_numpy(zero_copy_only=False).astype(np.int64))


@compiled
def _live_before(  # type: ignore[no-untyped-def]
        run_ends, runs, frame_ends, frames, found, done):
    """The recorded frames of pages that were live before, in the order in which they are freed."""
    for r in range(len(run_ends) - 1):
        page = frame_ends[r]
        for k in range(run_ends[r], run_ends[r + 1] - 1, 2):
            size = abs(runs[k + 1])
            if size < 0 or size > LARGEST_REQUEST:  # 2^63 has no counterpart above 0
                break
            if runs[k] == BEFORE:
                for p in range(min(size, len(found) - done[0])):
                    if page + p < frame_ends[r + 1]:
                        found[done[0]] = frames[page + p]
                    done[0] += 1
            page += size
