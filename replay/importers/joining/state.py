"""What the compiled joining of events works on: operations, and the rows of its integer tables.

One column of `streams` per probe stream, of `tasks` per task, of `rows` per row made, of
`functions` per probed function. A number that is not there is MISSING.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from replay.base.compiled import inline

Ints = npt.NDArray[np.int64]

MISSING: Final = -(1 << 63)
"""A number that was not recorded, or that a cut text line no longer has."""
MAX_PFN: Final = 1 << 40
"""A frame number beyond 52 bits of physical address is no frame."""
ALLOC, FREE, DECREASE, INCREASE, TARGET, HOTPLUG_CHECK, SECTION, MAPPING = range(8)
"""Kinds of rows; a mapping's is MAPPING plus its place in MAPPINGS."""
MAPPINGS: Final = ("grant_map", "grant_unmap", "foreign_map", "foreign_unmap")
KINDS: Final = ("alloc", "free", "decrease", "increase", "target", "hotplug_check", "section",
                *MAPPINGS)

# operations: what an event of a stream does
(OP_ALLOC, OP_PAGE, OP_LOCKED, OP_DONE, OP_RETURN, OP_FREE, OP_FREE_INSIDE, OP_FREE_RETURN,
 OP_FRAME, OP_REFILL, OP_SECTION, OP_HYPERCALL, OP_HYPERCALL_RETURN, OP_BATCH, OP_ROW, OP_UNLOCK,
 OP_FREE_LOCKED, OP_FREE_UNLOCK, OP_PASS_LOCKED, OP_PASS_UNLOCK) = range(20)

# arguments of an event, by operation
A_NR, A_POINTER, A_CALLER, A_LIST, A_CURRENT, A_TARGET, A_UNPOPULATED, A_HEAD = range(8)
"""OP_ALLOC and the locked ones; OP_FREE has the first four. OP_HYPERCALL has the first alone."""
A_ERRNO, A_AFTER, A_FIRST, A_LAST = range(4)
"""OP_DONE, OP_FREE_INSIDE; OP_HYPERCALL_RETURN has the first alone."""
A_HEAD_AFTER, A_RETURN_TO = 2, 3
"""OP_RETURN, behind A_ERRNO and A_AFTER."""
A_LIST_LEFT, A_HEAD_LEFT = range(2)
"""The ones at an unlock."""
A_PFN: Final = 0
"""OP_PAGE, OP_FRAME."""
A_BY_REFILL: Final = 0
"""OP_REFILL: whether the caller takes memory for Xen pages."""
A_START, A_PAGES, A_GROUP, A_LABEL, A_OTHER = range(5)
"""OP_SECTION. The group numbers equal ranges of one task."""
A_DOMID, A_NEW_TARGET = 2, 3
"""OP_ROW, behind A_NR and A_POINTER."""

# rows of `streams`
(S_OP, S_KIND, S_FUNCTION, S_EVENT, S_FIRST, S_ARGS, S_WIDTH,
 S_FRAMES, S_FRAMES_WIDTH, S_FRAMES_WHOLE, S_FRAMES_ARE_PAGES,
 S_MFNS, S_MFNS_WIDTH, S_MFNS_WHOLE, S_SIZE) = range(15)
"""S_FIRST: place of its first event in `events`. S_FRAMES, S_MFNS: place of its array in `arrays`,
-1 without; S_..._WHOLE: place in `whole` of how many elements each event really has."""

# rows of `events`
E_TIME, E_CPU, E_PID, E_TASK, E_OFFSET, E_SIZE = range(6)

# rows of `functions`
F_LABEL, F_OUTER, F_RETURNING, F_POOL, F_UNDOING, F_UNDONE, F_SIZE = range(7)
"""F_OUTER: the function that may fall back to this one, -1 if none. F_RETURNING: its return is
probed. F_POOL: its sections are the pool's."""

