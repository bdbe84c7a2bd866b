"""Fields of ftrace text lines, ` name=value` after ` name=value`: the grammar, and it compiled.

Values as kernel/trace/trace_probe.c prints them: numbers (`12`, `-12`, `0x1f`), symbols
(`f+0x1/0x20 [module]`), strings in quotes, arrays (`{0x1,0x2}`). The lines of one probe have the
same names in the same order: a layout. The compiled scanner reads the lines that follow a layout
wholly; any other line, say one with a field missing or a value of another kind, is for findall().
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from replay.base.compiled import compiled, index, inline, record
from replay.importers.source.probes import Elements, Ints
from replay.importers.text.words import (
    BRACE,
    BRACE_END,
    BRACKET,
    BRACKET_END,
    COMMA,
    DASH,
    EACH,
    QUOTE,
    SLACK,
    SPACE,
    Bytes,
    Spans,
    byte,
    code_of,
    digits,
    word,
)

Flags = npt.NDArray[np.bool_]
MAX_ELEMENTS: Final = 4096
MAX_FIELDS: Final = 128
MAX_TEXTS: Final = 1 << 14
_PAIR: Final = re.compile(r" (\w+)=(\{[^}]*\}?|\"[^\"]*\"|[^\s{]*(?: \[\w+\])?)", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d+|-?0x[0-9a-f]+", re.ASCII)
_U64_TENTH: Final = ((1 << 64) - 1) // 10
_FAILED: Final = (0, -1)


class Kind(IntEnum):
    """What a field's values are."""

    NUMBER, ARRAY, TEXT = range(3)


FIELD = record(
    "kind",
    "first", "last",  # where ` name=` stands among the names of its layout
    "counts",  # of an array: the row of values with how many elements there are
)  # fmt: skip
"""A field of a layout."""


# -- the grammar
def pairs(rest: str, cut_short: bool) -> list[tuple[str, str]]:
    """Names and values; of a line that was cut, a value that may not be whole is not taken.

    Nor is what follows a string without an end: it may belong to the string.
    """
    found = _PAIR.findall(rest)
    if not cut_short:
        return found
    for k, (_, value) in enumerate(found):
        if value.startswith('"') and value.count('"') == 1:
            return found[:k]
    if found and not found[-1][1].startswith("{") and not rest.endswith(" "):
        found.pop()
    return found


def kind_of(value: str) -> Kind:
    """What a printed value is."""
    if value.startswith("{"):
        return Kind.ARRAY
    return Kind.TEXT if number(value) is None else Kind.NUMBER


def number(text: str) -> int | None:
    """A printed integer as the 64 bits it had; None when it is none."""
    if not _NUMBER.fullmatch(text) or len(text) > 21:
        return None
    value = int(text, 16) if "x" in text else int(text)
    if not -(1 << 63) <= value < 1 << 64:
        return None
    return value - (1 << 64) if value >= 1 << 63 else value


def plain(value: str) -> str:
    """A string without quotes; a symbol without offset, size and module."""
    if value.startswith('"'):
        return value.strip('"')
    return value.partition("+0x")[0].partition(" [")[0]


