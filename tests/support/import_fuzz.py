"""Feeds damaged inputs to an importer: each is refused with a sentence, or all its promises hold.

Run as a program it is the long form (`make fuzz-import`). An input is known by format, seed and
number, whatever the number of processes, so that a failure can be repeated: `python
tests/support/import_fuzz.py FORMAT --seed S --only N`; `--from K` goes on where an earlier run ended.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from replay.base.errors import InputError, ReplayError
from replay.importers.dat import read as trace_dat
from replay.importers.dat.read import everything, read_trace_dat
from replay.importers.joining.normalise import normalise, wanted_by
from replay.importers.session import import_recording
from replay.importers.source.imported import Imported
from replay.importers.source.probes import load_table
from replay.importers.text import scan as text_scan
from replay.importers.text.read import read_ftrace_text
from replay.importers.xen import read as xentrace
from replay.importers.xen.read import read_xentrace
from replay.trace.schema import SCHEMA
from replay.trace.store import load, save

from import_answers import ANSWERS  # isort: skip
from import_checks import (  # isort: skip
    Broken, check_decoded, check_framing, check_lines, check_table, framing, need,
)  # fmt: skip
from mutations import MUTATIONS  # isort: skip
from slices import in_slices  # isort: skip

HZ = 2_596_140_000
TABLE = load_table()
WANTED = wanted_by(TABLE)
SETTINGS = {"cpu_hz": str(HZ), "xen_version": "4.17.7", "vmemmap_base": "0xffffea0000000000"}
SECONDS_EACH = 10
MEMORY = 512 << 20
"""What one input, some KB in size, may take beyond the program itself."""


# -- one format ----------------------------------------------------------------------------------
def _dat(path: Path, data: bytes, number: int) -> Callable[[], Imported]:
    decoded = read_trace_dat(path, everything if number % 3 else WANTED)
    check_decoded(decoded, data)
    return lambda: normalise(decoded, hz=HZ, vmemmap_base=0xFFFFEA0000000000, table=TABLE,
                             source=0)


def _text(path: Path, data: bytes, number: int) -> Callable[[], Imported]:
    decoded = read_ftrace_text(path)
    check_decoded(decoded, data)
    check_lines(decoded, data)
    return lambda: normalise(decoded, hz=HZ, vmemmap_base=0xFFFFEA0000000000, table=TABLE,
                             source=0)


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


# -- how much room a part has ---------------------------------------------------------------------
ROOMS = (*[(64, 64, 64)] * 4, *[(7, 4, 3)] * 2, (1 << 17, 1 << 14, 1 << 13))
"""Lines of a part of text, and how many tasks and places are held at once: room for a few, which
costs nothing, so little that most parts of a small input end for want of it, and the usual."""
DAT_PARTS = (*[1 << 23] * 10, 256)
"""Bytes that are decoded at a time: with the fewer there is a thread, which takes 2 ms to start."""
BATCHES = (1 << 16, 3)


@contextmanager
def rooms_restored() -> Iterator[None]:
    """Behind it the importers have the room they had; formats that stay whole are parsed once."""
    with (patch.object(text_scan, "PART_LINES", text_scan.PART_LINES),
          patch.object(text_scan, "MAX_TASKS", text_scan.MAX_TASKS),
          patch.object(text_scan, "MAX_PLACES", text_scan.MAX_PLACES),
          patch.object(trace_dat, "PART_BYTES", trace_dat.PART_BYTES),
          patch.object(trace_dat, "parse_format", lru_cache(1 << 12)(trace_dat.parse_format)),
          patch.object(xentrace, "BATCH_ROWS", xentrace.BATCH_ROWS)):
        yield


def set_rooms(number: int) -> None:
    """Give the importers the room of a numbered input: what they find may not depend on it."""
    lines, tasks, places = ROOMS[number % len(ROOMS)]
    vars(text_scan).update(PART_LINES=lines, MAX_TASKS=tasks, MAX_PLACES=places)
    vars(trace_dat).update(PART_BYTES=DAT_PARTS[number % len(DAT_PARTS)])
    vars(xentrace).update(BATCH_ROWS=BATCHES[number % len(BATCHES)])


# -- the loop ------------------------------------------------------------------------------------
@dataclass
class Tally:
    """What became of the inputs."""

    inputs: int = 0
    accepted: int = 0
    tables: int = 0
    stored: int = 0
    answers: int = 0
    slowest: tuple[float, int] = (0.0, 0)
    """Seconds of the processor, and which input took them."""
    peak: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, bytes, str]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Another's inputs as well."""
        for name in ("inputs", "accepted", "tables", "stored", "answers"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest, self.peak = max(self.slowest, other.slowest), max(self.peak, other.peak)
        self.refused += other.refused
        self.failures += other.failures


@dataclass(frozen=True)
class Shares:
    """Every input is decoded. Of those accepted, one in so many becomes a table, and a stored
    trace; every so many inputs are ones whose right answer is known."""

    table: int = 24
    stored: int = 1024
    answer: int = 48


_NUMBERS = re.compile(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"|b'.*'|\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b|\(.*\)")


def kind_of(error: ReplayError) -> str:
    """A refusal without the numbers and names of its own input."""
    text = getattr(error, "problem", "") or str(error).partition(": ")[2] or str(error)
    return _NUMBERS.sub("N", text)[:70]


def _too_slow(*_: Any) -> None:
    raise Broken(f"takes more than {SECONDS_EACH} seconds of the processor")


def try_one(name: str, seed: int, number: int, path: Path, tally: Tally, shares: Shares) -> None:
    """One input; raises whatever is no refusal."""
    rng = random.Random(hash((sorted(READERS).index(name), seed, number)))
    to_table, to_store = rng.random() * shares.table < 1, rng.random() * shares.stored < 1
    set_rooms(number)
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
        if to_table:
            check_table(table())
            tally.tables += 1
        if to_store:
            store(path)
            tally.stored += 1
    except ReplayError as error:
        tally.refused[kind_of(error)] += 1


def run(name: str, seed: int, numbers: range, folder: Path, shares: Shares = Shares(),  # noqa: B008
        most_failures: int = 5, seconds: int = SECONDS_EACH) -> Tally:
    """Inputs of one format; failures are collected with the input and the traceback."""
    tally, path = Tally(), folder / "input"
    signal.signal(signal.SIGPROF, _too_slow)
    with rooms_restored():
        for number in numbers:
            began = time.process_time()  # others may hold up this machine
            signal.setitimer(signal.ITIMER_PROF, seconds)
            try:
                try_one(name, seed, number, path, tally, shares)
            except Exception:
                signal.setitimer(signal.ITIMER_PROF, 0)
                tally.failures.append((number, path.read_bytes() if path.exists() else b"",
                                       traceback.format_exc()))
                if len(tally.failures) >= most_failures:
                    break
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            tally.inputs += 1
            tally.slowest = max(tally.slowest, (time.process_time() - began, number))
    tally.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return tally


# -- the long form -------------------------------------------------------------------------------
SLICE, MOST_FAILURES = 2000, 5


def bound_memory() -> None:
    """From here on this process may take MEMORY more; what is beyond it is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@cache
def _prepared(name: str, seed: int) -> tempfile.TemporaryDirectory[str]:
    """A folder in memory, in a process that has compiled, loaded and opened what it needs."""
    shared = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
    run(name, seed, range(200), Path(folder.name), Shares(2, 8, 4), seconds=600)
    bound_memory()
    return folder


def one_slice(name: str, seed: int, numbers: range) -> Tally:
    """Some inputs, in whatever process."""
    return run(name, seed, numbers, Path(_prepared(name, seed).name))


def report(name: str, tally: Tally, seconds: float) -> str:
    """What was done, in lines."""
    lines = [(f"{name}: {tally.inputs:,} inputs, {tally.inputs / seconds:,.0f}/s, "
              f"{tally.accepted:,} accepted ({tally.tables:,} to tables, {tally.stored:,} stored, "
              f"{tally.answers:,} with a known answer), {tally.refused.total():,} refused, "
              f"slowest {tally.slowest[0]:.2f} s (input {tally.slowest[1]}), peak {tally.peak:,} MiB, "
              f"{len(tally.failures)} failures")]
    lines += [f"    {count:>9,}  {said}" for said, count in tally.refused.most_common()]
    for number, _, text in tally.failures:
        lines.append(f"  input {number}:\n{text}")
    return "\n".join(lines)


def main() -> int:
    """The long form of one format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=READERS)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="behind the last number")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", type=int, help="repeat one input")
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    args = parser.parse_args()
    numbers = range(args.first, args.inputs)
    if args.only is not None:
        numbers = range(args.only, args.only + 1)
    tally, began = Tally(), time.perf_counter()

    def take(done: Tally) -> bool:
        tally.add(done)
        for number, data, _ in done.failures:
            print(f"  input {number:,} fails", flush=True)
            if args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                kept = f"{args.format}-{args.seed}-{number}".replace(" ", "-")
                (args.keep / kept).write_bytes(data)
        return len(tally.failures) < MOST_FAILURES

    in_slices(partial(one_slice, args.format, args.seed), numbers, SLICE, args.jobs, take)
    print(report(args.format, tally, time.perf_counter() - began), flush=True)
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
