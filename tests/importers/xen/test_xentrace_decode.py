"""The compiled decoder against the slow one, against itself interpreted, and against the past."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from naive_xentrace import records, rows
from recordings import RECORDINGS, ROOT, recordings
from xen_files import read, record, window

from xen_files import HZ, some_file, digest
from replay.importers.xen.read import read_xentrace

FAR_APART = (*range(12), 63, 64, 129, 300, 65535)
"""CPUs, more than the census has room for at first."""
FILLED = ("time_ns", "cpu", "kind", "domid", "nr_pages", "frames", "mfns", "start_pfn",
          "latency_ns", "value", "label", "flags", "source_offset")


@pytest.mark.parametrize("version", ["4.17.7", "4.18.0"])
@pytest.mark.parametrize("backwards", [False, True])
def test_any_file_is_read_as_the_slow_decoder_reads_it(tmp_path: Path, backwards: bool,
                                                       version: str) -> None:
    inversions = 0
    for seed in range(300):
        data = some_file(seed, backwards, FAR_APART if seed % 2 else range(40))
        got = read(tmp_path, data, version, HZ)
        got.table.validate(full=True)
        expected = rows(data, HZ, version == "4.17.7")
        assert [{name: row[name] for name in FILLED} for row in got.table.to_pylist()] == [
            {name: row.get(name) for name in FILLED} for row in expected], seed
        whole = records(data)
        account = got.accounting
        assert account["imported"] == len(expected)
        assert account["lost"] == sum(r["value"] for r in expected if r["kind"] == "lost")
        assert account["records"] - account["skipped"].get("cpu_change", 0) == len(whole)
        assert account["records"] == account["imported"] + sum(account["skipped"].values())
        inversions += got.anomalies.counts["time_inversions"]
    assert bool(inversions) == backwards


def test_more_events_than_the_table_holds_are_all_counted(tmp_path: Path) -> None:
    events = [0x0800000 + 7 * k for k in range(9000)]
    got = read(tmp_path, window(0, *(record(e) for e in events + events[::2])))
    skipped = got.accounting["skipped"]
    assert skipped.pop("cpu_change") == 1
    assert skipped == {f"{e:#010x}": 1 + (k % 2 == 0) for k, e in enumerate(events)}


def test_many_cpus_are_merged(tmp_path: Path) -> None:
    windows = [window(cpu, *(record(0x10F001, cpu & 0xFF, tsc=t + (cpu * 7 & 63))
                             for t in range(0, 500, 100))) for cpu in range(0, 65536, 257)]
    got = read(tmp_path, b"".join(windows))
    assert got.table["time_ns"].to_pylist() == sorted(got.table["time_ns"].to_pylist())
    expected = [r["source_offset"] for r in rows(b"".join(windows), 10**9, True)]
    assert got.table["source_offset"].to_pylist() == expected


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    def written() -> bytes:
        sink = pa.BufferOutputStream()
        table = read(tmp_path, some_file(7, False)).table
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    assert written() == written()


PROGRAM = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from xen_files import HZ, digest, some_file
from replay.importers.xen.read import read_xentrace

found = []
for seed in range(30):
    path = Path(sys.argv[1]) / "x.bin"
    path.write_bytes(some_file(seed, seed % 2 == 1))
    found.append(digest(read_xentrace(path, hz=HZ, xen_version="4.18").table))
print(json.dumps(found))
"""


def test_compiled_interpreted_and_bounds_checked_agree(tmp_path: Path) -> None:
    def run(**environment: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", PROGRAM, str(tmp_path),
             str(ROOT / "tests" / "support")], env={**os.environ, **environment}, capture_output=True,
            text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    compiled = run()
    assert run(NUMBA_DISABLE_JIT="1") == compiled
    assert run(NUMBA_BOUNDSCHECK="1") == compiled


DIGESTS = {
    "arm64-no-regions": "11a936ceaf0fb577e2bef51966717295",
    "arm64-regions": "8c3d2d93df8c8293a246782a141c0c1b",
    "x86-pv-balloon-target": "2d6134541e3b0121154970e6fc180aac",
    "x86-pv-ballooned-churn": "3469da462fb767867b13239d917ea86f",
    "x86-pv-ballooned-ring": "25f8587526eb03bebb2a154c58422c14",
    "x86-pv-blkback": "787b5e8a43470401f7f9b1f02ad053c1",
    "x86-pv-churn": "3a3447be036820c6bf31c81dea98a269",
    "x86-pv-concurrent": "c0b126bccaa2e0c938d62eeba075e572",
    "x86-pvh-churn": "10ea688fcc22d07dc2008623ce37cc7d",
    "x86-pvh-guests": "39a84aac44ed265ac31b75e88910c418",
}
"""Made by the decoder before this one, which sorted masks of records per event."""


@recordings
@pytest.mark.parametrize("name", list(DIGESTS))
def test_a_recording_gives_the_table_it_always_gave(name: str) -> None:
    got = read_xentrace(RECORDINGS / name / "xentrace.bin.gz", hz=HZ, xen_version="4.17.7",
                        source=3)
    assert digest(got.table) == DIGESTS[name]
