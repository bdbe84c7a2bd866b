"""Streams of probe events laid out as the tables of numbers that joining works on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from replay.base.compiled import words_in
from replay.base.errors import ReplayError
from replay.importers.joining import operations as does
from replay.importers.joining.calls import join
from replay.importers.joining.parts import PART_OF, Part
from replay.importers.joining.state import (
    ANOMALIES,
    CALL_RECORD,
    COUNTS_RECORD,
    FUNCTION_RECORD,
    LABELS_RECORD,
    NODE_RECORD,
    ROW_COLUMNS,
    ROW_RECORD,
    SKIPPED_AS,
    SKIPS_RECORD,
    STREAM_RECORD,
    TASK_RECORD,
    Events,
    Tape,
    Work,
)
from replay.importers.joining.views import Names, View, signed
from replay.importers.source.probes import MISSING, Ints, Probe, ProbeStream

Matched = tuple[ProbeStream, Probe, str]
MAX_PROBES: Final = 62
"""How many events may report one and the same free or section: a bit each."""
_NESTING: Final = {"xen_alloc_ballooned_pages": "xen_alloc_unpopulated_pages",
                   "xen_free_ballooned_pages": "xen_free_unpopulated_pages"}
"""drivers/xen/unpopulated-alloc.c falls back to the balloon's function of the same signature."""
_UNDOING, _UNDONE = "xen_alloc_ballooned_pages", "xen_free_ballooned_pages"
_MAX_HOLES: Final = 1 << 26
"""Freed pages up to which each has a place among the frames, whether it is known or not."""
_MAX_PID: Final = 1 << 22
"""PID_MAX_LIMIT of a 64-bit kernel (include/linux/threads.h); beyond it tasks are numbered."""
_MAKES_ROW: Final = (does.OP_ALLOC, does.OP_FREE, does.OP_SECTION, does.OP_HYPERCALL,
                     does.OP_MAPPING, does.OP_TARGET, does.OP_ROW)
_MAKES_NODE: Final = (does.OP_FRAME, does.OP_PAGE)


@dataclass
class Joined:
    """Rows of joined events, in the order of the recording.

    rows: columns, see state.ROW_COLUMNS; frames: what frames_at and mfns_at point into; streams: of
    the tape.
    """

    rows: dict[str, Ints]
    frames: Ints
    tape: Tape
    streams: list[ProbeStream]
    names: Names
    anomalies: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


def join_events(matched: list[Matched], base: int, *, pv: bool) -> Joined:
    """Join all events of the streams that have a meaning; the others are counted by function."""
    names, skipped = Names(), Counter[str]()
    known, parts = [], []
    for stream, probe, place in matched:
        make = PART_OF.get((probe.role, place))
        if make is None:
            skipped[probe.function] += len(stream)
        elif len(stream):
            known.append((stream, probe, place))
            parts.append(make(View(stream, probe, base), names))
    returning = {probe.function for _, probe, place in matched if place == "return"}
    holes = _holes(parts)
    tape = _tape(known, parts, names, returning, base, pv, holes <= _MAX_HOLES)
    work = _work(tape, parts, min(holes, _MAX_HOLES))
    join(tape, work)
    for (_, probe, _), counts in zip(known, work.skips.tolist(), strict=True):
        for reason, count in zip(SKIPPED_AS.values(), counts, strict=True):
            skipped[reason.format(probe.function)] += count
    anomalies = Counter({name: int(getattr(work.counts, name)) for name in ANOMALIES})
    columns = dict(zip(ROW_COLUMNS, work.columns[:, :work.counts.rows], strict=True))
    return Joined(columns, work.frames, tape, [stream for stream, _, _ in known], names,
                  +anomalies, +skipped)


