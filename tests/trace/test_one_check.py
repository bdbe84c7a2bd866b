"""What is wrong with a trace is wrong to all verbs: the columns that no replay reads as well."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest

from replay.trace.schema import STORED

from driving import ROOT, cli, refused, small  # isort: skip

TRACE = ROOT / "traces/pvh-dom0.arrow"


def _written(path: Path, table: pa.Table, *, empty_first: bool = False) -> Path:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        if empty_first:
            writer.write_batch(pa.RecordBatch.from_arrays(
                [column.chunk(0).slice(0, 0) for column in table.columns], schema=table.schema))
        writer.write_table(table)
    return path


def _table(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all().combine_chunks()


def _everywhere(path: Path, tmp_path: Path, *naming: object) -> None:
    for verb in (["info", path], ["run", path, "--allocator", "nop", "--out", tmp_path / "run"],
                 ["verify", path], ["convert", path, tmp_path / "new.arrow"]):
        refused(*verb, naming=(path, *naming))


@pytest.mark.parametrize("name", ["lock_ns", "mfns", "label", "source_offset", "kind"])
def test_a_column_that_no_replay_reads_is_missing_or_of_another_type(
        name: str, tmp_path: Path) -> None:
    table = _table(TRACE)
    at = table.schema.get_field_index(name)
    for k, other in enumerate((table.drop_columns([name]), table.set_column(
            at, name, pa.nulls(table.num_rows)))):
        _everywhere(_written(tmp_path / f"{k}.arrow", other), tmp_path, name)


def test_lists_that_no_replay_reads_run_backwards(tmp_path: Path) -> None:
    table = _table(TRACE)
    at = table.schema.get_field_index("mfns")
    ends = pa.array([0, *([7, 3] * table.num_rows)][:table.num_rows + 1], pa.int32())
    lists = pa.ListArray.from_buffers(pa.list_(pa.int64()), table.num_rows, [None, ends.buffers()[1]],
                                      children=[pa.array(range(9), pa.int64())])
    _everywhere(_written(tmp_path / "t.arrow", table.set_column(at, STORED.field("mfns"), lists)),
                tmp_path, "damaged")


def test_an_extent_that_no_replay_reads_lies_beyond_all_memory(tmp_path: Path) -> None:
    table = _table(TRACE)
    at = table.schema.get_field_index("start_pfn")
    values = pa.array([1 << 62] * table.num_rows, pa.int64())
    _everywhere(_written(tmp_path / "t.arrow", table.set_column(at, "start_pfn", values)), tmp_path,
                "start_pfn")


def test_a_width_other_than_the_schemas_is_taken_by_all(tmp_path: Path) -> None:
    table = _table(TRACE)
    for name, kind in (("nr_pages", pa.int32()), ("cpu", pa.int64()), ("slots", pa.large_list(
            pa.int64()))):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].cast(kind))
    path = _written(tmp_path / "t.arrow", table)
    for verb in (["info", path], ["run", path, "--allocator", "nop", "--out", tmp_path / "run"],
                 ["verify", path], ["convert", path, tmp_path / "new.arrow"]):
        assert cli(*verb).code == 0, verb


def test_a_batch_without_rows_may_come_first(tmp_path: Path) -> None:
    path = _written(tmp_path / "t.arrow", _table(TRACE), empty_first=True)
    assert cli("info", path).code == 0
    assert cli("run", path, "--allocator", "nop", "--out", tmp_path / "run").code == 0


def test_a_length_that_no_buffer_can_have_is_no_want_of_memory(tmp_path: Path) -> None:
    """Of a file without a footer, whose batches are looked at to see which of them are whole."""
    source = small(tmp_path / "s.arrow")
    with pa.OSFile(str(source)) as file:
        table = pa.ipc.open_file(file).read_all()
    body = io.BytesIO()
    with pa.ipc.new_file(body, table.schema, options=pa.ipc.IpcWriteOptions(
            compression="lz4")) as writer:
        writer.write_table(table)
    data = bytearray(body.getvalue())
    at = data.rindex(bytes.fromhex("04224d18")) - 8  # before the last frame of LZ4: its length
    data[at:at + 8] = (1 << 60).to_bytes(8, "little")
    path = tmp_path / "t.arrow"
    path.write_bytes(data[:-20])
    for verb in ("info", "run", "verify"):
        refused(verb, path, naming=(path, "expands to more than 1000 times"))


@pytest.mark.parametrize("name", ["kind", "task", "caller"])
def test_texts_whose_offsets_run_backwards_are_refused(name: str, tmp_path: Path) -> None:
    """Before any text is looked at."""
    table = _table(TRACE)
    at = table.schema.get_field_index(name)
    column = table[name].chunk(0)
    ends = pa.array([0, *[90, 3] * len(column.dictionary)][:len(column.dictionary) + 1], pa.int32())
    texts = pa.StringArray.from_buffers(len(column.dictionary), ends.buffers()[1],
                                        pa.py_buffer(b"a" * 90))
    other = pa.DictionaryArray.from_buffers(column.type, len(column), column.indices.buffers(), texts)
    path = _written(tmp_path / "t.arrow", table.set_column(at, table.schema.field(at), other))
    _everywhere(path, tmp_path, "damaged")
