"""Recordings cut short: refused, or what is whole is kept and the loss is said.

Run as a program it is the long form (`make fuzz-truncate`): each of SOURCES at every byte of its
first 64 KiB and at 10,000 random places behind them, and the compressed ones at some places of the
packed file too. Expected of a cut is what the whole recording says of its beginning, computed once
from digests of its rows. What that leaves out, to be done in hours:

- Text behind its first 8 KiB is cut in a file of the last 8 KiB before the cut, from a line on;
  one place in NEAR_WHOLE (near) and FAR_WHOLE (far) is cut in all that stands before it.
- A trace.dat is read without the fields of its events, but for one place in DAT_FIELDS: a cut
  can only be noticed where the parts of a file and the sub-buffers are read.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from import_checks import need
from import_fuzz import kind_of

from recordings import RECORDINGS

from replay.base.errors import InputError
from replay.importers.dat.read import everything, read_trace_dat
from replay.importers.source.inputs import plain_bytes
from replay.importers.source.probes import MISSING, Coded, Decoded, ProbeStream
from replay.importers.text.read import read_ftrace_text
from replay.importers.xen.read import read_xentrace
from replay.trace.schema import Flag

from slices import in_slices  # isort: skip

FILES = ("trace.dat", "trace.txt.gz", "xentrace.bin.gz")
SOURCES = sorted(path for name in FILES for path in RECORDINGS.glob(f"*/{name}"))
HEAD, BEHIND, PACKED = 1 << 16, 10_000, 464
"""Bytes that are cut one by one, places behind them, places of a packed file."""
EACH = HEAD + BEHIND + PACKED
WINDOW, NEAR_WHOLE, FAR_WHOLE, DAT_FIELDS = 1 << 13, 16, 50, 64

Ints = np.ndarray
Check = Callable[[int, int], str]
"""Cuts at a size, the number of the cut says how; the refusal or "". A wrong answer raises."""


class Cut:
    """One recording: the whole of it, and a file that has any beginning of it."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data, self.path = data, path
        path.write_bytes(data)

    def at(self, size: int) -> Path:
        """The file cut to a size; descending sizes cost no copy."""
        with self.path.open("r+b") as file:
            file.seek(0, 2)
            if (held := file.tell()) < size:
                file.write(memoryview(self.data)[held:size])
            file.truncate(size)
        return self.path


def refused(error: InputError, path: Path) -> str:
    """What a refusal says; it names the file, and says something."""
    need(str(path) in str(error) and len(error.problem) > 8, "refused:", error)
    return kind_of(error)


# -- digests -------------------------------------------------------------------------------------
ODD = 0xD6E8FEB86659FD93


def mixed(*columns: Ints) -> Ints:
    """A number per row that depends on all its columns."""
    h = np.zeros(len(columns[0]), dtype=np.uint64)
    for k, column in enumerate(columns, 1):
        factor = np.uint64(pow(ODD, k, 1 << 64))
        h += column.astype(np.int64, copy=False).view(np.uint64) * factor
    h ^= h >> np.uint64(32)
    return h * np.uint64(ODD)


def said(text: str) -> int:
    """A number of a text, the same in every process."""
    return int.from_bytes(text.encode("utf-8", "backslashreplace"), "little") % ((1 << 61) - 1)


class Beginnings:
    """Rows in the order of the places where each is complete: how many a cut leaves, and which."""

    def __init__(self, ends: Ints, digests: Ints) -> None:
        order = np.argsort(ends, kind="stable")
        self.ends = ends[order]
        self.sums = np.append(np.uint64(0), np.cumsum(digests[order], dtype=np.uint64))

    def until(self, end: int) -> int:
        """Rows that are complete by there."""
        return int(np.searchsorted(self.ends, end, side="right"))

    def digest(self, first: int, last: int) -> int:
        """Of the rows from one number to another."""
        return (int(self.sums[last]) - int(self.sums[first])) % (1 << 64)


def summed(digests: Ints) -> int:
    """As Beginnings.digest, of rows in any order."""
    return int(digests.sum(dtype=np.uint64))


# -- one format ----------------------------------------------------------------------------------
def nothing(function: str, event: str, fields: Collection[str]) -> bool:
    """Wants no event decoded: all are counted by name."""
    return False


def dat(cut: Cut) -> Check:
    """A trace.dat tells where its parts are at its end, or their sizes before: nothing is kept."""
    whole = read_trace_dat(cut.path, nothing)

    def check(size: int, number: int) -> str:
        wanted = nothing if number % DAT_FIELDS else everything
        try:
            part = read_trace_dat(cut.at(size), wanted)
        except InputError as error:
            return refused(error, cut.path)
        need(part.events() == whole.events(), "events")
        need((part.records, part.records_lost) == (whole.records, whole.records_lost), "records")
        return ""
    return check


