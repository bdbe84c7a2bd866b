"""Event formats and kernel symbols as a trace.dat carries them: text, parsed once."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from replay.base.compiled import compiled, record, seen_at
from replay.importers.dat.container import plain

_FIELD = re.compile(
    r"\s*field:(?P<decl>[^;]+);\s*offset:(?P<offset>\d{1,9});\s*size:(?P<size>\d{1,9});"
    r"(?:\s*signed:(?P<signed>[01]);)?")
_SYMBOL = re.compile(rb"\S+")
_WIDTHS = {"u8": 1, "s8": 1, "x8": 1, "char": 1, "bool": 1, "u16": 2, "s16": 2, "x16": 2,
           "short": 2, "u32": 4, "s32": 4, "x32": 4, "int": 4, "u64": 8, "s64": 8, "x64": 8}


@dataclass(frozen=True)
class Field:
    """One field of an event: where it lies, and elements of which size it has.

    element_bytes: 0 when it is text or of an unknown type. reference: where its bytes are is told
    by a word here: "data" from the record's start on, "rel" from the word's end on.
    symbol: an address that the event prints as a function.
    """

    name: str
    offset: int
    size: int
    signed: bool
    element_bytes: int
    is_array: bool
    reference: str
    symbol: bool
    is_text: bool = False


@dataclass(frozen=True)
class EventFormat:
    """One event: system, name, id and its own fields (the common ones are left out)."""

    system: str
    name: str
    id: int
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field | None:
        """The field of that name."""
        return next((f for f in self.fields if f.name == name), None)


def parse_format(system: str, text: str) -> EventFormat | None:
    """The format of one event, or None when the text has no name or id.

    Of fields of one name the first counts.
    """
    name = re.search(r"^name: (\S+)$", text, re.MULTILINE)
    number = re.search(r"^ID: (\d{1,9})$", text, re.MULTILINE)
    if not name or not number:
        return None
    body, _, printing = text.partition("print fmt:")
    symbols = _symbol_fields(printing)
    fields: dict[str, Field] = {}
    for line in body.splitlines():
        match = _FIELD.match(line)
        if match and not re.search(r"\bcommon_\w+$", match["decl"]):
            field = _field(match, symbols)
            fields.setdefault(field.name, field)
    return EventFormat(system, name[1], int(number[1]), tuple(fields.values()))


def _symbol_fields(printing: str) -> set[str]:
    """Fields that the print format shows as `name=%pS`: addresses of functions."""
    return set(re.findall(r"\b(\w+)=%p[sS]", printing))


def _field(match: re.Match[str], symbols: set[str]) -> Field:
    declaration, size = match["decl"].strip(), int(match["size"])
    reference = next((kind for kind in ("data", "rel")
                      if declaration.startswith(f"__{kind}_loc")), "")
    head, _, tail = declaration.rpartition(" ")
    name, _, array = tail.partition("[")
    signed = match["signed"] == "1"
    if reference and size != 4:
        return Field(name, int(match["offset"]), size, signed, 0, True, "", False)
    if reference:  # "__data_loc char[] name"
        element = head.partition(" ")[2].rpartition("[")[0].strip()
        text = element == "char"
        return Field(name, int(match["offset"]), size, signed,
                     0 if text else _width(element), True, reference, False, text)
    width = _width(head)
    is_array = bool(array)
    if not is_array:
        width = size if size in (1, 2, 4, 8) else 0
    elif head.strip() == "char" or not width or size % width:
        width = 0
    return Field(name, int(match["offset"]), size, signed, width, is_array, "",
                 name in symbols, is_array and head.strip() == "char")


def _width(kind: str) -> int:
    """Bytes of a C integer type, 0 if it is none known."""
    bare = re.sub(r"\b(unsigned|signed|const)\b", "", kind).strip()
    return _WIDTHS.get(bare, 4 if not bare and "signed" in kind else 0)


_AFTER = record(*((name, np.uint8) for name in ("space", "type", "gap", "name")))
"""What follows a symbol's address: its type between two spaces, the name's first byte."""
_after_at = seen_at(_AFTER)


@compiled
def _text_symbols(text, address, name):  # type: ignore[no-untyped-def]
    """Of each line `ADDRESS TYPE NAME` of a function: the address, where the name is; how many."""
    count = at = 0
    while at < len(text):
        value, start = np.uint64(0), at
        while at < len(text) and at - start < 17 and text[at] != 32 and text[at] != 10:
            digit = np.int64(text[at]) - 48
            if digit > 9:
                digit = (digit + 48 | 32) - 87
                if digit < 10:
                    break
            if digit < 0 or digit > 15:
                break
            value = value << np.uint64(4) | np.uint64(digit)
            at += 1
        digits = at - start
        if 0 < digits < 17 and at + 3 < len(text) and value:
            after = _after_at(text, at)
            if (after.space == 32 and after.gap == 32 and after.name > 32
                    and (after.type | 32 == 116 or after.type | 32 == 119)):  # tTwW
                address[count], name[count] = value, at + 3
                count += 1
        while at < len(text) and text[at] != 10:
            at += 1
        at += 1
    return count


class Symbols:
    """Kernel text symbols, to turn addresses into function and offset."""

    REACH = 1 << 20
    """An address farther than this behind a symbol belongs to none."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        address = np.empty(text.count(b"\n") + 1, dtype=np.uint64)
        name = np.empty(len(address), dtype=np.int64)
        count = _text_symbols(np.frombuffer(text, dtype=np.uint8), address, name)
        order = np.argsort(address[:count], kind="stable")
        self._addresses, self._names = address[order], name[order]
        self._cache: dict[int, tuple[str, int]] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def find(self, address: int) -> tuple[str, int]:
        """(function, offset in it); ("", 0) when no symbol is near. The first alias counts."""
        address &= (1 << 64) - 1
        known = self._cache.get(address)
        if known is None:
            known = self._cache[address] = self._search(address)
        return known

    def _search(self, address: int) -> tuple[str, int]:
        key = np.uint64(address)
        index = int(np.searchsorted(self._addresses, key, side="right")) - 1
        if index < 0 or address - int(self._addresses[index]) >= self.REACH:
            return "", 0
        first = int(np.searchsorted(self._addresses, self._addresses[index], side="left"))
        name = _SYMBOL.match(self._text, int(self._names[first]))
        return plain(name[0]) if name else "", address - int(self._addresses[index])

    def name(self, address: int) -> str:
        """The function an address lies in, or the address itself in hexadecimal."""
        return self.find(address)[0] or f"{address & ((1 << 64) - 1):#x}"
