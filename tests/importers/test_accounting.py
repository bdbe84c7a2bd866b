"""Every record accounted for: held against xenalyze and trace-cmd, and what a loss says of itself."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from driving import cli, metadata
from naive_xentrace import records
from ftrace_recordings import TOTALS, decoded_dat, imported
from dat_files import make
from dat_pages import alloc, decode, page
from needs import needs_trace_cmd, needs_xenalyze
from recordings import RECORDINGS, recordings
from xen_files import GRANT_MAP, GRANT_UNMAP, LOST, SET_P2M, read, record, wide, window

from replay.importers import session
from replay.importers.source.imported import Imported
from replay.importers.xen import format as xen
from replay.importers.xen.read import read_xentrace
from replay.report.import_report import kinds
from replay.trace.opening import imbalance
from replay.trace.store import Trace, load

NAMES = {b"grant-map": "grant_map", b"grant-unmap": "grant_unmap", b"set_p2m_entry": "p2m_set",
         b"decrease_reservation": "decrease_extent"}
SMALL = ("x86-pvh-guests", "x86-pv-blkback", "x86-pv-ballooned-churn", "x86-pvh-churn")


def told(*command: object) -> bytes:
    """What a program prints."""
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout


def plain(tmp_path: Path, name: str) -> Path:
    """A recording's xentrace file, expanded: xenalyze maps it."""
    made = tmp_path / "x.bin"
    with gzip.open(RECORDINGS / name / "xentrace.bin.gz") as source, made.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    return made


def dumped(path: Path) -> Counter[str]:
    """Records per kind, as `xenalyze --dump-all` prints them."""
    lines = re.findall(rb"d\d+v\d+ (grant-map|grant-unmap|set_p2m_entry|decrease_reservation) ",
                       told("xenalyze", "--dump-all", path))
    return Counter(NAMES[name] for name in lines)


def counted(got: Imported) -> Counter[str]:
    """Rows per kind of an import."""
    return Counter(got.table["kind"].cast("string").to_pylist())


def last_window(data: bytes) -> Counter[str]:
    """Records per kind in the last window of the highest CPU.

    At the end of a file xenalyze 4.17 can take that CPU up once more and print it twice.
    """
    found = records(data)
    cpu = max(r.cpu for r in found)
    window_of = max(r.window for r in found if r.cpu == cpu)
    events = {0x10F001: "grant_map", 0x10F002: "grant_unmap", 0x10F004: "p2m_set",
              0x10F005: "decrease_extent"}
    return Counter(events[r.event] for r in found if r.window == window_of and r.event in events)


@recordings
@needs_xenalyze
@pytest.mark.parametrize("name", list(TOTALS))
def test_each_kind_is_as_frequent_as_xenalyze_dumps_it(name: str, tmp_path: Path) -> None:
    path = plain(tmp_path, name)
    got = read_xentrace(path, hz=10**9, xen_version="4.17.7")
    ours, theirs = counted(got), dumped(path)
    assert set(ours) <= set(NAMES.values())
    if theirs != ours:
        assert theirs - ours == last_window(path.read_bytes())
        assert not ours - theirs
    assert got.accounting["imported"] == ours.total()
    assert imbalance(got.accounting) == ""


@recordings
@needs_xenalyze
@pytest.mark.parametrize("name", SMALL)
def test_each_cpu_has_as_many_bytes_as_xenalyze_sums_up(name: str, tmp_path: Path) -> None:
    path = plain(tmp_path, name)
    ours: Counter[tuple[int, str]] = Counter()
    for r in records(path.read_bytes()):
        ours[r.cpu, {1: "gen", 16: "mem"}[r.event >> 16]] += 4 + 8 * r.timed + 4 * len(r.words)
    theirs, cpu = Counter(), -1
    volume = told("xenalyze", "-s", path).split(b"Log volume summary")[1]
    for line in volume.decode().splitlines():
        if match := re.match(r" - cpu (\d+) -", line):
            cpu = int(match[1])
        elif match := re.match(r" (gen|mem) +: +(\d+)$", line):
            theirs[cpu, match[1]] = int(match[2])
    assert theirs == ours
    got = read_xentrace(path, hz=10**9, xen_version="4.17.7").accounting
    assert path.stat().st_size == ours.total() + 12 * got["skipped"]["cpu_change"]


