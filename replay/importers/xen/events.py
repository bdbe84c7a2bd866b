"""Which of Xen's trace events become rows, and how: a table, and what is read the same way twice.

The census counts rows before the decoder makes them, so both must agree on what becomes one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np

from replay.base.compiled import index, inline, record, seen_at
from replay.importers.xen.framing import EVENT_MASK, EXTRA_SHIFT, TIME_SHIFT, word
from replay.importers.xen.names import HYPERCALL_NAMES
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
MULTICALL_PART = 0x0020200E
VMMCALL, NESTED_VMMCALL = 0x00082012, 0x00082412
HYPERCALL_EVENTS = {  # event: (payload words at least, which holds the number, mask)
    0x0020100D: (1, 0, 0xFFFFF),  # PV, version 2
    MULTICALL_PART: (1, 0, 0xFFFFF),
    0x00201001: (2, 1, 0xFFFFFFFF),  # PV, version 1: eip, eax
    0x00201101: (3, 2, 0xFFFFFFFF),  # the same with a 64-bit rip
    VMMCALL: (1, 0, 0xFFFFFFFF), NESTED_VMMCALL: (1, 0, 0xFFFFFFFF),
}  # fmt: skip
VMEXITS = (0x00081002, 0x00081102, 0x00081003, 0x00081103,
           0x00081402, 0x00081502, 0x00081403, 0x00081503)
"""VMX and, since Xen 4.19 under numbers of their own, SVM; 32- and 64-bit rip; nested."""
VMENTRIES = (0x00081001, 0x00081401)
ORDER_MAX = 40
"""A larger extent order cannot be: 2^52 bytes is all there is."""


class Action(IntEnum):
    """What is done with a record, by its event; none behind LOST makes a row."""

    SKIP, DOMAIN, P2M, EXTENT, HYPERCALL, RUNSTATE, LOST, EXIT, ENTRY = range(9)


EVENT = record(
    "number",  # -1 in a free place
    "action", "kind",
    "least",  # words of payload that it needs
    "place",  # among EXTENTS or HYPERCALL_EVENTS
    "has_mfn",  # of an extent: whether the second 64 bits are one
    "call_at", "call_mask",  # of a hypercall: which word of the payload its number is, which bits
    "skipped",  # how often it made no row
    "left_out",  # whether its rows are not kept
)  # fmt: skip
"""What is known of an event."""
HALVES = record(("low", np.uint32), ("high", np.uint32))
"""Of 64 bits in a payload."""
halves_at = seen_at(HALVES)

SLOTS: Final = 4096
"""Of the table of events, a power of 2: the format's own are fewer than 200."""
PROBES: Final = 64
"""Places looked at for one event: a file may hold any of 2^28."""
HASH: Final = 2654435769
UNKNOWN_CALL: Final = len(HYPERCALL_NAMES)
OLD_LAYOUT, NEW_LAYOUT, UNKNOWN_LAYOUT = 0, 1, 2
"""Layouts of an extent's domain and order: see `takes_old_layout`."""
TIME_INFERRED, AFTER_LOSS = int(Flag.TIME_INFERRED), int(Flag.AFTER_LOSS)


def _slot(event: int) -> int:
    return (event * HASH >> 16) & (SLOTS - 1)


def _known() -> dict[int, dict[str, int]]:
    """The events that become rows, or tell of one: what an EVENT says of each."""
    kind = KINDS.index
    known = {event: {"action": Action.DOMAIN, "kind": kind(name), "least": words}
             for event, (name, words) in DOMAINS.items()}
    known |= {event: {"action": Action.P2M if event == SET_P2M else Action.EXTENT,
                      "kind": kind(name), "least": words, "place": at, "has_mfn": has_mfn}
              for at, (event, (name, words, has_mfn)) in enumerate(EXTENTS.items())}
    known |= {event: {"action": Action.HYPERCALL, "kind": kind("hypercall"), "least": words,
                      "place": at, "call_at": call_at, "call_mask": mask}
              for at, (event, (words, call_at, mask)) in enumerate(HYPERCALL_EVENTS.items())}
    known |= {RUNSTATE | states << 4: {"action": Action.RUNSTATE, "kind": kind("runstate"),
                                       "least": 1} for states in range(256)}
    known |= {LOST_RECORDS: {"action": Action.LOST, "kind": kind("lost"), "least": 2}}
    known |= {event: {"action": Action.EXIT} for event in VMEXITS}
    known |= {event: {"action": Action.ENTRY} for event in VMENTRIES}
    return known


def _events() -> np.ndarray:
    """An EVENT each, found by `_slot` and the places after it; the last one stands for all events
    that find no place.
    """
    events = np.zeros(SLOTS + 1, dtype=EVENT)
    events["number"] = -1
    events[-1]["number"] = EVENT_MASK + 1
    for number, known in _known().items():
        slot = _slot(number)
        while events[slot].number >= 0:
            slot = (slot + 1) % SLOTS
        events[slot].number = number
        for name, value in known.items():
            events[slot][name] = value
    return events


KNOWN_EVENTS: Final = _events()


@inline
def find(events: np.ndarray, number: int) -> Any:
    """The slot of an event, else a free one for it, else the last one."""
    slot = (number * HASH >> 16) & (SLOTS - 1)
    for _ in range(PROBES):
        if events[index(slot)].number == number or events[index(slot)].number < 0:
            return index(slot)
        slot = (slot + 1) & (SLOTS - 1)
    return index(SLOTS)


@inline
def wide(words: np.ndarray, at: int) -> Any:
    """Two words, low and high, as one signed number; -1: all ones."""
    halves = halves_at(words, at)
    high = np.int64(halves.high)
    return np.int64(halves.low) | (high - ((high >> 31) << 32)) << 32


@inline
def order_of(words: np.ndarray, p: int, event: Any, layout: int) -> Any:
    """How many frames an extent has, as a power of two; p: its payload."""
    last = p + event.least - 1
    if event.action == Action.P2M:  # two 16-bit fields in every version
        return word(words, last) >> 16
    return word(words, last - 1) >> 16 if layout == OLD_LAYOUT else word(words, last)


@inline
def op_of(words: np.ndarray, p: int, event: Any) -> Any:
    """A hypercall's event and number as one number, all that have no name alike."""
    number = word(words, p + event.call_at) & event.call_mask
    return event.place * (UNKNOWN_CALL + 1) + min(number, UNKNOWN_CALL)


@inline
def is_vmmcall(event: Any) -> Any:
    """Whether an event is a hypercall between an exit and an entry."""
    return event.number == VMMCALL or event.number == NESTED_VMMCALL


@inline
def makes_row(words: np.ndarray, at: int, header: int, event: Any, layout: int) -> Any:
    """Whether the record at a place becomes a row: all its words are there, and no machine has
    other frames than these, or more of them.
    """
    action = event.action
    if (action == Action.SKIP or action > Action.LOST
            or ((header >> EXTRA_SHIFT) & 7) < event.least):
        return False
    if action != Action.P2M and action != Action.EXTENT:
        return True
    p = at + 1 + 2 * (header >> TIME_SHIFT)
    frame = wide(words, p)
    return ((action == Action.P2M or layout != UNKNOWN_LAYOUT)
            and order_of(words, p, event, layout) <= ORDER_MAX
            and 0 <= frame < 1 << ORDER_MAX)


@inline
def flags_of(action: int, timed: int, after_loss: int) -> Any:
    """A row's flags; after_loss: the row before it on that CPU was a loss."""
    return ((0 if timed else TIME_INFERRED)
            | (AFTER_LOSS if after_loss and action != Action.LOST else 0))
