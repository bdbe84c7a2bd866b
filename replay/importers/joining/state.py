"""What the compiled joining of events works on: the records of its tables.

One record of `streams` per probe stream, of `functions` per probed function, of `tasks` per task,
of `rows` per row made. A number that is not there is MISSING.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from replay.base.compiled import inline, record
from replay.importers.joining.operations import BEFORE_RECORD
from replay.importers.source.probes import Ints
from replay.trace.schema import KINDS

MAX_PFN: Final = 1 << 40
"""A frame number beyond 52 bits of physical address is no frame."""
KIND_ALLOC, KIND_FREE, KIND_DECREASE, KIND_SECTION = map(
    KINDS.index, ("alloc", "free", "decrease", "section"))

# -- the tape ----------------------------------------------------------------------------------
ARRAY_RECORD = record("at", "width", "whole")
"""A stream's fetched arrays: place of the first in `arrays`, -1 without; elements of each; place in
`whole` of how many each event really has."""
STREAM_RECORD = record("op", "kind", "function", "event", "first", "args", "width",
                       ("frames", ARRAY_RECORD), ("mfns", ARRAY_RECORD), "frames_are_pages")
"""op: see operations.py. event: tells the probes of one call apart. first: place of its first event
in `events`. args, width: place of its arguments in `args`, and words of each event's."""
FUNCTION_RECORD = record("label", "outer", "returning", "pool", "undoing", "undone")
"""outer: the function that may fall back to this one, -1 if none. returning: its return is probed.
pool: its sections are the pool's. undoing, undone: see frees.undoes()."""
LABELS_RECORD = record("scratch", "ram", "undoing")
"""Labels of the pool's sections and of others, and the caller that undoes an allocation."""


class Events(NamedTuple):
    """Events of a window, the streams one behind the other. time: raw; task: numbers the pids."""

    time: Ints
    cpu: Ints
    pid: Ints
    task: Ints
    source_offset: Ints


class Tape(NamedTuple):
    """The events of a window as numbers.

    sequence: places of the events in the order of the recording. which: the stream of each place.
    args: the events' arguments. arrays, whole: fetched arrays and how many of their elements are
    sound. base: address of frame 0's struct page. pv: whether frames given up are machine frames.
    holes: whether there is room for frames between the first and the last of a free.
    """

    sequence: Ints
    which: Ints
    streams: Any
    events: Events
    args: Ints
    arrays: Ints
    whole: Ints
    functions: Any
    labels: Any
    base: int
    pv: bool
    holes: bool


# -- the work ----------------------------------------------------------------------------------
TASK_RECORD = record("depth", "free_row", "free_function", "free_events", "batch", "decrease",
                     "increase", "pass_time", ("pass_found", BEFORE_RECORD), "pass_row")
"""depth: open calls. free_row: the last free. batch: when decrease_reservation() was entered; it
holds the balloon's lock from there on. decrease, increase: the last open hypercall. pass_time: when
the balloon thread took the lock, MISSING without; pass_found: the list as it was then; pass_row:
the hypercall that it has made since."""
CALL_RECORD = record("row", "function", "event", "mark", "last", "count")
"""An open call. last, count: frames that single-page events gave, as a chain in `nodes`. mark: how
many of them precede the last refill."""
ROW_COLUMNS: Final = (
    "kind", "time", "lock", "end", "event", "caller", "nr_pages", "frames_at", "frames_count",
    "mfns_at", "mfns_count", "start_pfn", "errno", "list_count", "list_count_after", "list_head",
    "list_head_after", "current_pages", "target_pages", "target_unpopulated", "value", "domid",
    "label", "flag_bits")
"""Columns of schema.SCHEMA, and: time, lock, end: raw. event: the one that made the row, in its
window. frames_at: place in `frames`; frames_count: MISSING without. flag_bits: the column `flags`.
"""
EVENT_COLUMNS: Final = ("cpu", "pid", "source_offset", "task")
"""Of the event that made the row, filled in behind its window. task: a number of Names."""
ROW_RECORD = record(*ROW_COLUMNS, *EVENT_COLUMNS, "next", "locked")
"""next: the open hypercall of the task before this one. locked: not MISSING where `lock` is when
the lock was taken."""
NODE_RECORD = record("frame", "before")
"""A single page, and the place of the one before."""

ANOMALIES: Final = (
    "nested_calls", "frees_repeated", "frames_outside_physmap", "requests_unfinished",
    "arrays_truncated", "returns_unmatched", "first_frames_from_list")
COUNTS_RECORD = record("rows", "nodes", "frames", *ANOMALIES)

SKIPPED_AS: Final = {
    "inside": "inside a call begun before the recording",
    "page": "page of a call begun before the recording",
    "second": "a second probe on the same call", "outside": "{} outside an allocation",
    "no_frame": "{} without a frame", "other": "{} of another resource",
    "no_range": "{} without a range"}
"""Why an event of a stream made or changed nothing."""
SKIPS_RECORD = record(*SKIPPED_AS)


class Work(NamedTuple):
    """What joining fills, window after window.

    calls: two per task; of a call that fell back, the fallback's is the second. groups: per range
    of a task's sections, the events that told of it, a bit each. blank: a row of which nothing is
    known. nodes: of the calls that are open. skips: per stream.
    """

    tasks: Any
    calls: Any
    groups: Ints
    rows: Any
    blank: Any
    nodes: Any
    frames: Ints
    counts: Any
    skips: Any


@inline
def frame_of(address, base):  # type: ignore[no-untyped-def]
    """The frame of a `struct page` at an address (64 bits as int64); -1 for what is none.

    Kernel addresses are negative as int64; an empty list's NULL is none. struct page: 64 bytes.
    """
    distance = address - base
    pfn = distance >> 6
    if address < 0 and 0 <= pfn < MAX_PFN and distance & 63 == 0:
        return pfn
    return -1
