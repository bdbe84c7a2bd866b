"""Which allocations' frames rest on an order that is open: doubt, followed page by page.

Where several orders fit, the one taken may put a page elsewhere on the list than it was. Such ones,
and those of allocations whose own place is open, are in doubt; so is an allocation that gets one
from the list, and what is freed of it later. Compiled, one pass.
"""

from __future__ import annotations

import numpy as np

from replay.base.compiled import compiled
from replay.base.scratch import Scratch
from replay.importers.ordering.calls import Calls
from replay.importers.ordering.ledger import PART_CALLS
from replay.importers.source.probes import Ints


@compiled
def _follow(  # type: ignore[no-untyped-def]
        q, order, doubtful, listed, content, found, depth):
    """listed: per page on the list, the head at the end, whether it is in doubt. content: per page
    of an allocation. doubtful: 1 where a call's place is open. depth: pages on the list; it returns
    how many are then."""
    for n in range(len(order)):
        c = order[n]
        for s in range(q.section[c], q.section[c + 1]):
            for _ in range(q.sections[s].pages):
                listed[depth] = 0
                depth += 1
        for k in range(q.pushes[c]):
            a = q.array[c]
            own = content[q.content[a] + k] if a >= 0 else 0
            if k < q.known[c] and q.frames[q.start[c] + k] >= 0:
                own = 0  # which page it is was recorded
            listed[depth] = 1 if own or doubtful[c] else 0
            depth += 1
        for k in range(q.pops[c]):
            doubt = 0
            if depth > 0:
                depth -= 1
                doubt = listed[depth]
            if doubt or doubtful[c]:
                found[c] = 1
                # the frames that were recorded are known all the same
                known = k < q.known[c] and q.frames[q.start[c] + k] >= 0
                if q.content[c + 1] > q.content[c] and not known:
                    content[q.content[c] + k] = 1
        if doubtful[c]:  # in another place it would have moved as many others
            for k in range(min(depth, q.nr[c])):
                listed[depth - 1 - k] = 1
    return depth


def in_doubt(q: Calls, order: Ints, ambiguous: Ints, scratch: Scratch) -> np.ndarray:
    """Whether each call's frames may differ from those that its place in `order` gives it.

    ambiguous: calls whose place is open. Frames that no order explains are no matter of doubt: they
    are a difference.
    """
    doubtful = np.zeros(len(order), np.int8)
    doubtful[ambiguous] = 1
    found = np.zeros(len(order), np.int8)
    if doubtful.any():
        room = int(q.pushes.sum() + q.sections["pages"].sum()) + 1
        listed, content = np.zeros(room, np.int64), scratch.array(int(q.content[-1]) + 1)
        depth = 0
        for at in range(0, len(order), PART_CALLS):
            depth = int(_follow(q, order[at : at + PART_CALLS], doubtful, listed, content, found,
                                depth))
            scratch.relax()
    return found > 0
