"""Xen traces that are written as they are decoded: the same rows, in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from driving import cli
from needs import needs_proc
from xen_files import DECREASE, GRANT_MAP, record, wide, window
from xen_files import HZ, digest, some_file

from replay.base.errors import InputError
from replay.importers.session import import_recording
from replay.importers.xen import columns as xentrace_columns
from replay.importers.xen import read as xentrace
from replay.importers.xen.read import XenTrace, open_xentrace, read_xentrace
from replay.report.import_report import kinds
from replay.trace import store
from replay.trace.schema import KINDS, SCHEMA
from replay.trace.meta import Meta
from replay.trace.store import Stream, Trace, check, load, save

SETTINGS = {"cpu_hz": str(HZ), "xen_version": "4.17.7"}


def imported(path: Path, streamed: bool) -> Trace:
    """The file as a trace."""
    return import_recording([path], "x", machine_dir=None, settings=SETTINGS, probes=None,
                            streamed=streamed)


@pytest.mark.parametrize("backwards", [False, True])
def test_whatever_the_batches_the_rows_are_the_same(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool) -> None:
    path = tmp_path / "x.bin"
    batches = latencies = 0
    for seed in range(200):
        monkeypatch.setattr(xentrace, "BATCH_ROWS", seed % 9 + 1)
        path.write_bytes(some_file(seed, backwards))
        whole = read_xentrace(path, hz=HZ, xen_version="4.17.7")
        streamed = open_xentrace(path, hz=HZ, xen_version="4.17.7")
        assert streamed.table.num_rows == 0
        assert streamed.stream is not None
        made = list(streamed.stream.batches())
        assert all(batch.num_rows == seed % 9 + 1 for batch in made[:-1])
        table = pa.Table.from_batches(made, SCHEMA)
        table.validate(full=True)
        assert digest(table) == digest(whole.table), seed
        assert streamed.stream.rows == whole.table.num_rows
        assert (streamed.accounting, streamed.anomalies, streamed.t0_raw) == (
            whole.accounting, whole.anomalies, whole.t0_raw)
        batches, latencies = batches + len(made), latencies + (
            table.num_rows - table["latency_ns"].null_count)
    assert batches > 2000
    assert latencies > 20


def test_the_kinds_of_a_stream_are_those_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for seed in range(50):
        path.write_bytes(some_file(seed, False))
        stream = imported(path, True).stream
        assert stream is not None
        rows = imported(path, False).table
        assert stream.kinds == {
            kind: Counter(flags for name, flags in zip(
                rows["kind"].to_pylist(), rows["flags"].to_pylist(), strict=True) if name == kind)
            for kind in sorted(set(rows["kind"].to_pylist()))}


@pytest.mark.parametrize("compression", store.COMPRESSIONS)
def test_a_stream_is_written_as_its_table_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             compression: str) -> None:
    monkeypatch.setattr(xentrace, "BATCH_ROWS", 64)
    monkeypatch.setattr(store, "BATCH_ROWS", 64)
    path = tmp_path / "x.bin"
    for seed in range(20):
        path.write_bytes(some_file(seed, seed % 3 == 0))
        for streamed in (False, True):
            save(imported(path, streamed), tmp_path / f"{streamed}.arrow", compression)
        assert (tmp_path / "True.arrow").read_bytes() == (tmp_path / "False.arrow").read_bytes()
        assert load(tmp_path / "True.arrow").table.equals(imported(path, False).table)


def test_an_import_says_of_a_stream_what_it_says_of_a_table(tmp_path: Path) -> None:
    path, out = tmp_path / "x.bin", tmp_path / "x.arrow"
    path.write_bytes(some_file(3, False))
    run = cli("import", path, "-o", out, "--cpu-hz", str(HZ), "--set", "xen_version=4.17.7")
    assert run.code == 0, run.err
    trace = load(out)
    assert f"trace x.arrow: {trace.table.num_rows:,} rows" in run.out
    for kind, count in kinds(trace).items():
        assert [line.split()[1] for line in run.out.splitlines()
                if line.split()[:1] == [kind]] == [f"{count:,}"]


def test_no_room_is_larger_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xentrace, "BATCH_ROWS", 50)
    rooms: list[int] = []
    make = xentrace_columns._room
    monkeypatch.setattr(xentrace_columns, "_room", lambda n: rooms.append(n) or make(n))
    path = tmp_path / "x.bin"
    path.write_bytes(grants(430, 3))
    save(imported(path, True), tmp_path / "x.arrow")
    assert rooms == [50] * 8 + [30]


def grants(rows: int, cpus: int) -> bytes:
    """Grants of several CPUs in turn, a window of 1000 records each."""
    body = np.zeros((rows, 4), dtype="<u4")
    body[:, 0] = 1 << 31 | 1 << 28 | GRANT_MAP
    body[:, 1], body[:, 3] = 1000 + 10 * np.arange(rows), 3
    return b"".join(window(k // 1000 % cpus, body[k:k + 1000].tobytes())
                    for k in range(0, rows, 1000))


PROGRAM = """
import json, re, sys
from dataclasses import replace
from pathlib import Path
from replay.importers.session import import_recording
from replay.trace.store import save

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", status)[1]) / 1024