# rows of `tasks`; a call that fell back holds two places, the fallback's second
(T_DEPTH, T_ROW, T_ROW2, T_FUNCTION, T_FUNCTION2, T_EVENT, T_EVENT2, T_MARK, T_MARK2,
 T_LAST, T_LAST2, T_COUNT, T_COUNT2, T_FREE, T_FREE_FUNCTION, T_FREE_EVENTS, T_BATCH,
 T_DECREASE, T_INCREASE, T_PASS, T_PASS_ROW, T_SIZE) = range(22)
"""T_LAST, T_COUNT: frames that single-page events gave, as a chain in `nodes`. T_MARK: how many of
them precede the last refill. T_BATCH: when decrease_reservation() was entered; it holds the
balloon's lock from there on. T_PASS: the event at which the balloon thread took it, -1 without;
T_PASS_ROW: the hypercall that it has made since."""

# rows of `rows`
(C_KIND, C_TIME, C_LOCK, C_END, C_EVENT, C_CALLER, C_NR, C_FRAMES, C_FRAMES_COUNT,
 C_MFNS, C_MFNS_COUNT, C_START, C_ERRNO, C_LIST, C_LIST_AFTER, C_HEAD, C_HEAD_AFTER, C_CURRENT,
 C_TARGET, C_UNPOPULATED, C_VALUE, C_DOMID, C_LABEL, C_FLAGS, C_NEXT, C_LOCKED, C_SIZE) = range(27)
"""C_EVENT: the event that made the row. C_FRAMES: place in `frames`; C_FRAMES_COUNT: MISSING
without. C_NEXT: the next open hypercall of the task. C_LOCKED: not MISSING where C_LOCK is when
the lock was taken."""

# places in `counts`
(N_ROWS, N_NODES, N_FRAMES, N_NESTED, N_REPEATED, N_OUTSIDE, N_UNFINISHED, N_TRUNCATED, N_UNMATCHED,
 N_FIRST, N_SIZE) = range(11)
ANOMALIES: Final = {N_NESTED: "nested_calls", N_REPEATED: "frees_repeated",
                    N_OUTSIDE: "frames_outside_physmap", N_UNFINISHED: "requests_unfinished",
                    N_TRUNCATED: "arrays_truncated", N_UNMATCHED: "returns_unmatched",
                    N_FIRST: "first_frames_from_list"}

# rows of `skips`: why an event of a stream made or changed nothing
X_INSIDE, X_PAGE, X_SECOND, X_OUTSIDE, X_NO_FRAME, X_OTHER, X_NO_RANGE, X_SIZE = range(8)
REASONS: Final = {
    X_INSIDE: "inside a call begun before the recording",
    X_PAGE: "page of a call begun before the recording",
    X_SECOND: "a second probe on the same call", X_OUTSIDE: "{} outside an allocation",
    X_NO_FRAME: "{} without a frame", X_OTHER: "{} of another resource",
    X_NO_RANGE: "{} without a range"}


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


class Tape(NamedTuple):
    """All events as numbers, the streams one behind the other.

    sequence: places of the events in the order of the recording. which: the stream of each place.
    args: S_WIDTH numbers per event. arrays, whole: fetched arrays and how many of their elements
    are sound. names: labels of the pool's sections and of others, and the caller that undoes an
    allocation. base: address of frame 0's struct page. pv: whether frames given up are machine
    frames. holes: whether there is room for frames between the first and the last of a free.
    """

    sequence: Ints
    which: Ints
    streams: Ints
    events: Ints
    args: Ints
    arrays: Ints
    whole: Ints
    functions: Ints
    names: Ints
    base: int
    pv: bool
    holes: bool


class Work(NamedTuple):
    """What joining fills. nodes: single pages, each with the one before. groups: per range of a
    task's sections, the events that told of it."""

    tasks: Ints
    groups: Ints
    rows: Ints
    nodes: Ints
    frames: Ints
    counts: Ints
    skips: Ints
