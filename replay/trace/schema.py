"""The trace's columns as data: name, Arrow type, unit, one sentence.

A trace is one Arrow IPC file: one row per event, sorted by (time_ns, source, source_offset).
Everything a replay needs besides the rows is in the schema metadata (see trace/store.py).

In memory each page ever allocated has a slot number of its own: page k is slot k. In a file slots
are used again (trace/stored.py); its rows are those of STORED.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 2

KINDS: Final = (
    # allocator calls: one row per call, entry and return joined
    "alloc", "free",
    # what callers do with the pages
    "grant_map", "grant_unmap", "grant_transfer", "foreign_map", "foreign_unmap",
    # the balloon driver and the hypercalls it makes
    "target", "decrease", "increase", "hotplug_check", "section",
    # the hypervisor's view (xentrace)
    "p2m_set", "decrease_extent", "pod_populate", "pod_reclaim", "pod_splinter", "hypercall",
    "runstate", "domain_create", "domain_destroy",
    # about the recording itself
    "phase", "lost",
)  # fmt: skip

RELEASE: Final = "release"
"""Of a file alone: a free that a replay makes for an allocation that failed in the recording."""


class Flag(IntFlag):
    """Bits of the `flags` column."""

    TIME_INFERRED = 1
    """The record carries no time; it has the last one seen on its CPU."""
    ARRAY_TRUNCATED = 2
    """The recording holds fewer frames than `nr_pages`."""
    UNPAIRED = 4
    """Entry without return, or a free of pages never seen allocated."""
    AFTER_LOSS = 8
    """First record of its CPU after lost ones."""
    PAIRING_INFERRED = 16
    """Which pages a free returned is inferred, not recorded."""
    LOCK_INFERRED = 32
    """The place in the lock order was recovered from later observations."""
    FRAMES_INFERRED = 64
    """Some frames of this row are inferred (paired request or stack order), not recorded."""
    LOCK_AMBIGUOUS = 128
    """Another place in the lock order fits all observations as well."""
    FRAMES_UNDETERMINED = 256
    """The modelled frames rest on calls whose place in the lock order is open."""


OPEN_ORDER: Final = Flag.LOCK_AMBIGUOUS | Flag.FRAMES_UNDETERMINED
"""Rows that take no part in a claim that a model is equal to a recording."""


@dataclass(frozen=True)
class Column:
    """One column of a trace."""

    name: str
    type: pa.DataType
    unit: str
    what: str


_dict = pa.dictionary(pa.int16(), pa.string())
_frames = pa.list_(pa.int64())

COLUMNS: Final = (
    Column("time_ns", pa.int64(), "ns", "Entry of the call, from the first event's time on."),
    Column("lock_ns", pa.int64(), "ns", "A time at which the call held the allocator's lock."),
    Column("lock_rank", pa.int64(), "", "Place of an alloc or free in the order of lock holders."),
    Column("cpu", pa.int32(), "", "CPU (ftrace) or physical CPU (xentrace) of the record."),
    Column("kind", _dict, "", "What happened; one of schema.KINDS."),
    Column("task", _dict, "", "Command name of the task."),
    Column("pid", pa.int32(), "", "Linux task id."),
    Column("caller", _dict, "", "Function that called the allocator, without offset."),
    Column("domid", pa.int32(), "", "Domain whose pages are mapped, or that runs."),
    Column("nr_pages", pa.int64(), "pages", "Pages asked for, freed, mapped or moved."),
    Column("frames", _frames, "pfn", "Frames, in the order the recorded kernel used them."),
    Column("slots", _frames, "", "free: which allocated pages, by slot number; -1 is unknown."),
    Column("mfns", _frames, "mfn", "Machine frames mapped, where the recording has them."),
    Column("start_pfn", pa.int64(), "pfn", "First frame of a section or an extent."),
    Column("latency_ns", pa.int64(), "ns", "Recorded: return minus entry; emulated where that is."),
    Column("errno", pa.int32(), "", "Recorded return value: 0 or -errno; hypercalls: the count."),
    Column("list_count", pa.int64(), "pages",
           "Length of the free list at (racy) entry or, in the lock, before the call."),
    Column("list_count_after", pa.int64(), "pages", "Length of the free list at return."),
    Column("list_head", pa.int64(), "pfn", "First frame of the free list, where recorded."),
    Column("list_head_after", pa.int64(), "pfn", "First frame of the free list at return."),
    Column("current_pages", pa.int64(), "pages", "balloon_stats.current_pages in the lock."),
    Column("target_pages", pa.int64(), "pages",
           "balloon_stats.target_pages in the lock; or the new target."),
    Column("target_unpopulated", pa.int64(), "pages",
           "balloon_stats.target_unpopulated in the lock."),
    Column("value", pa.int64(), "", "Kind's own number: op, p2m type, runstate, lost count."),
    Column("label", _dict, "", "Text of a phase marker, resource name, hypercall name."),
    Column("flags", pa.int32(), "", "Bits of schema.Flag."),
    Column("source", pa.int16(), "", "Which of the metadata's sources the row comes from."),
    Column("source_offset", pa.int64(), "", "Byte offset, or line number, in that source."),
)  # fmt: skip

BALLOON_TASK: Final = "xen-balloon"
"""What `task` holds where the balloon thread is at work."""

SCHEMA: Final = pa.schema([(c.name, c.type) for c in COLUMNS])

SLOT: Final = Column("slot", pa.int64(), "", "alloc, release: first slot of its pages, in a row.")
_IN_FILE: Final = {
    "kind": f"What happened; one of schema.KINDS, or {RELEASE}.",
    "slots": "free: runs of slots, each as first and count; count below 0: downwards. First -1: "
             "pages of which nothing is known; -2: live before the recording.",
    "value": f"Kind's own number: op, p2m type, runstate, lost count; {RELEASE}: the row of its "
             "alloc, releases not counted.",
}
_AT: Final = [c.name for c in COLUMNS].index("slots")
STORED_COLUMNS: Final = tuple(
    replace(c, what=_IN_FILE.get(c.name, c.what)) for c in (*COLUMNS[:_AT], SLOT, *COLUMNS[_AT:]))
"""The columns of a file."""

STORED: Final = pa.schema([(c.name, c.type) for c in STORED_COLUMNS])
