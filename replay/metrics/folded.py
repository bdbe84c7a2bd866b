"""All that is kept of a replay's requests for its summary: it takes a replay in part by part.

What is kept grows with the callers, the distinct latencies up to a bound, and the distinct frames
inside ranges that hazards look at; not with the requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replay.metrics.frames import FramesWithin
from replay.metrics.in_order import FramesInOrder
from replay.metrics.part import Part
from replay.metrics.ranges import Ranges
from replay.metrics.refused import Refused
from replay.metrics.tally import Tally
from replay.physmap.model import Physmap


class Folded:
    """The figures so far.

    options: of the strategy. live: pages that callers hold before the first request. ranges: in
    which the frames handed out are looked for, by hazard.
    """

    def __init__(self, machine: Physmap, options: Mapping[str, Any], live: int,
                 ranges: Mapping[str, Ranges]) -> None:
        self.tally = Tally()
        self.refused, self._live_before = Refused(machine, options), live
        self.within = {name: FramesWithin(where) for name, where in ranges.items()}
        self.digest = FramesInOrder()

    def fold(self, part: Part) -> None:
        """Take in requests that are settled, in any order; their frames for the digest are
        another affair, since those are taken in order."""
        totals = self.tally.totals
        failed, live = int(totals.failed), self._live_before + int(totals.live_pages)
        self.tally.fold(part)
        if totals.failed > failed:
            self.refused.fold(part, live)
        for found in self.within.values():
            found.fold(part)
