"""Seeded damage to trace files: to what their schema says, to columns, dictionaries, lists, batches,
and to the bytes of buffers, of the footer, of the file."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.trace import messages
from replay.trace.opening import KEY
from replay.trace.store import Trace, load, save

from driving import ROOT, rewrite, small  # isort: skip
from mutations import EDGES, by_byte, edge, put  # isort: skip
from odd_values import TEXTS, damage, json_text  # isort: skip

Random = random.Random
ROWS = (24, 12, 3, 96)
"""Of the bases: mostly few, since what is there to be damaged lies before the rows."""
SHIPPED = ("pvh-dom0", "pv-dom0", "arm64-dom0", "arm64-dom0-no-regions")


@dataclass
class Stored:
    """A trace file to be written. said: its metadata. columns: by name, in their order."""

    said: Any
    columns: list[tuple[str, pa.Array]]

    @property
    def rows(self) -> int:
        """Of the longest column."""
        return max((len(column) for _, column in self.columns), default=0)


@cache
def bases(folder: Path) -> tuple[Path, ...]:
    """Small good traces of both versions: of models, and the beginnings of recordings."""
    folder.mkdir(exist_ok=True)
    wholes = {"models": load(small(folder / "whole.arrow", "gntdev", "target", "xenbus")),
              **{name: load(ROOT / f"traces/{name}.arrow") for name in SHIPPED}}
    made = []
    for rows in ROWS:
        for name, whole in wholes.items():
            made.append(folder / f"{name}-{rows}.arrow")
            begin = whole.table["kind"].to_pylist().index("alloc")
            save(Trace(whole.table.slice(begin, rows), whole.meta), made[-1], "none")
    return (*made, *(rewrite(path, folder / f"old-{path.name}") for path in made))


@cache
def _read(path: Path) -> tuple[bytes, pa.Table]:
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all().combine_chunks()
    return table.schema.metadata[KEY], table


def stored(path: Path) -> Stored:
    """A base, read without the checks of the program."""
    said, table = _read(path)
    return Stored(json.loads(said), [
        (name, _whole(column)) for name, column in zip(table.schema.names, table.columns, strict=True)])


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def written(rng: Random, made: Stored, metadata: dict[bytes, bytes] | None = None,
            compression: str | None = "", sizes: tuple[int, ...] = (3, 16, 40, 40, 1000, 1000)) -> bytes:
    """The bytes of a file with batches of some sizes, some of them empty."""
    if metadata is None:
        metadata = {KEY: json.dumps(made.said).encode()}
    arrays = [column for _, column in made.columns]
    schema = pa.schema([(name, column.type) for name, column in made.columns], metadata=metadata)
    rows = min(map(len, arrays), default=0)
    chosen = rng.choice((None, "lz4", "zstd")) if compression == "" else compression
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(
            compression=chosen, unify_dictionaries=True)) as writer:
        size, at = rng.choice(sizes), 0
        while at < rows:
            if rng.random() < 0.02:
                writer.write_batch(pa.RecordBatch.from_arrays(
                    [one.slice(0, 0) for one in arrays], schema=schema))
            writer.write_batch(pa.RecordBatch.from_arrays(
                [one.slice(at, size) for one in arrays], schema=schema))
            at += size
    return sink.getvalue()


# -- what the schema says ------------------------------------------------------------------------
def by_metadata(rng: Random, path: Path) -> bytes:
    """Other values in the metadata, or bytes that are no JSON, or no UTF-8."""
    made = stored(path)
    said = damage(rng, made.said, rng.choice((1, 1, 1, 2, 4)))
    try:
        text = json_text(rng, said)
    except ValueError:  # a surrogate in another encoding
        text = b"{}"
    more = rng.choice(({}, {}, {}, {}, {b"\xff": b"x"}, {b"other": b"\xfe\xff"}, {b"": b""}))
    return written(rng, made, rng.choice(({KEY: text, **more},) * 30 + ({}, more)))


# -- columns -------------------------------------------------------------------------------------
def by_column(rng: Random, path: Path) -> bytes:
    """Columns with other values, or missing, doubled, exchanged, renamed, of another type."""
    made, touched = stored(path), set()
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        k = rng.randrange(len(made.columns))
        name, column = made.columns[k]
        if name in touched or len(made.columns) < 2:  # what is damaged no library may work on
            continue
        touched.add(name)
        kind = rng.randrange(14)
        if kind == 0:
            del made.columns[k]
        elif kind == 1:
            made.columns.insert(rng.randrange(len(made.columns)), made.columns[k])
        elif kind == 2:
            j = rng.randrange(len(made.columns))
            made.columns[k], made.columns[j] = made.columns[j], made.columns[k]
        elif kind == 3:
            made.columns[k] = (rng.choice(TEXTS[:3]) + name.upper(), column)
        elif kind == 4:
            made.columns[k] = (name, _retyped(rng, column))
        else:
            made.columns[k] = (name, _other_values(rng, column))
    return written(rng, made)


TYPES = (pa.int8(), pa.int32(), pa.uint64(), pa.float64(), pa.string(), pa.large_string(),
         pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.bool_(), pa.null(), pa.binary(),
         pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.uint8(), pa.large_string()),
         pa.dictionary(pa.int16(), pa.int64()), pa.timestamp("ns"), pa.decimal128(30, 2),
         pa.struct([("a", pa.int64())]), pa.string_view(), pa.run_end_encoded(pa.int32(), pa.int64()),
         pa.list_(pa.int64(), 2))


def _retyped(rng: Random, column: pa.Array) -> pa.Array:
    to = rng.choice(TYPES)
    if pa.types.is_fixed_size_list(to):  # such a cast ends pyarrow 26.0.1 in a segmentation fault
        return pa.nulls(len(column), to)
    try:
        return column.cast(to, safe=False)
    except (pa.ArrowException, ValueError, TypeError):
        return pa.nulls(len(column), pa.null() if pa.types.is_run_end_encoded(to) else to)


def _other_values(rng: Random, column: pa.Array) -> pa.Array:
    if not len(column):
        return column
    if pa.types.is_dictionary(column.type):
        return _other_texts(rng, column)
    values = column.to_pylist()
    for _ in range(rng.choice((1, 1, 2, 9))):
        at = rng.randrange(len(values))
        if pa.types.is_list(column.type):
            values[at] = _other_list(rng, values[at])
        elif pa.types.is_integer(column.type):
            values[at] = _fitting(rng, values[at], column.type.bit_width,
                                  signed=pa.types.is_signed_integer(column.type))
        else:
            return column
    if rng.random() < 0.1:
        values = values[at:] + values[:at]
    return pa.array(values, column.type)


def _fitting(rng: Random, old: Any, bits: int, *, signed: bool = True) -> int | None:
    value = rng.choice((None, edge(rng, old or 0), -edge(rng), (old or 0) + 1, rng.choice(EDGES)))
    least = -(1 << bits - 1) if signed else 0
    return None if value is None else (value - least) % (1 << bits) + least


def _other_list(rng: Random, old: list[Any] | None) -> list[Any] | None:
    made = list(old or ())
    for _ in range(rng.choice((1, 2))):
        kind = rng.randrange(6)
        if kind == 0:
            return rng.choice((None, [], made * 2))
        if kind == 1 or not made:
            made.insert(rng.randrange(len(made) + 1), _fitting(rng, 0, 64))
        elif kind == 2:
            del made[rng.randrange(len(made))]
        else:
            at = rng.randrange(len(made))
            made[at] = _fitting(rng, made[at], 64)
    return made


def _other_texts(rng: Random, column: pa.DictionaryArray) -> pa.Array:
    """Another dictionary, or other places in it."""
    texts, codes = column.dictionary.to_pylist(), column.indices.to_pylist()
    kind = rng.randrange(8)
    if kind == 0:
        texts = []
    elif kind == 1:
        texts = [rng.choice((None, text)) for text in texts]
    elif kind == 2 and texts:
        texts = [*texts, *texts[:1]]
        codes = [rng.choice((code, len(texts) - 1)) for code in codes]
    elif kind == 3:
        texts = [*texts, *TEXTS[:2]]
    elif kind == 4 and texts:
        texts[rng.randrange(len(texts))] = rng.choice((None, *(t for t in TEXTS if t.isprintable())))
    else:
        for _ in range(rng.choice((1, 3))):
            at = rng.randrange(len(codes))
            kind = column.type.index_type
            codes[at] = rng.choice((rng.randrange(len(texts) or 1), len(texts), _fitting(
                rng, len(texts), kind.bit_width, signed=pa.types.is_signed_integer(kind))))
    try:
        values = pa.array(texts, column.type.value_type)
    except UnicodeEncodeError:
        values = column.dictionary
    indices = pa.array(codes, column.type.index_type)
    return pa.DictionaryArray.from_buffers(  # which looks at nothing
        pa.dictionary(indices.type, values.type), len(indices), indices.buffers(), values)


# -- rows ----------------------------------------------------------------------------------------
def by_row(rng: Random, path: Path) -> bytes:
    """Rows left out, doubled, exchanged, or none at all; batches of other sizes."""
    made = stored(path)
    rows = np.arange(made.rows)
    kind = rng.randrange(6)
    at, to = sorted(rng.randrange(made.rows + 1) for _ in range(2))
    if kind == 0:
        rows = rows[:rng.choice((0, 1, 2, at))]
    elif kind == 1:
        rows = np.delete(rows, slice(at, min(to, at + rng.choice((1, 2, 50)))))
    elif kind == 2:
        rows = np.insert(rows, at, rows[at:to][:rng.choice((1, 3))])
    elif kind == 3 and at < to < len(rows):
        rows[[at, to]] = rows[[to, at]]
    elif kind == 4:
        rows = rows[at:]
    made.columns = [(name, column.take(pa.array(rows))) for name, column in made.columns]
    if rng.random() < 0.3 and isinstance(made.said, dict):
        made.said["bounds"] = damage(rng, {**made.said.get("bounds", {})})
    return written(rng, made)


# -- bytes ---------------------------------------------------------------------------------------
def _buffers(data: bytes) -> Iterator[tuple[int, int]]:
    """Place and length of each buffer of the messages in a file."""
    at = messages.MAGIC_BYTES
    while at + 8 <= len(data):
        continues, length = struct.unpack_from("<Ii", data, at)
        if continues != messages.CONTINUES or length <= 0:
            return
        head = data[at + 8:at + 8 + length]
        kind, body, _, buffers, _ = messages._said_by(head)
        if kind in (messages.BATCH, messages.DICTIONARY):
            yield from ((at + 8 + length + offset, size) for offset, size in buffers if size)
        at += 8 + length + body


def by_buffer(rng: Random, path: Path) -> bytes:
    """Numbers in the buffers of a file as it lies: offsets of lists, places in dictionaries, bits
    that say which values are null, values; of packed ones the length that they announce."""
    made = stored(path)
    if rng.random() < 0.3:
        made.columns = [(n, c) for n, c in made.columns if rng.random() < 0.97]
    data = bytearray(written(rng, made, compression=rng.choice((None, None, "lz4", "zstd"))))
    found = list(_buffers(bytes(data)))
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not found:
            break
        at, size = rng.choice(found)
        width = rng.choice((2, 4, 4, 8))
        place = at + (0 if rng.random() < 0.2 else rng.randrange(0, max(size, 1), width))
        old = int.from_bytes(data[place:place + width], "little")
        if place + width > at + size:
            continue
        if rng.random() < 0.2 and size >= 2 * width:
            other = at + rng.randrange(0, size - width + 1, width)
            data[place:place + width] = data[other:other + width]
        else:
            put(data, place, width, rng.choice((edge(rng, old), -edge(rng), old + 1, old - 1)))
    return bytes(data)


def by_end(rng: Random, path: Path) -> bytes:
    """A footer that points elsewhere, heads of messages that say another thing, files cut off."""
    data = bytearray(written(rng, stored(path)))
    kind = rng.randrange(4)
    (length,) = struct.unpack_from("<i", data, len(data) - 10)
    if kind == 0:
        del data[rng.randrange(len(data)):]
    elif kind == 1:
        at = messages.MAGIC_BYTES
        heads = []
        while at + 8 <= len(data) - length:
            _, size = struct.unpack_from("<Ii", data, at)
            if size <= 0:
                break
            heads.append((at, size))
            at += 8 + size + messages._said_by(bytes(data[at + 8:at + 8 + size]))[1]
        at, size = rng.choice(heads)
        place = rng.randrange(at, at + 8 + size, 4)
        put(data, place, 4, edge(rng, int.from_bytes(data[place:place + 4], "little")))
    else:
        begin = len(data) - 10 - length
        for _ in range(rng.choice((1, 2, 3))):
            place = rng.randrange(begin, len(data) - 6, 4)
            old = int.from_bytes(data[place:place + 4], "little")
            put(data, place, rng.choice((4, 4, 8)), rng.choice((
                edge(rng, old), old + rng.choice((-512, -64, 64, 512)), 0)))
    return bytes(data)


def by_bytes(rng: Random, path: Path) -> bytes:
    """By byte."""
    data = written(rng, stored(path))
    return by_byte(rng, data, [data])


DAMAGES: tuple[Callable[[Random, Path], bytes], ...] = (
    by_metadata, by_metadata, by_column, by_column, by_row, by_buffer, by_buffer, by_end, by_bytes)
