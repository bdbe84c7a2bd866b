"""Files that break what they promise: a sentence with batch and row, before anything is replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from replay.base.errors import InputError, ReplayError
from replay.physmap import presets
from replay.trace import batches as reading
from replay.trace.batches import open_batches
from replay.trace.schema import STORED
from replay.trace.store import load, save
from replay.trace.synthetic import synthesize

from driving import refused  # isort: skip
from stored_files import changed  # isort: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "good.arrow"
    save(synthesize("good", ["gntdev", "target"], seed=1, duration_s=1,
                    machine=presets.load("qemu-q35-pvh")), path)
    return path


def nth(which: str, n: int, **values: Any):  # type: ignore[no-untyped-def]
    """Sets columns of the n-th row of a kind; a function is called with the row."""
    def change(rows: list[dict[str, Any]]) -> int:
        row = [row for row in rows if row["kind"] == which][n]
        row.update({name: value(row) if callable(value) else value
                    for name, value in values.items()})
        return rows.index(row)
    return change


def twice(kind: str):  # type: ignore[no-untyped-def]
    """Lets one row of a kind happen twice."""
    def change(rows: list[dict[str, Any]]) -> None:
        at = next(k for k, row in enumerate(rows) if k > 80 and row["kind"] == kind)
        rows.insert(at + 1, dict(rows[at]))
    return change


WRONG = {
    "unsorted": (nth("alloc", 60, time_ns=1), "time_ns runs backwards"),
    "before time": (nth("alloc", 0, time_ns=-1), "time_ns runs backwards"),
    "no time": (nth("alloc", 60, time_ns=None), "a row has no time_ns"),
    "no kind": (nth("alloc", 60, kind=None), "a row has no kind"),
    "kind": (nth("alloc", 60, kind="allocate"), "unknown event kinds"),
    "slot beyond": (nth("alloc", 60, slot=1 << 20), "slots 1048576 to"),
    "slot far beyond": (nth("alloc", 60, slot=(1 << 63) - 1), "slots 9223372036854775807 to"),
    "no slot": (nth("alloc", 60, slot=None), "slots -1 to"),
    "onto a live one": (twice("alloc"), "allocates onto slot"),
    "freed twice": (twice("free"), "frees slot"),
    "no pages": (nth("alloc", 60, nr_pages=0), "a request of 0 pages"),
    "too many pages": (nth("alloc", 60, nr_pages=1 << 40), "a request of 1099511627776 pages"),
    "pages below 0": (nth("free", 60, nr_pages=-5), "a request of -5 pages"),
    "no runs": (nth("free", 60, slots=None), "with slots of 0"),
    "half a run": (nth("free", 60, slots=lambda row: row["slots"][:-1]), "a free of"),
    "empty run": (nth("free", 60, slots=[0, 0]), "a run of slots of 0 pages from 0"),
    "run beyond": (nth("free", 60, slots=[1 << 40, 1], nr_pages=1), "slots 1099511627776 to"),
    "run below": (nth("free", 60, slots=[0, -2], nr_pages=2), "slots -1 to 0"),
    "run too long": (nth("free", 60, slots=[0, 1 << 40]), "a run of slots of 1099511627776"),
    "least run": (nth("free", 60, slots=[0, -1 << 63]), "a run of slots of -9223372036854775808"),
    "run from nowhere": (nth("free", 60, slots=[-3, 1], nr_pages=1), "a run of slots of 1 pages"),
    "unknown downwards": (nth("free", 60, slots=[-1, -1], nr_pages=1), "a run of slots of -1"),
    "not live before": (nth("free", 60, slots=[-2, 1], nr_pages=1), "1 pages that were live"),
    "null in a run": (nth("free", 60, slots=[None, 1]), "holds nulls"),
    "target": (nth("target", 3, target_pages=1 << 50), "a target of"),
    "target below 0": (nth("target", 3, target_pages=-1), "a target of -1 pages"),
    "release of nothing": (nth("alloc", 60, kind="release", value=1 << 40), "a release of row"),
    "release without": (nth("alloc", 60, kind="release", value=None), "a release of row -1"),
    "release of a free slot": (nth("alloc", 60, kind="release", value=0), "which did not fail"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_row_is_named_by_batch_and_row(name: str, good: Path, tmp_path: Path) -> None:
    change, says = WRONG[name]
    bad = changed(good, tmp_path / "bad.arrow", change)
    for read in (lambda: list(open_batches(bad)), lambda: load(bad)):
        with pytest.raises(InputError) as found:
            read()
        assert says in str(found.value)
        assert f"{bad}, batch " in str(found.value)
    refused("info", bad, naming=(bad, "batch", says))


def test_the_row_that_is_named_is_the_one(good: Path, tmp_path: Path) -> None:
    change = nth("alloc", 60, slot=1 << 20)
    at: list[int] = []
    bad = changed(good, tmp_path / "bad.arrow", lambda rows: at.append(change(rows)))
    with pytest.raises(InputError, match=f"batch {at[0] // 64}, row {at[0] % 64}: "):
        list(open_batches(bad))


def test_batches_before_a_wrong_row_are_handed_out(good: Path, tmp_path: Path) -> None:
    bad = changed(good, tmp_path / "bad.arrow", nth("alloc", 60, slot=1 << 20))
    found = []
    with pytest.raises(InputError):
        found += [found.append(batch) for batch in open_batches(bad)]
    assert len(found) >= 1
    assert max(batch.event.max() for batch in found) < 60 * 3


@pytest.mark.parametrize(("bounds", "says"), [
    ({"slots": 3}, "are not within the number that the metadata announces"),
    ({"live_pages": 3}, "pages are live, the metadata announces at most 3"),
    ({"live_pages": 1 << 20}, "announces live_pages 1048576, its rows have"),
    ({"request_pages": 2}, "the metadata announces at most 2"),
    ({"request_pages": 5000}, "announces request_pages 5000"),
    ({"target_pages": 2}, "a target of"),
    ({"target_pages": 1 << 36}, "announces target_pages"),
    ({"before": 5, "live_pages": 9000}, "announces live_pages 9000, its rows have"),
    ({"last_ns": 1000}, "the metadata announces 1000 as the last"),
    ({"last_ns": 1 << 53}, "announces last_ns"),
    ({"slots": 1 << 33}, "announces 8589934592 slots"),
    ({"slots": (1 << 33) + 1}, "bounds.slots is not a whole number"),
    ({"before": 1 << 33}, "8589934592 pages live before"),
    ({"slots": -1}, "bounds.slots is not a whole number"),
    ({"slots": 1.5}, "bounds.slots is not a whole number"),
    ({"slots": True}, "bounds.slots is not a whole number"),
    ({"slots": None}, "bounds.slots is not a whole number"),
    ({"pages": 1}, "bounds is not an object of"),
])
def test_bounds_that_the_rows_do_not_keep(bounds: dict[str, Any], says: str, good: Path,
                                          tmp_path: Path) -> None:
    bad = changed(good, tmp_path / "bad.arrow", bounds=bounds)
    for read in (lambda: list(open_batches(bad)), lambda: load(bad)):
        with pytest.raises(InputError) as found:
            read()
        assert says in str(found.value)


def raw(good: Path, to: Path, change: Any) -> Path:
    """The file with batches that Arrow would not make, each from one of the good file's."""
    with pa.OSFile(str(good)) as file:
        table = pa.ipc.open_file(file).read_all()
    [batch] = table.combine_chunks().to_batches()
    columns = {name: batch[name] for name in batch.schema.names}
    columns.update(change(columns))
    made = pa.RecordBatch.from_arrays(list(columns.values()), schema=table.schema)
    with pa.OSFile(str(to), "wb") as sink, pa.ipc.new_file(sink, made.schema) as writer:
        writer.write_batch(made)
    return to


