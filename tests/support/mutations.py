"""Seeded damage to inputs: by byte anywhere, and by structure where a format has its numbers."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

from dat_files import BASE, SHAPES, VERSIONS, File, pack
from import_corpus import DAT_FORMS, dat_inputs, dat_specs, swapped, text_inputs, xen_inputs
from import_corpus import xen_records as records_of
from import_corpus import xen_window, xen_windows

from replay.importers.dat import container as trace_dat_file
from replay.importers.dat.read import open_container

Random = random.Random
EDGES = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000,
         0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 40, 1 << 53, 1 << 62, (1 << 63) - 1,
         1 << 63, (1 << 64) - 1)
"""Numbers beside which mistakes live."""


def edge(rng: Random, near: int = 0) -> int:
    """A number at an edge, beside `near`, or any."""
    return rng.choice((rng.choice(EDGES), near + rng.choice((-8, -4, -1, 1, 4, 8)), near * 2,
                       near ^ 1 << rng.randrange(32), rng.getrandbits(rng.choice((4, 8, 16, 32)))))


def put(data: bytearray, at: int, size: int, value: int, order: str = "<") -> None:
    """Write an integer, as many of its bits as fit."""
    raw = (value & (1 << 8 * size) - 1).to_bytes(size, "little" if order == "<" else "big")
    data[at:at + size] = raw[:max(0, len(data) - at)]


def by_byte(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A few bytes changed, taken out, put in, repeated, cut off, or taken from another input."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if not made:
            break
        at = rng.randrange(len(made))
        size = min(len(made) - at, rng.choice((1, 2, 4, 8, 12, 100)))
        kind = rng.randrange(8)
        if kind < 3:
            made[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, made[at] ^ 1 << rng.randrange(8),
                                   rng.randrange(256)))
        elif kind == 3:
            put(made, at, rng.choice((2, 4, 8)), edge(rng), rng.choice("<>"))
        elif kind == 4:
            del made[at:at + size]
        elif kind == 5:
            made[at:at] = rng.choice((made[at:at + size], rng.randbytes(size), bytes(size)))
        elif kind == 6:
            del made[at:]
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            made[at:at + size] = other[start:start + size]
    return bytes(made)


# -- trace.dat -----------------------------------------------------------------------------------
@cache
def places(data: bytes) -> tuple[tuple[int, int, str], ...]:
    """Offset, size and byte order of each number that the reader of a whole file takes from it."""
    found: set[tuple[int, int, str]] = set()
    number = trace_dat_file.Cursor.number

    def noted(self: trace_dat_file.Cursor, count: int, what: str) -> int:
        base = 0 if self.data is data else data.find(bytes(self.data))
        if base >= 0:
            found.add((base + self.at, count, self.order))
        return number(self, count, what)

    with patch.object(trace_dat_file.Cursor, "number", noted):
        _, container = open_container(Path("x"), data)
    for buffer in container.buffers:
        for _, at, size in buffer.cpus:
            found |= {(at + k, 4, container.order) for k in range(0, size, 4)}
    return tuple(sorted(found))


def dat_by_place(rng: Random) -> bytes:
    """One or two of the file's own numbers changed: sizes, counts, offsets, ids, record headers."""
    data = rng.choice(dat_inputs())
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        at, size, order = rng.choice(places(data))
        old = int.from_bytes(data[at:at + size], "little" if order == "<" else "big")
        if size == 8 and rng.random() < 0.3:  # an offset: to another part of the file
            put(made, at, size, rng.choice((rng.choice(places(data))[0], old + 16, 0)), order)
        else:
            put(made, at, size, edge(rng, old), order)
    return bytes(made)


