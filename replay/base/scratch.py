"""Room on disk for arrays that outgrow memory: files without a name, gone with whoever made them.

    scratch = Scratch(folder)
    pages = scratch.array(1 << 30)      # in memory while all of them are few bytes, else in a file
    ...                                 # work through a part of it
    scratch.relax()                     # what lies in files is no longer in memory

The files are mapped, so that compiled loops see plain arrays. Nothing of them is left behind,
however the process ends: they have no name. Their blocks are reserved before they are mapped, so
that a full disk is an OSError here and not a signal later.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from replay.base.errors import ReplayError

HELD_BYTES: Final = 64 << 20
"""Bytes of all arrays together up to which none lies in a file."""
MOST_MAPPED: Final = 64 << 20
"""Bytes of files that may be in memory before they are let go of."""
LEAST_GROWTH: Final = 1 << 18
MOST_PIECES: Final = 512
"""That the system takes at once: half of IOV_MAX (limits.h)."""


class Scratch:
    """Hands out arrays; `folder` is where its files lie, the system's temporary one if it is none.
    """

    def __init__(self, folder: Path | None = None, in_memory: int | None = None) -> None:
        self.folder = folder if folder is not None and folder.is_dir() else None
        self.left = HELD_BYTES if in_memory is None else in_memory
        self._maps: list[weakref.ref[mmap.mmap]] = []
        self._before = _of_files()

    def file(self) -> ScratchFile:
        """A file without a name. ReplayError where there can be none."""
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                return ScratchFile(os.dup(file.fileno()))
        except OSError as error:
            if self.folder is None:
                raise _refused(error) from None
        self.folder = None
        return self.file()

    def array(self, count: int, dtype: Any = np.int64) -> np.ndarray:
        """An array of zeros. ReplayError where the disk has no room for it."""
        size = count * np.dtype(dtype).itemsize
        if self.takes(size):
            made = np.zeros(count, dtype)
            weakref.finalize(made, self.give, size)
            return made
        return self.mapped(self.file(), count, dtype)

    def made(self, count: int, make: Callable[[slice], np.ndarray]) -> np.ndarray:
        """An array that is made a part at a time."""
        found = self.array(count)
        for begin in range(0, count, LEAST_GROWTH):
            part = slice(begin, min(begin + LEAST_GROWTH, count))
            found[part] = make(part)
            self.relax()
        return found

    def full(self, count: int, value: int, dtype: Any = np.int64) -> np.ndarray:
        """An array of one value."""
        made = self.array(count, dtype)
        for begin in range(0, count, LEAST_GROWTH):
            made[begin : begin + LEAST_GROWTH] = value
            self.relax()
        return made

    def takes(self, size: int) -> bool:
        """Whether so many bytes may still lie in memory; they are then counted."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        """So many bytes are in memory no longer."""
        self.left += size

    def mapped(self, file: ScratchFile, count: int, dtype: Any) -> np.ndarray:
        """The first elements of a file, which grows where it is shorter."""
        size = max(1, count * np.dtype(dtype).itemsize)
        try:
            os.posix_fallocate(file.number, 0, size)
            found = mmap.mmap(file.number, size)
        except OSError as error:
            raise _refused(error) from None
        self._maps = [one for one in self._maps if one() is not None]
        self._maps.append(weakref.ref(found))
        return np.frombuffer(found, dtype, count)

    def relax(self) -> None:
        """Let go of what is in memory of the files, once it is much; it comes back when it is
        looked at."""
        if not self._maps or _of_files() < self._before + MOST_MAPPED:
            return
        for one in self._maps:
            found = one()
            if found is not None:
                found.madvise(mmap.MADV_DONTNEED)


class ScratchFile:
    """A file without a name, which is closed with the last that holds it. number: the system's."""

    def __init__(self, number: int) -> None:
        self.number, self.size = number, 0
        weakref.finalize(self, os.close, number)

    def append(self, *pieces: Any) -> tuple[int, int]:
        """Put bytes behind the last ones; where they begin, and how many they are."""
        begin = self.size
        left = [memoryview(piece).cast("B") for piece in reversed(pieces)
                if memoryview(piece).nbytes]
        try:
            while left:
                done = os.pwritev(self.number, left[: -1 - MOST_PIECES : -1], self.size)
                self.size += done
                while left and done >= len(left[-1]):
                    done -= len(left.pop())
                if done:
                    left[-1] = left[-1][done:]
        except OSError as error:
            raise _refused(error) from None
        return begin, self.size - begin

    def read(self, begin: int, size: int) -> np.ndarray:
        """Some of its bytes."""
        found = np.empty(size, np.uint8)
        left = found.data
        while left:
            done = os.preadv(self.number, [left], begin)
            begin, left = begin + done, left[done:]
        return found


class Growing:
    """A vector that grows at its end; `room` may make another one of what it was."""

    def __init__(self, scratch: Scratch, dtype: Any = np.int64) -> None:
        self.count = 0
        self._scratch, self._dtype = scratch, np.dtype(dtype)
        self._data = scratch.array(0, dtype)
        self._file: ScratchFile | None = None

    def room(self, count: int) -> np.ndarray:
        """All there is, with room for at least so many elements in all."""
        if count > len(self._data):
            least = LEAST_GROWTH // self._dtype.itemsize
            self._grow(max(count, len(self._data) + len(self._data) // 2, min(least, 2 * count)))
        return self._data

    def _grow(self, count: int) -> None:
        scratch, before = self._scratch, self._data
        size = count * self._dtype.itemsize
        if self._file is None and scratch.takes(size):
            self._data = np.zeros(count, self._dtype)
            weakref.finalize(self._data, scratch.give, size)
            self._data[: self.count] = before[: self.count]
            return
        moved = self._file is None
        self._file = self._file or scratch.file()
        self._data = scratch.mapped(self._file, count, self._dtype)
        if moved:
            self._data[: self.count] = before[: self.count]

    def append(self, values: np.ndarray) -> None:
        """Put values behind the last one."""
        end = self.count + len(values)
        self.room(end)[self.count : end] = values
        self.count = end

    @property
    def array(self) -> np.ndarray:
        """What there is."""
        return self._data[: self.count]


def _of_files() -> int:
    """Bytes of files that the process has in memory; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[2]) * mmap.PAGESIZE
    except (OSError, IndexError, ValueError):
        return MOST_MAPPED << 10


def _refused(error: OSError) -> ReplayError:
    hint = ": make room there, or let TMPDIR name another folder"
    return ReplayError(f"a temporary file cannot be written ({error.strerror or error})"
                       + (hint if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""))
