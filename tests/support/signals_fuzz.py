"""Ends commands at random moments, by SIGKILL, SIGTERM and SIGINT: nothing is half-written.

Run as a program it is the long form (`make fuzz-signals N=1000`). After each signal every file is the
one that was there before or the one that the command makes; a command that was told to end has left
nothing, and what one that was killed has left the same command removes when it is run again. Exit
codes: 143 for SIGTERM, 130 for SIGINT, as a shell sees them. Half of the signals come at any moment,
the others once the command has begun to write. One command in AS_PROCESS is started as a user does,
the others are forked from a process that has loaded the program (forking.py).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import local
from typing import Any

from driving import ROOT, cli  # isort: skip
from forking import Forking  # isort: skip
from import_corpus import text_inputs  # isort: skip
from nights import stepped  # isort: skip
from nights import history as nights  # isort: skip
from recordings import RECORDINGS  # isort: skip

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
SIGNALS = (KILL, KILL, TERM, INT)
CODES = {KILL: {-KILL}, TERM: {143, -TERM}, INT: {130, -INT}}
"""Before a command line is loaded a signal ends the process itself, which a shell shows alike."""
TRACE = ROOT / "traces/pvh-dom0.arrow"
VERBS: dict[str, tuple[str, ...]] = {
    "synth": ("synth", "-o", "made/s.arrow", "--seconds", "15"),
    "import": ("import", "recording/trace.dat", "-o", "made/i.arrow", "--machine", "recording"),
    "import of an archive": ("import", "recording.tar.gz", "-o", "made/a.arrow"),
    "convert": ("convert", "t.arrow", "made/c.arrow"),
    "run": ("run", "t.arrow", "--allocator", "pool", "--allocator", "balloon", "--overwrite",
            "--out", "made/run"),
    "run without rows": ("run", "t.arrow", "--allocator", "pool", "--no-outcome",
                         "--overwrite", "--out", "made/run"),
    "report": ("report", "run", "-o", "made/report.html"),
    "report in figures": ("report", "run", "--format", "svg", "-o", "made/figures"),
    "calibrate": ("calibrate", "t.arrow", "-o", "made/p.toml"),
    "gate accept": ("gate", "accept", "--baseline", "made/baseline"),
    "gate check": ("gate", "check", "--out", "made/gate"),
    "gate add": ("gate", "add", "t.arrow", "--history", "made/history", "--time", "2026-01-01"),
    "gate drift": ("gate", "drift", "--history", "history", "--out", "made/drift"),
    "collect": ("record", "collect", "--dir", "recording", "-o", "made/r.tar.gz")}
MADE = ("made", "tmp")
"""Folders that commands write in: what they are told to make, and temporary files."""
NEED_RECORDING = ("import", "import of an archive", "collect")


AS_PROCESS = 10
AT_WRITING = 0.3
"""Of a verb's duration, for the moments behind its first file."""


class _Started:
    """A command started as a user does."""

    def __init__(self, words: tuple[str, ...], folder: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "replay", *words], cwd=folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")})
        self.pid = self._child.pid

    def ended(self) -> tuple[int, str]:
        """How it ended, and what it said on standard error."""
        _, said = self._child.communicate(timeout=300)
        return self._child.returncode, said.decode(errors="replace")

    def over(self) -> bool:
        """Whether it has ended."""
        return self._child.poll() is not None


class _Starting:
    """Starts commands, each of them within a folder of its own."""

    def __enter__(self) -> _Starting:
        self._forking = Forking().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._forking.__exit__()

    def start(self, words: tuple[str, ...], folder: Path, as_process: bool = False) -> Any:
        """Begin a command in a folder, with temporary files of its own."""
        for name in MADE:
            (folder / name).mkdir(exist_ok=True)
        return _Started(words, folder) if as_process else self._forking.start(words, folder)


