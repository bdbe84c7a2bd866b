"""The row that a call becomes, and what is put into it; compiled."""

from __future__ import annotations

from replay.base.compiled import inline
from replay.importers.source.probes import MISSING


@inline
def new_row(w, kind, time, event):  # type: ignore[no-untyped-def]
    """The next row, of which nothing else is known yet."""
    r = w.counts.rows
    w.counts.rows = r + 1
    w.rows[r] = w.blank
    row = w.rows[r]
    row.kind = kind
    row.time = time
    row.event = event
    row.flag_bits = 0
    return r


@inline
def newer(value, known):  # type: ignore[no-untyped-def]
    """A number if it was recorded, else the one that is known."""
    return value if value != MISSING else known


@inline
def hold(row, time):  # type: ignore[no-untyped-def]
    """The first time at which the call is known to have held the lock."""
    if row.lock == MISSING:
        row.lock = time


@inline
def fill_before(row, args):  # type: ignore[no-untyped-def]
    """The allocator's own numbers before the call."""
    row.list_count = newer(args.list_count, row.list_count)
    row.current_pages = newer(args.current_pages, row.current_pages)
    row.target_pages = newer(args.target_pages, row.target_pages)
    row.target_unpopulated = newer(args.target_unpopulated, row.target_unpopulated)
