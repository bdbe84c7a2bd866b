"""Starts a worker for a shared object, watches it, and says in a sentence what ended it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay.base.errors import InputError, ReplayError
from replay.base.leftovers import temporary_folder
from replay.c import job as jobs
from replay.c.calls import CALLS, IN_NONE, OWN
from replay.costs.profile import Profile
from replay.engine.conformance import Finding
from replay.engine.drive import Outcome, Workload
from replay.engine.faults import NO_FAULTS, Faults
from replay.engine.state import word_of
from replay.physmap.model import Physmap

REQUEST = word_of("request")
CALLING, PAGES = map(OWN.place, ("calling", "pages"))
"""Words of a state that tell what is going on."""

TIME_LIMIT_S = 60.0
POLL_S = 0.02


class Misbehaved(ReplayError):
    """A shared object did at run time what no allocator may do."""


@dataclass(frozen=True)
class Ended:
    """How a worker ended: exit code or negative signal, None if it was stopped for taking too long;
    and the end of what it wrote to standard error."""

    status: int | None
    words: str


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The worker; whatever ends this process ends it too."""
    with open(folder / "stderr", "wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _progress(folder: Path) -> tuple[Any, ...]:
    """What changes as long as the worker gets anywhere."""
    found = folder / "findings.json"
    return (jobs.state_word(folder, REQUEST), jobs.state_word(folder, CALLING),
            found.stat().st_mtime_ns if found.exists() else 0)


def _wait(process: subprocess.Popen[bytes], folder: Path, time_limit: float) -> int | None:
    """Its exit status; None after so many seconds inside one call of the shared object."""
    since, before = time.monotonic(), _progress(folder)
    while process.poll() is None:
        time.sleep(POLL_S)
        now = _progress(folder)
        # Compiling and writing results take what they take: only the object's own code is timed.
        ours = now[1] == IN_NONE or not (folder / "begun").exists()
        if now != before or ours:
            since, before = time.monotonic(), now
        elif time.monotonic() - since > time_limit:
            return None
    return process.returncode


def _work(folder: Path, time_limit: float, *more: str) -> Ended:
    command = [sys.executable, "-m", "replay.c.worker", str(folder), *more]
    with _running(command, folder) as process:
        status = _wait(process, folder, time_limit)
    text = (folder / "stderr").read_bytes()[-4000:].decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return Ended(status, lines[-1].strip()[:300] if lines else "")


def _how(ended: Ended, time_limit: float) -> str:
    if ended.status is None:
        return f"did not return within {time_limit:g} s"
    said = f' ("{ended.words}")' if ended.words else ""
    if ended.status < 0:
        return f"crashed with {signal.Signals(-ended.status).name}{said}"
    return f"ended its process (exit code {ended.status}){said}"


def _where(folder: Path, workload: Workload, request: int | None) -> str:
    """Which request, in the words of the trace."""
    if request is None or not 0 <= request < len(workload):
        return "before the first request"
    return (f"request {request} (event {int(workload.event[request])}, "
            f"{int(workload.requests.time[request]) / 1e9:.6f} s)")


def _failure(path: Path, folder: Path, workload: Workload, ended: Ended, time_limit: float
             ) -> ReplayError:
    error = jobs.read_json(folder, jobs.ERROR)
    if error and error["kind"] == "load":
        return InputError(path, error["text"])
    if error and error["kind"] == "fault":
        return Misbehaved(f"{path}: {_where(folder, workload, error['request'])}: "
                          f"it {error['text']}")
    if error:
        return Misbehaved(f"{path}: {error['text']}")
    call = jobs.state_word(folder, CALLING)
    request = jobs.state_word(folder, REQUEST)
    if call is None:
        return Misbehaved(f"{path}: {_how(ended, time_limit)} while it was opened")
    known = CALLS[call] if 0 < call < len(CALLS) else ""
    pages = jobs.state_word(folder, PAGES)
    inside = f" in {known}()" + (f" of {pages} pages" if pages else "") if known else ""
    place = "" if known == "replay_init" else f"{_where(folder, workload, request)}: "
    return Misbehaved(f"{path}: {place}it {_how(ended, time_limit)}{inside}")


def replay_supervised(path: Path, name: str, given: Mapping[str, Any], machine: Physmap,
                      workload: Workload, profile: Profile, *, check: bool,
                      time_limit: float = TIME_LIMIT_S, faults: Faults = NO_FAULTS) -> Outcome:
    """Replay in a process of its own.

    InputError if the object cannot be used at all; Misbehaved, with the request that was under
    way, if it crashed, looped, or did what no allocator may do.
    """
    if not path.is_file():
        raise InputError(path, "no such shared object", hint="build one with gcc -shared -fPIC")
    with temporary_folder() as folder:
        jobs.write_job(folder, path, name, given, machine, profile, workload, check, faults)
        ended = _work(folder, time_limit)
        if ended.status != 0 or not (folder / jobs.RESULT).exists():
            raise _failure(path, folder, workload, ended, time_limit)
        return jobs.read_outcome(folder, path, name, given, machine, workload, profile)


def check_supervised(path: Path, time_limit: float = TIME_LIMIT_S) -> list[Finding]:
    """The conformance kit in a process of its own; a crash is one more finding."""
    if not path.is_file():
        raise InputError(path, "no such shared object", hint="build one with gcc -shared -fPIC")
    with temporary_folder() as folder:
        jobs.write_json(folder, jobs.JOB, {"object": str(path.resolve()), "name": path.stem})
        ended = _work(folder, time_limit, "check")
        error = jobs.read_json(folder, jobs.ERROR)
        if error:
            raise InputError(path, error["text"])
        done = [Finding(**f) for f in jobs.read_json(folder, "findings.json") or []]
        if ended.status == 0 and (folder / jobs.RESULT).exists():
            return done
        after = f"after {done[-1].name!r}" if done else "in the first test"
        return [*done, Finding("survival", False, f"{after}: it {_how(ended, time_limit)}")]