def dat_by_page(rng: Random) -> bytes:
    """The words of a sub-buffer changed before it is compressed: times, lengths, commit, types."""
    spec = rng.choice(dat_specs())
    cpu = rng.choice([c for c in spec.cpus if spec.cpus[c]])
    pages = list(spec.cpus[cpu])
    k = rng.randrange(len(pages))
    made, used = bytearray(pages[k]), 16 + (struct.unpack_from("<Q", pages[k], 8)[0] & 0xFFFFFFF)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(0, used, 4)
        (old,) = struct.unpack_from("<I", made, at)
        kind = rng.choice((0, 1, 2, 28, 29, 30, 31))
        value = rng.choice((edge(rng, old), old & ~31 | kind, kind, old ^ 1 << 31,
                            old & 31 | rng.getrandbits(27) << 5))
        put(made, at, 4, value)
    pages[k] = bytes(made)
    return encode(rng, replace(spec, cpus={**spec.cpus, cpu: pages}))


TYPES = ("u8", "s64", "unsigned long", "char", "__data_loc char[]", "__data_loc u64[]",
         "__rel_loc u16[]", "__data_loc int[]", "void *", "u128", "")


def dat_by_text(rng: Random) -> bytes:
    """The texts of a file changed: formats, symbols, command names, header_page, options."""
    spec = rng.choice(dat_specs())
    kind = rng.randrange(6)
    if kind < 3:
        name = rng.choice(list(spec.formats))
        spec = replace(spec, formats={**spec.formats, name: _other_format(rng, spec.formats[name])})
    elif kind == 3:
        text = rng.choice((text_damage(rng, spec.kallsyms), "", f"{'f' * 17} T x\n" * 9))
        spec = replace(spec, kallsyms=text)
    elif kind == 4:
        names = rng.choice(("7\n", "-7 x\n7 a\n7 b\n", "99999999999 x\n", "7 \ud7ff\x00\n"))
        spec = replace(spec, cmdlines=rng.choice((names, text_damage(rng, spec.cmdlines))))
    else:
        body = rng.choice((b"", rng.randbytes(9), b"CPU: 0\noverrun: 99999999999999999\n\0",
                           b"[local] global\0", bytes(16), b"-9223372036854775808\0"))
        spec = replace(spec, options=(*spec.options, (rng.randrange(1, 30), body)))
    return encode(rng, spec)


def _other_format(rng: Random, text: str) -> str:
    kind = rng.randrange(6)
    lines = text.splitlines(keepends=True)
    fields = [k for k, line in enumerate(lines) if "field:" in line]
    if kind == 0 or not fields:
        return text_damage(rng, text)
    at = rng.choice(fields)
    if kind == 1:
        del lines[at]
    elif kind == 2:
        lines.insert(at, rng.choice(lines))
    elif kind == 3:
        lines[at] = re.sub(r"field:(.*?)(\w+(\[\d*\])?;)",
                           rf"field:{rng.choice(TYPES)} \2", lines[at], count=1)
    else:
        spots = [m.span() for m in re.finditer(r"\d+", lines[at])]
        if spots:
            start, end = rng.choice(spots)
            lines[at] = lines[at][:start] + str(edge(rng, int(lines[at][start:end]))) + \
                lines[at][end:]
    return "".join(lines)


def text_damage(rng: Random, text: str) -> str:
    """By byte, still text."""
    raw = text.encode("utf-8", "backslashreplace") or b" "
    return by_byte(rng, raw, [raw]).decode("utf-8", "backslashreplace")


def encode(rng: Random, spec: File) -> bytes:
    """A specification in any form that its byte order allows."""
    version, kind = rng.choice(DAT_FORMS)
    return VERSIONS[version](replace(spec, kind=kind))


def dat_chunks(rng: Random) -> bytes:
    """Compressed blocks whose sizes lie, or that hold something else."""
    spec = replace(dat_specs()[0], kind=rng.choice(("zlib", "zstd")))
    data = VERSIONS[7](spec)
    block = pack(spec.kind, b"".join(spec.cpus[0][:1]))
    at = data.find(block)
    made = bytearray(data)
    kind = rng.randrange(4)
    if kind == 0:
        put(made, at + 4, 4, edge(rng, len(spec.cpus[0][0])))
    elif kind == 1:
        put(made, at, 4, edge(rng, len(block) - 8))
    elif kind == 2:
        other = pack(spec.kind, bytes(rng.choice((0, 1, 256, 512, 1 << 16))))
        made[at:at + len(block)] = other
    else:
        put(made, at - 4, 4, edge(rng, 2))
    return bytes(made)


