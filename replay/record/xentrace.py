"""xentrace beside an ftrace recording: its command line, its start, its orderly end."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

PROGRAM: Final = "xentrace"
RECORDED_EVENTS: Final = "0x0010f000"
"""TRC_MEM (xen/include/public/trace.h): grants mapped and unmapped, p2m entries, reservations."""
BUFFER_PAGES: Final = "512"
"""Of each CPU's buffer in Xen."""
GRACE_S: Final = 10.0
_AT_ONCE_S: Final = 0.5
_FAILURE: Final = re.compile("fail|limit reached|error|cannot|could", re.IGNORECASE)
"""In what it prints (tools/xentrace/xentrace.c of Xen 4.17); a full disk is a write that failed."""


def command(output: Path) -> list[str]:
    """Discard what Xen's buffers hold, then record to `output`."""
    return [PROGRAM, "-D", "-e", RECORDED_EVENTS, "-S", BUFFER_PAGES, str(output)]


def start(argv: list[str], log: Path) -> str:
    """Run it in a session of its own; why it ended at once, or nothing.

    Not by subprocess: it is meant to outlive this program, and nobody waits for it.
    """
    opened = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    child = os.posix_spawnp(argv[0], argv, os.environ, setsid=True, file_actions=[
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), opened, 0o644), (os.POSIX_SPAWN_DUP2, 1, 2)])
    deadline = time.monotonic() + _AT_ONCE_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            words = log.read_text("utf-8", "replace").split()
            return " ".join(words[:30]) or f"exit code {os.waitstatus_to_exitcode(status)}"
        time.sleep(0.02)
    return ""


class Process(NamedTuple):
    """A running process; the time of its start tells it from a later one of the same number."""

    pid: int
    started: bytes


def _process(folder: Path) -> Process | None:
    """What is at a /proc/PID; None where it has ended, be it as a zombie."""
    try:
        words = (folder / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if words[0] == b"Z" else Process(int(folder.name), words[19])


def _running(output: Path) -> list[Process]:
    """Processes that are this program and write this very file: found again by any process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            argv = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
        except OSError:
            continue
        process = _process(folder)
        if process and argv[-1:] == [str(output)] \
                and PROGRAM in (Path(word).name for word in argv[:2]):
            found.append(process)
    return found


def _ended(process: Process) -> bool:
    """Whether it ends in time."""
    deadline = time.monotonic() + GRACE_S
    while _process(Path(f"/proc/{process.pid}")) == process:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def end(output: Path, *, told: Callable[[str], None], dry: bool = False) -> str:
    """End it by SIGINT, on which it writes out its buffers; by force if it does not.

    Returns what kept it from writing all there was; "" if nothing did.
    """
    running = _running(output)
    killed = False
    for process in running:
        told(f"kill -INT {process.pid}")
        if dry:
            continue
        try:
            os.kill(process.pid, signal.SIGINT)
            if not _ended(process):
                os.kill(process.pid, signal.SIGKILL)
                killed = True
        except ProcessLookupError:
            pass
    return "" if dry else _shortcoming(output, bool(running), killed)


def _shortcoming(output: Path, found: bool, killed: bool) -> str:
    """Whether the output is whole. One that is becomes read-only, which takes no room on a disk:
    after a stop that found the disk full the next one still knows."""
    if not output.is_file() or not output.stat().st_mode & 0o200:
        return ""
    log = output.with_suffix(".log")
    failures = [line for line in (log.read_text("utf-8", "replace") if log.is_file() else ""
                                  ).splitlines() if _FAILURE.search(line)]
    if failures or killed or not found:
        return " ".join(" ".join(failures).split()[:30]) or (
            f"it did not end within {GRACE_S:.0f} s" if killed else "it was not running any more")
    output.chmod(output.stat().st_mode & 0o444)
    return ""
