"""Metadata that are exchanged in a written file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from replay.trace.late import ROOM_BYTES, exchange, with_room


def written(path: Path, said: bytes, batches: int = 3) -> pa.Table:
    table = pa.table({"a": pa.array(range(1000)), "b": pa.array(["x", "y"] * 500)})
    with pa.ipc.new_file(str(path), table.schema.with_metadata({b"replay": said})) as writer:
        for _ in range(batches):
            writer.write_table(table)
    return table


@pytest.mark.parametrize("batches", [0, 1, 2000])
def test_both_places_say_the_new_and_the_rows_stay(tmp_path: Path, batches: int) -> None:
    path, before = tmp_path / "f.arrow", with_room(b'{"rows":0}')
    table = written(path, before, batches)
    size = path.stat().st_size
    after = b'{"rows":%d}' % 10 ** 300
    exchange(path, before, after)
    assert path.stat().st_size == size
    with pa.OSFile(str(path)) as file:
        read = pa.ipc.open_file(file)
        assert read.schema.metadata[b"replay"].rstrip() == after
        assert read.read_all().num_rows == batches * table.num_rows
    with pa.OSFile(str(path)) as file:
        file.seek(8)
        assert pa.ipc.open_stream(file).schema.metadata[b"replay"].rstrip() == after


def test_more_than_there_is_room_for_is_a_defect(tmp_path: Path) -> None:
    path, before = tmp_path / "f.arrow", with_room(b"{}")
    written(path, before)
    with pytest.raises(AssertionError):
        exchange(path, before, b"x" * (ROOM_BYTES + 3))
    with pytest.raises(AssertionError):
        exchange(path, with_room(b"[]"), b"{}")