def sampled(batches):
    for batch in batches():
        peak.append(anonymous())
        yield batch

found = []
for name in sys.argv[2:]:
    trace = import_recording([Path(name)], "x", machine_dir=None, probes=None, streamed=True,
                             settings={"cpu_hz": "1000000000"})
    make, peak = trace.stream.batches, []
    save(replace(trace, stream=replace(trace.stream, batches=lambda: sampled(make))),
         Path(sys.argv[1]), "lz4")
    found.append([len(peak), max(peak)])
print(json.dumps(found))
"""


@needs_proc
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    files = [tmp_path / f"{k}.bin" for k in (4, 32)]
    for path in files:
        path.write_bytes(grants(int(path.stem) * store.BATCH_ROWS, 2))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "x.arrow"), *map(str, files)],
        env=os.environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (few, small), (many, large) = json.loads(done.stdout)
    assert (few, many) == (4, 32)
    whole = 28 * store.BATCH_ROWS * 40 / 2**20  # a row of grants fills 40 bytes and more
    assert large - small < whole / 4


def fake(*times: list[int]) -> Trace:
    """A stream of batches with these times, and nothing else."""
    def batches() -> Iterator[pa.RecordBatch]:
        for ns in times:
            filled = {"time_ns": pa.array(ns, pa.int64()), "kind": pa.DictionaryArray.from_arrays(
                pa.array([KINDS.index("lost")] * len(ns), pa.int16()), pa.array(list(KINDS)))}
            yield pa.RecordBatch.from_arrays(
                [filled.get(field.name, pa.nulls(len(ns), field.type)) for field in SCHEMA],
                schema=SCHEMA)

    meta = Meta("x", False, "", [], {}, {}, "", {}, {})
    return Trace(SCHEMA.empty_table(), meta, Stream(sum(map(len, times)), {}, batches))


@pytest.mark.parametrize(("times", "says"), [
    (([1, 2], [2, 3], [3, 2]), r"x.bin, row 5: time_ns runs backwards \(3 to 2\)"),
    (([1, 2], [1, 3]), r"x.bin, row 2: time_ns runs backwards \(2 to 1\)"),
    (([1, 2], [3, (1 << 53) + 1]), r"x.bin, row 3: time_ns is .*, expected 0 to 2\^53"),
])
def test_each_batch_is_checked_and_nothing_is_left_of_a_bad_one(
        tmp_path: Path, times: tuple[list[int], ...], says: str) -> None:
    checked = check(Path("x.bin"), fake(*times))
    with pytest.raises(InputError, match=says):
        save(checked, tmp_path / "x.arrow")
    assert list(tmp_path.iterdir()) == []
    save(check(Path("x.bin"), fake(*times[:-1])), tmp_path / "x.arrow")
    assert load(tmp_path / "x.arrow").table.num_rows == 2 * (len(times) - 1)


def test_frames_beyond_the_machine_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(window(0, *(record(DECREASE, *wide(frame), 0, 0) for frame in (3, 4, 5, 9))))
    found = open_xentrace(path, hz=HZ, xen_version="4.17.7", top=5)
    assert found.anomalies.counts["frames_outside_physmap"] == 2
    assert not read_xentrace(path, hz=HZ, xen_version="4.17.7").anomalies.counts[
        "frames_outside_physmap"]


def test_a_file_that_has_fewer_rows_than_were_counted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(grants(5, 1))
    opened = XenTrace(path, hz=HZ, xen_version=None)
    opened.file = replace(opened.file, kinds=opened.file.kinds * 2)
    with pytest.raises(InputError, match="changed while it was read"):
        list(opened.batches())