LOSSY = (window(0, record(GRANT_MAP, 1, tsc=1000),
                record(LOST, 17, 2 | 1 << 16, *wide(1200), tsc=3000),
                record(GRANT_MAP, 1, tsc=5000))
         + window(1, record(GRANT_UNMAP, 1, tsc=1500),
                  record(SET_P2M, *wide(0x1234), *wide(0x5678), 13, 7 | 9 << 16),
                  record(LOST, 5, 0x7FFF, *wide(2200), tsc=9000),
                  record(GRANT_UNMAP, 1, tsc=9500)))


@needs_xenalyze
def test_xenalyze_counts_the_same_lost_records(tmp_path: Path) -> None:
    got = read(tmp_path, LOSSY)
    text = told("xenalyze", "--dump-all", tmp_path / "x.bin").decode()
    assert [int(n) for n in re.findall(r"lost_records count (\d+) ", text)] == [17, 5]
    assert got.accounting["lost"] == got.anomalies.counts["records_lost"] == 22
    assert counted(got) - Counter(lost=2) == dumped(tmp_path / "x.bin")
    assert imbalance(got.accounting) == ""


@recordings
@pytest.mark.parametrize("missing", [1, 50])
def test_windows_that_a_recorder_dropped_are_named_as_lost(missing: int, tmp_path: Path) -> None:
    """A real recording with records taken out of a CPU's windows, and Xen's LOST put in."""
    data = gzip.decompress((RECORDINGS / "x86-pv-blkback" / "xentrace.bin.gz").read_bytes())
    whole = [r for r in records(data) if r.cpu == 0]
    last = whole[-1]
    out = [r for r in whole if r.window == whole[5000].window][-missing:]
    start, end = out[0].at, out[-1].at + 16
    size_at = data.rindex(b"\x03\xf0\x01\x20", 0, start) + 8
    size = int.from_bytes(data[size_at:size_at + 4], "little")
    loss = record(LOST, len(out), 0, *wide(out[0].time), tsc=out[-1].time)
    cut = (data[:size_at] + (size - (end - start) + len(loss)).to_bytes(4, "little")
           + data[size_at + 4:start] + loss + data[end:])
    got, before = read(tmp_path, cut), read(tmp_path, data)
    assert got.accounting["lost"] == len(out)
    assert got.accounting["imported"] + len(out) - 1 == before.accounting["imported"]
    flagged = [r for r in got.table.to_pylist() if r["flags"] & 8]
    assert [(r["cpu"], r["kind"][:5]) for r in flagged] == [(0, "grant")]
    assert last.at > start


@recordings
@needs_trace_cmd
@pytest.mark.parametrize("name", list(TOTALS))
def test_each_event_is_as_frequent_as_trace_cmd_reports_it(name: str) -> None:
    decoded = decoded_dat(name)
    path = RECORDINGS / name / "trace.dat"
    lines = told("trace-cmd", "report", path).splitlines()
    events = [re.match(rb"\s*.+-\d+\s+\[\d+\]\s*[\d.]+: (\S+):\s", line) for line in lines]
    assert sum(e is None for e in events) == 1  # cpus=2
    assert Counter(e[1].decode() for e in events if e) == decoded.events() + decoded.undecoded
    result = imported(decoded)
    assert result.accounting["records"] == len(lines) - 1
    assert imbalance(result.accounting) == ""
    stats = told("trace-cmd", "report", "--stat", path).decode()
    lost = re.findall(r"^(?:overrun|commit overrun|dropped events): (\d+)", stats, re.MULTILINE)
    assert result.accounting["lost"] == sum(map(int, lost)) == 0


@needs_trace_cmd
def test_trace_cmd_tells_the_same_losses(tmp_path: Path) -> None:
    stat = b"CPU: 0\nentries: 0\noverrun: 9\ncommit overrun: 1\ndropped events: 2\n\0"
    data = make({0: [page(10, alloc()), page(20, alloc(), lost=4)]}, options=((2, stat),))
    decoded = decode(tmp_path, data)
    path = tmp_path / "lossy.dat"
    path.write_bytes(data)
    found = re.findall(r"^(?:overrun|commit overrun|dropped events): (\d+)",
                       told("trace-cmd", "report", "--stat", path).decode(), re.MULTILINE)
    assert decoded.records_lost == sum(map(int, found)) == 12


