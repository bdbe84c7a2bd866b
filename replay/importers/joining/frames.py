"""Frames of a row while events are joined: from fetched arrays, or from one event per page."""

from __future__ import annotations

from replay.base.compiled import inline
from replay.importers.joining import state as j
from replay.trace.schema import Flag

UNPAIRED, ARRAY_TRUNCATED = int(Flag.UNPAIRED), int(Flag.ARRAY_TRUNCATED)


@inline
def put_frame(w, value):  # type: ignore[no-untyped-def]
    """Append one frame; what is none is dropped and counted."""
    if 0 <= value < j.MAX_PFN:
        w.frames[w.counts[j.N_FRAMES]] = value
        w.counts[j.N_FRAMES] += 1
    else:
        w.counts[j.N_OUTSIDE] += 1


@inline
def copy_array(p, w, s, index, wanted):  # type: ignore[no-untyped-def]
    """Append an event's fetched array, cut at `wanted` pages since stale memory follows.

    Returns whether there was one.
    """
    if p.streams[j.S_FRAMES, s] < 0:
        return False
    length = p.whole[p.streams[j.S_FRAMES_WHOLE, s] + index]
    if length <= 0:
        return False
    if wanted != j.MISSING:
        length = min(length, max(0, wanted))
    at = p.streams[j.S_FRAMES, s] + index * p.streams[j.S_FRAMES_WIDTH, s]
    pages = p.streams[j.S_FRAMES_ARE_PAGES, s]
    for k in range(length):
        value = p.arrays[at + k]
        put_frame(w, j.frame_of(value, p.base) if pages else value)
    return True


@inline
def keep_frames(p, w, s, index, r):  # type: ignore[no-untyped-def]
    """Make an event's fetched array, if it has one, the row's frames."""
    start = w.counts[j.N_FRAMES]
    if copy_array(p, w, s, index, w.rows[j.C_NR, r]):
        w.rows[j.C_FRAMES, r] = start
        w.rows[j.C_FRAMES_COUNT, r] = w.counts[j.N_FRAMES] - start


@inline
def keep_more_frames(p, w, s, index, r):  # type: ignore[no-untyped-def]
    """The same, where the array holds more than is known of the row."""
    start = w.counts[j.N_FRAMES]
    copy_array(p, w, s, index, w.rows[j.C_NR, r])
    if w.counts[j.N_FRAMES] - start > max(0, w.rows[j.C_FRAMES_COUNT, r]):
        w.rows[j.C_FRAMES, r] = start
        w.rows[j.C_FRAMES_COUNT, r] = w.counts[j.N_FRAMES] - start


@inline
def keep_as_mfns(p, w, s, index, r):  # type: ignore[no-untyped-def]
    """The frames of a hypercall of a PV guest are machine frames; a cut list is flagged."""
    start = w.counts[j.N_FRAMES]
    copy_array(p, w, s, index, w.rows[j.C_NR, r])
    w.rows[j.C_MFNS, r] = start
    w.rows[j.C_MFNS_COUNT, r] = w.counts[j.N_FRAMES] - start
    if w.rows[j.C_MFNS_COUNT, r] < max(0, w.rows[j.C_NR, r]):
        w.rows[j.C_FLAGS, r] |= ARRAY_TRUNCATED
        w.counts[j.N_TRUNCATED] += 1


@inline
def keep_mfns(p, w, s, index, r):  # type: ignore[no-untyped-def]
    """A mapping's machine frames, as they were fetched."""
    if p.streams[j.S_MFNS, s] < 0:
        return
    length = p.whole[p.streams[j.S_MFNS_WHOLE, s] + index]
    if length <= 0:
        return
    length = min(length, max(0, w.rows[j.C_NR, r]))
    at = p.streams[j.S_MFNS, s] + index * p.streams[j.S_MFNS_WIDTH, s]
    w.rows[j.C_MFNS, r] = w.counts[j.N_FRAMES]
    w.rows[j.C_MFNS_COUNT, r] = length
    for k in range(length):
        w.frames[w.counts[j.N_FRAMES]] = p.arrays[at + k]
        w.counts[j.N_FRAMES] += 1


