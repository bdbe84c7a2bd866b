"""Changes to an input whose effect on the import is known exactly."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from dat_files import VERSIONS, File
from import_corpus import (
    DAT_FORMS,
    dat_specs,
    swapped,
    text_inputs,
    xen_inputs,
    xen_record,
    xen_records,
    xen_window,
    xen_windows,
)

from naive_ring_buffer import events_of

from replay.base.errors import InputError
from replay.importers.dat.read import read_trace_dat
from replay.importers.dat.ring_buffer import Layout, scan_pages
from replay.importers.source.imported import Imported
from replay.importers.source.probes import Decoded
from replay.importers.text.read import read_ftrace_text
from replay.importers.xen.read import read_xentrace

Random = random.Random


def equal(left: object, right: object, what: str) -> None:
    """An assertion that no option of Python takes out."""
    if left != right:
        raise AssertionError(f"{what}: {str(left)[:300]} is not {str(right)[:300]}")


# -- xentrace ------------------------------------------------------------------------------------
def _xen(path: Path, data: bytes) -> Imported:
    path.write_bytes(data)
    return read_xentrace(path, hz=10**9, xen_version="4.17.7")


Row = dict[str, object]


def _rows(imported: Imported) -> list[Row]:
    return imported.table.to_pylist()


def _core(rows: list[Row], place: bool = True) -> Counter[tuple[str, ...]]:
    """What does not depend on other records; its place in the file only if asked."""
    names = ("cpu", "kind", "domid", "nr_pages", "frames", "mfns", "value", "label",
             *(["source_offset"] if place else []))
    return Counter(tuple(str(row[n]) for n in names) for row in rows)


def xen_window_dropped(rng: Random, path: Path) -> None:
    """Exactly its records are missing, in a table of the others."""
    windows = xen_windows(rng.choice(xen_inputs()))
    k = rng.randrange(len(windows) - 1) + 1
    start = sum(map(len, windows[:k]))
    whole, left = _xen(path, b"".join(windows)), _xen(path, b"".join(windows[:k] + windows[k + 1:]))
    kept = [r for r in _rows(whole) if not 0 <= r["source_offset"] - start < len(windows[k])]
    equal(_core(_rows(left), False), _core(kept, False), "rows left")
    equal(whole.accounting["records"] - left.accounting["records"],
          1 + len(xen_records(windows[k])), "records")


def xen_event_unknown(rng: Random, path: Path) -> None:
    """One record more is skipped, under its number; all others are what they were."""
    windows = xen_windows(rng.choice(xen_inputs()))
    k = rng.choice([i for i, w in enumerate(windows) if len(w) > 12])
    before = _xen(path, b"".join(windows))
    records = xen_records(windows[k])
    j = rng.randrange(len(records))
    (header,) = struct.unpack_from("<I", records[j])
    records[j] = struct.pack("<I", header & 0xF0000000 | 0xFEE123) + records[j][4:]
    place = sum(map(len, windows[:k])) + 12 + sum(map(len, records[:j]))
    windows[k] = windows[k][:12] + b"".join(records)
    after = _xen(path, b"".join(windows))
    equal(after.accounting["skipped"].get("0x00fee123"), 1, "skipped")
    kept = [r for r in _rows(before) if r["source_offset"] != place]
    equal(_core(_rows(after)), _core(kept), "rows")
    equal(after.accounting["records"], before.accounting["records"], "records")


def xen_cut(rng: Random, path: Path) -> None:
    """Whole records before the cut are all there, and the cut shows unless a window ends there."""
    data = rng.choice(xen_inputs())
    windows = xen_windows(data)
    ends = {sum(map(len, windows[:k])) for k in range(len(windows) + 1)}
    end = rng.randrange(4, len(data))
    whole, cut = _xen(path, data), _xen(path, data[:end])
    complete, at = set(), 0
    for window in windows:
        place = at + 12
        for record in xen_records(window):
            if place + len(record) <= end:
                complete.add(place)
            place += len(record)
        at += len(window)
    kept = [r for r in _rows(whole) if r["source_offset"] in complete]
    equal(_core(_rows(cut)), _core(kept), "rows before the cut")
    equal(cut.anomalies.counts["file_truncated"], int(end not in ends), f"truncated at {end}")


def xen_same(rng: Random, path: Path) -> None:
    """Another byte order or a compression makes no difference."""
    data = rng.choice(xen_inputs())
    form = rng.choice((swapped, lambda d: gzip.compress(d, 1, mtime=0),
                       lambda d: pa.compress(d, codec="zstd", asbytes=True)))
    equal(_xen(path, form(data)).table.equals(_xen(path, data).table), True, "table")


def xen_record_added(rng: Random, path: Path) -> None:
    """A record put in is one row more, with the values it was given."""
    windows = xen_windows(rng.choice(xen_inputs()))
    k = rng.randrange(len(windows))
    before = _xen(path, b"".join(windows))
    (cpu,) = struct.unpack_from("<I", windows[k], 4)
    gfn, domid = rng.getrandbits(36), rng.randrange(1 << 15)
    new = xen_record(0x10F004, gfn & 0xFFFFFFFF, gfn >> 32, 7, 0, 3, domid | 9 << 16)
    windows[k] = xen_window(cpu, windows[k][12:] + new)
    after = _xen(path, b"".join(windows))
    added = _core(_rows(after), False) - _core(_rows(before), False)
    new_row = (str(cpu), "p2m_set", str(domid), "512", str([gfn]), "[7]", "3", "None")
    equal(list(added.elements()), [new_row], "the row")
    equal(after.accounting["imported"], before.accounting["imported"] + 1, "imported")


def xen_lost(rng: Random, path: Path) -> None:
    """A record of losses adds exactly what it says."""
    windows = xen_windows(rng.choice(xen_inputs()))
    before = _xen(path, b"".join(windows))
    count = rng.getrandbits(32)
    k = rng.randrange(len(windows))
    (cpu,) = struct.unpack_from("<I", windows[k], 4)
    last = int(before.ticks.max()) if before.ticks is not None and len(before.ticks) else 1
    windows.append(xen_window(cpu, xen_record(0x1F001, count, 2, last & 0xFFFFFFFF,
                                                  last >> 32, tsc=last)))
    after = _xen(path, b"".join(windows))
    equal(after.accounting["lost"], before.accounting["lost"] + count, "lost")
    equal(after.anomalies.data_loss, before.anomalies.data_loss + count, "data loss")


# -- trace.dat -----------------------------------------------------------------------------------
def _dat(path: Path, data: bytes) -> Decoded:
    path.write_bytes(data)
    return read_trace_dat(path)


def _encoded(rng: Random, spec: File) -> bytes:
    version, kind = rng.choice(DAT_FORMS)
    return VERSIONS[version](replace(spec, kind=kind))


Said = tuple[object, ...]


def streams(decoded: Decoded, place: bool = False) -> Counter[Said]:
    """Every event with all that it holds; its place in the file only if asked."""
    found: Counter[Said] = Counter()
    for s in decoded.streams:
        names = sorted(s.numbers), sorted(s.texts), sorted(s.arrays)
        for i in range(len(s)):
            found[(s.event, s.function, s.offset, s.is_return, s.is_probe, int(s.time[i]),
                   int(s.cpu[i]), int(s.pid[i]), s.task[i],
                   *((n, int(s.numbers[n][i])) for n in names[0]),
                   *((n, s.texts[n][i]) for n in names[1]),
                   *((n, *s.arrays[n].values[i, :s.arrays[n].whole[i]].tolist())
                     for n in names[2]),
                   *([int(s.source_offset[i])] if place else []))] += 1
    return found


def dat_same(rng: Random, path: Path) -> None:
    """Version and compression make no difference."""
    spec = rng.choice([s for s in dat_specs() if list(s.cpus) == list(range(len(s.cpus)))])
    left, right = (_dat(path, _encoded(rng, spec)) for _ in range(2))
    equal(streams(left, True), streams(right, True), "streams")
    equal((left.records, left.undecoded, left.losses, left.records_lost),
          (right.records, right.undecoded, right.losses, right.records_lost), "account")


def _layout(spec: File) -> Layout:
    return Layout("<", spec.shape.page_bytes, 8 + spec.shape.long, spec.shape.long)


def _some_page(rng: Random) -> tuple[File, int, int, bytearray]:
    spec = rng.choice(dat_specs())
    spec = replace(spec, instances={})
    cpu = rng.choice([c for c in spec.cpus if spec.cpus[c]])
    k = rng.randrange(len(spec.cpus[cpu]))
    return spec, cpu, k, bytearray(spec.cpus[cpu][k])


def _with_page(spec: File, cpu: int, k: int, page: bytes) -> File:
    pages = list(spec.cpus[cpu])
    pages[k] = bytes(page)
    return replace(spec, cpus={**spec.cpus, cpu: pages})


def dat_event_unknown(rng: Random, path: Path) -> None:
    """One event less in the streams, one counted under its id; nothing else changes."""
    spec, cpu, k, page = _some_page(rng)
    records = scan_pages(bytes(page), _layout(spec))
    if not len(records.at):
        return
    at = int(rng.choice(records.at.tolist()))
    struct.pack_into("<H", page, at, 60000)
    form = rng.choice(DAT_FORMS)
    before = _dat(path, VERSIONS[form[0]](replace(spec, kind=form[1])))
    after = _dat(path, VERSIONS[form[0]](replace(_with_page(spec, cpu, k, page), kind=form[1])))
    gone = streams(before, True) - streams(after, True)
    equal(gone.total(), 1, "events gone")
    equal(streams(after, True) - streams(before, True), Counter(), "events that came")
    equal(after.undecoded - before.undecoded, Counter({"event id 60000 without a format": 1}),
          "undecoded")
    equal((after.records, after.losses), (before.records, before.losses), "records")


def dat_last_event_dropped(rng: Random, path: Path) -> None:
    """A shorter commit ends a sub-buffer earlier, and the others are what they were."""
    spec, cpu, k, page = _some_page(rng)
    records = scan_pages(bytes(page), _layout(spec))
    if not len(records.at) or struct.unpack_from("<Q", page, 8)[0] >> 27:
        return
    cut = rng.randrange(len(records.at))
    at, length = int(records.at[cut]), int(records.length[cut])
    word = struct.unpack_from("<I", page, at - 4)[0]
    start = at - 4 if word & 31 == length // 4 else at - 8
    struct.pack_into("<Q", page, 8, start - 16)
    form = rng.choice(DAT_FORMS)
    before = _dat(path, VERSIONS[form[0]](replace(spec, kind=form[1])))
    after = _dat(path, VERSIONS[form[0]](replace(_with_page(spec, cpu, k, page), kind=form[1])))
    equal(before.records - after.records, len(records.at) - cut, "records")
    equal(streams(after) - streams(before), Counter(), "events that came")
    equal((streams(before) - streams(after)).total() + (before.undecoded - after.undecoded).total(),
          len(records.at) - cut, "events gone")


def dat_loss(rng: Random, path: Path) -> None:
    """A page that misses events adds their number to what is lost, and changes nothing else."""
    spec, cpu, k, page = _some_page(rng)
    commit = struct.unpack_from("<Q", page, 8)[0]
    if commit >> 27 or 16 + commit + 8 > len(page) or spec.options:
        return
    count = rng.getrandbits(31)
    struct.pack_into("<Q", page, 8, commit | 3 << 30)
    struct.pack_into("<Q", page, 16 + commit, count)
    version, kind = rng.choice(DAT_FORMS)
    before, after = (_dat(path, VERSIONS[version](replace(s, kind=kind)))
                     for s in (spec, _with_page(spec, cpu, k, page)))
    equal(after.records_lost, before.records_lost + count, "lost")
    equal(streams(after), streams(before), "streams")


def dat_page_words(rng: Random, path: Path) -> None:
    """A sub-buffer with other words gives what a plain reading of it gives, or is refused."""
    spec, cpu, k, page = _some_page(rng)
    used = min(len(page), 24 + (struct.unpack_from("<Q", page, 8)[0] & 0x7FFFFFF))
    records = scan_pages(bytes(page), _layout(spec))
    for _ in range(rng.choice((1, 1, 2))):
        heads = [int(a) - 4 for a in records.at] or [16]
        at = rng.choice((rng.choice(heads), rng.choice(heads), rng.randrange(0, used, 4)))
        (old,) = struct.unpack_from("<I", page, at)
        new = rng.choice((old & ~31 | rng.randrange(32), old & 31 | rng.getrandbits(27) << 5,
                          old + rng.choice((-4, -1, 1, 4)), rng.getrandbits(32)))
        struct.pack_into("<I", page, at, new & 0xFFFFFFFF)
    expected = events_of(bytes(page))
    found = scan_pages(bytes(page), _layout(spec))
    equal(len(found.bad_at) > 0, expected is None, "whether the sub-buffer is refused")
    if expected is not None:
        equal(list(zip(found.time.tolist(), found.at.tolist(), found.length.tolist(),
                       strict=True)), expected, "events")
    version, kind = rng.choice(DAT_FORMS)
    path.write_bytes(VERSIONS[version](replace(_with_page(spec, cpu, k, page), kind=kind)))
    others = sum(len(events_of(p) or ()) for c, pages in spec.cpus.items()
                 for j, p in enumerate(pages) if (c, j) != (cpu, k))
    try:
        decoded = read_trace_dat(path)
    except InputError as error:
        equal("entries that cannot be" in str(error), expected is None, "why it is refused")
        return
    equal(decoded.records, others + len(expected or ()), "records")


def dat_cut(rng: Random, path: Path) -> None:
    """No cut of a file passes, but for one in the padding of version 6."""
    version, kind = rng.choice(DAT_FORMS)
    data = VERSIONS[version](replace(rng.choice(dat_specs()), kind=kind))
    end = rng.randrange(len(data.rstrip(b"\0")) if version == 6 else len(data))
    path.write_bytes(data[:end])
    try:
        read_trace_dat(path)
    except InputError:
        return
    raise AssertionError(f"cut at {end} of {len(data)} is accepted")


def dat_chunk_damaged(rng: Random, path: Path) -> None:
    """A flipped bit in a zlib block is noticed, by its sum, or is one that deflate leaves unused."""
    spec = replace(rng.choice(dat_specs()), kind="zlib")
    whole = VERSIONS[7](spec)
    data = bytearray(whole)
    page = next(p for pages in spec.cpus.values() for p in pages)
    block = zlib.compress(page)
    at = data.find(block)
    data[at + rng.randrange(2, len(block))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    try:
        damaged = read_trace_dat(path)
    except InputError:
        return
    equal(zlib.decompress(data[at:at + len(block)]), page, "what a damaged block holds")
    equal(streams(damaged, True), streams(_dat(path, whole), True), "streams")


# -- ftrace text ---------------------------------------------------------------------------------
def _text(path: Path, data: bytes) -> Decoded:
    path.write_bytes(data)
    return read_ftrace_text(path)


def _events(data: bytes) -> list[int]:
    """Lines that are events, by a rule of their own: a time and two colons."""
    return [k for k, line in enumerate(data.splitlines(keepends=True))
            if line.count(b": ") >= 2 and not line.startswith((b"#", b"CPU:"))]


def text_line_dropped(rng: Random, path: Path) -> None:
    """One event less, the others unchanged."""
    data = rng.choice([t for t in text_inputs() if b"0xff      " not in t])
    lines = data.splitlines(keepends=True)
    k = rng.choice(_events(data))
    before = _text(path, data)
    after = _text(path, b"".join(lines[:k] + lines[k + 1:]))
    equal(before.records - after.records, 1, "records")
    equal((streams(before) - streams(after)).total(), 1, "events gone")
    equal(streams(after) - streams(before), Counter(), "events that came")


def text_nonsense(rng: Random, path: Path) -> None:
    """A line that is nothing is counted, and changes nothing."""
    data = rng.choice(text_inputs())
    lines = data.splitlines(keepends=True)
    before = _text(path, data)
    lines.insert(rng.randrange(len(lines) + 1),
                 rng.choice((b"nonsense\n", b"[0] 1.2\n", b"\x01\x02\n", b"- - -\n", b"CPU:x [\n")))
    after = _text(path, b"".join(lines))
    told = [c.anomalies.counts["lines_unmatched"] + c.anomalies.counts["marker_lines"]
            for c in (before, after)]
    equal(told[1] - told[0], 1, "lines told of")
    equal(after.records, before.records, "records")


def text_cut(rng: Random, path: Path) -> None:
    """What is whole before the cut is there, and a cut within a line shows."""
    data = rng.choice(text_inputs())
    end = rng.randrange(len(data) // 2, len(data))
    whole, complete = _text(path, data), data[:end].count(b"\n")
    try:
        cut = _text(path, data[:end])
    except InputError:
        return
    equal(cut.anomalies.counts["file_truncated"], int(data[end - 1:end] != b"\n"), "truncated")
    equal(_until(cut, complete), _until(whole, complete), "lines before the cut")


def _until(decoded: Decoded, line: int) -> Counter[Said]:
    """Events of whole lines up to one; a field that only later ones have stands open in all."""
    found: Counter[Said] = Counter()
    for s in decoded.streams:
        for i in range(len(s)):
            if s.source_offset[i] <= line:
                found[s.event, s.function, int(s.time[i]), int(s.cpu[i]), int(s.pid[i]),
                      s.task[i], int(s.source_offset[i])] += 1
    return found


def text_same(rng: Random, path: Path) -> None:
    """Line ends of another system, and compression, make no difference."""
    data = rng.choice(text_inputs())
    form = rng.choice((lambda d: d.replace(b"\n", b"\r\n"),
                       lambda d: gzip.compress(d, 1, mtime=0),
                       lambda d: pa.compress(d, codec="zstd", asbytes=True)))
    left, right = _text(path, data), _text(path, form(data))
    equal(streams(left, True), streams(right, True), "streams")
    equal((left.records, left.records_lost, left.anomalies.counts),
          (right.records, right.records_lost, right.anomalies.counts), "account")


def text_lost(rng: Random, path: Path) -> None:
    """A notice of losses adds exactly what it says."""
    data, count = rng.choice(text_inputs()), rng.getrandbits(40)
    lines = data.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines)), b"CPU:1 [LOST %d EVENTS]\n" % count)
    before, after = _text(path, data), _text(path, b"".join(lines))
    equal(after.records_lost, before.records_lost + count, "lost")
    equal(streams(after), streams(before), "streams")


Answer = Callable[[Random, Path], None]
ANSWERS: dict[str, tuple[Answer, ...]] = {
    "trace.dat": (dat_same, dat_event_unknown, dat_last_event_dropped, dat_loss, dat_cut,
                  dat_chunk_damaged, dat_page_words, dat_page_words),
    "xentrace": (xen_window_dropped, xen_event_unknown, xen_cut, xen_same, xen_record_added,
                 xen_lost),
    "ftrace text": (text_line_dropped, text_nonsense, text_cut, text_same, text_lost),
}
