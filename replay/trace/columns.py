"""Plain numpy views of a trace's columns: nulls become a stated value, lists become flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from replay.base.arrow import compute as pc

NONE = -(1 << 62)
"""Stands for null in integer columns; no recorded quantity comes near it."""


@dataclass(frozen=True)
class Ragged:
    """A list column: row r holds values[start[r] : start[r] + length[r]]."""

    start: np.ndarray
    length: np.ndarray
    values: np.ndarray

    def row(self, r: int) -> np.ndarray:
        """The values of row r, empty where the list is null."""
        return self.values[self.start[r] : self.start[r] + self.length[r]]


def ints(table: pa.Table, name: str, null: int = NONE) -> np.ndarray:
    """An integer column as int64, `null` where it is null."""
    column = table[name]
    if column.null_count == len(column):
        return np.full(len(column), null, np.int64)
    column = pc.fill_null(column.cast(pa.int64()), null) if column.null_count else column
    return np.array(column.combine_chunks().to_numpy(zero_copy_only=False), np.int64)


def numbered(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Integers as numbers from 0 on, in the order in which they first appear; how many differ."""
    found = pa.array(values).dictionary_encode()
    return found.indices.to_numpy().astype(np.int64), len(found.dictionary)


def strings(table: pa.Table, name: str) -> np.ndarray:
    """A text column as objects, "" where it is null."""
    column = pc.fill_null(table[name].cast(pa.string()), "")
    return column.combine_chunks().to_numpy(zero_copy_only=False).astype(object)


def encoded(table: pa.Table, name: str) -> tuple[np.ndarray, list[str]]:
    """A text column as a number per row and the texts they stand for, "" where it is null."""
    column = table[name].unify_dictionaries().combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    texts = [text or "" for text in column.dictionary.to_pylist()]
    codes = column.indices
    if codes.null_count:
        codes = pc.fill_null(codes.cast(pa.int64()), len(texts))
    return codes.to_numpy(zero_copy_only=False).astype(np.int64), [*texts, ""]


def is_kind(table: pa.Table, *kinds: str) -> np.ndarray:
    """A boolean mask of the rows of these kinds."""
    codes, names = encoded(table, "kind")
    return np.array([name in kinds for name in names], bool)[codes]


def ragged(table: pa.Table, name: str) -> Ragged:
    """A list<int64> column as flat values; null lists and null elements become empty and -1."""
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    values = pc.fill_null(column.flatten(), -1).to_numpy(zero_copy_only=False)
    lengths = lengths.astype(np.int64)
    start = np.concatenate(([0], np.cumsum(lengths)))[:-1] if len(lengths) else lengths
    return Ragged(start.astype(np.int64), lengths, values.astype(np.int64))


def lists(rows: dict[int, np.ndarray], count: int) -> pa.Array:
    """A list<int64> Arrow array of `count` rows: null but for those that have an array."""
    places = sorted(rows)
    lengths, absent = np.zeros(count, np.int64), np.ones(count, np.bool_)
    lengths[places] = [len(rows[r]) for r in places]
    absent[places] = False
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    values = np.concatenate([rows[r] for r in places] or [np.zeros(0, np.int64)])
    mask = pa.array(absent)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.int64()),
                                    mask=mask)


def replace(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The table with one column exchanged, its type kept."""
    at = table.schema.get_field_index(name)
    field = table.schema.field(at)
    return table.set_column(at, field, values.cast(field.type))