# -- what is said of it ------------------------------------------------------------------------
TEXT = """# tracer: nop
#
 blkback-100 [000] ..... 1000: xen_alloc: (xen_alloc_unpopulated_pages+0x0/0x1d0) nr=0x1 a=0x0
 blkback-100 [000] ..... 1500: xen_alloc_ret: (f <- xen_alloc_unpopulated_pages) ret=0x0
CPU:0 [LOST 1234 EVENTS]
 blkback-100 [000] ..... 2000: xen_free: (xen_free_unpopulated_pages+0x0/0x1d0) nr=0x1 a=0x0
"""


def flat(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def made(tmp_path: Path, *sources: Path) -> tuple[Path, str]:
    """An import of these, and what it printed."""
    trace = tmp_path / "t.arrow"
    result = cli("import", *sources, "-o", trace, "--cpu-hz", 2_000_000_000, "--set",
                 "trace_clock=x86-tsc", "--set", "clock_offset_ns=0", "--set",
                 "xen_version=4.17.7")
    assert result.code == 0, result.err
    return trace, flat(result.out)


def test_a_loss_is_printed_stored_and_put_in_the_header_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "trace.txt").write_text(TEXT)
    (tmp_path / "x.bin").write_bytes(LOSSY + window(0, record(0x28004, 1, tsc=1))[:-2])
    trace, printed = made(tmp_path, tmp_path / "trace.txt", tmp_path / "x.bin")
    sentence = ("DATA LOSS{} 1,256 records lost while recording; 1 source ends too early, "
                "and what came after is missing")
    account = metadata(trace)["accounting"]
    assert account["lost"] == 1234 + 22
    assert imbalance(account) == ""
    assert account["skipped"] == {"cpu_change": 3}
    info = flat(cli("info", trace).out)
    for text in (printed, info):
        assert sentence.format(":") in text
        for line in (f"records in the sources {account['records']}",
                     f"imported {account['imported']}", "skipped: cpu_change 3",
                     "besides, lost: as the tracer reports 1,256"):
            assert line in text, text
    told_info = json.loads(cli("info", trace, "--json").out)
    assert told_info["accounting"] == account
    run = cli("run", trace, "--out", tmp_path / "out", "--physmap", "qemu-q35-pvh", "--allocator",
              "nop")
    assert run.code == 0, run.err
    for text in (run.out, (tmp_path / "out" / "report.txt").read_text()):
        assert sentence.format("") in flat(text)
    header = json.loads((tmp_path / "out" / "summary.json").read_text())["run"]
    assert (header["records_lost"], header["sources_cut"]) == (1256, 1)


def test_the_account_of_a_whole_recording_claims_no_loss(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(window(0, record(GRANT_MAP, 1, tsc=5), record(0x28004, 1)))
    trace, printed = made(tmp_path, tmp_path / "x.bin")
    assert "DATA LOSS" not in printed + cli("info", trace).out
    assert "skipped: wake 1" in printed
    assert kinds(load(trace)) == {"grant_map": 1}


def test_an_importer_whose_account_does_not_close_is_a_defect(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(path: Path, **options: object) -> Imported:
        got = read_xentrace(path, **options)  # type: ignore[arg-type]
        got.accounting["imported"] -= 1
        return got

    monkeypatch.setattr(xen, "read_xentrace", forgetful)
    (tmp_path / "x.bin").write_bytes(LOSSY)
    with pytest.raises(AssertionError, match="does not close"):
        session.import_recording([tmp_path / "x.bin"], "x", machine_dir=None, settings={
            "cpu_hz": "1000000000", "xen_version": "4.17.7"}, probes=None)


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
def test_each_compression_gives_the_same_trace(tmp_path: Path, compression: str) -> None:
    (tmp_path / "x.bin").write_bytes(LOSSY)
    result = cli("import", tmp_path / "x.bin", "-o", tmp_path / "t.arrow", "--cpu-hz", 10**9,
                 "--set", "xen_version=4.17.7", "--compression", compression)
    assert result.code == 0, result.err
    trace: Trace = load(tmp_path / "t.arrow")
    assert trace.table.equals(read(tmp_path, LOSSY).table)
    assert cli("import", tmp_path / "x.bin", "-o", tmp_path / "u.arrow", "--cpu-hz", 10**9,
               "--compression", "zst").code == 2
    assert not (tmp_path / "u.arrow").exists()
