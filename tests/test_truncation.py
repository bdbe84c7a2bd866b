"""Recordings cut short: refused, or what is whole is kept and the loss is said.

In `make test` at a few places; `make fuzz-truncate` cuts each recording at every byte of its first
64 KiB and at 10,000 random places behind them. Compressed recordings are expanded first.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from replay.errors import InputError
from replay.importers.ftrace_text import read_ftrace_text
from replay.importers.inputs import plain_bytes
from replay.importers.trace_dat import read_trace_dat
from replay.importers.xentrace import read_xentrace

RECORDINGS = Path(os.environ.get("REPLAY_RECORDINGS")
                  or Path(__file__).parents[2] / "shared" / "recordings")
FULL = os.environ.get("REPLAY_CUTS") == "all"
HEAD, BEHIND = 1 << 16, 10_000
FILES = ("trace.dat", "trace.txt.gz", "xentrace.bin.gz")
SOURCES = sorted(path for name in FILES for path in RECORDINGS.glob(f"*/{name}"))
SHORT = ("x86-pvh-guests", "arm64-regions")
"""Recordings that the short form cuts."""


def cuts(size: int, rng: random.Random) -> list[int]:
    """Where to cut a file of this size."""
    if FULL:
        return [*range(min(HEAD, size)), *(rng.randrange(HEAD, size) for _ in range(BEHIND))]
    return [0, 1, 9, 13, *(rng.randrange(min(HEAD, size)) for _ in range(40)),
            *(rng.randrange(HEAD, size) for _ in range(6))]


class Cut:
    """One recording: the whole of it, and what any beginning of it must give."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data, self.path = data, path
        path.write_bytes(data)

    def at(self, size: int) -> Path:
        """The file cut to a size; sizes come in any order."""
        with self.path.open("r+b") as file:
            file.seek(0, 2)
            if (held := file.tell()) < size:
                file.write(self.data[held:size])
            file.truncate(size)
        return self.path


def dat(cut: Cut) -> Callable[[int], None]:
    """A trace.dat tells where its parts are at its end, or their sizes before: nothing is kept."""
    whole = read_trace_dat(cut.path).events()

    def check(size: int) -> None:
        try:
            assert read_trace_dat(cut.at(size)).events() == whole
        except InputError as error:
            assert str(cut.path) in str(error)
    return check


def xen(cut: Cut) -> Callable[[int], None]:
    """The records before the cut are those of the whole file, the last window may be short."""
    whole = read_xentrace(cut.path, hz=10**9, xen_version="4.17")
    offset = np.sort(whole.table["source_offset"].to_numpy())

    def check(size: int) -> None:
        part = read_xentrace(cut.at(size), hz=10**9, xen_version="4.17")
        kept = np.sort(part.table["source_offset"].to_numpy())
        assert (kept == offset[:len(kept)]).all()
        # a record has at most 40 bytes: none that is whole is missing
        assert len(kept) >= np.searchsorted(offset, size - 40)
        assert not len(kept) or kept[-1] < size
        said = part.anomalies.counts["file_truncated"]
        assert said in (0, 1) and (said or size % 4 == 0)
    return check


def text(cut: Cut) -> Callable[[int], None]:
    """Whole lines give their events; a line that is cut gives at most one."""
    ends = np.flatnonzero(np.frombuffer(cut.data, np.uint8) == ord("\n"))
    decoded = read_ftrace_text(cut.path)
    lines = np.sort(np.concatenate([s.source_offset for s in decoded.streams]))

    def check(size: int) -> None:
        whole_lines = int(np.searchsorted(ends, size))
        at_end = size == 0 or cut.data[size - 1] == ord("\n")
        expected = int(np.searchsorted(lines, whole_lines, side="right"))
        try:
            part = read_ftrace_text(cut.at(size))
        except InputError:
            assert not expected
            return
        assert expected <= part.records <= expected + (0 if at_end else 2)
        assert part.anomalies.counts["file_truncated"] == (not at_end)
    return check


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_a_recording_cut_short(source: Path, tmp_path: Path) -> None:
    if not FULL and source.parent.name not in SHORT:
        pytest.skip("in the long form alone")
    with plain_bytes(source) as plain:
        data = bytes(plain)
    make = {"trace.dat": dat, "trace.txt.gz": text, "xentrace.bin.gz": xen}[source.name]
    check = make(Cut(data, tmp_path / source.name.removesuffix(".gz")))
    for size in cuts(len(data), random.Random(source.parent.name)):
        check(size)
