"""Records of a trace.dat to probe streams: the fields of each event, by the file's own formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from replay.base.errors import InputError
from replay.importers.dat.container import Container, plain
from replay.importers.dat.event_format import EventFormat, Field, Symbols
from replay.importers.dat.ring_buffer import Records, gather, look
from replay.importers.source.probes import (
    Coded, Decoded, Elements, Ints, Passed, ProbeStream, Wanted,
)  # fmt: skip

MARKER_EVENT: Final = "print"
MAX_ELEMENTS: Final = 4096
MAX_PROBED: Final = 1024
"""Functions that one event may probe; each is a stream of its own."""
MAX_ARRAY_CELLS: Final = 1 << 26
"""Elements that the arrays of varying length may take in all, as tables as wide as the longest."""


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
class _Growing:
    """One stream while it grows: pieces of each column. base: time, CPU, pid, place."""

    form: EventFormat
    function: str
    offset: int
    is_return: bool
    is_probe: bool
    buffer: int
    base: list[tuple[Ints, int, Ints, Ints]] = field(default_factory=list)
    numbers: dict[str, list[Ints]] = field(default_factory=dict)
    symbols: dict[str, list[Ints]] = field(default_factory=dict)
    arrays: dict[str, list[Elements]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(time) for time, _, _, _ in self.base)


class Streams:
    """Takes events part by part; one stream per buffer, event and probed place."""

    def __init__(self, decoded: Decoded, container: Container,
                 wanted: Wanted) -> None:
        self.decoded, self.wanted, self.order = decoded, wanted, container.order
        self.symbols = Symbols(container.kallsyms)
        self.tasks = _tasks(container.cmdlines)
        self.names = [buffer.name for buffer in container.buffers]
        self._growing: dict[tuple[int, int, int], _Growing] = {}
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
            growing = self._growing[key] = _Growing(form, function, offset, is_return, is_probe,
                                                    part.buffer)
        r, rows = part.records, part.rows
        growing.base.append((r.time[rows], part.cpu, r.pid[rows], part.base + r.at[rows]))
        if marker:
            texts = growing.texts.setdefault("text", [])
            texts += [self._marker(form, part, row) for row in rows.tolist()]
            return
        if not is_probe:
            short = look(part.data, r, rows, 0, 4, self.order, _needed(form))[2]
            if short >= 0:
                raise self._too_short(form, part, short)
        for each in form.fields:
            self._add_field(growing, each, part)

    def _number(self, f: Field, part: Pending) -> Ints:
        return gather(part.data, part.records.at, part.rows, f.offset, f.size, f.signed,
                      self.order).ravel()

    def _add_field(self, growing: _Growing, f: Field, part: Pending) -> None:
        name = f.name
        if f.is_text:
            text = self._referred if f.reference else self._fixed
            growing.texts.setdefault(name, []).extend(text(f, part))
        elif not f.element_bytes:
            return
        elif f.reference:
            growing.arrays.setdefault(name, []).append(self._dynamic(f, part))
        elif f.is_array:
            length = f.size // f.element_bytes
            values = gather(part.data, part.records.at, part.rows, f.offset, f.element_bytes,
                            f.signed, self.order, length)
            whole = np.full(len(part.rows), length, dtype=np.int64)
            growing.arrays.setdefault(name, []).append(Elements(values, whole))
        elif name == "__probe_ret_ip":
            growing.symbols.setdefault("return_to", []).append(self._number(f, part))
        elif name.startswith("__probe"):
            return
        else:
            into = growing.symbols if f.symbol else growing.numbers
            into.setdefault(name, []).append(self._number(f, part))

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
            raise self._too_wide()
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
    def finish(self) -> None:
        """Fill decoded.streams, in the order of buffers and event ids."""
        fullest: dict[tuple[int, int], tuple[int, int, int]] = {}
        for key in sorted(self._growing):
            best = fullest.setdefault(key[1:], key)
            if len(self._growing[key]) > len(self._growing[best]):
                fullest[key[1:]] = key
        kept = [self._growing[key] for key in sorted(self._growing)
                if self._once(key, fullest[key[1:]])]
        bases = [_base(growing) for growing in kept]
        orders = _ranks(kept, bases)
        for growing, base, order in zip(kept, bases, orders, strict=True):
            self.decoded.streams.append(self._stream(growing, base, order))

    def _once(self, key: tuple[int, int, int], fullest: tuple[int, int, int]) -> bool:
        """Whether a stream is the fullest of those that several buffers hold of one probe."""
        ours = self._growing[key]
        if fullest != key and ours.is_probe:
            name = f"event {ours.form.name} recorded twice, in {self._buffer(ours.buffer)}"
            self.decoded.undecoded[name] += len(ours)
            return False
        return True

    def _buffer(self, number: int) -> str:
        return f"instance {self.names[number]}" if self.names[number] else "the top buffer"

    def _stream(self, g: _Growing, base: list[Ints], order: Ints) -> ProbeStream:
        time, cpu, pid, at = base
        texts: dict[str, Sequence[str]] = dict(g.texts)
        for name, pieces in g.symbols.items():
            texts[name] = _coded(np.concatenate(pieces), self.symbols.name)
        tasks = _coded(pid, lambda number: self.tasks.get(number, "<...>"))
        return ProbeStream(
            g.form.name, g.function, g.offset, g.is_return, g.is_probe, time, cpu, pid, order, at,
            tasks, {name: np.concatenate(pieces) for name, pieces in g.numbers.items()},
            {name: self._joined(pieces) for name, pieces in g.arrays.items()}, texts)

    def _joined(self, pieces: list[Elements]) -> Elements:
        widths = [piece.values.shape[1] for piece in pieces]
        rows = sum(len(p.whole) for p in pieces)
        if min(widths) < max(widths) and rows * max(widths) > MAX_ARRAY_CELLS:
            raise self._too_wide()
        values = [np.pad(p.values, ((0, 0), (0, max(widths) - p.values.shape[1]))) for p in pieces]
        return Elements(np.concatenate(values), np.concatenate([p.whole for p in pieces]))

    def _too_wide(self) -> InputError:
        return InputError(self.decoded.path, "arrays of varying length need more than "
                          f"{MAX_ARRAY_CELLS} elements")


def _needed(form: EventFormat) -> int:
    """Bytes that a record of this event has at least."""
    return max((f.offset + f.size for f in form.fields), default=8)


def _base(g: _Growing) -> list[Ints]:
    """The four columns of a stream whose parts are all in."""
    time, cpu, pid, at = zip(*g.base, strict=True)
    return [np.concatenate(time), np.repeat(cpu, [len(piece) for piece in time]),
            np.concatenate(pid), np.concatenate(at)]


def _coded(values: Ints, name: Callable[[int], str]) -> Coded:
    """A name per number, made once for each different one."""
    encoded = pa.array(values).dictionary_encode()
    return Coded(encoded.indices.to_numpy().astype(np.int64),
                 [name(value) for value in encoded.dictionary.to_pylist()])


def _ranks(kept: list[_Growing], bases: list[list[Ints]]) -> list[Ints]:
    """Place of each event among all that are kept, by time, CPU, and place in the file."""
    if not kept:
        return []
    time, cpu, _, at = (np.concatenate(column) for column in zip(*bases, strict=True))
    # in the order of CPUs and places the times are a few ascending runs, which merge in no time
    by_cpu = np.argsort(at, kind="stable")
    if (np.diff(cpu[by_cpu]) < 0).any():
        by_cpu = by_cpu[np.argsort(cpu[by_cpu], kind="stable")]
    ranks = np.empty(len(time), dtype=np.int64)
    ranks[by_cpu[np.argsort(time[by_cpu], kind="stable")]] = np.arange(len(time))
    return np.split(ranks, np.cumsum([len(b[0]) for b in bases])[:-1])


def _text(raw: bytes) -> str:
    return plain(raw.partition(b"\0")[0]).strip()


def _tasks(cmdlines: str) -> dict[int, str]:
    tasks: dict[int, Any] = {0: "<idle>"}
    for line in cmdlines.splitlines():
        pid, _, name = line.partition(" ")
        if pid.isascii() and pid.isdigit() and len(pid) < 10:
            tasks[int(pid)] = name
    return tasks
