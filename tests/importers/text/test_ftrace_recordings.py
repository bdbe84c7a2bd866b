"""The ftrace importers on the raw recordings of real machines."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pyarrow as pa
import pytest

from recordings import RECORDINGS, recordings

from ftrace_recordings import TOTALS, decoded_dat, imported
from replay.importers.text.read import read_ftrace_text
from replay.trace.schema import SCHEMA


SECTIONS = {
    "x86-pv-blkback": [("Xen scratch", 0x68000)],
    "x86-pv-balloon-target": [("Xen scratch", 0x68000)],
    "x86-pv-ballooned-churn": [("System RAM", 0x68000)],
    "arm64-regions": [("Xen scratch", 0x100000 + 0x8000 * n) for n in range(8)],
    "arm64-no-regions": [("System RAM", pfn) for pfn in
                         (0, 0x40000, 0x48000, 0x50000, 0x58000, 0x60000)],
}


@recordings
@pytest.mark.parametrize("name", TOTALS)
def test_recording_gives_its_known_totals(name: str) -> None:
    result = imported(decoded_dat(name))
    kinds, errno, pages = (result.table[c].to_pylist() for c in ("kind", "errno", "nr_pages"))
    moves = [n if k == "alloc" else -n for k, e, n in zip(kinds, errno, pages, strict=True)
             if k == "free" or (k == "alloc" and e == 0)]
    gained = [m for m in moves if m > 0]
    assert (len(gained), sum(gained), max(np.cumsum(moves).tolist())) == TOTALS[name]
    sections = [(r["label"], r["start_pfn"]) for r in result.table.to_pylist()
                if r["kind"] == "section"]
    assert sections == SECTIONS.get(name, [])
    account = result.accounting
    assert account["records"] == account["imported"] + sum(account["skipped"].values())
    assert result.anomalies.data_loss == 0
    assert not result.anomalies.counts.keys() & {
        "requests_unfinished", "returns_unmatched", "frames_outside_physmap",
        "symbols_unresolved", "probe_unknown", "time_inversions"}


@recordings
@pytest.mark.parametrize("name", [n for n in TOTALS if n.startswith("x86")])
def test_text_and_dat_of_a_recording_agree(name: str) -> None:
    dat = decoded_dat(name)
    text = read_ftrace_text(RECORDINGS / name / "trace.txt.gz")
    assert text.events() == dat.events()
    with gzip.open(RECORDINGS / name / "trace.txt.gz", "rt") as stream:
        entries = re.search(r"written: (\d+)/", stream.read(2000))
    assert entries
    assert dat.records == int(entries[1])
    left, right = imported(text), imported(dat)
    for column in set(SCHEMA.names) - {"source_offset", "frames", "flags", "caller"}:
        assert left.table[column].equals(right.table[column]), column
    cut = 0
    for ours, theirs in zip(frames_of(left.table), frames_of(right.table), strict=True):
        if ours != theirs:
            cut += 1
            assert theirs[0][:len(ours[0])] == ours[0]
            assert ours[1] in (None, theirs[1])
    assert cut <= dat.events()["xen_free256"]


def frames_of(table: pa.Table) -> list[tuple[list[int], str | None]]:
    """Frames and caller of each row: what a cut line may lack."""
    return [(f or [], c) for f, c in zip(table["frames"].to_pylist(),
                                         table["caller"].to_pylist(), strict=True)]
