"""ftrace text: what `cat trace` and the tools that print like it give."""

from __future__ import annotations

from pathlib import Path

from replay.importers.joining.decoded import rows_of
from replay.importers.joining.normalise import wanted_by
from replay.importers.source.format import Asked, Format
from replay.importers.source.imported import Imported
from replay.importers.source.probes import load_table
from replay.importers.text.read import read_ftrace_text

_LINES = (
    (1, 1, "alloc: (xen_alloc_unpopulated_pages+0x0/0x9) nr=1 list_count=3"),
    (1, 2, "page: (xen_alloc_unpopulated_pages+0x7/0x9) page=0xffffea0000000040"),
    (1, 3, "back: (caller+0x1/0x9 <- xen_alloc_unpopulated_pages) ret=0"),
    # a free that overlaps an allocation, so that the search for the lock's order runs as well
    (1, 4, "free: (xen_free_unpopulated_pages+0x0/0x9) nr=1 p={0xffffea0000000040}"),
    (2, 5, "alloc: (xen_alloc_unpopulated_pages+0x0/0x9) nr=1"),
    (2, 6, "page: (xen_alloc_unpopulated_pages+0x7/0x9) page=0xffffea0000000040"),
    (2, 7, "back: (caller+0x1/0x9 <- xen_alloc_unpopulated_pages) ret=0"),
)


def made_up(folder: Path) -> Path:
    """A tiny recording."""
    path = folder / "made-up.txt"
    path.write_text("".join(f"{'task':>16}-{pid:<7} [000] ..... {time}: {rest}\n"
                            for pid, time, rest in _LINES), encoding="ascii")
    return path


def _read(asked: Asked) -> tuple[Imported, dict[str, str]]:
    decoded = read_ftrace_text(asked.path, wanted_by(asked.probes), asked.scratch)
    decoded.clock = asked.settings.get("trace_clock", decoded.clock)
    return rows_of(decoded, asked)


def _warm(folder: Path) -> None:
    _read(Asked(made_up(folder), 0, 10**9, {}, None, load_table(None), False))


FORMAT = Format("ftrace text", "ftrace text", lambda head: b"\x00" not in head, _read, _warm,
                signature=False)