def whole_elements(text: str) -> Ints:
    """The elements of `{0x1,0x2}`; of a cut array those followed by a comma."""
    raw = bytearray(text, "utf-8")
    flat = np.empty(len(raw) // 2 + 1, dtype=np.int64)
    # a bytearray: numba takes 50 microseconds to find out the type of an array that is read-only
    count, end = _elements(np.frombuffer(raw + bytes(SLACK), dtype=np.uint8), len(raw), flat)
    if end == len(raw):
        return flat[:count]
    parts = text[1:].rstrip("}").split(",") if text.endswith("}") else text[1:].split(",")[:-1]
    found = []
    for part in parts[:MAX_ELEMENTS]:
        value = number(part)
        if value is None:
            break
        found.append(value)
    return np.array(found, dtype=np.int64)


# -- the same, compiled
@inline
def _eight(w):  # type: ignore[no-untyped-def]
    """The value of a word of eight hexadecimal digits, -1 if it holds anything else."""
    n = (w & 15 * EACH) + 9 * (w >> 6 & EACH)
    if n & 16 * EACH or n + 48 * EACH + 39 * (n + 6 * EACH >> 4 & EACH) != w:
        return -1
    n = (n << 4 | n >> 8) & 0x00FF00FF00FF00FF
    n = (n << 8 | n >> 16) & 0x0000FFFF0000FFFF
    return (n << 16 | n >> 32) & 0xFFFFFFFF


@inline
def _hex(text, at):  # type: ignore[no-untyped-def]
    """(value, end) of up to 16 hexadecimal digits; end is -1 if there is none."""
    value, first = 0, at
    for _ in range(2):
        eight = _eight(word(text, at))
        if eight < 0:
            break
        value = value << 32 | eight
        at += 8
    while at < first + 16:
        c = byte(text, at)
        # without a branch that depends on the digit, which no processor can foretell
        if not ((c - 48) & 0xFFFF < 10) | ((c - 97) & 0xFFFF < 6):
            break
        value = value << 4 | (c & 15) + 9 * (c >> 6)
        at += 1
    return value, at if at > first else -1


@inline
def _decimal(text, at):  # type: ignore[no-untyped-def]
    """(value, end) of a decimal number of 64 bits; end is -1 if it is none or may not fit."""
    negative = byte(text, at) == DASH
    first = at + negative
    value, at = digits(text, first, 18)
    if at == first:
        return _FAILED
    if negative:
        return -value, at
    if at == first + 18 and 48 <= byte(text, at) <= 57:
        value = value * 10 + byte(text, at) - 48
        at += 1
        last = byte(text, at) - 48
        if 0 <= last <= 9:
            if value < 0 or value > _U64_TENTH or (value == _U64_TENTH and last > 5):
                return _FAILED
            value = value * 10 + last
            at += 1
    return value, at


@inline
def _number(text, at):  # type: ignore[no-untyped-def]
    """(value, end) of a number; the caller checks what follows it."""
    if byte(text, at) == 48 and byte(text, at + 1) == 120:  # 0x
        return _hex(text, at + 2)
    return _decimal(text, at)


@inline
def _ends(text, at, stop):  # type: ignore[no-untyped-def]
    """Whether a value ends here: at the line's end, or at a space that no module name follows."""
    return at == stop or (byte(text, at) == SPACE and byte(text, at + 1) != BRACKET)


@inline
def _array(text, at, cut, flat, used):  # type: ignore[no-untyped-def]
    """(elements, end) of `{a,b}`, put into flat[used:]; end is -1 if it is none or has no room.

    cut: where the line was cut, -1 if it was not; what no comma follows there is not taken.
    """
    count = 0
    if byte(text, at) != BRACE:
        return _FAILED
    while count < MAX_ELEMENTS and used + count < flat.shape[0]:
        if at + 1 == cut:
            return count, cut
        value, at = _number(text, at + 1)
        if at < 0:
            return _FAILED
        if at == cut:
            return count, cut
        flat[used + count] = value
        count += 1
        if byte(text, at) == BRACE_END:
            return count, at + 1
        if byte(text, at) != COMMA:
            return _FAILED
    return _FAILED


@compiled
def _elements(text, stop, flat):  # type: ignore[no-untyped-def]
    """(elements, end) of an array that may be cut: what no comma follows is then not taken.

    text[:stop] is the array; SLACK bytes that belong to no number stand behind it.
    """
    count, at = 0, 1
    while at < stop and count < MAX_ELEMENTS:
        value, at = _number(text, at)
        if at < 0:
            return _FAILED
        if at == stop:
            return count, at
        flat[count] = value
        count += 1
        if byte(text, at) == BRACE_END:
            return count, at + 1
        if byte(text, at) != COMMA:
            return _FAILED
        at += 1
    return count, at


@inline
def _module(text, at):  # type: ignore[no-untyped-def]
    """Behind ` [module]`; `at` if there is none, -1 if it is not one."""
    if byte(text, at) != SPACE or byte(text, at + 1) != BRACKET:
        return at
    at += 2
    first = at
    c = byte(text, at)
    while 97 <= c <= 122 or 65 <= c <= 90 or 48 <= c <= 57 or c == 95:
        at += 1
        c = byte(text, at)
    return at + 1 if at > first and c == BRACKET_END else -1


@inline
def _text(text, at, stop):  # type: ignore[no-untyped-def]
    """Where a string or symbol ends; -1 if that is not certain."""
    if at < stop and byte(text, at) == QUOTE:
        at += 1
        while at < stop and byte(text, at) != QUOTE:
            at += 1
        at = at + 1 if at < stop else -1
    else:
        while at < stop and byte(text, at) != SPACE:
            if byte(text, at) == BRACE:
                return -1
            at += 1
        at = _module(text, at)
    return at if at == stop or (at > 0 and byte(text, at) == SPACE) else -1


@inline
def _named(text, at, names, first, last):  # type: ignore[no-untyped-def]
    """Whether names[first:last], ` name=`, stands here; no name holds the line's end."""
    for k in range(first, last):
        if text[index(at)] != names[index(k)]:
            return False
        at += 1
    return True


@inline
def _row(  # type: ignore[no-untyped-def]
    text, at, stop, layout, names, values, row, flat, used, spans,
):
    """Read one line into column `row`; elements in flat from `used` on, -1 if it deviates.

    Of a line that was cut, an array must be the last field: any other may not be whole.
    """
    cut, count = stop if byte(text, stop) == BRACKET else -1, layout.shape[0]
    if cut >= 0 and (count == 0 or layout[count - 1].kind != Kind.ARRAY):
        return -1
    for f in range(count):
        field = layout[f]
        if not _named(text, at, names, field.first, field.last):
            return -1
        at += field.last - field.first
        if field.kind == Kind.NUMBER:
            value, at = _number(text, at)
            if at < 0 or not _ends(text, at, stop):
                return -1
            values[f, row] = value
        elif field.kind == Kind.ARRAY:
            elements, at = _array(text, at, cut, flat, used)
            if at < 0 or not (at == stop or byte(text, at) == SPACE):
                return -1
            values[f, row], values[field.counts, row] = used, elements
            used += elements
        else:
            end = _text(text, at, stop)
            if end < 0:
                return -1
            values[f, row] = code_of(text, at, end - at, spans)
            if values[f, row] < 0:
                return -1
            at = end
    return used if at == stop else -1


@compiled
def _rows(  # type: ignore[no-untyped-def]
    text, at, stop, pending, layout, names, values, flat, used, spans,
):
    """Read the lines text[at[i]:stop[i]] that are pending and follow the layout."""
    for row in range(at.shape[0]):
        if pending[row]:
            after = _row(text, at[row], stop[row], layout, names, values, row, flat, used, spans)
            if after >= 0:
                pending[row] = False
                used = after
    return used


@compiled
def _spread(flat, first, whole, rows, table):  # type: ignore[no-untyped-def]
    """table[rows[i], :whole[i]] = flat[first[i]:first[i] + whole[i]]."""
    for i in range(rows.shape[0]):
        for k in range(whole[i]):
            table[rows[i], k] = flat[first[i] + k]


class Layout(NamedTuple):
    """Names of a probe's fields, in order, and the kinds of their values."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]

    @property
    def usable(self) -> bool:
        """Whether lines can follow it: distinct names, of letters the scanner compares."""
        return (len(self.names) <= MAX_FIELDS and len(set(self.names)) == len(self.names)
                and all(map(str.isascii, self.names)))


class Read(NamedTuple):
    """`values[f, i]`: number, code of a text, or start in `flat` of field f of line i.

    whole[f]: for an array, how many elements; None for others.
    """

    values: Ints
    flat: Ints
    whole: list[Ints | None]


def read_fields(text: Bytes, at: Ints, stop: Ints, pending: Flags, layout: Layout,
                spans: Spans) -> Read:
    """Read the fields of the pending lines text[at:stop] that follow a layout.

    The lines must be of LineScanner. pending: bool per line, cleared for those that were read.
    """
    arrays = [f for f, kind in enumerate(layout.kinds) if kind == Kind.ARRAY]
    table = np.zeros(len(layout.names), dtype=FIELD)
    encoded = [f" {name}=".encode() for name in layout.names]
    table["kind"] = layout.kinds
    table["last"] = np.cumsum([len(name) for name in encoded])
    table["first"][1:] = table["last"][:-1]
    table["counts"][arrays] = len(layout.names) + np.arange(len(arrays))
    values = np.empty((len(layout.names) + len(arrays), len(at)), dtype=np.int64)
    # an element takes two bytes at least
    room = int((stop - at)[pending].sum()) // 2 + 1 if arrays else 0
    flat = np.empty(room, dtype=np.int64)
    names = np.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=np.uint8)
    used = int(_rows(text, at, stop, pending, table, names, values, flat, 0, spans.arrays))
    whole = [values[row] if row else None for row in table["counts"].tolist()]
    return Read(values, flat[:used].copy() if arrays else flat, whole)


def fill_elements(pieces: list[tuple[Ints | slice, Ints, Ints, Ints]], length: int) -> Elements:
    """Arrays of `length` lines, of pieces (rows, flat, first, whole); other lines have none."""
    every = np.arange(length, dtype=np.int64)
    whole = np.zeros(length, dtype=np.int64)
    for rows, _, _, count in pieces:
        whole[rows] = count
    table = np.zeros((length, int(whole.max(initial=0))), dtype=np.int64)
    for rows, flat, first, count in pieces:
        _spread(flat, first, count, every[rows], table)
    return Elements(table, whole)
