"""trace.dat of trace-cmd (version 7) to probe streams, by the file's own event formats."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from replay.errors import InputError
from replay.importers.event_format import EventFormat, Field, Symbols, parse_format
from replay.importers.probes import Decoded, Elements, Ints, Loss, ProbeStream
from replay.importers.ring_buffer import LOST_UNKNOWN, Records, gather, gather_array, scan_pages
from replay.importers.trace_dat_file import Container, read_container

TICK_CLOCKS = ("x86-tsc", "counter", "uptime", "ppc-tb")
"""Trace clocks that do not count nanoseconds."""
MARKER_EVENT = "print"


def read_trace_dat(path: Path) -> Decoded:
    """Decode a trace.dat; InputError for anything that is not a whole, little-endian version 7."""
    reader, container = read_container(Path(path))
    buffer = next((b for b in container.buffers if not b.name), container.buffers[0])
    data = bytearray()
    cpu_of_page: list[int] = []
    for cpu, at, size in buffer.cpus:
        part = reader.cpu_data(buffer, at, size)
        if len(part) % buffer.page_bytes:
            raise InputError(path, f"data of CPU {cpu} is {len(part)} bytes, expected a multiple "
                             f"of {buffer.page_bytes}", f"offset {at}")
        cpu_of_page += [cpu] * (len(part) // buffer.page_bytes)
        data += part
    records = scan_pages(bytes(data), buffer.page_bytes, container.long_bytes)
    if len(records.bad_at):
        raise InputError(path, f"{len(records.bad_at)} sub-buffers hold entries that cannot be",
                         f"byte {records.bad_at[0]} of the uncompressed data")
    clock = buffer.clock or _selected_clock(container.traceclock)
    decoded = Decoded(str(path), "trace.dat", "ticks" if clock in TICK_CLOCKS else "ns", clock)
    _describe(decoded, container)
    decoded.records = len(records.time)
    _count_losses(decoded, records, cpu_of_page)
    _Builder(decoded, container, bytes(data), records,
             np.array(cpu_of_page, dtype=np.int64)).build()
    return decoded


def _selected_clock(choices: str) -> str:
    match = re.search(r"\[([\w-]+)\]", choices)
    return match[1] if match else ""


def _describe(decoded: Decoded, container: Container) -> None:
    words = container.uname.split()
    if len(words) >= 4:
        decoded.kernel, decoded.arch = words[2], words[-1]
    if container.tsc2nsec:
        multiplier, shift, offset = container.tsc2nsec
        decoded.metadata["tsc2nsec"] = {"mult": multiplier, "shift": shift, "offset": offset}
        if multiplier and shift < 64 and decoded.unit == "ticks":
            decoded.hz = ((10**9 << shift) + multiplier // 2) // multiplier
    decoded.metadata["version"] = container.version
    decoded.metadata["compressor"] = container.compressor
    decoded.metadata["buffers"] = container.instances
    for text in container.cpu_stats:
        pairs = re.findall(r"^([\w ]+?):\s*(\d{1,18})\s*$", text, re.MULTILINE)
        decoded.cpu_stats.append({key.strip().replace(" ", "_").lower(): int(value)
                                  for key, value in pairs})


def _count_losses(decoded: Decoded, records: Records, cpu_of_page: list[int]) -> None:
    """Losses the pages tell of, and those only the CPU statistics know (overruns)."""
    missed: dict[int, int] = {}
    for page in np.flatnonzero(records.lost):
        count, first = int(records.lost[page]), int(records.first[page])
        cpu = cpu_of_page[page]
        missed[cpu] = missed.get(cpu, 0) + (1 if count == LOST_UNKNOWN else count)
        if len(records.time):
            first = min(first, len(records.time) - 1)
            decoded.losses.append(
                Loss(int(records.time[first]), cpu, count, int(records.at[first])))
    for stat in decoded.cpu_stats:
        cpu = stat.get("cpu", -1)
        told = stat.get("overrun", 0) + stat.get("commit_overrun", 0) + stat.get(
            "dropped_events", 0)
        missed[cpu] = max(missed.get(cpu, 0), told)
    decoded.records_lost = sum(missed.values())
    decoded.anomalies.count("records_lost", decoded.records_lost)


class _Builder:
    """Makes one stream per event and probed place out of the records."""

    def __init__(self, decoded: Decoded, container: Container, data: bytes, records: Records,
                 cpu_of_page: Ints) -> None:
        self.decoded, self.container = decoded, container
        self.data, self.records = data, records
        self.cpu = cpu_of_page[records.page] if len(records.page) else records.page
        order = np.lexsort((self.cpu, records.time))
        self.order = np.empty(len(order), dtype=np.int64)
        self.order[order] = np.arange(len(order))
        self.symbols = Symbols(container.kallsyms)
        self.tasks = _tasks(container.cmdlines)

    def build(self) -> None:
        """Fill decoded.streams, in the order of event ids."""
        ids = np.unique(self.records.id)
        formats = self._formats({int(i) for i in ids})
        back = np.diff(self.records.time) < 0
        inversions = int(np.count_nonzero(back & (np.diff(self.cpu) == 0)))
        self.decoded.anomalies.count("time_inversions", inversions)
        for number in ids:
            rows = np.flatnonzero(self.records.id == number)
            form = formats.get(int(number))
            if form is None:
                self.decoded.undecoded[f"event id {number} without a format"] += len(rows)
                continue
            self._add(form, rows)

    def _formats(self, wanted: set[int]) -> dict[int, EventFormat]:
        found: dict[int, EventFormat] = {}
        every = [("ftrace", text) for text in self.container.ftrace_formats]
        for system, text in every + self.container.event_formats:
            number = re.search(r"^ID: (\d{1,9})$", text[:512], re.MULTILINE)
            if number and int(number[1]) in wanted:
                form = parse_format(system, text)
                if form:
                    found.setdefault(form.id, form)
        return found

    def _check_length(self, form: EventFormat, rows: Ints) -> None:
        needed = max((f.offset + f.size for f in form.fields), default=8)
        short = np.flatnonzero(self.records.length[rows] < needed)
        if len(short):
            row = rows[short[0]]
            raise InputError(
                self.decoded.path,
                f"a record of event {form.name!r} holds {self.records.length[row]} bytes, its "
                f"format needs {needed}", f"byte {self.records.at[row]} of the uncompressed data")

    def _add(self, form: EventFormat, rows: Ints) -> None:
        entry, function = form.field("__probe_ip"), form.field("__probe_func")
        probe = function or entry
        if probe is None or probe.size not in (4, 8):
            self.decoded.streams.append(self._stream(form, rows, "", 0, False, False))
            return
        self._check_length(form, rows)
        addresses = self._number(probe, rows)
        for address in np.unique(addresses):
            name, offset = self.symbols.find(int(address))
            chosen = rows[addresses == address]
            self.decoded.streams.append(self._stream(
                form, chosen, name, offset, function is not None, True))

    def _stream(self, form: EventFormat, rows: Ints, function: str, offset: int,
                is_return: bool, is_probe: bool) -> ProbeStream:
        r = self.records
        pids = r.pid[rows]
        stream = ProbeStream(
            form.name, function, offset, is_return, is_probe, r.time[rows], self.cpu[rows], pids,
            self.order[rows], r.at[rows], [self.tasks.get(p, "<...>") for p in pids.tolist()],
            {}, {}, {})
        if is_probe:
            for field in form.fields:
                self._add_field(stream, field, rows)
        elif form.name == MARKER_EVENT and form.system == "ftrace":
            stream.texts["text"] = [self._marker(form, int(row)) for row in rows]
        return stream

    def _number(self, field: Field, rows: Ints) -> Ints:
        return gather(self.data, self.records.at[rows] + field.offset, field.size, field.signed)

    def _add_field(self, stream: ProbeStream, field: Field, rows: Ints) -> None:
        at = self.records.at[rows] + field.offset
        if field.data_loc:
            stream.texts[field.name] = [self._text(field, int(row)) for row in rows]
        elif not field.element_bytes:
            return
        elif field.is_array:
            length = field.size // field.element_bytes
            values = gather_array(self.data, at, field.element_bytes, field.signed, length)
            whole = np.full(len(rows), length, dtype=np.int64)
            stream.arrays[field.name] = Elements(values, whole)
        elif field.name == "__probe_ret_ip":
            stream.texts["return_to"] = self._names(self._number(field, rows))
        elif field.name.startswith("__probe"):
            return
        elif field.symbol:
            stream.texts[field.name] = self._names(self._number(field, rows))
        else:
            stream.numbers[field.name] = self._number(field, rows)

    def _names(self, addresses: Ints) -> list[str]:
        return [self.symbols.name(address) for address in addresses.tolist()]

    def _text(self, field: Field, row: int) -> str:
        """A string a __data_loc points at, inside its own record; "" when it points elsewhere."""
        at, length = int(self.records.at[row]), int(self.records.length[row])
        place = int.from_bytes(self.data[at + field.offset:at + field.offset + 4], "little")
        start, size = place & 0xFFFF, place >> 16
        if start + size > length:
            return ""
        return _plain(self.data[at + start:at + start + size])

    def _marker(self, form: EventFormat, row: int) -> str:
        field = form.field("buf")
        at, length = int(self.records.at[row]), int(self.records.length[row])
        start = field.offset if field else 16
        return _plain(self.data[at + start:at + max(length, start)])


def _plain(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace").strip()


def _tasks(cmdlines: str) -> dict[int, str]:
    tasks = {0: "<idle>"}
    for line in cmdlines.splitlines():
        pid, _, name = line.partition(" ")
        if re.fullmatch(r"\d{1,9}", pid):
            tasks[int(pid)] = name
    return tasks