@dataclass
class Tried:
    """What became of the signals. in_time: those that met the command under way."""

    signals: int = 0
    in_time: int = 0
    left: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verb:
    """One verb, tried out: how long it takes, and the digest of each file that it makes."""

    name: str
    words: tuple[str, ...]
    seconds: float
    makes: dict[str, str]


def prepare(folder: Path) -> None:
    """The inputs of all verbs."""
    shutil.copy(TRACE, folder / "t.arrow")
    (folder / "gate.toml").write_text('[[check]]\ntrace = "t.arrow"\nallocators = ["pool"]\n')
    nights(folder / "history", {"slow": stepped("normal", 1)[0]})
    for words in (("run", TRACE, "--allocator", "pool", "--out", folder / "run"),
                  ("gate", "accept", "--config", folder / "gate.toml")):
        assert cli(*words).code == 0
    if RECORDINGS.is_dir():
        source = RECORDINGS / "x86-pvh-guests"
        (folder / "recording").mkdir()
        for name in ("trace.dat", "dmesg", "xl-dmesg"):
            shutil.copy(source / name, folder / "recording")
        shutil.copytree(source / "before", folder / "recording/before")
        assert cli("record", "collect", "--dir", folder / "recording", "-o",
                   folder / "recording.tar.gz").code == 0
    else:
        (folder / "t.txt").write_bytes(text_inputs()[0])


