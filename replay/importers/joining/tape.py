"""Streams of probe events laid out as the tables of numbers that joining works on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from replay.base.errors import ReplayError
from replay.importers.joining import state as j
from replay.importers.joining.calls import join
from replay.importers.joining.parts import PARTS, Part
from replay.importers.joining.state import MISSING, Tape, Work
from replay.importers.joining.views import Names, View, signed
from replay.importers.source.probes import Ints, Probe, ProbeStream

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
_MAKES_ROW: Final = (j.OP_ALLOC, j.OP_FREE, j.OP_SECTION, j.OP_HYPERCALL, j.OP_ROW)
_MAKES_NODE: Final = (j.OP_FRAME, j.OP_PAGE)


@dataclass
class Joined:
    """Rows of joined events, in the order of the recording.

    rows: see join_state.C_KIND; frames: what C_FRAMES and C_MFNS point into; streams: of the tape.
    """

    rows: Ints
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
        make = PARTS.get((probe.role, place))
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
    for (_, probe, _), counts in zip(known, work.skips.T.tolist(), strict=True):
        for reason, count in enumerate(counts):
            skipped[j.REASONS[reason].format(probe.function)] += count
    anomalies = Counter({name: int(work.counts[n]) for n, name in j.ANOMALIES.items()})
    return Joined(work.rows[:, :work.counts[j.N_ROWS]], work.frames, tape,
                  [stream for stream, _, _ in known], names, +anomalies, +skipped)


def _tape(known: list[Matched], parts: list[Part], names: Names, returning: set[str], base: int,
          pv: bool, holes: bool) -> Tape:
    lengths = np.array([len(stream) for stream, _, _ in known], dtype=np.int64)
    functions = {probe.function: 0 for _, probe, _ in known}
    functions = {name: k for k, name in enumerate(functions)}
    table = np.zeros((j.S_SIZE, len(known)), dtype=np.int64)
    table[j.S_OP] = [part.op for part in parts]
    table[j.S_KIND] = [part.kind for part in parts]
    table[j.S_FUNCTION] = [functions[probe.function] for _, probe, _ in known]
    table[j.S_EVENT] = _reporters(known, parts, table[j.S_FUNCTION])
    table[j.S_FIRST] = np.cumsum(lengths) - lengths
    events = _events([stream for stream, _, _ in known])
    _number_groups(known, parts, events[j.E_PID], table[j.S_FIRST])
    arrays, whole = _lay_arrays(table, parts)
    labels = [names.code(name) for name in ("Xen scratch", "System RAM", _UNDOING)]
    return Tape(_sequence([stream.order for stream, _, _ in known]),
                np.repeat(np.arange(len(known)), lengths), table, events,
                _lay_args(table, parts, lengths), arrays, whole,
                _functions(functions, names, returning), np.array(labels, dtype=np.int64),
                signed(base), pv, holes)


def _reporters(known: list[Matched], parts: list[Part], function: Ints) -> list[int]:
    """What tells the probes of one call apart: frees and calls by event, sections by function."""
    numbers: list[int] = []
    seen: dict[int, dict[str, int]] = {}
    for (stream, probe, _), part in zip(known, parts, strict=True):
        name = probe.function if part.op == j.OP_SECTION else stream.event
        among = seen.setdefault(part.op, {})
        numbers.append(among.setdefault(name, len(among)))
        if part.op in (j.OP_FREE, j.OP_SECTION) and len(among) > MAX_PROBES:
            raise ReplayError(f"more than {MAX_PROBES} different events report calls of "
                              f"{probe.function}: record it with fewer probes")
    return numbers


def _events(streams: list[ProbeStream]) -> Ints:
    table = np.empty((j.E_SIZE, sum(map(len, streams))), dtype=np.int64)
    for row, name in ((j.E_TIME, "time"), (j.E_CPU, "cpu"), (j.E_PID, "pid"),
                      (j.E_OFFSET, "source_offset")):
        np.concatenate([getattr(s, name) for s in streams] or [table[row]], out=table[row])
    pid = table[j.E_PID]
    if len(pid) and (pid.min() < 0 or pid.max() >= _MAX_PID):
        table[j.E_TASK] = np.unique(pid, return_inverse=True)[1]
    elif len(pid):
        present = np.zeros(int(pid.max()) + 1, dtype=np.int64)
        present[pid] = 1
        table[j.E_TASK] = (np.cumsum(present) - 1)[pid]
    return table


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
    sections = [k for k, part in enumerate(parts) if part.op == j.OP_SECTION]
    if not sections:
        return
    keys = [np.column_stack([pid[first[k]:first[k] + len(known[k][0])],
                             *_both(parts[k].args[:2])]) for k in sections]
    groups = np.unique(np.concatenate(keys), axis=0, return_inverse=True)[1].reshape(-1)
    ends = np.cumsum([len(key) for key in keys])
    for k, numbers in zip(sections, np.split(groups, ends[:-1]), strict=True):
        parts[k].args[j.A_GROUP] = numbers


def _both(columns: list[Ints | None]) -> list[Ints]:
    return [c for c in columns if c is not None]


def _lay_args(table: Ints, parts: list[Part], lengths: Ints) -> Ints:
    table[j.S_WIDTH] = [len(part.args) for part in parts]
    sizes = table[j.S_WIDTH] * lengths
    table[j.S_ARGS] = np.cumsum(sizes) - sizes
    args = np.full(int(sizes.sum()), MISSING, dtype=np.int64)
    for k, part in enumerate(parts):
        at, width = int(table[j.S_ARGS, k]), len(part.args)
        mine = args[at:at + int(sizes[k])].reshape(-1, max(1, width))
        for c, column in enumerate(part.args):
            if column is not None:
                mine[:, c] = column
    return args


def _lay_arrays(table: Ints, parts: list[Part]) -> tuple[Ints, Ints]:
    """All fetched arrays one behind the other; how many elements are sound is never too many."""
    values: list[Ints] = [np.zeros(0, dtype=np.int64)]
    wholes: list[Ints] = [np.zeros(0, dtype=np.int64)]
    at = rows = 0
    table[j.S_FRAMES] = table[j.S_MFNS] = -1
    for k, part in enumerate(parts):
        table[j.S_FRAMES_ARE_PAGES, k] = part.frames_are_pages
        for elements, place in ((part.frames, j.S_FRAMES), (part.mfns, j.S_MFNS)):
            if elements is None:
                continue
            width = elements.values.shape[1]
            table[place, k], table[_WIDTH[place], k], table[_WHOLE[place], k] = at, width, rows
            values.append(np.ascontiguousarray(elements.values).reshape(-1))
            wholes.append(np.clip(elements.whole, 0, width))
            at, rows = at + elements.values.size, rows + len(elements.whole)
    return np.concatenate(values), np.concatenate(wholes)


_WIDTH: Final = {j.S_FRAMES: j.S_FRAMES_WIDTH, j.S_MFNS: j.S_MFNS_WIDTH}
_WHOLE: Final = {j.S_FRAMES: j.S_FRAMES_WHOLE, j.S_MFNS: j.S_MFNS_WHOLE}


def _functions(functions: dict[str, int], names: Names, returning: set[str]) -> Ints:
    table = np.zeros((j.F_SIZE, len(functions)), dtype=np.int64)
    for name, k in functions.items():
        table[j.F_LABEL, k] = names.code(name)
        table[j.F_OUTER, k] = functions.get(_NESTING.get(name, ""), -1)
        table[j.F_RETURNING, k] = name in returning
        table[j.F_POOL, k] = "unpopulated" in name
        table[j.F_UNDOING, k], table[j.F_UNDONE, k] = name == _UNDOING, name == _UNDONE
    return table


def _holes(parts: list[Part]) -> int:
    """Pages freed in all, where the lock's probes tell the last of each free."""
    if not any(part.op == j.OP_FREE_UNLOCK for part in parts):
        return 0
    sizes = [part.args[j.A_NR] for part in parts if part.op == j.OP_FREE]
    return sum(int(np.clip(nr, 0, _MAX_HOLES).sum()) for nr in sizes if nr is not None)