def dat_bytes(rng: Random) -> bytes:
    """By byte."""
    return by_byte(rng, rng.choice(dat_inputs()), dat_inputs())


def dat_shapes(rng: Random) -> bytes:
    """Values of a record in any byte order and width, some of them out of all proportion."""
    shape = replace(rng.choice(list(SHAPES.values())), page_bytes=256)
    entries = [shape.alloc(edge(rng) & 0xFFFFFFFF, BASE + rng.choice((0, 4, 0x400, 1 << 21)),
                           rng.choice((7, 0, -1, 1 << 30)), delta=rng.choice((0, 1, (1 << 27) - 1)),
                           long_form=rng.random() < 0.3)
               for _ in range(rng.randrange(4))]
    lost = rng.choice((None, None, -1, 0, 5, (1 << 31) - 1))
    pages = [shape.page(edge(rng) & (1 << 63) - 1, *entries, lost=lost) for _ in range(2)]
    version, kind = rng.choice(DAT_FORMS)
    return VERSIONS[version](File({rng.choice((0, 1, 4096, 0xFFFFFFFF)): pages}, shape, kind,
                                  clock=rng.choice(("mono", "x86-tsc", "", "boot")), align=8))


# -- xentrace ------------------------------------------------------------------------------------
def xen_by_window(rng: Random) -> bytes:
    """Windows dropped, repeated, exchanged, of another size or CPU."""
    windows = xen_windows(rng.choice(xen_inputs()))
    k, j = rng.randrange(len(windows)), rng.randrange(len(windows))
    kind = rng.randrange(6)
    made = bytearray(windows[k])
    if kind == 0:
        del windows[k]
    elif kind == 1:
        windows.insert(j, windows[k])
    elif kind == 2:
        windows[k], windows[j] = windows[j], windows[k]
    elif kind == 3:
        put(made, 8, 4, edge(rng, len(made) - 12))
        windows[k] = bytes(made)
    elif kind == 4:
        put(made, 4, 4, edge(rng))
        windows[k] = bytes(made)
    else:
        put(made, 0, 4, edge(rng, 0x2001F003))
        windows[k] = bytes(made)
    return _either_order(rng, b"".join(windows))


XEN_EVENTS = (0x1F001, 0x1F002, 0x1F003, 0x21111, 0x10F001, 0x10F004, 0x10F005, 0x10F010, 0x10F012,
              0x41001, 0x20100D, 0x20200E, 0x201001, 0x201101, 0x82012, 0x81002, 0x81001, 0xFFF123)


def xen_by_record(rng: Random) -> bytes:
    """Records with another event, number of words, time or payload."""
    windows = xen_windows(rng.choice(xen_inputs()))
    for _ in range(rng.choice((1, 1, 3))):
        k = rng.randrange(len(windows))
        records = records_of(windows[k])
        if not records:
            continue
        j = rng.randrange(len(records))
        made = bytearray(records[j])
        (header,) = struct.unpack_from("<I", made)
        kind = rng.randrange(6)
        if kind == 0:
            put(made, 0, 4, header & 0xF0000000 | rng.choice(XEN_EVENTS))
        elif kind == 1:
            put(made, 0, 4, header ^ rng.choice((1 << 31, 1 << 28, 7 << 28)))
        elif kind == 2 and header >> 31:
            put(made, 4, 8, edge(rng))
        elif kind == 3:
            put(made, rng.randrange(0, len(made), 4), 4, edge(rng, header))
        elif kind == 4:
            words = [edge(rng) & 0xFFFFFFFF for _ in range(rng.randrange(8))]
            tsc = rng.choice(((), (edge(rng) & 0xFFFFFFFF, edge(rng) & 0xFFFFFFFF)))
            made = bytearray(struct.pack(
                f"<{1 + len(tsc) + len(words)}I",
                rng.choice(XEN_EVENTS) | len(words) << 28 | bool(tsc) << 31, *tsc, *words))
        else:
            made = bytearray()
        records[j] = bytes(made)
        body = b"".join(records)
        if rng.random() < 0.8:
            windows[k] = xen_window(struct.unpack_from("<I", windows[k], 4)[0], body)
        else:
            windows[k] = windows[k][:12] + body
    return _either_order(rng, b"".join(windows))