def digests(folder: Path) -> dict[str, str]:
    """Each file that was made, or left, by its digest."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for part in MADE for path in sorted((folder / part).rglob("*"))
            if path.is_file()}


def tried_out(folder: Path, name: str, starting: _Starting) -> Verb:
    """A verb run to its end, the second time for its duration."""
    words = VERBS[name]
    for _ in range(2):
        began = time.monotonic()
        code, said = starting.start(words, folder).ended()
        assert code == 0, (name, said)
        seconds = time.monotonic() - began
    made = digests(folder)
    shutil.rmtree(folder / "made")
    return Verb(name, words, seconds, made)


def _wait(rng: random.Random, verb: Verb, child: Any, folder: Path, before: dict[str, str]) -> None:
    """Until the moment of the signal: any, or a while after the first file is there."""
    if rng.random() < 0.5:
        time.sleep(rng.random() * verb.seconds * 1.1)
        return
    while not child.over():
        names = {str(path.relative_to(folder)) for part in MADE
                 for path in (folder / part).rglob("*") if path.is_file()}
        if names - set(before):
            time.sleep(rng.random() * verb.seconds * AT_WRITING)
            return
        time.sleep(0.001)


def one(verb: Verb, base: Path, seed: int, number: int, starting: _Starting
        ) -> tuple[str, str, bool]:
    """One signal: how the command ended, what is wrong ("": nothing), and whether it left files."""
    rng = random.Random(hash((seed, number)))
    how, old = SIGNALS[number % len(SIGNALS)], rng.random() < 0.5
    with tempfile.TemporaryDirectory(dir=base.parent) as name:
        folder = Path(name)
        for path in base.iterdir():
            if path.name not in MADE:
                (folder / path.name).symlink_to(path)
        before = _old_files(folder, verb) if old else {}
        child = starting.start(verb.words, folder, number // len(SIGNALS) % AS_PROCESS == 0)
        _wait(rng, verb, child, folder, before)
        with suppress(ProcessLookupError):  # ended, and seen to
            os.kill(child.pid, how)
        code, said = child.ended()
        found = digests(folder)
        wrong = _wrong(verb, how, code, said, before, found)
        left = any(path not in verb.makes for path in found)
        if left or any((folder / "tmp").iterdir()) or (
                how == KILL and found not in (before, verb.makes)):
            wrong += _again(verb, folder, child.pid, starting)
        return _end(code), wrong and f"{verb.name}, {how.name}, {number}: {wrong}", left


def _again(verb: Verb, folder: Path, ended: int, starting: _Starting) -> str:
    """Run a verb that was ended once more; what is wrong then."""
    again = starting.start(verb.words, folder)
    code, said = again.ended()
    if code:
        return f"; run again it ends with {code}: {said[-300:]}"
    found = digests(folder)
    if found == verb.makes and not any((folder / "tmp").iterdir()):
        return ""
    return (f"; process {ended} was ended, run again as {again.pid} it leaves "
            f"{[path for path in found if found[path] != verb.makes.get(path)][:3]} and says "
            f"{said[-300:]}")


def _old_files(folder: Path, verb: Verb) -> dict[str, str]:
    """Files of an earlier, other run of the verb."""
    for path in verb.makes:
        # what is there of a history or a baseline is read first, and must be one
        if not path.startswith(("made/history", "made/baseline")):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if not path.startswith("made/run/"):
                (folder / path).write_text("{}" if path.endswith(".json") else "old")
            elif (other := folder / "run" / Path(path).name).exists():  # no other file is replaced
                shutil.copy(other, folder / path)
    return digests(folder)


def _wrong(verb: Verb, how: signal.Signals, code: int, said: str, before: dict[str, str],
           found: dict[str, str]) -> str:
    if code not in {0, *CODES[how]}:
        return f"ends with {code}: {said[-500:]}"
    # Python itself tells of an interrupt with a traceback until the program has begun.
    if "defect" in said or ("Traceback" in said and str(ROOT / "replay/__main__.py") in said):
        return f"says {said[-500:]}"
    for path, digest in found.items():
        left = path not in verb.makes
        if left and how != KILL:
            return f"left {path}"
        if not left and digest not in (before.get(path), verb.makes[path]):
            return f"{path} is neither the old one nor the new one"
    if missing := [path for path in before if path not in found]:
        return f"lost {missing}"
    if code == 0 and found != verb.makes:
        return f"made {sorted(found)} and ended with 0"
    return ""


def _end(code: int) -> str:
    return {0: "done", -KILL: "killed", -TERM: "SIGTERM, at once", -INT: "SIGINT, at once"}.get(
        code, str(code))


def run(signals: range, seed: int, base: Path, jobs: int = 1,
        names: tuple[str, ...] | None = None) -> Tried:
    """So many signals, over all verbs that can be had here."""
    prepare(base)
    names = tuple(name for name in names or tuple(VERBS)
                  if RECORDINGS.is_dir() or name not in NEED_RECORDING)
    tried, said, mine = Tried(), time.monotonic(), local()
    with ExitStack() as stack:
        all_of_them = [stack.enter_context(_Starting()) for _ in range(jobs)]
        verbs = [tried_out(base, name, all_of_them[0]) for name in names]
        if len(signals) > 100:
            print(", ".join(f"{verb.name} {verb.seconds:.1f} s" for verb in verbs), flush=True)

        def begin() -> None:
            mine.starting = all_of_them.pop()

        def task(number: int) -> tuple[str, str, bool]:
            try:
                return one(verbs[number // len(SIGNALS) % len(verbs)], base, seed, number,
                           mine.starting)
            except subprocess.TimeoutExpired:
                return "hangs", f"{number}: does not end", False

        pool = stack.enter_context(ThreadPoolExecutor(jobs, initializer=begin))
        for end, wrong, left in pool.map(task, signals):
            tried.signals += 1
            tried.ends[end] += 1
            tried.in_time += end != "done"
            tried.left += left
            if wrong:
                tried.wrong.append(wrong)
                print(wrong, flush=True)
            if time.monotonic() - said > 60:
                said = time.monotonic()
                print(f"  {tried.signals:,} of {len(signals):,}", flush=True)
    return tried


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=1000, help="half SIGKILL, a quarter each other")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="commands at once")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        base.mkdir()
        tried = run(range(args.first, args.signals), args.seed, base, args.jobs)
    print(f"{tried.signals:,} signals, {tried.in_time:,} of them in time, {tried.left:,} left files "
          f"for the next command; {len(tried.wrong)} wrong")
    for end, count in tried.ends.most_common():
        print(f"  {count:>6,}  {end}")
    return bool(tried.wrong)


if __name__ == "__main__":
    sys.exit(main())
