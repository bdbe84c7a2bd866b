"""What the events of a stream do when they are joined, and the arguments that they come with.

An event's arguments are a record of its operation, seen over words of Tape.args: where they begin
at word a, before(args, a).caller is an allocation's caller. A number that is not there is MISSING.
"""

from __future__ import annotations

from typing import Any, Final

from replay.base.compiled import record, seen_at

(OP_ALLOC, OP_PAGE, OP_LOCKED, OP_DONE, OP_RETURN, OP_FREE, OP_FREE_INSIDE, OP_FREE_RETURN,
 OP_FRAME, OP_REFILL, OP_SECTION, OP_HYPERCALL, OP_HYPERCALL_RETURN, OP_BATCH, OP_ROW, OP_MAPPING,
 OP_TARGET, OP_UNLOCK, OP_FREE_LOCKED, OP_FREE_UNLOCK, OP_PASS_LOCKED, OP_PASS_UNLOCK) = range(22)
"""OP_ROW: the event is a row by itself, and comes with nothing."""

BEFORE_RECORD = record("nr_pages", "pointer", "caller", "list_count", "current_pages",
                        "target_pages", "target_unpopulated", "list_head")
_FREED_RECORD = record("nr_pages", "pointer", "caller", "list_count")
_DONE_RECORD = record("errno", "list_count_after", "first", "last")
_RETURNED_RECORD = record("errno", "list_count_after", "list_head_after", "caller")
_FREED_INSIDE_RECORD = record("list_count", "last")
_LEFT_RECORD = record("list_count_after", "list_head_after")
_PAGE_RECORD = record("pfn")
_REFILL_RECORD = record("ours")
_RANGE_RECORD = record("start_pfn", "nr_pages", "group", "label", "other")
_HYPERCALL_RECORD = record("nr_pages")
_HYPERCALL_DONE_RECORD = record("pages_done")
_MAPPING_RECORD = record("nr_pages", "pointer", "domid")
_TARGET_RECORD = record("target_pages")
_NOTHING_RECORD = record()

before = seen_at(BEFORE_RECORD)
"""The call, and the allocator's own numbers before it: at its entry, or in the lock. list_head: a
frame."""
freed = seen_at(_FREED_RECORD)
"""Entry of a free."""
done = seen_at(_DONE_RECORD)
"""End of the locked part of an allocation. first, last: frames."""
returned = seen_at(_RETURNED_RECORD)
"""Return of an allocation. caller: where it returns to."""
freed_inside = seen_at(_FREED_INSIDE_RECORD)
"""A probe within a free. last: a frame."""
left = seen_at(_LEFT_RECORD)
"""At an unlock: the list as the call leaves it."""
page = seen_at(_PAGE_RECORD)
"""One page of an allocation."""
refill = seen_at(_REFILL_RECORD)
"""ours: whether the caller takes memory for Xen pages."""
arrived = seen_at(_RANGE_RECORD)
"""A range of pages. group: numbers equal ranges of one task. other: of another resource."""
hypercall = seen_at(_HYPERCALL_RECORD)
"""Entry of a hypercall."""
hypercall_done = seen_at(_HYPERCALL_DONE_RECORD)
"""Its return."""
mapping = seen_at(_MAPPING_RECORD)
"""A mapping of another domain's pages."""
new_target = seen_at(_TARGET_RECORD)
"""A new target of the balloon."""

ARGUMENTS_OF: Final[dict[int, Any]] = {
    OP_ALLOC: BEFORE_RECORD, OP_LOCKED: BEFORE_RECORD, OP_FREE_LOCKED: BEFORE_RECORD,
    OP_PASS_LOCKED: BEFORE_RECORD,
    OP_FREE: _FREED_RECORD, OP_FREE_INSIDE: _FREED_INSIDE_RECORD,
    OP_DONE: _DONE_RECORD, OP_RETURN: _RETURNED_RECORD,
    OP_UNLOCK: _LEFT_RECORD, OP_FREE_UNLOCK: _LEFT_RECORD, OP_PASS_UNLOCK: _LEFT_RECORD,
    OP_PAGE: _PAGE_RECORD, OP_FRAME: _PAGE_RECORD,
    OP_REFILL: _REFILL_RECORD, OP_SECTION: _RANGE_RECORD,
    OP_HYPERCALL: _HYPERCALL_RECORD, OP_HYPERCALL_RETURN: _HYPERCALL_DONE_RECORD,
    OP_MAPPING: _MAPPING_RECORD, OP_TARGET: _TARGET_RECORD,
    OP_FREE_RETURN: _NOTHING_RECORD, OP_BATCH: _NOTHING_RECORD, OP_ROW: _NOTHING_RECORD}
"""The record of each operation's arguments."""
