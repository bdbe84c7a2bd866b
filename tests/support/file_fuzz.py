"""Feeds damaged files to the verbs: each is refused with a sentence, or all that was promised holds.

Run as a program it is the long form (`make fuzz-files`). An input is known by kind, seed and number,
so that a failure can be repeated: `python tests/support/file_fuzz.py KIND --seed S --only N`;
`--from K` goes on where an earlier run ended. What must hold for each input: no exception but a
ReplayError, whose sentence names a file; an exit of 1 for differences alone; no more than
SECONDS_EACH of the processor and MEMORY beyond the program; and what is accepted is the same once
it was written and read again.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from replay.base import memory

from file_kinds import machine, table, trace  # isort: skip
from import_fuzz import SECONDS_EACH, Tally, _too_slow, report  # isort: skip
from result_kinds import history, run_folder, sequence  # isort: skip
from slices import in_slices  # isort: skip

Kind = Callable[[random.Random, Path, Tally], None]
KINDS: dict[str, Kind] = {"traces": trace, "machines": machine, "tables": table,
                          "histories": history, "runs": run_folder, "sequences": sequence}
MEMORY = 512 << 20
"""What a command may use beyond the program: it is told so by its limit."""
ADDRESSES = 1 << 40
"""Of the process, beyond the program: threads and their heaps take addresses, not memory."""


def try_one(name: str, seed: int, number: int, folder: Path, tally: Tally) -> None:
    """One input; raises whatever is a fault."""
    KINDS[name](random.Random(hash((list(KINDS).index(name), seed, number))), folder, tally)


def run(name: str, seed: int, numbers: range, folder: Path, most_failures: int = 5,
        seconds: int = SECONDS_EACH) -> Tally:
    """Inputs of one kind; failures are collected with their files and the traceback."""
    tally = Tally()
    signal.signal(signal.SIGPROF, _too_slow)
    for number in numbers:
        began, peak = time.process_time(), _peak()
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            try_one(name, seed, number, folder, tally)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if _peak() - max(peak, memory.used() >> 20) > MEMORY >> 20:
                raise AssertionError(f"took {_peak() - peak} MiB more than any before")
        except BaseException as error:  # a panic of a library is no Exception
            signal.setitimer(signal.ITIMER_PROF, 0)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            tally.failures.append((number, _packed(folder / "here"), traceback.format_exc()))
            if len(tally.failures) >= most_failures:
                break
        tally.inputs += 1
        tally.slowest = max(tally.slowest, (time.process_time() - began, number))
    tally.peak = _peak()
    return tally


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _packed(folder: Path) -> bytes:
    """The files of an input."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as archive:
        archive.add(folder, "input")
    return body.getvalue()


# -- the long form -------------------------------------------------------------------------------
SLICE, MOST_FAILURES = 200, 5


def bound_memory() -> None:
    """From here on commands know how much memory they may use, and the process has no more."""
    memory.state(memory.used() + MEMORY)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@cache
def _prepared(name: str, seed: int) -> tempfile.TemporaryDirectory[str]:
    """A folder in memory, in a process that has compiled, loaded and opened what it needs."""
    faulthandler.enable()
    shared = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
    os.environ["TMPDIR"] = folder.name
    run(name, seed, range(40), Path(folder.name), seconds=600)
    bound_memory()
    return folder


def one_slice(name: str, seed: int, numbers: range) -> Tally:
    """Some inputs, in whatever process."""
    return run(name, seed, numbers, Path(_prepared(name, seed).name))


def main() -> int:
    """The long form of one kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--inputs", type=int, default=100_000, help="behind the last number")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", type=int, help="repeat one input")
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    parser.add_argument("--most", type=int, default=MOST_FAILURES, help="failures that end it")
    args = parser.parse_args()
    tally, began = Tally(), time.perf_counter()

    def take(done: Tally) -> bool:
        tally.add(done)
        for number, data, text in done.failures:
            print(f"  input {number:,} fails: {text.splitlines()[-1][:300]}", flush=True)
            if args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                (args.keep / f"{args.kind}-{args.seed}-{number}.tar.gz").write_bytes(data)
        return len(tally.failures) < args.most

    if args.only is not None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        take(run(args.kind, args.seed, range(args.only, args.only + 1), folder, seconds=600))
        shutil.rmtree(folder)
    else:
        in_slices(partial(one_slice, args.kind, args.seed), range(args.first, args.inputs), SLICE,
                  args.jobs, take)
    print(report(args.kind, tally, time.perf_counter() - began), flush=True)
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
