"""What a file says of itself before its rows, and is known only when they are written.

An Arrow IPC file holds its schema, and with it the metadata, at its beginning and once more in its
footer. So that both can be told afterwards they are written with room, and exchanged in place.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

ROOM_BYTES = 512
"""Bytes by which metadata may grow; JSON may end with spaces."""
MAGIC = b"ARROW1"
BEGIN = 8
"""Where the first message is, behind the magic and its padding."""


def with_room(said: bytes, room: int = ROOM_BYTES) -> bytes:
    """Metadata that may be exchanged for some that are a little longer."""
    return said + b" " * room


def exchange(path: Path, before: bytes, after: bytes) -> None:
    """Put metadata in the place of those that a whole file was written with: of with_room()."""
    after = after.ljust(len(before))
    assert len(after) == len(before)
    with path.open("r+b") as file:
        for at, size in (_header(file), _footer(file)):
            file.seek(at)
            place = file.read(size).find(before)
            assert place >= 0
            file.seek(at + place)
            file.write(after)


def _header(file: IO[bytes]) -> tuple[int, int]:
    """Place and size of the first message: the schema."""
    file.seek(BEGIN)
    begins, size = struct.unpack("<iI", file.read(8))
    assert begins == -1
    return BEGIN + 8, size


def _footer(file: IO[bytes]) -> tuple[int, int]:
    """Place and size of the footer, which its length and the magic follow."""
    tail = 4 + len(MAGIC)
    end = file.seek(-tail, 2)
    size = struct.unpack("<I", file.read(4))[0]
    assert file.read() == MAGIC
    return end - size, size
