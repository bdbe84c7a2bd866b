"""Which of Xen's trace events become rows, and how: a table, and what is read the same way twice.

The census counts rows before the decoder makes them, so both must agree on what becomes one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from replay.base.compiled import index, inline
from replay.importers.xen.framing import EVENT_MASK, EXTRA_SHIFT, TIME_SHIFT, word
from replay.importers.xen.names import HYPERCALLS
from replay.trace.schema import KINDS, Flag

LOST_RECORDS, WRAP_BUFFER = 0x0001F001, 0x0001F002
RUNSTATE, RUNSTATE_MASK = 0x00021001, 0x0FFFF00F
DOMAINS = {  # event: (kind, payload words), the first word is the domid
    0x0010F001: ("grant_map", 1), 0x0010F002: ("grant_unmap", 1), 0x0010F003: ("grant_transfer", 1),
    0x00041001: ("domain_create", 1), 0x00041002: ("domain_destroy", 1),
}  # fmt: skip
SET_P2M = 0x0010F004
EXTENTS = {  # event: (kind, payload words, whether the second 64 bits are an mfn)
    SET_P2M: ("p2m_set", 6, True),
    0x0010F005: ("decrease_extent", 4, False),
    0x0010F010: ("pod_populate", 6, True),
    0x0010F011: ("pod_reclaim", 6, True),
    0x0010F012: ("pod_splinter", 4, False),
}
CALLS = {  # event: (payload words at least, which holds the number, mask)
    0x0020100D: (1, 0, 0xFFFFF),  # PV, version 2
    0x0020200E: (1, 0, 0xFFFFF),  # part of a multicall
    0x00201001: (2, 1, 0xFFFFFFFF),  # PV, version 1: eip, eax
    0x00201101: (3, 2, 0xFFFFFFFF),  # the same with a 64-bit rip
    0x00082012: (1, 0, 0xFFFFFFFF), 0x00082412: (1, 0, 0xFFFFFFFF),  # VMMCALL; nested
}  # fmt: skip
MULTICALL_PART = 0x0020200E
VMMCALLS = (0x00082012, 0x00082412)
VMEXITS = (0x00081002, 0x00081102, 0x00081003, 0x00081103,
           0x00081402, 0x00081502, 0x00081403, 0x00081503)
"""VMX and, since Xen 4.19 under numbers of their own, SVM; 32- and 64-bit rip; nested."""
VMENTRIES = (0x00081001, 0x00081401)
ORDER_MAX = 40
"""A larger extent order cannot be: 2^52 bytes is all there is."""

SKIP, DOMAIN, P2M, EXTENT, CALL, RUN, LOSS, EXIT, ENTRY = range(9)
"""What is done with a record, by its event."""
SLOTS: Final = 4096
"""Of the table of events, a power of 2: the format's own are fewer than 200."""
PROBES: Final = 64
"""Places looked at for one event: a file may hold any of 2^28."""
HASH: Final = 2654435769
UNKNOWN_CALL: Final = len(HYPERCALLS)
OLD, NEW, UNKNOWN = 0, 1, 2
"""Layouts of an extent's domain and order: see `takes_old_layout`."""
TIME_INFERRED, AFTER_LOSS = int(Flag.TIME_INFERRED), int(Flag.AFTER_LOSS)


def _slot(event: int) -> int:
    return (event * HASH >> 16) & (SLOTS - 1)


def _table() -> np.ndarray:
    """A row per event, found by `_slot` and the rows after it.

    Columns: event or -1, action, kind, payload words it needs, three numbers for the action, and
    how often the event was skipped. The last row stands for all events that find no place.
    """
    kind = KINDS.index
    known: dict[int, tuple[int, ...]] = {
        event: (DOMAIN, kind(name), words) for event, (name, words) in DOMAINS.items()}
    known |= {event: (EXTENT, kind(name), words, at, has_mfn)
              for at, (event, (name, words, has_mfn)) in enumerate(EXTENTS.items())}
    known[SET_P2M] = (P2M, *known[SET_P2M][1:])
    known |= {event: (CALL, kind("hypercall"), words, at, index, mask)
              for at, (event, (words, index, mask)) in enumerate(CALLS.items())}
    known |= {RUNSTATE | states << 4: (RUN, kind("runstate"), 1) for states in range(256)}
    known[LOST_RECORDS] = (LOSS, kind("lost"), 2)
    known |= dict.fromkeys(VMEXITS, (EXIT, 0, 0)) | dict.fromkeys(VMENTRIES, (ENTRY, 0, 0))
    table = np.zeros((SLOTS + 1, 8), dtype=np.int64)
    table[:SLOTS, 0], table[SLOTS, 0] = -1, EVENT_MASK + 1
    for event, row in known.items():
        slot = _slot(event)
        while table[slot, 0] >= 0:
            slot = (slot + 1) % SLOTS
        table[slot, 0], table[slot, 1:1 + len(row)] = event, row
    return table


TABLE: Final = _table()


@inline
def find(table: np.ndarray, event: int) -> Any:
    """The slot of an event, else a free one for it, else the last row."""
    slot = (event * HASH >> 16) & (SLOTS - 1)
    for _ in range(PROBES):
        if table[index(slot), 0] == event or table[index(slot), 0] < 0:
            return index(slot)
        slot = (slot + 1) & (SLOTS - 1)
    return index(SLOTS)


@inline
def wide(words: np.ndarray, at: int) -> Any:
    """Two words, low and high, as one signed number; -1: all ones."""
    high = word(words, at + 1)
    return word(words, at) | (high - ((high >> 31) << 32)) << 32


@inline
def order_of(words: np.ndarray, p: int, row: np.ndarray, layout: int) -> Any:
    """How many frames an extent has, as a power of two; p: its payload."""
    last = p + row[3] - 1
    if row[1] == P2M:  # two 16-bit fields in every version
        return word(words, last) >> 16
    return word(words, last - 1) >> 16 if layout == OLD else word(words, last)


@inline
def op_of(words: np.ndarray, p: int, row: np.ndarray) -> Any:
    """A hypercall's event and number as one number, all that have no name alike."""
    number = word(words, p + row[5]) & row[6]
    return row[4] * (UNKNOWN_CALL + 1) + min(number, UNKNOWN_CALL)


@inline
def is_vmmcall(row: np.ndarray) -> Any:
    """Whether an event is a hypercall between an exit and an entry."""
    return row[0] == VMMCALLS[0] or row[0] == VMMCALLS[1]


@inline
def makes_row(words: np.ndarray, at: int, header: int, row: np.ndarray, layout: int) -> Any:
    """Whether the record at a place becomes a row: all its words are there, and no machine has
    other frames than these, or more of them.
    """
    action = row[1]
    if action == SKIP or action > LOSS or ((header >> EXTRA_SHIFT) & 7) < row[3]:
        return False
    if action != P2M and action != EXTENT:
        return True
    p = at + 1 + 2 * (header >> TIME_SHIFT)
    frame = wide(words, p)
    return ((action == P2M or layout != UNKNOWN) and order_of(words, p, row, layout) <= ORDER_MAX
            and 0 <= frame < 1 << ORDER_MAX)


@inline
def flags_of(action: int, timed: int, after_loss: int) -> Any:
    """A row's flags; after_loss: the row before it on that CPU was a loss."""
    return ((0 if timed else TIME_INFERRED)
            | (AFTER_LOSS if after_loss and action != LOSS else 0))
