"""A control group of memory for processes of the tests: beyond its limit the kernel ends one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class NoGroupError(OSError):
    """None can be made here."""


def own() -> tuple[Path, str]:
    """The group that this process is in, and the name of the file with a group's limit (control
    groups of version 1 where they have memory, else 2; see cgroups(7))."""
    said = Path("/proc/self/cgroup").read_text().splitlines()
    by_kind = {kind: name for _, kind, name in (line.split(":", 2) for line in said)}
    if "memory" in by_kind and V1.is_dir():
        return V1 / by_kind["memory"].lstrip("/"), "memory.limit_in_bytes"
    return V2 / by_kind.get("", "/").lstrip("/"), "memory.max"


@contextlib.contextmanager
def group(limit: int) -> Iterator[Path]:
    """A group within this process's own, of so many bytes; it is empty, and goes afterwards."""
    parent, name = own()
    made = parent / f"replay-tests-{os.getpid()}"
    try:
        made.mkdir()
        (made / name).write_text(str(limit))
    except OSError as error:
        with contextlib.suppress(OSError):
            made.rmdir()
        raise NoGroupError(f"{made}: no control group of memory can be made ({error})") from None
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            made.rmdir()


def join(made: Path) -> None:
    """Put this process into a group."""
    (made / "cgroup.procs").write_text(str(os.getpid()))
