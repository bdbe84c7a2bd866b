"""Trace files without their end: what is wrong in a sentence, and what is whole with --allow-loss.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from replay.api import run_trace
from replay.base.errors import InputError
from replay.trace import store
from replay.trace.batches import open_batches
from replay.trace.cut import CutFile, cut_file
from replay.trace.messages import BATCH
from replay.trace.schema import STORED
from replay.trace.store import Trace, load, save

from driving import ROOT, cli, refused, rewrite  # isort: skip

ROWS = 1000
RECORDING = ROOT / "traces/pvh-dom0.arrow"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording in nine batches, the last of them smaller."""
    path = tmp_path_factory.mktemp("cut") / "whole.arrow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "BATCH_ROWS", ROWS)
        save(load(RECORDING), path)
    return path


def messages(path: Path) -> list[tuple[int, int]]:
    """Where each batch begins and how long it is, as Arrow's footer has it."""
    found = cut_file(path)
    assert isinstance(found, CutFile)
    return [(m.at, m.size) for m in found.messages if m.kind == BATCH]


def test_the_batches_found_from_the_front_are_those_of_the_footer(whole: Path) -> None:
    found = cut_file(whole)
    assert found is not None
    with pa.OSFile(str(whole)) as file, pa.ipc.open_file(file) as reader:
        assert found.schema.equals(reader.schema, check_metadata=True)
        assert (found.num_record_batches, found.count_rows()) == (
            reader.num_record_batches, reader.count_rows())
        for k in range(reader.num_record_batches):
            assert found.get_batch(k).equals(reader.get_batch(k))
    options = pa.ipc.IpcReadOptions(included_fields=[0, STORED.names.index("kind")])
    assert found.reader(options).get_batch(3).schema.names == ["time_ns", "kind"]


