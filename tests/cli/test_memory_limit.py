"""--memory-limit: what would take more is refused in a sentence, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from replay.api import run_trace, synthesize
from replay.base import memory
from replay.base.errors import ReplayError
from replay.trace import store
from replay.trace.columns import ints, is_kind
from replay.trace.schema import STORED
from replay.trace.store import BATCH_ROWS, load, write
from replay.trace.synthetic import STREAM_BYTES
from replay.trace.weight import weigh

from driving import ROOT, cli, refused, rewrite, small  # isort: skip

TRACE = ROOT / "traces/pvh-dom0.arrow"


@pytest.fixture
def stated() -> Iterator[None]:
    yield
    memory.state(None)


@pytest.mark.parametrize(("text", "size"), [
    ("600M", 600 << 20), ("1.5GiB", 3 << 29), ("4 GB", 4 << 30), ("2k", 2048), ("17", 17)])
def test_sizes_are_read_in_binary_units(text: str, size: int) -> None:
    assert memory.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "G", "-1G", "1X", "1e9", "١G", "99999999999999999G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    refused("run", TRACE, "--memory-limit", text, naming=("--memory-limit", "4GiB"))


def test_by_default_it_is_three_quarters_of_what_there_is() -> None:
    assert 64 << 20 < memory.limit() < 1 << 45
    assert 0 < memory.used() < memory.limit()


def test_need_and_check_say_how_much_and_what_to_do(stated: None) -> None:
    memory.state(1 << 20)
    with pytest.raises(ReplayError, match=r"it takes about 2\.0 GiB of memory, 1 MiB may be used "
                       r"\(as --memory-limit says\): do less, or give --memory-limit"):
        memory.need(2 << 30, "it", "do less")
    with pytest.raises(ReplayError, match="it has taken .* of memory"):
        memory.check("it", "do less")
    memory.need(1 << 20, "it", "do less")


def test_a_run_beyond_it_is_refused_before_it_begins(tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused("run", TRACE, "--memory-limit", "20M", "--out", out, naming=("20 MiB", "--memory-limit"))
    assert not out.exists()
    assert memory.limit() > 20 << 20, "the limit is of that command alone"
    enough = f"{(memory.used() >> 20) + 1024}M"  # what this process holds already counts
    assert cli("run", TRACE, "--memory-limit", enough, "--allocator", "nop", "--out", out).code == 0


def test_a_run_states_its_need(stated: None) -> None:
    trace = load(TRACE)
    memory.state(20 << 20)
    with pytest.raises(ReplayError, match=r"replaying 8,383 rows with 37,135 pages through 4 "
                       r"allocators at once takes about 316 MiB of memory, 20 MiB may be used"):
        run_trace(trace, lock="lifo")
    memory.state(memory.used() + (100 << 20))
    with pytest.raises(ReplayError, match=r"replaying 32,504 pages that are live at once through 4 "
                       r"allocators takes about .* of memory"):
        run_trace(TRACE)


WHOLE = {
    "verify": ("verify", TRACE), "predict": ("predict", TRACE, "--profile", "x86"),
    "calibrate": ("calibrate", TRACE, "-o", "OUT.toml"), "sensitivity": ("sensitivity", TRACE),
    "closed loop": ("run", TRACE, "--closed-loop", "--out", "OUT"),
    "lock": ("run", TRACE, "--lock", "spin", "--out", "OUT"),
    "convert": ("convert", TRACE, "OUT.arrow"),
    "gate add": ("gate", "add", TRACE, "--history", "OUT", "--time", "2026-11-27T02:17"),
}
"""Verbs that need all rows at once."""


@pytest.mark.parametrize("name", list(WHOLE))
def test_what_needs_all_rows_is_refused_before_they_are_read(
        name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("the table is read")

    monkeypatch.setattr(store, "_expanded", fails)
    command = [str(tmp_path / word) if str(word).startswith("OUT") else word
               for word in WHOLE[name]]
    if command[0] == "run":  # which may read a batch, if it is not beyond the limit already
        monkeypatch.setattr(memory, "used", lambda: 10 << 20)
    said = refused(*command, "--memory-limit", "20M", naming=("20 MiB may be used", "at once"))
    assert "8,383 rows with 37,135 pages" in said
    assert list(tmp_path.iterdir()) == []


def test_the_weight_of_a_trace_is_that_of_its_table(tmp_path: Path) -> None:
    for path in (TRACE, small(tmp_path / "s.arrow", "gntdev"), rewrite(TRACE, tmp_path / "old")):
        table = load(path).table
        asked = ints(table, "nr_pages", 0)[is_kind(table, "alloc")]
        rows, pages = weigh(path)
        assert pages == asked.sum()
        assert len(table) <= rows <= len(table) + 100, "releases are rows of a file"


def test_control_groups_count_up_to_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             stated: None) -> None:
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("1:name=x:/y\n0::/a/b\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUP", own)
    for folder, most, taken in ((inner, "max", 5), (tmp_path / "a", "3000", 1000)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{taken}\n")
    assert list(memory._groups()) == [(3000, 1000)]
    memory.state(None)
    assert memory.limit() <= (memory.used() + (64 << 20)) * 3 // 4
    own.unlink()
    assert list(memory._groups()) == []


def test_a_synthetic_trace_takes_no_more_however_long_it_is(tmp_path: Path) -> None:
    out = tmp_path / "long.arrow"
    refused("synth", "-o", out, "--seconds", 86_400, "--memory-limit", f"{memory.used() >> 20}M",
            naming=("86400 s", "make room"))
    assert list(tmp_path.iterdir()) == []
    limit = f"{(memory.used() + 2 * STREAM_BYTES) >> 20}M"
    assert cli("synth", "-o", out, "--seconds", 300, "--memory-limit", limit).code == 0
    assert load(out).num_rows > 5 * BATCH_ROWS


def test_a_synthetic_trace_in_memory_beyond_it_is_given_up_while_it_is_made(stated: None) -> None:
    memory.state(memory.used() + STREAM_BYTES + (10 << 20))
    with pytest.raises(ReplayError, match=r"(requests up has taken|a synthetic trace, batch).* may be used"):
        synthesize("long", ["gntdev"], seconds=5000)


def test_an_import_beyond_it_is_given_up(tmp_path: Path) -> None:
    text, out = tmp_path / "t.txt", tmp_path / "t.arrow"
    text.write_text("# tracer: nop\nt-1 [000] ..... 1.000001: p: (kfree+0x0/0x10) nr=1\n")
    refused("import", text, "-o", out, "--memory-limit", "20M", naming=(text, "importing it"))
    assert not out.exists()


def test_a_file_that_holds_far_more_than_its_size_is_not_read_to_its_end(
        tmp_path: Path, stated: None) -> None:
    """Batches of little more than nothing compress to a hundredth."""
    meta, path = load(small(tmp_path / "s.arrow")).meta, tmp_path / "bomb.arrow"
    rows = 1 << 16
    times = np.sort(np.random.default_rng(1).integers(0, 1 << 40, 100 * rows)).reshape(100, rows)
    lost = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int16)), ["lost"])
    batches = [pa.RecordBatch.from_arrays([
        pa.array(ns) if field.name == "time_ns" else lost if field.name == "kind"
        else pa.nulls(rows, field.type) for field in STORED], schema=STORED) for ns in times]
    write(path, meta, batches, "zstd")
    limit = f"{(memory.used() >> 20) + 300}M"
    assert cli("info", path, "--memory-limit", limit).code == 0, "a batch at a time"
    refused("convert", path, tmp_path / "new.arrow", "--memory-limit", limit,
            naming=("converting 6,553,600 rows with 0 pages at once",))
    with pytest.raises(ReplayError, match="reading it takes about"):
        memory.state(memory.parse_size(limit))
        load(path)


def test_a_file_that_expands_a_thousandfold_is_not_read(tmp_path: Path) -> None:
    meta, path = load(small(tmp_path / "s.arrow")).meta, tmp_path / "bomb.arrow"
    rows = 1 << 18
    lost = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int16)), ["lost"])
    filled = {"time_ns": pa.array(np.zeros(rows, np.int64)), "kind": lost}
    nothing = pa.RecordBatch.from_arrays([
        filled.get(field.name, pa.nulls(rows, field.type)) for field in STORED], schema=STORED)
    write(path, meta, [nothing] * 20, "zstd")
    for verb in ("info", "run", "verify", "diff"):
        more = [TRACE] if verb == "diff" else []
        refused(verb, path, *more, naming=(path, "expands to more than 1000 times its size"))