def _work(tape: Tape, parts: list[Part], holes: int) -> Work:
    """Tables with the room that joining can need at most."""
    op = tape.streams[j.S_OP]
    lengths = np.bincount(tape.which, minlength=len(parts))
    rows = int(lengths[np.isin(op, _MAKES_ROW)].sum())
    nodes = int(lengths[np.isin(op, _MAKES_NODE)].sum())
    frames = int(tape.whole.sum()) + holes + sum(
        part.single_pages * int(n) for part, n in zip(parts, lengths, strict=True))
    tasks = np.zeros((j.T_SIZE, int(tape.events[j.E_TASK].max(initial=-1)) + 1), dtype=np.int64)
    tasks[[j.T_FREE, j.T_DECREASE, j.T_INCREASE, j.T_PASS, j.T_PASS_ROW]] = -1
    tasks[j.T_BATCH] = MISSING
    groups = int(lengths[op == j.OP_SECTION].sum())
    return Work(tasks, np.zeros(groups, dtype=np.int64),
                np.empty((j.C_SIZE, rows), dtype=np.int64), np.empty((2, nodes), dtype=np.int64),
                np.empty(frames, dtype=np.int64), np.zeros(j.N_SIZE, dtype=np.int64),
                np.zeros((j.X_SIZE, len(parts)), dtype=np.int64))
