"""Rows of a recording in their order, gone through as often as needed, a part at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from replay.base.arrow import compute as pc
from replay.base.scratch import Scratch, ScratchFile
from replay.trace.columns import is_kind
from replay.trace.schema import SCHEMA

PART_ROWS: Final = 1 << 15
"""Rows that are worked on at a time."""
CODED: Final = pa.schema([
    pa.field(field.name, field.type.index_type if pa.types.is_dictionary(field.type)
             else field.type) for field in SCHEMA])
"""schema.SCHEMA with numbers in the place of texts."""
TEXTS: Final = tuple(f.name for f in SCHEMA if pa.types.is_dictionary(f.type))
"""Columns of texts."""


def coded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of schema.SCHEMA without its dictionaries."""
    return pa.RecordBatch.from_arrays(
        [batch[f.name].indices if f.name in TEXTS else batch[f.name] for f in SCHEMA],
        schema=CODED)


def dictionaries(texts: dict[str, list[str]]) -> dict[str, pa.Array]:
    """What numbers stand for, by column, for named()."""
    return {name: pa.array(found, pa.string()) for name, found in texts.items()}


def named(batch: pa.RecordBatch, texts: dict[str, pa.Array]) -> pa.RecordBatch:
    """A batch of CODED with its dictionaries."""
    return pa.RecordBatch.from_arrays(
        [pa.DictionaryArray.from_arrays(batch[f.name], texts[f.name])
         if f.name in texts else batch[f.name] for f in SCHEMA], schema=SCHEMA)


class Rows:
    """Batches of rows, in memory while they are few and in a file beyond that.

    texts: of each column of texts, what its numbers stand for; it grows with the rows. last: time
    of the last one, 0 without. begins, first_times: number and time of the first row of each batch.
    """

    def __init__(self, scratch: Scratch) -> None:
        self.count = self.last = 0
        self.begins: list[int] = []
        self.first_times: list[int] = []
        self._flags: Counter[tuple[int, int]] = Counter()
        self.texts: dict[str, list[str]] = {name: [] for name in TEXTS}
        self._scratch = scratch
        self._kept: list[pa.RecordBatch | tuple[int, int]] = []
        self._file: ScratchFile | None = None

    @classmethod
    def of(cls, table: pa.Table, scratch: Scratch) -> Rows:
        """Those of a table of schema.SCHEMA."""
        rows, table = cls(scratch), table.unify_dictionaries()
        for name in TEXTS:
            chunks = table[name].chunks
            rows.texts[name] = chunks[0].dictionary.to_pylist() if chunks else []
        for batch in table.to_batches(max_chunksize=PART_ROWS):
            rows.append(coded(batch))
        return rows

    def append(self, batch: pa.RecordBatch) -> None:
        """Put rows of CODED behind the others."""
        if not batch.num_rows:
            return
        self.begins.append(self.count)
        self.count += batch.num_rows
        self.first_times.append(batch["time_ns"][0].as_py())
        self.last = batch["time_ns"][-1].as_py()
        kind, flags = (pc.fill_null(batch[name], 0).to_numpy(zero_copy_only=False).astype(np.int64)
                       for name in ("kind", "flags"))
        different, many = np.unique((kind << 32) + flags, return_counts=True)
        for both, number in zip(different.tolist(), many.tolist(), strict=True):
            self._flags[both >> 32, both & 0xFFFFFFFF] += number
        if self._file is None and self._scratch.takes(batch.nbytes):
            self._kept.append(batch)
            return
        self._file = self._file or self._scratch.file()
        self._kept.append(self._file.append(batch.serialize()))

    @property
    def kinds(self) -> dict[str, Counter[int]]:
        """Of each kind that occurs, by name."""
        found: dict[str, Counter[int]] = {}
        for (kind, flags), number in self._flags.items():
            found.setdefault(self.texts["kind"][kind], Counter())[flags] += number
        return found

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, as batches of schema.SCHEMA that share their dictionaries."""
        texts = dictionaries(self.texts)
        for number in range(len(self._kept)):
            yield named(self.read(number), texts)

    def read(self, number: int) -> pa.RecordBatch:
        """A batch by its number, of CODED."""
        kept = self._kept[number]
        return kept if isinstance(kept, pa.RecordBatch) else self._read(*kept)

    def select(self, names: Sequence[str], kinds: Sequence[str] = ()) -> pa.Table:
        """Some columns of all rows, or of those of some kinds, in memory."""
        parts = [pa.table([pa.array([], SCHEMA.field(name).type) for name in names], list(names))]
        for batch in self.batches():
            part = pa.Table.from_batches([batch])
            if kinds:
                part = part.filter(pa.array(is_kind(part, *kinds)))
            parts.append(part.select(list(names)))
        return pa.concat_tables(parts).unify_dictionaries()

    def _read(self, begin: int, size: int) -> pa.RecordBatch:
        assert self._file is not None
        return pa.ipc.read_record_batch(pa.py_buffer(self._file.read(begin, size)), CODED)

    def table(self) -> pa.Table:
        """All rows in memory."""
        return pa.Table.from_batches(self.batches(), SCHEMA).combine_chunks()
