"""The digest of frames in the order of their requests, where some are handed out later."""

from __future__ import annotations

import hashlib
import tempfile
from typing import IO

import numpy as np

IN_MEMORY = 32 << 20
"""Bytes behind a call under way that are held in memory; more go to a temporary file."""
READ_BYTES = 1 << 20
WORD = 8


class FramesInOrder:
    """SHA-256 over all frames handed out, request by request, little-endian int64; -1 where there
    is none.

    Behind a call that is under way nothing can be hashed, so that it is held back until the call
    has its frames, or the replay is over.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._held: IO[bytes] | None = None
        self._size = 0
        self._places: dict[int, int] = {}

    def add(self, frames: np.ndarray, under_way: dict[int, int]) -> None:
        """The frames of the next requests; under_way: by number of request, where those of calls
        under way will be among them."""
        words = frames.astype("<i8", copy=False)
        if self._held is None and not under_way:
            self._hash.update(words.data)
            return
        if self._held is None:
            self._held = tempfile.SpooledTemporaryFile(IN_MEMORY)
        self._places |= {number: self._size + WORD * at for number, at in under_way.items()}
        self._held.seek(self._size)
        self._size += self._held.write(words.data)

    def settle(self, number: int, frames: np.ndarray) -> None:
        """A call under way has returned with these frames, -1 where it got none."""
        place = self._places.pop(number)
        assert self._held is not None
        self._held.seek(place)
        self._held.write(frames.astype("<i8", copy=False).tobytes())
        if not self._places:
            self._flush()

    def _flush(self) -> None:
        if self._held is None:
            return
        self._held.seek(0)
        while chunk := self._held.read(READ_BYTES):
            self._hash.update(chunk)
        self._held.close()
        self._held, self._size = None, 0

    def hexdigest(self) -> str:
        """The digest; calls still under way got nothing."""
        self._flush()
        return self._hash.hexdigest()
