"""What a killed process left behind, found and removed by the next one that works there.

Whatever has a name while it is being made is locked by its maker (flock(2)); the kernel lets go of
the lock when the process ends, however it ends. So what bears such a name, is the user's own and is
locked by nobody is a leftover. A maker that has only just made it may not have locked it yet, so
that it must also be of a process that is gone, or older than any that could still be at it.

The recorder has it too, on a dom0's Python 3.9.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from replay.base import progress

_OF_FILE = re.compile(r"\..+\.([0-9]{1,10})\.part(?:s-\w+)?", re.ASCII | re.DOTALL)
_OF_FOLDER = re.compile(r"replay-([0-9]{1,10})-\w+", re.ASCII)
OLD_SECONDS = 86_400
"""After so long a process of the same number is another one."""


def aside(path: Path) -> Path:
    """The name beside `path` under which this process makes it."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def is_aside(name: str) -> bool:
    """Whether a file or folder of this name is being made, or was left by who made it."""
    return _OF_FILE.fullmatch(name) is not None


def claim(path: Path) -> int:
    """Lock what this process makes; a file is made by it. The descriptor holds the lock until it
    is closed. OSError where it cannot be made or opened."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    held = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    with suppress(OSError):  # a file system without locks: what is left there stays
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return held


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder, and say so."""
    _sweep(folder, _OF_FILE)


def _sweep(folder: Path, pattern: re.Pattern[str]) -> None:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = pattern.fullmatch(entry.name)
            if found and _is_left(entry, int(found[1])):
                _remove(Path(entry.path))


def _is_left(entry: os.DirEntry[str], process: int) -> bool:
    with suppress(OSError):
        found = entry.stat(follow_symlinks=False)
        if found.st_uid != os.geteuid() or not (
                stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            return False
        if _is_alive(process) and time.time() - found.st_mtime < OLD_SECONDS:
            return False
        held = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        finally:
            os.close(held)
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        return
    progress.say(f"removed {path}, which a command that was killed had left")


@contextmanager
def temporary_folder(beside: Path | None = None) -> Iterator[Path]:
    """A folder that goes when the block is through. OSError where there can be none.

    beside: what is to be renamed out of it; the folder is on the same disk then, and else among the
    system's temporary files.
    """
    import tempfile  # takes a tenth of the time that help does

    if beside is None:
        home, prefix = Path(tempfile.gettempdir()), f"replay-{os.getpid()}-"
        _sweep(home, _OF_FOLDER)
    else:
        home, prefix = beside.parent, f"{aside(beside).name}s-"
        sweep(home)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=home) as name:
        held = claim(Path(name))
        try:
            yield Path(name)
        finally:
            os.close(held)
