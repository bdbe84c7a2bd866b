"""What holds of every input that an importer accepts, whatever it is."""

from __future__ import annotations

import re
import struct

import numpy as np
import pyarrow.compute as pc

from replay.base.anomalies import KNOWN
from replay.importers.source.imported import Imported
from replay.importers.source.probes import Decoded
from replay.trace.schema import KINDS, SCHEMA, Flag

ALL_FLAGS = sum(Flag)


class Broken(AssertionError):
    """A promise that an accepted input breaks."""


def need(condition: object, *what: object) -> None:
    """An assertion that no option of Python takes out."""
    if not condition:
        raise Broken(" ".join(map(str, what)))


def check_decoded(decoded: Decoded, data: bytes) -> None:
    """Streams are whole, within the file, and every record is in one or counted by name."""
    events = decoded.events().total() + decoded.undecoded.total()
    need(events == decoded.records, events, "events of", decoded.records, "records")
    need(decoded.records_lost >= 0, "negative loss")
    need(set(decoded.anomalies.counts) <= set(KNOWN), "unknown anomaly")
    need(min(decoded.undecoded.values(), default=0) >= 0, "negative count")
    for stream in decoded.streams:
        n = len(stream.time)
        columns = (stream.time, stream.cpu, stream.pid, stream.order, stream.source_offset)
        need(all(len(c) == n and c.dtype == np.int64 for c in columns), "ragged", stream.event)
        need(len(stream.task) == n, "tasks of", stream.event)
        need(all(len(c) == n and c.dtype == np.int64 for c in stream.numbers.values()), "numbers")
        need(all(len(c) == n for c in stream.texts.values()), "texts of", stream.event)
        for part in stream.arrays.values():
            need(part.values.shape[0] == len(part.whole) == n, "array of", stream.event)
            need(not n or 0 <= part.whole.min() and part.whole.max() <= part.values.shape[1],
                 "more elements than there are")
        if n:
            need(0 <= stream.time.min() and stream.time.max() < 1 << 62, "times")
            need(decoded.first_time <= stream.time.min(), "first time")
            need(stream.time.max() <= decoded.last_time, "last time")
            need(stream.cpu.min() >= 0 and stream.order.min() >= 0, "places")
            need(stream.source_offset.min() >= 0, "offsets")
    orders = [s.order for s in decoded.streams if len(s)]
    if orders:
        every = np.concatenate(orders)
        need(len(np.unique(every)) == len(every), "one place for two events")


def framing(data: bytes) -> tuple[int, bool] | None:
    """Records (windows too) of an xentrace file and whether it is cut; None if it is none."""
    marks = {b"\x03\xf0\x01\x20": "<", b"\x20\x01\xf0\x03": ">"}
    order = next((o for mark, o in marks.items() if mark.startswith(data[:4])), None)
    if order is None:
        return None
    n = len(data) // 4
    words = struct.unpack(f"{order}{n}I", data[:4 * n])
    at = count = 0
    cut = len(data) % 4 > 0
    while at < n:
        if words[at] != 0x2001F003:
            return None
        if at + 3 > n:
            return count, True
        cpu, size = words[at + 1:at + 3]
        if cpu > 0xFFFF or size % 4:
            return None
        at, end, count = at + 3, at + 3 + size // 4, count + 1
        while at < min(end, n):
            timed, length = words[at] >> 31, 1 + 2 * (words[at] >> 31) + (words[at] >> 28 & 7)
            if at + length > end:
                return None
            if at + length > n:
                return count, True
            if timed and words[at + 2] >> 30:
                return None
            at, count = at + length, count + 1
        if end > n:
            return count, True
    return count, cut


def check_framing(imported: Imported, data: bytes) -> None:
    """As many records as a plain reading finds."""
    said = (imported.accounting["records"], bool(imported.anomalies.counts["file_truncated"]))
    need(said == framing(data), "records, cut:", said, "expected:", framing(data))


def check_table(imported: Imported) -> None:
    """The promises of a table: schema, order, ranges, and an account that adds up."""
    table, account = imported.table, imported.accounting
    need(table.schema.equals(SCHEMA), "schema")
    table.validate(full=True)
    skipped = account["skipped"]
    need(account["records"] == account["imported"] + sum(skipped.values()), "account", account)
    need(min([account["imported"], account["lost"], *skipped.values()]) >= 0, "negative", account)
    need(imported.anomalies.counts["records_lost"] == account["lost"], "losses")
    need(all(c > 0 for c in imported.anomalies.counts.values() if c), "negative anomaly")
    if not table.num_rows:
        return
    ns = table["time_ns"].to_numpy()
    need(not table["time_ns"].null_count and (np.diff(ns) >= 0).all(), "order")
    need(ns[0] >= 0, "negative time")
    need(set(pc.unique(table["kind"]).to_pylist()) <= set(KINDS), "kinds")
    for name, low, high in (("nr_pages", 0, 1 << 42), ("start_pfn", 0, 1 << 42),
                            ("flags", 0, ALL_FLAGS), ("cpu", 0, 1 << 31), ("domid", 0, 0xFFFF),
                            ("source", 0, 0), ("source_offset", 0, 1 << 40)):
        span = pc.min_max(table[name])
        least, most = span["min"].as_py(), span["max"].as_py()
        need(least is None or low <= least and most <= high, name, least, most)
    frames = table["frames"].combine_chunks().flatten()
    need(not frames.null_count, "null frames")
    need(len(frames) == 0 or pc.min(frames).as_py() >= -1, "frames")
    if imported.ticks is not None:
        need(len(imported.ticks) == table.num_rows, "ticks")


_SILENT = re.compile(r"#|\s*$| ?=> |.*: +<(?:user )?stack trace ?>$|##### CPU \d+ buffer started "
                     r"####|version = \d|cpus=\d+$|CPU \d+ is empty$|CPU:\d+ \[")


def check_lines(decoded: Decoded, data: bytes) -> None:
    """Every line is an event or counted, but for comments, blank ones and notices."""
    counts = decoded.anomalies.counts
    lines = data.split(b"\n")
    silent = sum(bool(_SILENT.match(line.rstrip(b"\r").decode("utf-8", "backslashreplace")))
                 for line in lines)
    told = (decoded.records - counts["joined_lines_recovered"] + counts["lines_unmatched"]
            + counts["marker_lines"])
    need(len(lines) - silent <= told <= len(lines), "lines:", len(lines), "silent:", silent,
         "told:", told)