def _tape(known: list[Matched], parts: list[Part], names: Names, returning: set[str], base: int,
          pv: bool, holes: bool) -> Tape:
    lengths = np.array([len(stream) for stream, _, _ in known], dtype=np.int64)
    functions = {probe.function: 0 for _, probe, _ in known}
    functions = {name: k for k, name in enumerate(functions)}
    table = np.zeros(len(known), dtype=STREAM_RECORD)
    table["op"] = [part.op for part in parts]
    table["kind"] = [part.kind for part in parts]
    table["function"] = [functions[probe.function] for _, probe, _ in known]
    table["event"] = _reporters(known, parts)
    table["first"] = np.cumsum(lengths) - lengths
    events = _events([stream for stream, _, _ in known])
    _number_groups(known, parts, events.pid, table["first"])
    arrays, whole = _lay_arrays(table, parts)
    labels = np.zeros(1, dtype=LABELS_RECORD)[0]
    labels.scratch, labels.ram = names.code("Xen scratch"), names.code("System RAM")
    labels.undoing = names.code(_UNDOING)
    return Tape(_sequence([stream.order for stream, _, _ in known]),
                np.repeat(np.arange(len(known)), lengths), table, events,
                _lay_args(table, parts, lengths), arrays, whole,
                _functions(functions, names, returning), labels, signed(base), pv, holes)


def _reporters(known: list[Matched], parts: list[Part]) -> list[int]:
    """What tells the probes of one call apart: frees and calls by event, sections by function."""
    numbers: list[int] = []
    seen: dict[int, dict[str, int]] = {}
    for (stream, probe, _), part in zip(known, parts, strict=True):
        name = probe.function if part.op == does.OP_SECTION else stream.event
        among = seen.setdefault(part.op, {})
        numbers.append(among.setdefault(name, len(among)))
        if part.op in (does.OP_FREE, does.OP_SECTION) and len(among) > MAX_PROBES:
            raise ReplayError(f"more than {MAX_PROBES} different events report calls of "
                              f"{probe.function}: record it with fewer probes")
    return numbers


def _events(streams: list[ProbeStream]) -> Events:
    columns = [np.concatenate([np.zeros(0, dtype=np.int64), *(getattr(s, name) for s in streams)])
               for name in ("time", "cpu", "pid", "source_offset")]
    time, cpu, pid, source_offset = columns
    return Events(time, cpu, pid, _tasks(pid), source_offset)


def _tasks(pid: Ints) -> Ints:
    """Numbers without gaps in place of pids."""
    if not len(pid):
        return pid
    if pid.min() < 0 or pid.max() >= _MAX_PID:
        return np.unique(pid, return_inverse=True)[1]
    present = np.zeros(int(pid.max()) + 1, dtype=np.int64)
    present[pid] = 1
    return (np.cumsum(present) - 1)[pid]


def _sequence(orders: list[Ints]) -> Ints:
    """Places of the events, the streams one behind the other, in the order of the recording."""
    if not orders:
        return np.zeros(0, dtype=np.int64)
    order = np.concatenate(orders)
    if len(order) and 0 <= order.min() and order.max() < 4 * len(order) + 1024:
        place = np.full(int(order.max()) + 1, -1, dtype=np.int64)
        place[order] = np.arange(len(order))
        place = place[place >= 0]
        if len(place) == len(order):
            return place
    return np.argsort(order, kind="stable")


def _number_groups(known: list[Matched], parts: list[Part], pid: Ints, first: Ints) -> None:
    """Give equal ranges of one task's sections equal numbers."""
    sections = [k for k, part in enumerate(parts) if part.op == does.OP_SECTION]
    if not sections:
        return
    keys = [np.column_stack([pid[first[k]:first[k] + len(known[k][0])],
                             *_range(parts[k])]) for k in sections]
    groups = np.unique(np.concatenate(keys), axis=0, return_inverse=True)[1].reshape(-1)
    ends = np.cumsum([len(key) for key in keys])
    for k, numbers in zip(sections, np.split(groups, ends[:-1]), strict=True):
        parts[k].args["group"] = numbers


def _range(section: Part) -> list[Ints]:
    columns = (section.args["start_pfn"], section.args["nr_pages"])
    return [column for column in columns if column is not None]