def _either_order(rng: Random, data: bytes) -> bytes:
    return swapped(data) if rng.random() < 0.2 else data


def xen_bytes(rng: Random) -> bytes:
    """By byte."""
    return by_byte(rng, _either_order(rng, rng.choice(xen_inputs())), xen_inputs())


# -- ftrace text ---------------------------------------------------------------------------------
TOKENS = ("-", "[000]", " [99999] ", ": ", "5.000001: ", "99999999999999999999.5: ", "{", "}", ",",
          "{0x1,", "0x", "=", '"', " <- ", "(", ")", "+0x0/0x1)", "\r", "\x1b[1m", "\u202e", "-1",
          "18446744073709551616", "CPU:1 [LOST 999999999999999999 EVENTS]\n", "\n", "\n\n",
          "    a-1     [000] ..... 5: e: (f+0x0/0x1) n=1", "[LINE TOO BIG]", " => ", "#", "us: ",
          "# tracer: nop\n", "# entries-in-buffer/entries-written: 1/999999999999999999\n",
          "\x85", "\u2028", "9" * 30, "\udc80", "a=1 " * 50, "((((((((", "[" * 40)


def text_by_line(rng: Random) -> bytes:
    """Lines dropped, repeated, exchanged, joined, cut."""
    lines = rng.choice(text_inputs()).splitlines(keepends=True)
    for _ in range(rng.choice((1, 1, 2))):
        k, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(6)
        if kind == 0 and len(lines) > 1:
            del lines[k]
        elif kind == 1:
            lines.insert(j, lines[k])
        elif kind == 2:
            lines[k], lines[j] = lines[j], lines[k]
        elif kind == 3:
            lines[k] = lines[k].rstrip(b"\n")
        elif kind == 4:
            lines[k] = lines[k][:rng.randrange(len(lines[k]) or 1)] + rng.choice((b"", b"\n"))
        else:
            lines[k] = rng.choice(rng.choice(text_inputs()).splitlines(keepends=True))
    return b"".join(lines)


_SPOT = re.compile(rb"0x[0-9a-f]+|\d+|[\w.]+|[^\w\s]")


def text_by_field(rng: Random) -> bytes:
    """A number, a name or a sign of a line replaced, dropped, or another put beside it."""
    data = rng.choice(text_inputs())
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(data))
        spot = _SPOT.search(data, start) or _SPOT.search(data)
        if not spot:
            break
        at, end = spot.span()
        kind = rng.randrange(4)
        if kind == 0:
            value = edge(rng)
            new = rng.choice((str(value), hex(value), f"{value}.{value % 10**6:06d}")).encode()
        elif kind == 1:
            new = b""
        else:
            token = rng.choice(TOKENS).encode("utf-8", "surrogateescape")
            new = token if kind == 2 else data[at:end] + token
        data = data[:at] + new + data[end:]
    return data


def text_bytes(rng: Random) -> bytes:
    """By byte."""
    return by_byte(rng, rng.choice(text_inputs()), text_inputs())


Mutation = Callable[[Random], bytes]
MUTATIONS: dict[str, tuple[Mutation, ...]] = {
    "trace.dat": (dat_bytes, dat_by_place, dat_by_place, dat_by_page, dat_by_page, dat_by_text,
                  dat_chunks, dat_shapes),
    "xentrace": (xen_bytes, xen_by_window, xen_by_record, xen_by_record),
    "ftrace text": (text_bytes, text_by_line, text_by_field, text_by_field),
}
