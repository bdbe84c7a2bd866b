"""A file whose releases are not where a writer puts them replays otherwise once written anew."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from replay.base.errors import InputError
from replay.physmap import presets
from replay.trace.batches import open_batches
from replay.trace.store import load, save
from replay.trace.synthetic import synthesize

from stored_files import changed  # isort: skip

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in which calls of two tasks fail that free other pages before, between and behind."""
    folder = tmp_path_factory.mktemp("released")
    trace = synthesize("good", ["gntdev"], seed=1, duration_s=1,
                       machine=presets.load("qemu-q35-pvh"))
    rows, made, taken, before = trace.table.to_pylist(), [], 0, []
    for k, row in enumerate(rows):
        if k >= 40 and k % 25 == 0:
            made.append({**row, "kind": "alloc", "nr_pages": 3, "slots": None, "errno": -12,
                         "pid": 100 + len(before) % 3})
            before.append(taken)
        row["pid"] = 100 + k % 2
        taken += row["nr_pages"] if row["kind"] == "alloc" else 0
        if row["slots"] is not None:  # pages are numbered in the order in which they are taken
            row["slots"] = [page + 3 * bisect_right(before, page) for page in row["slots"]]
        made.append(row)
    rows = made
    save(replace(trace, table=pa.Table.from_pylist(rows, trace.table.schema)),
         folder / "good.arrow")
    return folder / "good.arrow"


def read(path: Path) -> int:
    batches = open_batches(path)
    return sum(len(part.event) for part in batches)


def released(rows: Rows) -> list[int]:
    return [k for k, row in enumerate(rows) if row["kind"] == "release"]


def without_one(rows: Rows) -> None:
    del rows[released(rows)[-1]]


def earlier(rows: Rows) -> None:
    """A release that waits for its task's last free comes at once."""
    events = [k for k, one in enumerate(rows) if one["kind"] != "release"]
    at = next(k for k in released(rows)
              if rows[k]["time_ns"] > rows[events[rows[k]["value"]]]["time_ns"])
    call = events[rows[at]["value"]]
    row = rows.pop(at)
    rows.insert(call + 1, row | {"time_ns": rows[call]["time_ns"]})


def later(rows: Rows) -> None:
    """What is released at a task's last free is released behind the last row."""
    rows.append(rows.pop(released(rows)[-1]) | {"time_ns": rows[-1]["time_ns"]})


def of_one_that_was_served(rows: Rows) -> None:
    served = [k for k, one in enumerate(rows) if one["kind"] == "alloc" and not one["errno"]]
    rows[released(rows)[0]]["value"] = served[0]


def freed_behind(rows: Rows) -> None:
    """A task that freed nothing, whose pages were released at once, frees some later."""
    next(one for one in reversed(rows) if one["kind"] == "free")["pid"] = 102


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_what_a_writer_wrote_is_taken_in_batches_of_any_size(good: Path, tmp_path: Path, size: int
                                                              ) -> None:
    assert read(changed(good, tmp_path / "same.arrow", size=size)) == read(good)
    rows = pa.ipc.open_file(good.read_bytes()).read_all()
    assert rows["kind"].to_pylist().count("release") > 5


@pytest.mark.parametrize("size", [7, 100_000])
@pytest.mark.parametrize(("change", "said"), [
    (without_one, "no row releases what it would have got"),
    (earlier, "behind what is released at its last one|frees last at"),
    (later, "frees last at"),
    (of_one_that_was_served, "which did not fail"),
    (freed_behind, "behind what is released at its last one")])
def test_another_release_is_refused(good: Path, tmp_path: Path, size: int,
                                    change: Callable[[Rows], None], said: str) -> None:
    bad = changed(good, tmp_path / "bad.arrow", change, size=size)
    with pytest.raises(InputError, match=said):
        read(bad)
    with pytest.raises(InputError, match=said):
        load(bad)
