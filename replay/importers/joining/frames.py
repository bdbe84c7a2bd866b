"""Frames of a row while events are joined: from fetched arrays, or from one event per page."""

from __future__ import annotations

from replay.base.compiled import inline
from replay.importers.joining.state import KIND_ALLOC, MAX_PFN, frame_of
from replay.importers.source.probes import MISSING
from replay.trace.schema import Flag

UNPAIRED, ARRAY_TRUNCATED = int(Flag.UNPAIRED), int(Flag.ARRAY_TRUNCATED)


@inline
def put_frame(w, value):  # type: ignore[no-untyped-def]
    """Append one frame; what is none is dropped and counted."""
    if 0 <= value < MAX_PFN:
        w.frames[w.counts.frames] = value
        w.counts.frames += 1
    else:
        w.counts.frames_outside_physmap += 1


@inline
def frames_since(w, row, start):  # type: ignore[no-untyped-def]
    """What was appended from a place on are the row's frames."""
    row.frames_at = start
    row.frames_count = w.counts.frames - start


@inline
def copy_array(p, w, stream, index, wanted):  # type: ignore[no-untyped-def]
    """Append an event's fetched array, cut at `wanted` pages since stale memory follows.

    Returns whether there was one.
    """
    array = stream.frames
    if array.at < 0:
        return False
    length = p.whole[array.whole + index]
    if length <= 0:
        return False
    if wanted != MISSING:
        length = min(length, max(0, wanted))
    at = array.at + index * array.width
    pages = stream.frames_are_pages
    for k in range(length):
        value = p.arrays[at + k]
        put_frame(w, frame_of(value, p.base) if pages else value)
    return True


@inline
def keep_frames(p, w, stream, index, row):  # type: ignore[no-untyped-def]
    """Make an event's fetched array, if it has one, the row's frames."""
    start = w.counts.frames
    if copy_array(p, w, stream, index, row.nr_pages):
        frames_since(w, row, start)


@inline
def keep_more_frames(p, w, stream, index, row):  # type: ignore[no-untyped-def]
    """The same, where the array holds more than is known of the row."""
    start = w.counts.frames
    copy_array(p, w, stream, index, row.nr_pages)
    if w.counts.frames - start > max(0, row.frames_count):
        frames_since(w, row, start)


@inline
def keep_as_mfns(p, w, stream, index, row):  # type: ignore[no-untyped-def]
    """The frames of a hypercall of a PV guest are machine frames; a cut list is flagged."""
    start = w.counts.frames
    copy_array(p, w, stream, index, row.nr_pages)
    row.mfns_at = start
    row.mfns_count = w.counts.frames - start
    if row.mfns_count < max(0, row.nr_pages):
        row.flag_bits |= ARRAY_TRUNCATED
        w.counts.arrays_truncated += 1


@inline
def keep_mfns(p, w, stream, index, row):  # type: ignore[no-untyped-def]
    """A mapping's machine frames, as they were fetched."""
    array = stream.mfns
    if array.at < 0:
        return
    length = p.whole[array.whole + index]
    if length <= 0:
        return
    length = min(length, max(0, row.nr_pages))
    at = array.at + index * array.width
    row.mfns_at = w.counts.frames
    row.mfns_count = length
    for k in range(length):
        w.frames[w.counts.frames] = p.arrays[at + k]
        w.counts.frames += 1


@inline
def put_ends(w, row, first, last):  # type: ignore[no-untyped-def]
    """First and last frame: all there is for up to two pages; else the last goes to `value`."""
    nr, start, known = row.nr_pages, w.counts.frames, max(0, row.frames_count)
    if last != MISSING and nr == 2:
        if first != MISSING:
            put_frame(w, first)
        elif known:
            put_frame(w, w.frames[row.frames_at])
        put_frame(w, last)
    elif first != MISSING:
        put_frame(w, first)
    else:
        row.frames_count = known
        start = -1
    if start >= 0:
        frames_since(w, row, start)
    if last != MISSING and nr > 2 and last >= 0:
        row.value = last


@inline
def first_from_list(w, row):  # type: ignore[no-untyped-def]
    """The first page is the head of the free list, where the list was the one that was read.

    Head and length are read before the lock, so they count only if the length at return says that
    nobody came between and nothing was added: so it was with all 32,198 such calls of four
    recordings, three load programs at once among them, that hold the pages themselves.
    """
    head, nr = row.list_head, row.nr_pages
    before, after = row.list_count, row.list_count_after
    if head == MISSING or nr <= 0 or before == MISSING or after == MISSING:
        return
    if before - after == nr:
        start = w.counts.frames
        w.counts.first_frames_from_list += 1
        put_frame(w, head)
        frames_since(w, row, start)


@inline
def push_frame(w, call, value):  # type: ignore[no-untyped-def]
    """One page of an open call."""
    at = w.counts.nodes
    w.counts.nodes = at + 1
    node = w.nodes[at]
    node.frame = value
    node.before = call.last
    call.last = at
    call.count += 1


@inline
def drop_frames(w, call, mark):  # type: ignore[no-untyped-def]
    """Forget an open call's pages behind the first `mark`."""
    while call.count > mark:
        call.last = w.nodes[call.last].before
        call.count -= 1


@inline
def _pages_of_call(w, call, row):  # type: ignore[no-untyped-def]
    """The single pages of a call become its frames: the last nr_pages of them."""
    wanted = call.count
    if row.nr_pages != MISSING:
        wanted = min(wanted, row.nr_pages)
    start, at = w.counts.frames, call.last
    for k in range(wanted - 1, -1, -1):
        node = w.nodes[at]
        w.frames[start + k] = node.frame
        at = node.before
    for k in range(wanted):
        put_frame(w, w.frames[start + k])
    frames_since(w, row, start)


@inline
def finish(w, call, unfinished):  # type: ignore[no-untyped-def]
    """Close a call: its page events become its frames; a failed one returned nothing."""
    row = w.rows[call.row]
    if unfinished:
        row.flag_bits |= UNPAIRED
        w.counts.requests_unfinished += 1
    if row.errno != MISSING and row.errno != 0:
        # what the array held is no result
        row.frames_count = 0
        row.value = MISSING
    elif call.count:
        _pages_of_call(w, call, row)


@inline
def flag_truncated(w, row):  # type: ignore[no-untyped-def]
    """At the end: whether a row holds fewer frames than it has pages."""
    failed = row.kind == KIND_ALLOC and row.errno != MISSING and row.errno != 0
    if row.frames_count != MISSING and row.nr_pages > row.frames_count and not failed:
        row.flag_bits |= ARRAY_TRUNCATED
        w.counts.arrays_truncated += 1
