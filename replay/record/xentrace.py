"""xentrace beside an ftrace recording: its command line, its start, its orderly end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

PROGRAM: Final = "xentrace"
EVENTS: Final = "0x0010f000"
"""TRC_MEM (xen/include/public/trace.h): grants mapped and unmapped, p2m entries, reservations."""
PAGES: Final = "512"
"""Of each CPU's buffer in Xen."""
GRACE_S: Final = 10.0
_AT_ONCE_S: Final = 0.5


def command(output: Path) -> list[str]:
    """Discard what Xen's buffers hold, then record to `output`."""
    return [PROGRAM, "-D", "-e", EVENTS, "-S", PAGES, str(output)]


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


def _running(output: Path) -> list[psutil.Process]:
    """Processes that are this program and write this very file: found again by any process."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        argv = process.info["cmdline"] or []
        if argv[-1:] == [str(output)] and process.info["status"] != psutil.STATUS_ZOMBIE \
                and PROGRAM in (Path(word).name for word in argv[:2]):
            found.append(process)
    return found


def end(output: Path, *, told: Callable[[str], None], dry: bool = False) -> None:
    """End it by SIGINT, on which it writes out its buffers; by force if it does not."""
    for process in _running(output):
        told(f"kill -INT {process.pid}")
        if dry:
            continue
        try:
            process.send_signal(signal.SIGINT)
            process.wait(GRACE_S)
        except psutil.TimeoutExpired:
            process.kill()
        except psutil.NoSuchProcess:
            pass