XEN_COLUMNS = ("cpu", "kind", "domid", "nr_pages", "start_pfn", "value", "flags", "source_offset")


def xen_digests(table: pa.Table, ticks: Ints) -> Ints:
    """Of rows, but for what other rows have a say in: a time that is inferred, a latency."""
    columns = []
    for name in XEN_COLUMNS:
        column = table[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.indices
        columns.append(pc.fill_null(column, -1).to_numpy())
    timed = columns[XEN_COLUMNS.index("flags")] & int(Flag.TIME_INFERRED) == 0
    return mixed(*columns, ticks * timed)


def xen_windows(words: Ints) -> set[int]:
    """The places where a window ends, and 0."""
    ends, at = {0}, 0
    while at + 3 <= len(words):
        at += 3 + int(words[at + 2]) // 4
        ends.add(4 * at)
    return ends


def xen(cut: Cut) -> Check:
    """The records before the cut are those of the whole file, the last window may be short."""
    def read() -> tuple[pa.Table, Ints, int]:
        imported = read_xentrace(cut.path, hz=10**9, xen_version="4.17")
        return imported.table, imported.ticks, imported.anomalies.counts["file_truncated"]

    table, ticks, _ = read()
    words = np.frombuffer(cut.data, dtype="<u4", count=len(cut.data) // 4)
    at = table["source_offset"].to_numpy()
    headers = words[at // 4].astype(np.int64)
    ends = at + 4 * (1 + 2 * (headers >> 31) + (headers >> 28 & 7))
    rows, windows = Beginnings(ends, xen_digests(table, ticks)), xen_windows(words)

    def check(size: int, number: int) -> str:
        cut.at(size)
        part, ticks, truncated = read()
        expected = rows.until(size)
        need(part.num_rows == expected, part.num_rows, "rows, expected", expected)
        need(summed(xen_digests(part, ticks)) == rows.digest(0, expected), "rows")
        need(truncated == (size not in windows), "truncated:", truncated)
        return ""
    return check


def stream_digests(stream: ProbeStream) -> Ints:
    """Of events with all their fields; one that stands open counts for nothing."""
    n = len(stream)
    digests = mixed(stream.time, stream.cpu, stream.pid, _texts(stream.task),
                    np.full(n, said(f"{stream.event} {stream.function} {stream.offset}")))
    for name, values in stream.numbers.items():
        digests += mixed(values, np.full(n, said(name))) * (values != MISSING)
    for name, texts in stream.texts.items():
        codes = _texts(texts)
        digests += mixed(codes, np.full(n, said(name))) * (codes != 0)
    for name, part in stream.arrays.items():
        held = np.arange(part.values.shape[1]) < part.whole[:, None]
        for k in range(part.values.shape[1]):
            digests += mixed(part.values[:, k], np.full(n, said(name) + k)) * held[:, k]
    return digests


def _texts(texts: object) -> Ints:
    if isinstance(texts, Coded):
        return np.array([said(name) for name in texts.names], dtype=np.int64)[texts.codes]
    return np.array([said(text) for text in texts], dtype=np.int64)  # type: ignore[attr-defined]


def text_digests(decoded: Decoded) -> tuple[Ints, Ints]:
    """The line of every event, and its digest."""
    streams = decoded.streams
    return (np.concatenate([np.empty(0, np.int64), *(s.source_offset for s in streams)]),
            np.concatenate([np.empty(0, np.uint64), *map(stream_digests, streams)]))


def text(cut: Cut) -> Check:
    """Whole lines give their events; a line that is cut gives at most two."""
    ends = np.flatnonzero(np.frombuffer(cut.data, np.uint8) == ord("\n")) + 1
    rows = Beginnings(*text_digests(read_ftrace_text(cut.path)))
    window = cut.path.with_name("window.txt")

    def beginning(size: int, number: int) -> tuple[Path, int]:
        """A file that ends with the cut, and how many lines it leaves out."""
        if size <= WINDOW or number % (NEAR_WHOLE if size < HEAD else FAR_WHOLE) == 0:
            return cut.at(size), 0
        lines = int(np.searchsorted(ends, size - WINDOW))
        window.write_bytes(cut.data[ends[lines]:size])
        return window, lines + 1

    def check(size: int, number: int) -> str:
        path, left_out = beginning(size, number)
        whole_lines = int(np.searchsorted(ends, size, side="right"))
        at_end = size == 0 or cut.data[size - 1] == ord("\n")
        first, last = rows.until(left_out), rows.until(whole_lines)
        try:
            part = read_ftrace_text(path)
        except InputError as error:
            need(first == last, "refused:", error)
            return refused(error, path)
        lines, digests = text_digests(part)
        kept = lines <= whole_lines - left_out
        need(np.count_nonzero(kept) == last - first, np.count_nonzero(kept), "events of",
             last - first)
        need(np.array_equal(np.sort(lines[kept]) + left_out, rows.ends[first:last]), "lines")
        need(summed(digests[kept]) == rows.digest(first, last), "events")
        need(len(lines) - np.count_nonzero(kept) <= (0 if at_end else 2), "events of a cut line")
        need(part.anomalies.counts["file_truncated"] == (not at_end), "truncated")
        return ""
    return check


READERS: dict[str, tuple[Callable[[Cut], Check], Callable[[Path], object]]] = {
    "trace.dat": (dat, read_trace_dat),
    "trace.txt.gz": (text, read_ftrace_text),
    "xentrace.bin.gz": (xen, partial(read_xentrace, hz=10**9, xen_version="4.17")),
}


def packed(source: Path, path: Path) -> Check:
    """No beginning of a packed file is accepted."""
    cut = Cut(source.read_bytes(), path)

    def check(size: int, number: int) -> str:
        try:
            READERS[source.name][1](cut.at(size))
        except InputError as error:
            return refused(error, cut.path)
        raise AssertionError("accepted")
    return check


# -- which cuts ----------------------------------------------------------------------------------
def places(size: int, packed_size: int, seed: str) -> list[int]:
    """Where to cut a recording, by number: HEAD places, BEHIND, and PACKED of its packed file.

    Random places descend, so that few cuts copy anything.
    """
    rng = random.Random(seed)

    def some(count: int, least: int, most: int) -> list[int]:
        return sorted((rng.randrange(least, most) for _ in range(count)), reverse=True)

    edges = [*range(1, 33), *range(packed_size - 32, packed_size)]
    return [*range(HEAD - 1, -1, -1), *some(BEHIND, HEAD, size),
            *edges, *some(PACKED - len(edges), 33, packed_size - 32)]


class Recording:
    """A source and what is needed to cut it anywhere; sizes: see `places`."""

    def __init__(self, source: Path, folder: Path) -> None:
        with plain_bytes(source) as plain:
            data = bytes(plain)
        self.sizes = places(len(data), source.stat().st_size, source.parent.name)
        self._check = READERS[source.name][0](Cut(data, folder / source.name.removesuffix(".gz")))
        self._packed = packed(source, folder / source.name) if source.suffix == ".gz" else None

    def check(self, number: int) -> str:
        """Do one of its cuts; the refusal, or "" if it is accepted. There is none of what is not
        packed."""
        if number < HEAD + BEHIND:
            return self._check(self.sizes[number], number)
        return self._packed(self.sizes[number], number) if self._packed else NO_CUT


NO_CUT = "(not packed)"


# -- the long form -------------------------------------------------------------------------------
@dataclass
class Tally:
    """What became of the cuts."""

    cuts: int = 0
    slowest: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Another's cuts as well."""
        self.cuts += other.cuts
        self.slowest = max(self.slowest, other.slowest)
        self.answers += other.answers
        self.failures += other.failures


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    shared = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)


@lru_cache(maxsize=1)
def _recording(source: Path) -> Recording:
    return Recording(source, Path(_folder().name))


def one_slice(numbers: range) -> Tally:
    """Some cuts, in whatever process: number // EACH is the source."""
    tally = Tally()
    for number in numbers:
        source, began = SOURCES[number // EACH], time.perf_counter()
        try:
            answer = _recording(source).check(number % EACH)
        except Exception as error:
            tally.failures.append(f"cut {number}, {source.parent.name}/{source.name} at "
                                  f"{_recording(source).sizes[number % EACH]}: {error!r}")
            continue
        tally.cuts += answer != NO_CUT
        tally.answers[f"{source.name}: {answer or 'accepted'}"] += 1
        tally.slowest = max(tally.slowest, time.perf_counter() - began)
    return tally


SLICE = 500


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first number")
    parser.add_argument("--to", type=int, default=len(SOURCES) * EACH, help="behind the last")
    parser.add_argument("--list", action="store_true", help="the sources and their numbers")
    args = parser.parse_args()
    if args.list:
        for k, source in enumerate(SOURCES):
            print(f"{k * EACH:>9,} {source.parent.name}/{source.name}")
        return 0
    tally, began = Tally(), time.perf_counter()

    def take(done: Tally) -> bool:
        tally.add(done)
        for failure in done.failures:
            print(failure, flush=True)
        return len(tally.failures) < 5

    in_slices(one_slice, range(args.first, args.to), SLICE, args.jobs, take)
    seconds = time.perf_counter() - began
    print(f"{tally.cuts:,} cuts, {tally.cuts / seconds:,.0f}/s, slowest {tally.slowest:.2f} s, "
          f"{len(tally.failures)} failures")
    for answer, count in tally.answers.most_common():
        print(f"    {count:>9,}  {answer}")
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
