"""Protocol-buffer messages of Perfetto as bytes, one or many of a kind at once.

What many packets of a kind have alike is made once; the numbers that differ have places of a fixed
width in it, which are filled column by column. A varint may be longer than it needs to be, which
every reader takes (protobuf.dev/programming-guides/encoding, "Base 128 Varints"; Perfetto's own
writer does so too, protozero/proto_utils.h, WriteRedundantVarInt).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

VARINT, LENGTH = 0, 2
"""Wire types."""
PACKET: Final = 1
"""Of perfetto.protos.Trace."""
TIME_BYTES, ID_BYTES, NUMBER_BYTES = 9, 5, 10
"""Of varints: below 2^63, below 2^35, any int64."""
GROUP_BITS, MORE_FOLLOW = 7, 0x80
"""Bits of a varint in a byte, and the bit that says that more follow."""


def varint(value: int) -> bytes:
    """A whole number from 0 on, as short as can be."""
    found = bytearray()
    while value >= MORE_FOLLOW:
        found.append(value & (MORE_FOLLOW - 1) | MORE_FOLLOW)
        value >>= GROUP_BITS
    found.append(value)
    return bytes(found)


def number(field: int, value: int) -> bytes:
    """A field with a whole number from 0 on."""
    return varint(field << 3 | VARINT) + varint(value)


def text(field: int, value: str | bytes) -> bytes:
    """A field with a text, or with a message that is bytes already."""
    body = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | LENGTH) + varint(len(body)) + body


@dataclass(frozen=True)
class Piece:
    """Bytes with places that are filled later: (name, offset, width)."""

    body: bytes
    holes: tuple[tuple[str, int, int], ...] = ()

    def __add__(self, other: Piece) -> Piece:
        shifted = tuple((name, at + len(self.body), width) for name, at, width in other.holes)
        return Piece(self.body + other.body, self.holes + shifted)

    def within(self, field: int) -> Piece:
        """As a message that is a field of another one."""
        return Piece(varint(field << 3 | LENGTH) + varint(len(self.body))) + self

    def filled(self, columns: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """(rows, bytes) uint8; columns: int64 by name, a value per row for each place."""
        made = np.tile(np.frombuffer(self.body, np.uint8), (rows, 1))
        for name, at, width in self.holes:
            left = np.ascontiguousarray(columns[name], np.int64).view(np.uint64)
            for k in range(width):
                more = MORE_FOLLOW if k < width - 1 else 0
                made[:, at + k] = (left & np.uint64(MORE_FOLLOW - 1)).astype(np.uint8) | more
                left = left >> np.uint64(GROUP_BITS)
        return made


def hole(field: int, name: str, width: int) -> Piece:
    """A field whose number differs from packet to packet."""
    before = varint(field << 3 | VARINT)
    return Piece(before + bytes(width), ((name, len(before), width),))
