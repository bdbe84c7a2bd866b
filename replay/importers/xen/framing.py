"""The framing of an xentrace file: windows of one physical CPU each, and the records in them.

Xen's tools/xentrace/xentrace.c and xen/include/public/trace.h: no magic and no header, only
windows, each a CPU_CHANGE record (header, cpu, size in bytes) and then `size` bytes of records. A
record is a header word `event:28 | extra words:3 | has time:1`, two words of time if it has one
(low, high), and the extra words. 64-bit payloads are 4-byte aligned, so everything is read as
words. Xen runs on little-endian machines; a file with every word swapped is read as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from replay.base.compiled import compiled, index, inline, record, seen_at
from replay.base.errors import InputError
from replay.importers.source.inputs import Buffer, forget

CPU_CHANGE = 0x2001F003
"""A header with the event 0x0001f003, two extra words and no time."""
CPU_MAX = 0xFFFF
TIME_MAX = 1 << 62

EXTRA_SHIFT, TIME_SHIFT, EVENT_MASK = 28, 31, 0x0FFFFFFF

BAD_WINDOW, BAD_CPU, BAD_SIZE, BAD_RECORD, BAD_TIME = 1, 2, 3, 4, 5
FRAMING_PROBLEMS = {
    BAD_WINDOW: "expected a CPU_CHANGE record (2001f003) where a window ends",
    BAD_CPU: f"a window names a CPU beyond {CPU_MAX}",
    BAD_SIZE: "a window's size is no multiple of 4 bytes",
    BAD_RECORD: "a record reaches beyond its window",
    BAD_TIME: "a time stamp is beyond 2^62",
}

OPENING = record(*((name, np.uint32) for name in ("header", "cpu", "bytes")))
"""The words of a CPU_CHANGE record; the size is that of the window."""
OPENING_WORDS = OPENING.itemsize // 4
opening_at = seen_at(OPENING)

STAMPED = record(*((name, np.uint32) for name in ("header", "low", "high")))
"""The first words of a record that has a time."""
stamped_at = seen_at(STAMPED)

XEN_WINDOW = record("start", "end", "following")
"""The word after a window's header, the word after its last whole record, and the next window of
the same CPU or -1."""


PIECE_WORDS: Final = 1 << 24
PIECE_WINDOWS: Final = 1 << 12
"""A file is walked through in pieces of about so many, each then let go of."""


@inline
def word(words: np.ndarray, at: int) -> Any:
    """A word as int64: of unsigned numbers nothing may be taken away."""
    return np.int64(words[index(at)])


@inline
def time_of(words: np.ndarray, at: int) -> Any:
    """The time of a record that has one."""
    stamped = stamped_at(words, at)
    return np.int64(stamped.low) | np.int64(stamped.high) << 32


@inline
def length_of(header: int) -> Any:
    """Words of a record, from its header."""
    return 1 + 2 * (header >> TIME_SHIFT) + ((header >> EXTRA_SHIFT) & 7)


@compiled
def _link(words, at, first, some, ends, windows, heads, last):  # type: ignore[no-untyped-def]
    """Some windows from `first` on, which begins at a word, of a file whose framing is sound; ends:
    where its whole records end. Where the next one begins."""
    for k in range(first, first + some):
        opening = opening_at(words, at)
        cpu = np.int64(opening.cpu)
        start = at + OPENING_WORDS
        at = start + (np.int64(opening.bytes) >> 2)
        windows[k].start, windows[k].end, windows[k].following = start, min(at, ends), -1
        if last[cpu] < 0:
            heads[cpu] = k
        else:
            windows[last[cpu]].following = k
        last[cpu] = k
    return at


def link(words: np.ndarray, data: Buffer, count: int, cpus: int, ends: int
         ) -> tuple[np.ndarray, np.ndarray]:
    """The windows, a XEN_WINDOW each; and per CPU its first window or -1. data: the words' bytes.
    """
    windows = np.zeros(count, dtype=XEN_WINDOW)
    heads = np.full(cpus, -1, dtype=np.int64)
    last, at = heads.copy(), 0
    for first in range(0, count, PIECE_WINDOWS):
        some = min(PIECE_WINDOWS, count - first)
        begin, at = at, int(_link(words, at, first, some, ends, windows, heads, last))
        forget(data, 4 * begin, 4 * at)
    return windows, heads


MARKS: Final = {b"\x03\xf0\x01\x20": "little", b"\x20\x01\xf0\x03": "big"}
"""The header of a CPU_CHANGE record in either byte order."""


def as_words(path: Path, data: Buffer) -> tuple[np.ndarray, str]:
    """A file's whole words as uint32, mapped where the file's byte order is the machine's, and
    that byte order; path: named in an error.
    """
    first = bytes(data[:4])
    order = next((o for mark, o in MARKS.items() if mark.startswith(first)), None)
    if order is None:
        raise InputError(path, "is no xentrace file: it does not begin with a CPU_CHANGE record "
                         "(2001f003)", "offset 0")
    words = np.frombuffer(data, dtype=">u4" if order == "big" else "<u4", count=len(data) // 4)
    return words.astype(np.uint32, copy=False), order
