"""Records of a trace.dat to probe streams: the fields of each event, by the file's own formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa

from replay.base.errors import InputError
from replay.importers.dat.container import Container, plain
from replay.importers.dat.event_format import EventFormat, Field, Symbols
from replay.importers.dat.parts import SpooledParts
from replay.importers.dat.ring_buffer import FIELD_PLACE, Records, columns, gather, look
from replay.importers.source.probes import Coded, Decoded, Elements, Ints, Passed, Wanted
from replay.importers.source.spool import Outline, Piece

MARKER_EVENT: Final = "print"
RETURN_TO: Final = "return_to"
_RETURNED: Final = "__probe_ret_ip"
MAX_ELEMENTS: Final = 4096
MAX_PROBED: Final = 1024
"""Functions that one event may probe; each is a stream of its own."""
MAX_ARRAY_CELLS: Final = 1 << 26
"""Elements that the arrays of varying length of a part may take, as tables as wide as the longest.
"""


@dataclass(frozen=True)
class Pending:
    """Rows of one event in one part of the data, which begins at `base` of all parts."""

    data: bytes
    records: Records
    rows: Ints
    buffer: int
    cpu: int
    base: int

    def only(self, chosen: Ints) -> Pending:
        """The same part with fewer rows."""
        return Pending(self.data, self.records, chosen, self.buffer, self.cpu, self.base)


@dataclass
class Growing:
    """One stream while it grows. texts: of a field of texts, those that there were, numbered."""

    form: EventFormat
    outline: Outline
    number: int
    buffer: int
    texts: dict[str, dict[str, int]] = field(default_factory=dict)

    @cached_property
    def numbers(self) -> list[Field]:
        """Fields that are one integer each, and are kept."""
        return [f for f in self.form.fields if f.element_bytes and not (
            f.is_text or f.reference or f.is_array) and (
            f.name == _RETURNED or not f.name.startswith("__probe"))]

    def text_codes(self, name: str, texts: list[str]) -> Ints:
        """Numbers for some texts of a field."""
        known = self.texts.setdefault(name, {})
        return np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int64)


class Streams:
    """Takes events part by part; one stream per buffer, event and probed place."""

    def __init__(self, decoded: Decoded, container: Container, wanted: Wanted,
                 parts: SpooledParts) -> None:
        self.decoded, self.wanted, self.order = decoded, wanted, container.order
        self.symbols = Symbols(container.kallsyms)
        self.tasks = _tasks(container.cmdlines)
        self.names = [buffer.name for buffer in container.buffers]
        self.parts = parts
        self._part: dict[int, Piece] = {}
        self._growing: dict[tuple[int, int, int], Growing] = {}
        self._places: dict[int, set[int]] = {}
        self._cells = 0

    def add(self, form: EventFormat, part: Pending) -> None:
        """All events of one format in one part."""
        function = form.field("__probe_func")
        probe = function or form.field("__probe_ip")
        if probe is None or probe.size not in (4, 8):
            self._keep(form, part, -1, "", 0, False, False)
            return
        address, by_all, short = look(part.data, part.records, part.rows, probe.offset, probe.size,
                                      self.order, _needed(form))
        if short >= 0:
            raise self._too_short(form, part, short)
        addresses = None if by_all else self._number(probe, part)
        different = [address] if addresses is None else np.unique(addresses).tolist()
        places = self._places.setdefault(form.id, set())
        places.update(different)
        if len(places) > MAX_PROBED:
            raise InputError(self.decoded.path, f"event {form.name!r} was hit at more than "
                             f"{MAX_PROBED} places")
        for address in different:
            name, offset = self.symbols.find(address)
            chosen = part if addresses is None else part.only(part.rows[addresses == address])
            self._keep(form, chosen, address, name, offset, function is not None, True)

    def _too_short(self, form: EventFormat, part: Pending, row: int) -> InputError:
        return InputError(
            self.decoded.path,
            f"a record of event {form.name!r} holds {part.records.length[row]} bytes, its format "
            f"needs {_needed(form)}",
            f"byte {part.base + part.records.at[row]} of the uncompressed data")

    def _keep(self, form: EventFormat, part: Pending, address: int, function: str, offset: int,
              is_return: bool, is_probe: bool) -> None:
        marker = not is_probe and form.name == MARKER_EVENT and form.system == "ftrace"
        if not marker and not self.wanted(
                function, form.name if is_probe else "", [f.name for f in form.fields]):
            self.decoded.passed.append(Passed(form.name, function, is_probe, len(part.rows)))
            return
        key = (part.buffer, form.id, address)
        growing = self._growing.get(key)
        if growing is None:
            outline = Outline(form.name, function, offset, is_return, is_probe)
            growing = self._growing[key] = Growing(form, outline, len(self._growing), part.buffer)
        if not is_probe and not marker:
            short = look(part.data, part.records, part.rows, 0, 4, self.order, _needed(form))[2]
            if short >= 0:
                raise self._too_short(form, part, short)
        rows, outline = part.rows, growing.outline
        numbers = [] if marker else growing.numbers
        found = columns(part.data, part.records, rows, part.base, _places(numbers), self.order)
        piece = self._part[growing.number] = {
            outline.column("time"): found.time, outline.column("pid"): found.pid,
            outline.column("source_offset"): found.at}
        values = dict(zip((f.name for f in numbers), found.values, strict=True))
        outline.count += len(rows)
        if marker:
            texts = [self._marker(form, part, row) for row in rows.tolist()]
            piece[outline.column("text", "text")] = growing.text_codes("text", texts)
            return
        for each in form.fields:
            if each.name in values:
                piece[outline.column(*_kind(each))] = values[each.name]
            else:
                self._add_field(growing, each, part, piece)

    def end_part(self, buffer: int, cpu: int) -> None:
        """All events of a part have been added."""
        if self._part:
            self.parts.append(buffer, cpu, self._part)
        self._part, self._cells = {}, 0

    def _number(self, f: Field, part: Pending) -> Ints:
        return gather(part.data, part.records.at, part.rows, f.offset, f.size, f.signed,
                      self.order).ravel()

    def _add_field(self, growing: Growing, f: Field, part: Pending, piece: Piece) -> None:
        name, outline = f.name, growing.outline
        if f.is_text:
            text = self._referred if f.reference else self._fixed
            piece[outline.column("text", name)] = growing.text_codes(name, text(f, part))
        elif not f.element_bytes:
            return
        elif f.reference:
            outline.elements(piece, name, self._dynamic(f, part))
        elif f.is_array:
            length = f.size // f.element_bytes
            values = gather(part.data, part.records.at, part.rows, f.offset, f.element_bytes,
                            f.signed, self.order, length)
            whole = np.full(len(part.rows), length, dtype=np.int64)
            outline.elements(piece, name, Elements(values, whole))

    def _spans(self, f: Field, part: Pending) -> tuple[Ints, Ints]:
        """Start and size of the bytes that a __data_loc or __rel_loc word tells of.

        A size of 0 where they would lie outside of their own record.
        """
        at, length = part.records.at[part.rows], part.records.length[part.rows]
        word = gather(part.data, part.records.at, part.rows, f.offset, 4, False, self.order).ravel()
        start, size = word & 0xFFFF, word >> 16
        if f.reference == "rel":
            start = start + f.offset + f.size
        inside = start + size <= length
        return at + np.where(inside, start, 0), np.where(inside, size, 0)

    def _referred(self, f: Field, part: Pending) -> list[str]:
        start, size = self._spans(f, part)
        return [_text(part.data[a:a + n]) for a, n in zip(start.tolist(), size.tolist(),
                                                          strict=True)]

    def _fixed(self, f: Field, part: Pending) -> list[str]:
        at = part.records.at[part.rows] + f.offset
        return [_text(part.data[a:a + f.size]) for a in at.tolist()]

    def _dynamic(self, f: Field, part: Pending) -> Elements:
        start, size = self._spans(f, part)
        whole = np.minimum(size // f.element_bytes, MAX_ELEMENTS)
        width = int(whole.max(initial=0))
        self._cells += len(whole) * width
        if self._cells > MAX_ARRAY_CELLS:
            raise self.too_wide()
        table = np.zeros((len(whole), width), dtype=np.int64)
        for k in range(width):
            rows = np.flatnonzero(whole > k)
            table[rows, k] = gather(part.data, start, rows, k * f.element_bytes, f.element_bytes,
                                    f.signed, self.order).ravel()
        return Elements(table, whole)

    def _marker(self, form: EventFormat, part: Pending, row: int) -> str:
        buf = form.field("buf")
        at, length = int(part.records.at[row]), int(part.records.length[row])
        start = buf.offset if buf else 16
        return _text(part.data[at + start:at + max(length, start)])

    # -- all parts are in
    def finish(self) -> list[Growing]:
        """The streams, in the order of buffers and event ids."""
        fullest: dict[tuple[int, int], tuple[int, int, int]] = {}
        for key in sorted(self._growing):
            best = fullest.setdefault(key[1:], key)
            if self._growing[key].outline.count > self._growing[best].outline.count:
                fullest[key[1:]] = key
        return [self._growing[key] for key in sorted(self._growing)
                if self._once(key, fullest[key[1:]])]

    def _once(self, key: tuple[int, int, int], fullest: tuple[int, int, int]) -> bool:
        """Whether a stream is the fullest of those that several buffers hold of one probe."""
        ours = self._growing[key]
        if fullest != key and ours.outline.is_probe:
            name = f"event {ours.form.name} recorded twice, in {self._buffer(ours.buffer)}"
            self.decoded.undecoded[name] += ours.outline.count
            return False
        return True

    def _buffer(self, number: int) -> str:
        return f"instance {self.names[number]}" if self.names[number] else "the top buffer"

    def texts(self, growing: Growing, name: str, values: Ints) -> Coded:
        """A column of texts: of task ids, of addresses, or of numbers of texts."""
        if name == "task":
            return _coded(values, lambda number: self.tasks.get(number, "<...>"))
        if name in growing.texts:
            return Coded(values, list(growing.texts[name]))
        return _coded(values, self.symbols.name)

    def too_wide(self) -> InputError:
        """Arrays of varying length would take more than there may be of them."""
        return InputError(self.decoded.path, "arrays of varying length need more than "
                          f"{MAX_ARRAY_CELLS} elements")


def _needed(form: EventFormat) -> int:
    """Bytes that a record of this event has at least."""
    return max((f.offset + f.size for f in form.fields), default=8)


def _kind(f: Field) -> tuple[str, str]:
    """What kind of column an integer is, and its name."""
    if f.name == _RETURNED:
        return "text", RETURN_TO
    return "text" if f.symbol else "number", f.name


def _places(numbers: list[Field]) -> np.ndarray:
    return np.array([(f.offset, f.size, f.signed) for f in numbers], FIELD_PLACE)


def _coded(values: Ints, name: Callable[[int], str]) -> Coded:
    """A name per number, made once for each different one."""
    encoded = pa.array(values).dictionary_encode()
    return Coded(encoded.indices.to_numpy().astype(np.int64),
                 [name(value) for value in encoded.dictionary.to_pylist()])


def _text(raw: bytes) -> str:
    return plain(raw.partition(b"\0")[0]).strip()


def _tasks(cmdlines: str) -> dict[int, str]:
    tasks: dict[int, Any] = {0: "<idle>"}
    for line in cmdlines.splitlines():
        pid, _, name = line.partition(" ")
        if pid.isascii() and pid.isdigit() and len(pid) < 10:
            tasks[int(pid)] = name
    return tasks
