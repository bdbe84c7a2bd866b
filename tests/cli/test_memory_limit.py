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
from replay.trace.schema import STORED
from replay.trace.store import BATCH_ROWS, load, write
from replay.trace.synthetic import STREAM_BYTES

from driving import ROOT, cli, refused, small  # isort: skip

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
    assert cli("run", TRACE, "--memory-limit", "2G", "--allocator", "nop", "--out", out).code == 0


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


def test_a_file_that_holds_far_more_than_its_size_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Batches of nothing compress to a thousandth."""
    meta, path = load(small(tmp_path / "s.arrow")).meta, tmp_path / "bomb.arrow"
    rows = 1 << 16
    lost = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int16)), ["lost"])
    filled = {"time_ns": pa.array(np.zeros(rows, np.int64)), "kind": lost}
    empty = pa.RecordBatch.from_arrays([
        filled.get(field.name, pa.nulls(rows, field.type)) for field in STORED], schema=STORED)
    write(path, meta, [empty] * 100, "zstd")
    assert path.stat().st_size < 2 << 20
    limit = f"{(memory.used() >> 20) + 200}M"
    refused("info", path, "--memory-limit", limit, naming=(path, "reading it"))
