"""Feeds damaged files to the verbs: each is refused with a sentence, or all that was promised holds.

Run as a program it is the long form (`make fuzz-files`). An input is known by kind, seed and number,
so that a failure can be repeated: `python tests/support/file_fuzz.py KIND --seed S --only N`;
`--from K` goes on where an earlier run ended. What must hold for each input: no exception but a
ReplayError, whose sentence names a file; an exit of 1 for differences alone; no more than
SECONDS_EACH of the processor and MEMORY beyond the program; and what is accepted is the same once
it was written and read again. All of it is done in a process that is warm; of each AS_PROCESS
inputs one goes through a process of its own as well. A process that dies is made again, and the
input that it died of is named. With --group all of them are in a control group of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from replay.base import memory

from commanding import also_real  # isort: skip
from file_kinds import machine, table, trace  # isort: skip
from import_fuzz import SECONDS_EACH, Tally, _too_slow, report  # isort: skip
from result_kinds import history, run_folder, sequence  # isort: skip
from memory_group import group, join  # isort: skip
from slices import in_slices  # isort: skip

Kind = Callable[[random.Random, Path, Tally], None]
KINDS: dict[str, Kind] = {"traces": trace, "machines": machine, "tables": table,
                          "histories": history, "runs": run_folder, "sequences": sequence}
MEMORY = 512 << 20
"""What a command may use beyond the program: it is told so by its limit."""
SHARED = Path("/dev/shm")
ADDRESSES = 1 << 40
"""Of the process, beyond the program: threads and their heaps take addresses, not memory."""


def try_one(name: str, seed: int, number: int, folder: Path, tally: Tally) -> None:
    """One input; raises whatever is a fault."""
    KINDS[name](random.Random(hash((list(KINDS).index(name), seed, number))), folder, tally)


def run(name: str, seed: int, numbers: range, folder: Path, most_failures: int = 5,
        seconds: int = SECONDS_EACH) -> Tally:
    """Inputs of one kind; failures are collected with their files and the traceback."""
    tally, at = Tally(), AtWork(folder)
    signal.signal(signal.SIGPROF, _too_slow)
    for number in numbers:
        at.begins(number, seconds)
        if number % AS_PROCESS == 0:
            also_real()
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
    at.ended()
    tally.peak = _peak()
    return tally


class AtWork:
    """Says in a file at which input a process is, for when it dies, and ends it where it hangs in a
    compiled loop, in which Python hears no signal."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "at", os.O_WRONLY | os.O_CREAT)
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGVTALRM, file=sys.__stderr__, chain=True)

    def begins(self, number: int, seconds: int) -> None:
        """An input begins, which may take so long."""
        os.pwrite(self._file, b"%-20d" % number, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 3 * seconds)

    def ended(self) -> None:
        """The last one is over."""
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        faulthandler.unregister(signal.SIGVTALRM)
        os.close(self._file)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _packed(folder: Path) -> bytes:
    """The files of an input."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as archive:
        archive.add(folder, "input")
    return body.getvalue()


# -- the long form -------------------------------------------------------------------------------
SLICE, MOST_FAILURES = 50, 5
AS_PROCESS = 500
ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1",
              "ARROW_DEFAULT_MEMORY_POOL": "system", "RUST_BACKTRACE": "0"}
"""For a process whose inputs are a few rows each."""
IN_GROUP = 1536 << 20
"""Bytes of all processes of a group together, files in memory included."""


def bound_memory() -> None:
    """From here on commands know how much memory they may use, and the process has no more."""
    memory.state(memory.used() + MEMORY)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@cache
def _prepared(name: str, seed: int, parent: Path, its_group: Path | None) -> Path:
    """A folder in memory, in a process that has compiled, loaded and opened what it needs."""
    faulthandler.enable()
    if its_group:
        join(its_group)
    folder = Path(tempfile.mkdtemp(dir=parent))
    os.environ["TMPDIR"] = str(folder)
    run(name, seed, range(1, 40), folder, seconds=600, most_failures=40)
    bound_memory()
    return folder


def one_slice(name: str, seed: int, parent: Path, its_group: Path | None, numbers: range) -> Tally:
    """Some inputs, in whatever process."""
    return run(name, seed, numbers, _prepared(name, seed, parent, its_group))


def _died(name: str, seed: int, parent: Path, take: Callable[[Tally], bool],
          left: list[range]) -> list[range]:
    """Find the input that a process died of, by trying again those that the processes were at; the
    ranges that are to be done then."""
    found = []
    for folder in sorted(parent.iterdir()):
        number = int((folder / "at").read_text() or -1)
        done = subprocess.run([sys.executable, __file__, name, "--seed", str(seed), "--only",
                               str(number)], capture_output=True, text=True)
        if done.returncode not in (0, 1):
            found.append(number)
            body = _packed(folder / "here") if (folder / "here").is_dir() else b""
            said = f"ends its process with {done.returncode}: {done.stderr[-300:]}"
            take(Tally(failures=[(number, body, said)]))
        shutil.rmtree(folder)
    if not found:
        print(f"  a process died before {left[0].start + SLICE}, and does not when tried again",
              flush=True)
    return [part for one in left for part in _without(one, found)]


def _without(numbers: range, found: list[int]) -> list[range]:
    """A range without what stands before a number of it, and that number."""
    inside = [number for number in found if number in numbers]
    return [range(max(inside) + 1, numbers.stop)] if inside else [numbers]


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
    parser.add_argument("--group", action="store_true", help="in a control group of memory")
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
        os.environ.update(ONE_THREAD)
        with (contextlib.ExitStack() as stack,
              tempfile.TemporaryDirectory(dir=SHARED if SHARED.is_dir() else None) as name):
            its_group = stack.enter_context(group(IN_GROUP)) if args.group else None
            same = (args.kind, args.seed, Path(name))
            in_slices(partial(one_slice, *same, its_group), range(args.first, args.inputs), SLICE,
                      args.jobs, take, partial(_died, *same, take))
    print(report(args.kind, tally, time.perf_counter() - began), flush=True)
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
