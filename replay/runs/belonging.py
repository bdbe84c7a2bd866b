"""Which run an outcome or a time line belongs to, so that no file of another is taken for its own.

Each file says what its run rested on and came to; all that reads a run holds that against
summary.json. So a file that was put into a folder, or that a kill between two renames left there of
the run before, is seen as such.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from replay.base.errors import InputError
from replay.trace.late import exchange, with_room

KEY: Final = b"replay"
ROOM: Final = with_room(b"{}", 1024)
"""Metadata of an outcome whose run is not over."""
AGAIN: Final = "run `replay run` again"
OF_HEADER: Final = {"trace": "trace", "profile": "profile", "physmap": "physmap",
                    "requests": "requests_digest", "machine": "machine_digest", "mode": "mode",
                    "version": "replay_version"}
"""What a file says, and the entry of a summary's header that it is."""
IN_WORDS: Final = {"requests": "requests", "machine": "machine", "strategy": "strategy or its "
                   "options", "frames": "frames handed out", "version": "version of replay"}


def belonging(summary: dict[str, Any], allocator: str) -> dict[str, str]:
    """What the files of one of a run's strategies say of it; of long texts their digests."""
    header, figures = summary["run"], summary["allocators"][allocator]
    strategy = json.dumps([allocator, figures["options"]], sort_keys=True)
    found = {name: _short(str(header[entry])) for name, entry in OF_HEADER.items()}
    return {**found, "strategy": _digest(strategy), "frames": _short(figures["frames_digest"])}


def _short(text: str) -> str:
    return text if len(text) <= 64 and text.isascii() and text.isprintable() else _digest(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def check_belonging(path: Path, said: Any, summary: dict[str, Any], allocator: str) -> None:
    """InputError unless a file says that it is of this run."""
    expected = belonging(summary, allocator)
    if not isinstance(said, dict):
        raise InputError(path, "does not say which run it is of", hint=AGAIN)
    for name, value in expected.items():
        if said.get(name) != value:
            raise InputError(path, f"is of another run than summary.json beside it: its "
                             f"{IN_WORDS.get(name, name)} is not the same", hint=AGAIN)


def metadata_of(summary: dict[str, Any], allocator: str) -> bytes:
    """The same as metadata of an Arrow file, as long as those that keep its place."""
    said = {"times": "modelled", **belonging(summary, allocator)}
    return json.dumps(said, sort_keys=True).encode().ljust(len(ROOM))


def read_metadata(schema: pa.Schema) -> Any:
    """What a file's metadata says, None where that cannot be read."""
    try:
        return json.loads((schema.metadata or {})[KEY])
    except (KeyError, ValueError, RecursionError):
        return None


def tell(path: Path, summary: dict[str, Any], allocator: str) -> None:
    """Let an outcome that was written with room in its metadata say which run it is of."""
    exchange(path, ROOM, metadata_of(summary, allocator))