@inline
def put_ends(w, r, first, last):  # type: ignore[no-untyped-def]
    """First and last frame: all there is for up to two pages; else the last goes to `value`."""
    nr, start, known = w.rows[j.C_NR, r], w.counts[j.N_FRAMES], max(0, w.rows[j.C_FRAMES_COUNT, r])
    if last != j.MISSING and nr == 2:
        if first != j.MISSING:
            put_frame(w, first)
        elif known:
            put_frame(w, w.frames[w.rows[j.C_FRAMES, r]])
        put_frame(w, last)
    elif first != j.MISSING:
        put_frame(w, first)
    else:
        w.rows[j.C_FRAMES_COUNT, r] = known
        start = -1
    if start >= 0:
        w.rows[j.C_FRAMES, r], w.rows[j.C_FRAMES_COUNT, r] = start, w.counts[j.N_FRAMES] - start
    if last != j.MISSING and nr > 2 and last >= 0:
        w.rows[j.C_VALUE, r] = last


@inline
def first_from_list(w, r):  # type: ignore[no-untyped-def]
    """The first page is the head of the free list, where the list was the one that was read.

    Head and length are read before the lock, so they count only if the length at return says that
    nobody came between and nothing was added: so it was with all 32,198 such calls of four
    recordings, three load programs at once among them, that hold the pages themselves.
    """
    head, nr = w.rows[j.C_HEAD, r], w.rows[j.C_NR, r]
    before, after = w.rows[j.C_LIST, r], w.rows[j.C_LIST_AFTER, r]
    if head == j.MISSING or nr <= 0 or before == j.MISSING or after == j.MISSING:
        return
    if before - after == nr:
        w.counts[j.N_FIRST] += 1
        w.rows[j.C_FRAMES, r] = w.counts[j.N_FRAMES]
        put_frame(w, head)
        w.rows[j.C_FRAMES_COUNT, r] = w.counts[j.N_FRAMES] - w.rows[j.C_FRAMES, r]


@inline
def push_frame(w, t, level, value):  # type: ignore[no-untyped-def]
    """One page of an open call."""
    node = w.counts[j.N_NODES]
    w.counts[j.N_NODES] += 1
    w.nodes[0, node], w.nodes[1, node] = value, w.tasks[j.T_LAST + level, t]
    w.tasks[j.T_LAST + level, t] = node
    w.tasks[j.T_COUNT + level, t] += 1


@inline
def drop_frames(w, t, level, mark):  # type: ignore[no-untyped-def]
    """Forget an open call's pages behind the first `mark`."""
    while w.tasks[j.T_COUNT + level, t] > mark:
        w.tasks[j.T_LAST + level, t] = w.nodes[1, w.tasks[j.T_LAST + level, t]]
        w.tasks[j.T_COUNT + level, t] -= 1


@inline
def _pages_of_call(w, t, level, r):  # type: ignore[no-untyped-def]
    """The single pages of a call become its frames: the last nr of them."""
    wanted = w.tasks[j.T_COUNT + level, t]
    if w.rows[j.C_NR, r] != j.MISSING:
        wanted = min(wanted, w.rows[j.C_NR, r])
    start = w.counts[j.N_FRAMES]
    node = w.tasks[j.T_LAST + level, t]
    for k in range(wanted - 1, -1, -1):
        w.frames[start + k] = w.nodes[0, node]
        node = w.nodes[1, node]
    for k in range(wanted):
        put_frame(w, w.frames[start + k])
    w.rows[j.C_FRAMES, r], w.rows[j.C_FRAMES_COUNT, r] = start, w.counts[j.N_FRAMES] - start


@inline
def finish(w, t, level, unfinished):  # type: ignore[no-untyped-def]
    """Close a call: its page events become its frames; a failed one returned nothing."""
    r = w.tasks[j.T_ROW + level, t]
    if unfinished:
        w.rows[j.C_FLAGS, r] |= UNPAIRED
        w.counts[j.N_UNFINISHED] += 1
    if w.rows[j.C_ERRNO, r] != j.MISSING and w.rows[j.C_ERRNO, r] != 0:
        # what the array held is no result
        w.rows[j.C_FRAMES_COUNT, r] = 0
        w.rows[j.C_VALUE, r] = j.MISSING
    elif w.tasks[j.T_COUNT + level, t]:
        _pages_of_call(w, t, level, r)


@inline
def flag_truncated(w):  # type: ignore[no-untyped-def]
    """At the end: which rows hold fewer frames than they have pages."""
    for r in range(w.counts[j.N_ROWS]):
        known, nr = w.rows[j.C_FRAMES_COUNT, r], w.rows[j.C_NR, r]
        failed = (w.rows[j.C_KIND, r] == j.ALLOC and w.rows[j.C_ERRNO, r] != j.MISSING
                  and w.rows[j.C_ERRNO, r] != 0)
        if known != j.MISSING and nr > known and not failed:
            w.rows[j.C_FLAGS, r] |= ARRAY_TRUNCATED
            w.counts[j.N_TRUNCATED] += 1
