"""Named counters of what an import or a pairing met, ranked by severity.

Nothing of an input disappears unnamed: a record is imported, skipped under a name, or lost.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SEVERITIES = ("info", "error", "data_loss")

KNOWN: dict[str, tuple[str, str]] = {
    # name: (severity, one sentence)
    "arrays_truncated": ("info", "a probe fetched fewer array elements than the call had pages"),
    "events_skipped": ("info", "events of no interest to a replay (named in `skipped`)"),
    "first_frames_from_list": ("info", "first frames of allocations, read as the free list's head"),
    "frames_inferred": ("info", "frames beyond a truncated array, taken from the paired request"),
    "frames_undetermined": ("info", "allocations whose frames rest on calls whose order is open"),
    "frees_repeated": ("info", "several probes reported one and the same free; one was kept"),
    "joined_lines": ("error", "the kernel cut an over-long line and the next event follows on it"),
    "joined_lines_recovered": ("info", "events recovered from behind a cut line"),
    "lengths_of_other_list": ("info", "calls of the balloon driver with the pool's length"),
    "lines_unmatched": ("error", "text lines that are no event, comment or known notice"),
    "lock_order_ambiguous": ("info", "requests whose place in the order of lock holders is open"),
    "lock_order_contradicted": ("error", "allocations whose frames no order of requests explains"),
    "lock_order_recovered": ("info", "requests moved to the place in the lock order they had"),
    "lock_orders_that_fit": ("info", "orders of all calls that fit (2^60: as many or more)"),
    "lock_reads_unexplained": ("info", "lengths or heads of the list that no order explains"),
    "marker_lines": ("info", "further lines of a text written to trace_marker, joined to it"),
    "nested_calls": ("info", "calls of the fallback allocator inside the call that fell back"),
    "pages_already_live": ("error", "pages returned by an allocation while they were live"),
    "pages_live_before": ("info", "pages freed that were live before the recording began"),
    "pages_freed_impossibly": ("error", "pages freed twice or before their allocation: set aside"),
    "pages_live_at_end": ("info", "pages never freed within the recording"),
    "pages_unknown_freed": ("info", "pages freed that the recording never saw allocated"),
    "requests_unfinished": ("info", "calls without a return event within the recording"),
    "requests_without_size": ("error", "calls whose number of pages is not recorded: left out"),
    "returns_unmatched": ("info", "return events without an entry within the recording"),
    "sections_without_place": ("info", "sections of the pool whose first frame is not recorded"),
    "time_inferred": ("info", "records without a time stamp, given the last one of their CPU"),
    "time_inversions": ("info", "records earlier than their predecessor on another CPU"),
    "records_lost": ("data_loss", "records the tracer itself reports as lost"),
    "losses_unknown": ("error", "losses of an unknown number of records: each counts as one"),
    "file_truncated": ("data_loss", "the file ends inside a record"),
    "xentrace_cut": ("data_loss", "xentrace did not write all there was, as its recorder noted"),
    "symbols_unresolved": ("error", "probe addresses without a symbol; the event name was used"),
    "frames_outside_physmap": ("error", "recorded frames beyond the machine's address space"),
    "probe_unknown": ("info", "events of probed functions that the probe table does not name"),
}


@dataclass
class Anomalies:
    """Counters by name; `count()` refuses a name that KNOWN does not describe."""

    counts: Counter[str] = field(default_factory=Counter)

    def count(self, name: str, by: int = 1) -> None:
        """Add `by` to a known anomaly; raises KeyError for an undescribed name."""
        KNOWN[name]
        if by:
            self.counts[name] += int(by)

    def rows(self) -> list[tuple[str, str, int, str]]:
        """(severity, name, count, sentence), the gravest first, for tables."""
        known = [(KNOWN[n][0], n, c, KNOWN[n][1]) for n, c in self.counts.items() if n in KNOWN]
        return sorted(known, key=lambda row: (-SEVERITIES.index(row[0]), row[1]))

    @property
    def data_loss(self) -> int:
        """How many records are known to be missing."""
        return sum(c for n, c in self.counts.items() if KNOWN[n][0] == "data_loss")
