"""An xentrace file, record by record."""

from __future__ import annotations

import struct
from pathlib import Path
import pyarrow as pa
from replay.importers.source.imported import Imported
from replay.importers.xen.read import read_xentrace
import hashlib
import random
from collections.abc import Sequence
from typing import Any
import numpy as np
import pyarrow.compute as pc

GRANT_MAP, GRANT_UNMAP, SET_P2M, DECREASE = 0x10F001, 0x10F002, 0x10F004, 0x10F005
POD_POPULATE, POD_SPLINTER = 0x10F010, 0x10F012
LOST, WRAP = 0x1F001, 0x1F002


def record(event: int, *words: int, tsc: int | None = None) -> bytes:
    """One record."""
    header = event | len(words) << 28 | (tsc is not None) << 31
    time = () if tsc is None else (tsc & 0xFFFFFFFF, tsc >> 32)
    return struct.pack(f"<{1 + len(time) + len(words)}I", header, *time, *words)


def window(cpu: int, *records: bytes) -> bytes:
    """CPU_CHANGE and the records of one CPU."""
    body = b"".join(records)
    return struct.pack("<III", 0x2001F003, cpu, len(body)) + body


def wide(value: int) -> tuple[int, int]:
    """64 bits as two payload words."""
    return value & 0xFFFFFFFF, value >> 32


def read(tmp_path: Path, data: bytes, version: str | None = "4.17.7", hz: int = 10**9,
         t0_raw: int | None = None) -> Imported:
    """Import `data` as a file."""
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    return read_xentrace(path, hz=hz, xen_version=version, t0_raw=t0_raw)


def rows(imported: Imported, *columns: str) -> list[tuple[object, ...]]:
    """The named columns, row by row."""
    return [tuple(row[c] for c in columns) for row in imported.table.to_pylist()]
HZ = 2_596_140_000


def some_record(rng: random.Random, tsc: int | None) -> bytes:
    """Any record: the known events, also with too few words, and unknown ones."""
    number = rng.choice((1, 12, 20, 29, 42, 43, 999))
    order = rng.choice((0, 9, 18, 41))
    words = rng.choice(((), (rng.randrange(9),), (3, 4, 5), (1, 2, 3, 4, 5, 6, 7)))
    event = rng.choice((0x28004, 0x82021, 0x0FFF000 + rng.randrange(3), 0x1F002))
    call = number | 1 << 20 | rng.randrange(4) << 22
    return record(*rng.choice((
        (rng.choice((0x10F001, 0x10F002, 0x10F003, 0x41001)), rng.randrange(5)),
        (0x10F004, *wide(rng.getrandbits(40)), *wide(rng.getrandbits(64)), 13, 2 | order << 16),
        (0x10F005, *wide(rng.getrandbits(40)), 2 | order << 16, order),
        (0x10F010, *wide(5), *wide(6), 2 | order << 16, order), (0x10F012, 1, 0, 2, order),
        (rng.choice((0x20100D, 0x20200E)), call), (0x201001, 7, number), (0x201101, 7, 8, number),
        (rng.choice((0x82012, 0x82412)), number), (rng.choice((0x81002, 0x81103)), 18, 1, 2),
        (rng.choice((0x81001, 0x81401)),), (0x81001,), (0x81002, 1, 2),
        (0x21001 | rng.randrange(4) << 8 | rng.randrange(4) << 4, 6 << 16 | 3),
        (0x1F001, rng.randrange(100), 2 | 1 << 16, *wide(1)), (event, *words),
        (rng.choice((0x10F001, 0x10F004, 0x10F005, 0x20100D, 0x82012, 0x1F001)), *words),
    )), tsc=tsc)


def some_file(seed: int, backwards: bool, cpus: Sequence[int] = range(40)) -> bytes:
    """Windows of a few CPUs in any order; equal times abound."""
    rng = random.Random(seed)
    clock = dict.fromkeys(rng.sample(cpus, rng.randrange(1, 9)), 1000)
    windows = []
    for _ in range(rng.randrange(1, 30)):
        cpu, body = rng.choice(list(clock)), []
        for _ in range(rng.randrange(12)):
            clock[cpu] += rng.choice((0, 0, 1, 5, -3 if backwards else 2))
            body.append(some_record(rng, clock[cpu] if rng.random() < 0.7 else None))
        windows.append(window(cpu, *body))
    data = b"".join(windows)
    last = len(windows[-1]) - 12  # a file may end inside its last window
    return data[: len(data) - rng.randrange(last)] if last and rng.random() < 0.3 else data


def digest(table: pa.Table) -> str:
    """Of all that a reader of the table sees, in whatever chunks and with whatever under nulls."""
    found = hashlib.sha256(str(table.schema).encode())
    for name in table.column_names:
        column: Any = table[name].combine_chunks()
        found.update(column.is_valid().to_numpy(zero_copy_only=False).tobytes())
        if pa.types.is_dictionary(column.type):
            found.update(repr(column.dictionary.to_pylist()).encode())
            column = column.indices
        elif pa.types.is_list(column.type):
            found.update(pc.fill_null(pc.list_value_length(column), -1).to_numpy().tobytes())
            column = column.flatten()
        values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()[:32]