ENDS = {
    "within a batch": lambda data, at, size: data[: at + size // 2],
    "within its length": lambda data, at, _: data[: at + 5],
    "between two": lambda data, at, _: data[:at],
    "zeros from within": lambda data, at, size: data[: at + size // 2] + bytes(3 * size),
    "zeros to the old end": lambda data, at, size: (
        data[: at + size // 2] + bytes(len(data) - at - size // 2)),
    "another file follows": lambda data, at, _: data[:at] + b"PK\x03\x04" * 999,
    "random bytes follow": lambda data, at, _: (
        data[:at] + np.random.default_rng(1).bytes(5000)),
}


@pytest.mark.parametrize("name", list(ENDS))
@pytest.mark.parametrize("kept", [1, 5, 8])
def test_what_is_whole_of_a_cut_trace_is_replayed_on_demand(name: str, kept: int, whole: Path,
                                                            tmp_path: Path) -> None:
    at, size = messages(whole)[kept]
    cut = tmp_path / "cut.arrow"
    cut.write_bytes(ENDS[name](whole.read_bytes(), at, size))
    batches = "1 batch" if kept == 1 else f"{kept} batches"
    place = (cut, f"batch {kept}, row 0", f"is cut: {batches}, {kept * ROWS:,} rows, then",
             "--allow-loss")
    for verb in ("run", "info", "verify", "compare"):
        refused(verb, cut, *(["--out", tmp_path / "run"] if verb == "run" else []), naming=place)
    assert list(tmp_path.iterdir()) == [cut]
    said = f"the trace is cut: {batches}, {kept * ROWS:,} rows read, the rest lost"
    assert open_batches(cut, allow_loss=True).meta.provenance["cut"] == said
    assert sum(len(part.event) for part in open_batches(cut, allow_loss=True)) == sum(
        int((part.event < kept * ROWS).sum()) for part in open_batches(whole))
    assert said in " ".join(cli("info", cut, "--allow-loss").out.split())


def test_its_replay_is_that_of_a_trace_of_these_rows(whole: Path, tmp_path: Path) -> None:
    at, _ = messages(whole)[6]
    cut = tmp_path / "cut.arrow"
    cut.write_bytes(whole.read_bytes()[: at + 99])
    trace = load(whole)
    found = run_trace(cut, ["pool", "hypervisor"], allow_loss=True).summary
    expected = run_trace(Trace(trace.table.slice(0, 6 * ROWS), trace.meta),
                         ["pool", "hypervisor"]).summary
    assert found["allocators"] == expected["allocators"]
    assert "trace_cut" not in expected["run"]
    assert found["run"].pop("trace_cut").startswith("the trace is cut: 6 batches, 6,000 rows")


def test_the_loss_stands_in_the_report_and_the_summary(whole: Path, tmp_path: Path) -> None:
    at, _ = messages(whole)[3]
    cut, out = tmp_path / "cut.arrow", tmp_path / "run"
    cut.write_bytes(whole.read_bytes()[: at + 99])
    done = cli("run", cut, "--allow-loss", "--allocator", "pool", "--out", out)
    said = "the trace is cut: 3 batches, 3,000 rows read, the rest lost"
    assert done.code == 0
    for text in (done.out, (out / "report.txt").read_text()):
        assert f"DATA LOSS {said}; all figures suffer from it" in " ".join(text.split())
    assert json.loads((out / "summary.json").read_text())["run"]["trace_cut"] == said
    assert cli("run", cut, "--allow-loss", "--asap", "--allocator", "pool", "--out", out,
               "--overwrite").code == 0
    assert said in (out / "summary.json").read_text(), "with all requests in memory as well"


def test_a_converted_one_is_whole_and_still_says_so(whole: Path, tmp_path: Path) -> None:
    at, _ = messages(whole)[4]
    cut, new = tmp_path / "cut.arrow", tmp_path / "new.arrow"
    cut.write_bytes(whole.read_bytes()[:at])
    refused("convert", cut, new, naming=(cut, "batch 4"))
    said = cli("convert", cut, new, "--allow-loss").out
    assert "DATA LOSS: the trace is cut: 4 batches" in said
    assert load(new).table.equals(load(whole).table.slice(0, 4 * ROWS))
    assert "DATA LOSS" in cli("info", new).out
    assert cli("run", new, "--allocator", "nop", "--out", tmp_path / "run").code == 0


def test_a_footer_that_is_damaged_loses_no_row(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    for k, end in enumerate((data[:-3], data[:-40], data + b"more", data + bytes(4096))):
        cut = tmp_path / f"{k}.arrow"
        cut.write_bytes(end)
        refused("run", cut, "--out", tmp_path / "run", naming=(cut, "9 batches", "no footer"))
        read = open_batches(cut, allow_loss=True)
        assert "cut" not in read.meta.provenance
        assert [part.event.tolist() for part in read] == [
            part.event.tolist() for part in open_batches(whole)]
        assert "its end is damaged" in cli("info", cut, "--allow-loss").out


def test_nothing_whole_is_refused(whole: Path, tmp_path: Path) -> None:
    at, _ = messages(whole)[0]
    for size in (9, 500, at - 10, at + 100):
        cut = tmp_path / "cut.arrow"
        cut.write_bytes(whole.read_bytes()[:size])
        refused("run", cut, "--allow-loss", "--out", tmp_path / "run", naming=(cut,))
        refused("info", cut, "--allow-loss", naming=(cut,))
        assert list(tmp_path.iterdir()) == [cut]


def test_a_cut_file_of_the_first_version(whole: Path, tmp_path: Path) -> None:
    old = rewrite(whole, tmp_path / "old.arrow")
    table = pa.ipc.open_file(pa.OSFile(str(old))).read_all().combine_chunks()
    with pa.OSFile(str(old), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=ROWS)
    at, size = messages(old)[2]
    old.write_bytes(old.read_bytes()[: at + size - 1])
    refused("run", old, "--out", tmp_path / "run", naming=(old, "batch 2", "2,000 rows"))
    assert open_batches(old, allow_loss=True).rows >= 2 * ROWS
    assert "the trace is cut: 2 batches" in cli("info", old, "--allow-loss").out


def test_a_batch_without_all_columns_is_named(whole: Path, tmp_path: Path) -> None:
    """Another schema's batch between the file's own, as no writer makes it."""
    bad, other = tmp_path / "bad.arrow", tmp_path / "other.arrow"
    with pa.OSFile(str(whole)) as file, pa.OSFile(str(other), "wb") as sink:
        batch = pa.ipc.open_file(file).get_batch(0).select(["time_ns", "kind", "nr_pages"])
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
    (at, size), (after, _) = messages(other)[0], messages(whole)[2]
    data = whole.read_bytes()
    bad.write_bytes(data[:after] + other.read_bytes()[at : at + size] + data[after:-20])
    refused("run", bad, "--allow-loss", "--out", tmp_path / "run", naming=(bad, "batch 2"))
    assert sorted(tmp_path.iterdir()) == [bad, other]


def test_no_length_of_a_message_makes_it_read_what_is_not_there(whole: Path,
                                                                tmp_path: Path) -> None:
    """Every word of the second batch's header set to something else."""
    data, (at, _) = whole.read_bytes(), messages(whole)[1]
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    cut = tmp_path / "cut.arrow"
    rows = open_batches(whole).rows
    for k, place in enumerate(range(at, at + 8 + length, 4)):
        word = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000)[k % 4]
        cut.write_bytes(data[:place] + word.to_bytes(4, "little") + data[place + 4 : -20])
        found = cut_file(cut)
        assert found is not None
        assert 1 <= found.num_record_batches <= 9
        try:
            taken = sum(int(part.event[-1]) for part in open_batches(cut, allow_loss=True))
        except InputError as error:
            assert str(cut) in str(error)
        else:
            assert taken < 9 * rows


@pytest.mark.parametrize("mode", [(), ("--asap",)])
def test_a_disk_that_fills_under_the_outcome_leaves_nothing(mode: tuple[str, ...], whole: Path,
                                                            tmp_path: Path) -> None:
    """A file may grow to 50,000 bytes; the outcome is larger."""
    resource = pytest.importorskip("resource")
    out, old = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1]))
    try:
        refused("run", whole, *mode, "--allocator", "pool", "--out", out,
                naming=(out, "cannot be written", "nothing was changed"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []
