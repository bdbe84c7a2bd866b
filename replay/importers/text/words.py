"""What the compiled text scanners share: words of eight bytes, digits, a dictionary of spans.

All of them read a mapped file as it lies there. They may look at up to SLACK bytes behind the place
they are given, so no line that ends closer to the end of the file is given to them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from replay.base.compiled import index, inline, record
from replay.importers.source.probes import Ints

Bytes = npt.NDArray[np.uint8]
SLACK: Final = 16
SPACE, DASH, NEWLINE, RETURN = 32, 45, 10, 13
COLON, DOT, COMMA, QUOTE = 58, 46, 44, 34
PAREN, PAREN_END, BRACKET, BRACKET_END, BRACE, BRACE_END = 40, 41, 91, 93, 123, 125

EACH: Final = 0x0101010101010101
"""Times a byte: that byte in each of the eight."""
_TOPS: Final = -0x7F7F7F7F7F7F7F80  # 0x80 in each byte
_HIGHS: Final = -0x0F0F0F0F0F0F0F10  # 0xf0 in each byte
_MIX: Final = 0x2127599BF4325C37
_MAX_PROBES: Final = 32
SPAN = record("at", "length", "hash")
"""A text of a dictionary: where it stands in the file."""


@inline
def byte(text, at):  # type: ignore[no-untyped-def]
    """The byte at a position that is not negative."""
    return np.int64(text[index(at)])


@inline
def word(text, at):  # type: ignore[no-untyped-def]
    """Eight bytes as one number, the first one lowest; the compiler makes one load of it."""
    return (byte(text, at) | byte(text, at + 1) << 8 | byte(text, at + 2) << 16
            | byte(text, at + 3) << 24 | byte(text, at + 4) << 32 | byte(text, at + 5) << 40
            | byte(text, at + 6) << 48 | byte(text, at + 7) << 56)


@inline
def unprintable(w):  # type: ignore[no-untyped-def]
    """Not zero if a byte of a word is below the space or above 0x7f."""
    return ((w - SPACE * EACH) & ~w | w) & _TOPS


@inline
def holds(w, what):  # type: ignore[no-untyped-def]
    """Not zero if a byte of a word is `what`."""
    other = w ^ what * EACH
    return (other - EACH) & ~other & _TOPS


@inline
def _eight(w):  # type: ignore[no-untyped-def]
    """The value of a word of eight decimal digits, -1 if it holds anything else."""
    if (w & _HIGHS | (w + 6 * EACH & _HIGHS) >> 4) != 0x33 * EACH:
        return -1
    w = (w & 15 * EACH) * 2561 >> 8  # pairs, then fours, then all: 10 x + y in each lane
    w = (w & 0x00FF00FF00FF00FF) * 6553601 >> 16
    return (w & 0x0000FFFF0000FFFF) * 42949672960001 >> 32 & 0xFFFFFFFF


@inline
def digits(text, at, most):  # type: ignore[no-untyped-def]
    """(value, end) of up to `most` decimal digits."""
    value, stop = 0, at + most
    while stop - at >= 8:
        eight = _eight(word(text, at))
        if eight < 0:
            break
        value = value * 100_000_000 + eight
        at += 8
    while at < stop:
        digit = byte(text, at) - 48
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit
        at += 1
    return value, at


@inline
def spaces(text, at):  # type: ignore[no-untyped-def]
    """Where a run of spaces ends."""
    while byte(text, at) == SPACE:
        at += 1
    return at


@inline
def _mixed(h, w):  # type: ignore[no-untyped-def]
    h = (h ^ w) * _MIX
    return h ^ h >> 29


@inline
def _tail(text, at, length):  # type: ignore[no-untyped-def]
    """The first `length` bytes, fewer than eight, of a word."""
    return word(text, at) & ((1 << 8 * length) - 1)


@inline
def _hash(text, at, length):  # type: ignore[no-untyped-def]
    h, stop = length, at + length
    while stop - at >= 8:
        h = _mixed(h, word(text, at))
        at += 8
    if at < stop:
        h = _mixed(h, _tail(text, at, stop - at))
    return h


@inline
def _same(text, left, right, length):  # type: ignore[no-untyped-def]
    stop = left + length
    while stop - left >= 8:
        if word(text, left) != word(text, right):
            return False
        left += 8
        right += 8
    return left == stop or _tail(text, left, stop - left) == _tail(text, right, stop - left)


@inline
def recalled(text, at, recent, entries):  # type: ignore[no-untyped-def]
    """The code of the span in a dictionary that begins as the text here, if it was last among
    those of like beginning; -1 if it was not. Its length is not known before.

    recent: a code, or -1, per hash of the first 16 bytes.
    """
    code = recent[index(_beginning(text, at, recent))]
    if code >= 0 and _same(text, entries[index(code)].at, at, entries[index(code)].length):
        return code
    return -1


@inline
def remember(text, at, code, recent):  # type: ignore[no-untyped-def]
    """Let recalled() find a code for the span that begins here."""
    recent[index(_beginning(text, at, recent))] = code


@inline
def _beginning(text, at, recent):  # type: ignore[no-untyped-def]
    h = _mixed(_mixed(0, word(text, at)), word(text, at + 8))
    return (h ^ h >> 32) & (recent.shape[0] - 1)


@inline
def code_of(text, at, length, spans):  # type: ignore[no-untyped-def]
    """The code of a span in a dictionary, a new one if it is unknown; -1 if full."""
    slots, entries, used = spans
    h = _hash(text, at, length)
    mask = slots.shape[0] - 1
    slot = (h ^ h >> 32) & mask
    for _ in range(_MAX_PROBES):
        code = slots[index(slot)]
        if code < 0:
            code = used[0]
            if code >= entries.shape[0]:
                return -1
            entries[code].at, entries[code].length, entries[code].hash = at, length, h
            slots[index(slot)] = code
            used[0] = code + 1
            return code
        if entries[code].hash == h and entries[code].length == length and _same(
                text, entries[code].at, at, length):
            return code
        slot = (slot + 1) & mask
    return -1


class SpanArrays(NamedTuple):
    """A dictionary for compiled code: slots of an open hash table, with codes or -1; a SPAN per
    code; and, one number, how many there are.
    """

    slots: Ints
    entries: np.ndarray
    used: Ints


class Spans:
    """A dictionary of texts that stand in a mapped file: a code per text, in order of appearance.

    It holds up to `most` texts, so that a file of ever new ones does not fill memory.
    """

    def __init__(self, text: Bytes, most: int) -> None:
        self._text = text
        # a text takes four bytes at least, with what parts it from others
        room = min(most, 1 << (len(text) // 4).bit_length())
        self.slots: Ints = np.full(4 * room, -1, dtype=np.int64)
        self.entries = np.zeros(room, dtype=SPAN)
        self.used: Ints = np.zeros(1, dtype=np.int64)
        self._known = 0

    @property
    def arrays(self) -> SpanArrays:
        """What code_of() takes."""
        return SpanArrays(self.slots, self.entries, self.used)

    def new(self, used: int) -> list[tuple[str, int]]:
        """The texts added since the last call, up to code `used`: each, and where it ends."""
        entries = self.entries[self._known:used].tolist()
        self._known = used
        return [(self._text[at:at + length].tobytes().decode("ascii"), at + length)
                for at, length, _ in entries]