def _lay_args(table: np.ndarray, parts: list[Part], lengths: Ints) -> Ints:
    """All arguments, each event's as a record of its operation."""
    kinds = [does.ARGUMENTS_OF[part.op] for part in parts]
    table["width"] = [words_in(kind) for kind in kinds]
    sizes = table["width"] * lengths
    table["args"] = np.cumsum(sizes) - sizes
    args = np.full(int(sizes.sum()), MISSING, dtype=np.int64)
    for part, kind, at, size in zip(parts, kinds, table["args"], sizes, strict=True):
        for name, column in part.args.items():
            if column is not None:
                args[at:at + size].view(kind)[name] = column
    return args


def _lay_arrays(table: np.ndarray, parts: list[Part]) -> tuple[Ints, Ints]:
    """All fetched arrays one behind the other; how many elements are sound is never too many."""
    values: list[Ints] = [np.zeros(0, dtype=np.int64)]
    wholes: list[Ints] = [np.zeros(0, dtype=np.int64)]
    at = rows = 0
    table["frames"]["at"] = table["mfns"]["at"] = -1
    table["frames_are_pages"] = [part.frames_are_pages for part in parts]
    for k, part in enumerate(parts):
        for name, elements in (("frames", part.frames), ("mfns", part.mfns)):
            if elements is None:
                continue
            width = elements.values.shape[1]
            table[name][k] = at, width, rows
            values.append(np.ascontiguousarray(elements.values).reshape(-1))
            wholes.append(np.clip(elements.whole, 0, width))
            at, rows = at + elements.values.size, rows + len(elements.whole)
    return np.concatenate(values), np.concatenate(wholes)


def _functions(functions: dict[str, int], names: Names, returning: set[str]) -> np.ndarray:
    table = np.zeros(len(functions), dtype=FUNCTION_RECORD)
    for name, k in functions.items():
        function = table[k]
        function.label = names.code(name)
        function.outer = functions.get(_NESTING.get(name, ""), -1)
        function.returning, function.pool = name in returning, "unpopulated" in name
        function.undoing, function.undone = name == _UNDOING, name == _UNDONE
    return table


def _holes(parts: list[Part]) -> int:
    """Pages freed in all, where the lock's probes tell the last of each free."""
    if not any(part.op == does.OP_FREE_UNLOCK for part in parts):
        return 0
    sizes = [part.args["nr_pages"] for part in parts if part.op == does.OP_FREE]
    return sum(int(np.clip(nr, 0, _MAX_HOLES).sum()) for nr in sizes if nr is not None)


def _work(tape: Tape, parts: list[Part], holes: int) -> Work:
    """Tables with the room that joining can need at most."""
    op = tape.streams["op"]
    lengths = np.bincount(tape.which, minlength=len(parts))
    rows = int(lengths[np.isin(op, _MAKES_ROW)].sum())
    nodes = int(lengths[np.isin(op, _MAKES_NODE)].sum())
    frames = int(tape.whole.sum()) + holes + sum(
        part.single_pages * int(n) for part, n in zip(parts, lengths, strict=True))
    tasks = np.zeros(int(tape.events.task.max(initial=-1)) + 1, dtype=TASK_RECORD)
    for name in ("free_row", "decrease", "increase", "pass_event", "pass_row"):
        tasks[name] = -1
    tasks["batch"] = MISSING
    words = np.empty((rows, len(ROW_RECORD)), dtype=np.int64)
    return Work(
        tasks=tasks, calls=np.zeros((len(tasks), 2), dtype=CALL_RECORD),
        groups=np.zeros(int(lengths[op == does.OP_SECTION].sum()), dtype=np.int64),
        rows=words.reshape(-1).view(ROW_RECORD), words=words,
        blank=np.full(len(ROW_RECORD), MISSING, dtype=np.int64).view(ROW_RECORD)[0],
        columns=np.empty((len(ROW_COLUMNS), rows), dtype=np.int64),
        nodes=np.empty(nodes, dtype=NODE_RECORD), frames=np.empty(frames, dtype=np.int64),
        counts=np.zeros(1, dtype=COUNTS_RECORD)[0],
        skips=np.zeros(len(parts), dtype=SKIPS_RECORD))
