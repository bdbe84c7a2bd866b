"""How much memory a command may use, and a refusal in a sentence where it would not do.

The kernel ends a process that takes too much without a word, so that what is known beforehand, or
seen to grow, is held against a limit: three quarters of what is available, unless it is stated.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from replay.base.errors import ReplayError

MAX_RATIO = 1000
"""A file may hold so many times its own bytes; recordings stay below 50. What is
made to hold more is refused unread."""
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([KMGT]?)(?:iB|B)?", re.IGNORECASE | re.ASCII)
_CGROUP, _OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_stated: list[int] = []


def parse_size(text: str) -> int:
    """Bytes of `600M`, `1.5GiB` or `1000000`; binary units. ReplayError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise ReplayError(f"--memory-limit {text}: expected a size such as 600M or 4GiB")
    return size


def state(limit: int | None) -> None:
    """Set the limit of this process, in bytes; None for three quarters of what is available."""
    _stated[:] = [] if limit is None else [limit]
    _of_machine.cache_clear()


def limit() -> int:
    """Bytes that the process may use."""
    return _stated[0] if _stated else _of_machine()


@cache
def _of_machine() -> int:
    left = [_available(), *(most - taken for most, taken in _groups())]
    return int((min(left) + used()) * 3 // 4)


def _available() -> int:
    """Bytes that the machine can give without swapping."""
    with suppress(OSError, ValueError, StopIteration):
        with open("/proc/meminfo", encoding="ascii") as file:
            said = next(line for line in file if line.startswith("MemAvailable:"))
        return int(said.split()[1]) << 10
    import psutil

    return int(psutil.virtual_memory().available)


def _groups() -> Iterator[tuple[int, int]]:
    """(most bytes, bytes taken) of the control groups that the process is in, from its own up to
    the root, where they have a limit (cgroup v2, Documentation/admin-guide/cgroup-v2.rst)."""
    try:
        lines = _OWN_GROUP.read_text().splitlines()
    except OSError:
        lines = []
    own = next((line[3:] for line in lines if line.startswith("0::/")), "/")
    for name in (Path(own), *Path(own).parents):
        group = _CGROUP / str(name).lstrip("/")
        try:
            yield (int((group / "memory.max").read_text()),
                   int((group / "memory.current").read_text()))
        except (OSError, ValueError):  # "max", or no such group
            continue


def used() -> int:
    """Bytes that the process has in memory now."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE
    import psutil

    return int(psutil.Process().memory_info().rss)


def need(size: int, what: str, instead: str) -> None:
    """Refuse what takes about `size` bytes in all if that is beyond the limit.

    instead: what the user can do besides.
    """
    if size > limit():
        raise ReplayError(f"{what} takes about {_said(size)} of memory, {_allowed()}: {instead}, "
                          "or give --memory-limit")


def check(what: str, instead: str) -> None:
    """Refuse to go on with what has grown beyond the limit."""
    if (now := used()) > limit():
        raise ReplayError(f"{what} has taken {_said(now)} of memory, {_allowed()}: {instead}, or "
                          "give --memory-limit")


def _allowed() -> str:
    whose = "as --memory-limit says" if _stated else "three quarters of what is available"
    return f"{_said(limit())} may be used ({whose})"


def _said(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