def with_buffer(column: pa.Array, at: int, values: list[int], kind: Any) -> pa.Array:
    """The first values of one of a column's buffers set to others."""
    buffers = column.buffers()
    data = np.frombuffer(buffers[at], kind).copy()
    data[: len(values)] = values
    buffers[at] = pa.py_buffer(data.tobytes())
    if pa.types.is_list(column.type):
        return pa.Array.from_buffers(column.type, len(column), buffers[:2],
                                     children=[column.values])
    return pa.Array.from_buffers(column.type, len(column), buffers)


@pytest.mark.parametrize(("name", "values"), [
    ("kind", [99]), ("kind", [-5]), ("task", [99]), ("task", [-7]), ("caller", [3000])])
def test_a_number_beyond_its_dictionary(name: str, values: list[int], good: Path,
                                        tmp_path: Path) -> None:
    def change(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        codes = with_buffer(columns[name].indices, 1, values, "<i2")
        return {name: pa.DictionaryArray.from_arrays(codes, columns[name].dictionary, safe=False)}

    bad = raw(good, tmp_path / "bad.arrow", change)
    with pytest.raises(InputError, match="batch 0"):
        list(open_batches(bad))
    refused("info", bad, naming=(bad,))


@pytest.mark.parametrize("ends", [[0, 1 << 30], [0, 50, 2]])
def test_lists_that_overlap(ends: list[int], good: Path, tmp_path: Path) -> None:
    bad = raw(good, tmp_path / "bad.arrow",
              lambda columns: {"slots": with_buffer(columns["slots"], 1, ends, "<i4")})
    with pytest.raises(InputError):
        list(open_batches(bad))
    refused("info", bad, naming=(bad,))


@pytest.mark.parametrize("name", reading.COLUMNS_READ)
def test_a_column_that_is_missing_or_of_another_type(name: str, good: Path, tmp_path: Path) -> None:
    with pa.OSFile(str(good)) as file:
        table = pa.ipc.open_file(file).read_all()
    at = STORED.names.index(name)
    for k, other in enumerate((table.drop_columns([name]),
                               table.set_column(at, name, pa.nulls(table.num_rows, pa.bool_())))):
        path = tmp_path / f"{k}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, other.schema) as writer:
            writer.write_table(other)
        with pytest.raises(InputError, match=name):
            list(open_batches(path))


def test_a_file_that_is_cut_or_damaged_anywhere(good: Path, tmp_path: Path) -> None:
    whole, bad = good.read_bytes(), tmp_path / "bad.arrow"
    for at in range(0, len(whole), len(whole) // 150):
        bad.write_bytes(whole[:at])
        with pytest.raises(InputError):
            list(open_batches(bad))
        bad.write_bytes(whole[:at] + bytes(b ^ 0x55 for b in whole[at : at + 6]) + whole[at + 6 :])
        try:
            list(open_batches(bad))
        except ReplayError as error:
            assert str(bad) in str(error)
