"""Feeds damaged inputs to an importer: each is refused with a sentence, or all its promises hold.

Run as a program it is the long form (`make fuzz-import`). An input is known by format, seed and
number, so that a failure can be repeated: `python tests/import_fuzz.py FORMAT --seed S --only N`.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from replay.anomalies import KNOWN
from replay.errors import InputError, ReplayError
from replay.importers.ftrace_text import read_ftrace_text
from replay.importers.imported import Imported
from replay.importers.normalise import normalise, wanted_by
from replay.importers.probes import Decoded, load_table
from replay.importers.session import import_recording
from replay.importers.trace_dat import everything, read_trace_dat
from replay.importers.xentrace import read_xentrace
from replay.schema import KINDS, SCHEMA, Flag
from replay.trace.store import load, save

from import_answers import ANSWERS  # isort: skip
from mutations import MUTATIONS  # isort: skip

HZ = 2_596_140_000
TABLE = load_table()
WANTED = wanted_by(TABLE)
SETTINGS = {"cpu_hz": str(HZ), "xen_version": "4.17.7", "vmemmap_base": "0xffffea0000000000"}
SECONDS_EACH = 10
MEMORY = 512 << 20
"""What one input, some KB in size, may take beyond the program itself."""
ALL_FLAGS = sum(Flag)


class Broken(AssertionError):
    """A promise that an accepted input breaks."""


def need(condition: object, *what: object) -> None:
    """An assertion that no option of Python takes out."""
    if not condition:
        raise Broken(" ".join(map(str, what)))


# -- what holds for whatever is accepted ---------------------------------------------------------
def check_decoded(decoded: Decoded, data: bytes) -> None:
    """Streams are whole, within the file, and every record is in one or counted by name."""
    events = decoded.events().total() + decoded.undecoded.total()
    need(events == decoded.records, events, "events of", decoded.records, "records")
    need(decoded.records_lost >= 0, "negative loss")
    need(set(decoded.anomalies.counts) <= set(KNOWN), "unknown anomaly")
    need(min(decoded.undecoded.values(), default=0) >= 0, "negative count")
    for stream in decoded.streams:
        n = len(stream.time)
        columns = (stream.time, stream.cpu, stream.pid, stream.order, stream.source_offset)
        need(all(len(c) == n and c.dtype == np.int64 for c in columns), "ragged", stream.event)
        need(len(stream.task) == n, "tasks of", stream.event)
        need(all(len(c) == n and c.dtype == np.int64 for c in stream.numbers.values()), "numbers")
        need(all(len(c) == n for c in stream.texts.values()), "texts of", stream.event)
        for part in stream.arrays.values():
            need(part.values.shape[0] == len(part.whole) == n, "array of", stream.event)
            need(not n or 0 <= part.whole.min() and part.whole.max() <= part.values.shape[1],
                 "more elements than there are")
        if n:
            need(0 <= stream.time.min() and stream.time.max() < 1 << 62, "times")
            need(decoded.first_time <= stream.time.min(), "first time")
            need(stream.time.max() <= decoded.last_time, "last time")
            need(stream.cpu.min() >= 0 and stream.order.min() >= 0, "places")
            need(stream.source_offset.min() >= 0, "offsets")
    orders = [s.order for s in decoded.streams if len(s)]
    if orders:
        every = np.concatenate(orders)
        need(len(np.unique(every)) == len(every), "one place for two events")


def framing(data: bytes) -> tuple[int, bool] | None:
    """Records (windows too) of an xentrace file and whether it is cut; None if it is none."""
    marks = {b"\x03\xf0\x01\x20": "<", b"\x20\x01\xf0\x03": ">"}
    order = next((o for mark, o in marks.items() if mark.startswith(data[:4])), None)
    if order is None:
        return None
    n = len(data) // 4
    words = struct.unpack(f"{order}{n}I", data[:4 * n])
    at = count = 0
    cut = len(data) % 4 > 0
    while at < n:
        if words[at] != 0x2001F003:
            return None
        if at + 3 > n:
            return count, True
        cpu, size = words[at + 1:at + 3]
        if cpu > 0xFFFF or size % 4:
            return None
        at, end, count = at + 3, at + 3 + size // 4, count + 1
        while at < min(end, n):
            timed, length = words[at] >> 31, 1 + 2 * (words[at] >> 31) + (words[at] >> 28 & 7)
            if at + length > end:
                return None
            if at + length > n:
                return count, True
            if timed and words[at + 2] >> 30:
                return None
            at, count = at + length, count + 1
        if end > n:
            return count, True
    return count, cut


def check_framing(imported: Imported, data: bytes) -> None:
    """As many records as a plain reading finds."""
    said = (imported.accounting["records"], bool(imported.anomalies.counts["file_truncated"]))
    need(said == framing(data), "records, cut:", said, "expected:", framing(data))


def check_table(imported: Imported) -> None:
    """The promises of a table: schema, order, ranges, and an account that adds up."""
    table, account = imported.table, imported.accounting
    need(table.schema.equals(SCHEMA), "schema")
    table.validate(full=True)
    skipped = account["skipped"]
    need(account["records"] == account["imported"] + sum(skipped.values()), "account", account)
    need(min([account["imported"], account["lost"], *skipped.values()]) >= 0, "negative", account)
    need(imported.anomalies.counts["records_lost"] == account["lost"], "losses")
    need(all(c > 0 for c in imported.anomalies.counts.values() if c), "negative anomaly")
    if not table.num_rows:
        return
    ns = table["time_ns"].to_numpy()
    need(not table["time_ns"].null_count and (np.diff(ns) >= 0).all(), "order")
    need(ns[0] >= 0, "negative time")
    need(set(pc.unique(table["kind"]).to_pylist()) <= set(KINDS), "kinds")
    for name, low, high in (("nr_pages", 0, 1 << 42), ("start_pfn", 0, 1 << 42),
                            ("flags", 0, ALL_FLAGS), ("cpu", 0, 1 << 31), ("domid", 0, 0xFFFF),
                            ("source", 0, 0), ("source_offset", 0, 1 << 40)):
        span = pc.min_max(table[name])
        least, most = span["min"].as_py(), span["max"].as_py()
        need(least is None or low <= least and most <= high, name, least, most)
    frames = table["frames"].combine_chunks().flatten()
    need(not frames.null_count, "null frames")
    need(len(frames) == 0 or pc.min(frames).as_py() >= -1, "frames")
    if imported.ticks is not None:
        need(len(imported.ticks) == table.num_rows, "ticks")


# -- one format ----------------------------------------------------------------------------------
def _dat(path: Path, data: bytes, number: int) -> Callable[[], Imported]:
    decoded = read_trace_dat(path, everything if number % 3 else WANTED)
    check_decoded(decoded, data)
    return lambda: normalise(decoded, hz=HZ, vmemmap_base=0xFFFFEA0000000000, table=TABLE,
                             source=0)


def _text(path: Path, data: bytes, number: int) -> Callable[[], Imported]:
    decoded = read_ftrace_text(path)
    check_decoded(decoded, data)
    _check_lines(decoded, data)
    return lambda: normalise(decoded, hz=HZ, vmemmap_base=0xFFFFEA0000000000, table=TABLE,
                             source=0)


_SILENT = re.compile(r"#|\s*$| ?=> |.*: +<(?:user )?stack trace ?>$|##### CPU \d+ buffer started "
                     r"####|version = \d|cpus=\d+$|CPU \d+ is empty$|CPU:\d+ \[")


def _check_lines(decoded: Decoded, data: bytes) -> None:
    """Every line is an event or counted, but for comments, blank ones and notices."""
    counts = decoded.anomalies.counts
    lines = data.split(b"\n")
    silent = sum(bool(_SILENT.match(line.rstrip(b"\r").decode("utf-8", "backslashreplace")))
                 for line in lines)
    told = (decoded.records - counts["joined_lines_recovered"] + counts["lines_unmatched"]
            + counts["marker_lines"])
    need(len(lines) - silent <= told <= len(lines), "lines:", len(lines), "silent:", silent,
         "told:", told)


def _xen(path: Path, data: bytes, number: int) -> Callable[[], Imported]:
    try:
        imported = read_xentrace(path, hz=HZ, xen_version="4.17.7" if number % 3 else "4.18.1")
    except InputError as error:
        need(framing(data) is None or "frequency" in str(error), "refused:", error)
        raise
    check_framing(imported, data)
    return lambda: imported


READERS: dict[str, Callable[[Path, bytes, int], Callable[[], Imported]]] = {
    "trace.dat": _dat, "ftrace text": _text, "xentrace": _xen}


def store(path: Path) -> None:
    """The whole way: import, save, load, the same table."""
    trace = import_recording([path], "fuzz", machine_dir=None, settings=SETTINGS, probes=None)
    out = path.with_suffix(".arrow")
    save(trace, out)
    again = load(out)
    need(again.table.cast(SCHEMA).equals(trace.table.cast(SCHEMA)), "another table is stored")
    need(again.meta.accounting == trace.meta.accounting, "another account is stored")


# -- the loop ------------------------------------------------------------------------------------
@dataclass
class Tally:
    """What became of the inputs."""

    inputs: int = 0
    accepted: int = 0
    tables: int = 0
    stored: int = 0
    answers: int = 0
    slowest: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, bytes, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Shares:
    """Every input is decoded. Of those accepted, every so many become a table, and a stored trace;
    every so many inputs are ones whose right answer is known."""

    table: int = 12
    stored: int = 512
    answer: int = 24



_NUMBERS = re.compile(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"|b'.*'|\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b|\(.*\)")


def _class(error: ReplayError) -> str:
    text = error.problem if isinstance(error, InputError) else str(error).partition(": ")[2]
    return _NUMBERS.sub("N", text)[:70]


def _too_slow(*_: Any) -> None:
    raise Broken(f"takes more than {SECONDS_EACH} seconds")


def try_one(name: str, seed: int, number: int, path: Path, tally: Tally, shares: Shares) -> None:
    """One input; raises whatever is no refusal."""
    rng = random.Random(hash((sorted(READERS).index(name), seed, number)))
    if number % shares.answer == 0:
        path.unlink(missing_ok=True)
        rng.choice(ANSWERS[name])(rng, path)
        tally.answers += 1
        tally.accepted += 1
        return
    data = rng.choice(MUTATIONS[name])(rng)
    path.write_bytes(data)
    try:
        table = READERS[name](path, data, number)
        tally.accepted += 1
        if tally.accepted % shares.table == 0:
            check_table(table())
            tally.tables += 1
        if tally.accepted % shares.stored == 0:
            store(path)
            tally.stored += 1
    except ReplayError as error:
        tally.refused[_class(error)] += 1


def run(name: str, seed: int, numbers: range, folder: Path, shares: Shares = Shares(),  # noqa: B008
        most_failures: int = 5, seconds: int = SECONDS_EACH) -> Tally:
    """Inputs of one format; failures are collected with the input and the traceback."""
    tally, path = Tally(), folder / "input"
    signal.signal(signal.SIGALRM, _too_slow)
    for number in numbers:
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            try_one(name, seed, number, path, tally, shares)
        except Exception:
            signal.setitimer(signal.ITIMER_REAL, 0)
            tally.failures.append((number, path.read_bytes() if path.exists() else b"",
                                   traceback.format_exc()))
            if len(tally.failures) >= most_failures:
                break
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        tally.inputs += 1
        tally.slowest = max(tally.slowest, time.perf_counter() - began)
    return tally


def bound_memory() -> None:
    """From here on this process may take MEMORY more; what is beyond it is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def report(name: str, tally: Tally, seconds: float) -> str:
    """What was done, in lines."""
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = [(f"{name}: {tally.inputs:,} inputs, {tally.inputs / seconds:,.0f}/s, "
              f"{tally.accepted:,} accepted ({tally.tables:,} to tables, {tally.stored:,} stored, "
              f"{tally.answers:,} with a known answer), {tally.refused.total():,} refused, "
              f"slowest {tally.slowest:.2f} s, peak {rss:,.0f} MiB, "
              f"{len(tally.failures)} failures")]
    lines += [f"    {count:>9,}  {said}" for said, count in tally.refused.most_common()]
    for number, _, text in tally.failures:
        lines.append(f"  input {number}:\n{text}")
    return "\n".join(lines)


def main() -> int:
    """The long form, one format per process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=READERS)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="repeat one input")
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    args = parser.parse_args()
    numbers = range(args.only, args.only + 1) if args.only is not None else range(args.inputs)
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        # compiles, loads, opens
        first = run(args.format, args.seed, range(200), Path(folder), Shares(2, 8, 4), seconds=600)
        bound_memory()
        began = time.perf_counter()
        tally = run(args.format, args.seed, numbers, Path(folder))
        tally.failures += first.failures
        print(report(args.format, tally, time.perf_counter() - began), flush=True)
    for number, data, _ in tally.failures:
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            (args.keep / f"{args.format}-{args.seed}-{number}".replace(" ", "-")).write_bytes(data)
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
