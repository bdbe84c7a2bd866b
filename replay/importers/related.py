"""How a Xen trace is put on ftrace's time axis, and what a trace says of that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from replay.base import memory
from replay.base.units import scale_ticks
from replay.importers.clocks.calls import LINUX_COLUMNS, XEN_COLUMNS, XEN_KINDS, evidence
from replay.importers.clocks.relation import Relation, Unknown, relate
from replay.importers.merge import Drift, Timed, same_counter, zero_ns
from replay.importers.source.imported import Imported

HOW_TO_STATE = (
    "the recording does not show how its two clocks relate: {}. Looked for: grant maps and unmaps "
    "of n pages in the ftrace stream, with n records each right behind them in the Xen trace. "
    "Leave the Xen trace out, or pass --set clock_offset_ns=N, the nanoseconds to add to a time of "
    "the Xen trace (its counter / its frequency) to get ftrace's at the same moment")
MAX_SPAN_NS = 1 << 56
LINUX_BYTES, XEN_BYTES = 200, 40
"""Of memory, that measuring takes for a row of either at most."""


@dataclass(frozen=True)
class Placed:
    """offset_ns: as `--set clock_offset_ns`; None: both read one counter, and raw values compare.

    facts: for the metadata: source (measured, stated; one counter, verified or assumed), offset_ns,
    error_ns, and of a measurement pairs, contradictions, unseen, measured_offset_ns,
    measured_error_ns, drift_ppb at drift_at_ns of ftrace's clock; or why there is none.
    """

    offset_ns: int | None
    drift: Drift | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def place(reference: Imported, other: Imported, mode: str, stated: int | None) -> Placed | Unknown:
    """Where `other`, a Xen trace, lies on `reference`'s clock; or why that cannot be told.

    mode: of dom0, "" where it is not known. stated: what the user says of the offset.
    """
    one_counter = same_counter(reference.clock, mode)
    if not reference.num_rows or not other.num_rows:
        return Placed(0 if stated is None else stated)
    found = _measured(reference, other, mode)
    about = _facts(found, reference)
    if stated is not None:
        return Placed(stated, None, {"source": "stated", "offset_ns": stated, **about})
    if one_counter:
        if isinstance(found, Unknown):
            return Placed(None, None, {"source": "one counter, assumed", "offset_ns": 0, **about})
        if abs(found.offset_ns) <= found.error_ns:
            return Placed(None, None, {"source": "one counter, verified", "offset_ns": 0,
                                       "error_ns": 0, **about})
    if isinstance(found, Unknown):
        return found
    drift = Drift(found.ppb, found.middle_ns) if found.ppb else None
    source = "measured, against one counter" if one_counter else "measured"
    return Placed(found.offset_ns, drift, {
        "source": source, "offset_ns": found.offset_ns, "error_ns": found.error_ns, **about})


def _measured(reference: Imported, other: Imported, mode: str) -> Relation | Unknown:
    """The offset as `--set clock_offset_ns` states it; middle_ns on the axis of time_ns."""
    memory.need(memory.used() + LINUX_BYTES * reference.num_rows + XEN_BYTES * other.num_rows,
                "measuring how the clocks relate", "leave the Xen trace out, or record in shorter "
                "pieces")
    linux, xen = reference.select(LINUX_COLUMNS), other.select(XEN_COLUMNS, XEN_KINDS)
    xen_ns = xen["time_ns"].to_numpy()
    if max(other.span_ns, reference.span_ns) > MAX_SPAN_NS:
        return Unknown("they last for years")
    found = relate(evidence(linux, xen, xen_ns, mode),
                   same_rate=reference.clock == "x86-tsc" and reference.hz == other.hz)
    if isinstance(found, Unknown):
        return found
    first = scale_ticks(other.t0_raw, other.hz)
    return Relation(**{**vars(found),
                       "offset_ns": found.offset_ns + zero_ns(reference) - first})


def _facts(found: Relation | Unknown, reference: Timed) -> dict[str, Any]:
    if isinstance(found, Unknown):
        return {"not_measured": found.why}
    facts: dict[str, Any] = {
        "measured_offset_ns": found.offset_ns, "measured_error_ns": found.error_ns,
        "pairs": found.pairs, "contradictions": found.contradictions, "unseen": found.unseen}
    if found.ppb:
        facts |= {"drift_ppb": found.ppb, "drift_at_ns": zero_ns(reference) + found.middle_ns}
    return facts
