"""xentrace beside an ftrace recording: its command line, its start, its orderly end."""

from __future__ import annotations

import subprocess
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
    """Run it in the background; why it ended at once, or nothing."""
    with log.open("wb") as sink:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                                 start_new_session=True)
    try:
        child.wait(_AT_ONCE_S)
    except subprocess.TimeoutExpired:
        return ""
    words = log.read_text("utf-8", "replace").split()
    return " ".join(words[:30]) or f"exit code {child.returncode}"


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
            process.send_signal(2)
            process.wait(GRACE_S)
        except psutil.TimeoutExpired:
            process.kill()
        except psutil.NoSuchProcess:
            pass
