"""Traces that come with the program, by name: those of a checkout, or the smallest in a wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).parents[1]
TRACE_FOLDERS: Final = (_PACKAGE / "shipped" / "traces", _PACKAGE.parent / "traces")


def shipped_traces() -> dict[str, Path]:
    """The files by name, such as pvh-dom0."""
    found = [path for folder in TRACE_FOLDERS for path in sorted(folder.glob("*.arrow"))]
    return {path.stem: path for path in reversed(found)}


def named_trace(given: Path) -> Path:
    """The path itself, or a shipped trace of that name, where nothing has that path."""
    if given.parent == Path() and not given.suffix and not given.exists():
        return shipped_traces().get(given.name, given)
    return given
