"""Which rows of a Xen trace are kept: all, or those alone that a replay uses.

A replay asks for what Linux's allocators were asked for, which Xen does not record. It looks at
Xen's records where pages of other domains get 1:1 entries, which is on a direct-mapped dom0
(metrics/identity.py). Records that Xen lost are kept in any case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from replay.base.anomalies import Anomalies
from replay.base.errors import unknown_name
from replay.importers.source.imported import Imported
from replay.importers.xen.events import KNOWN_EVENTS
from replay.physmap.model import Physmap
from replay.trace.columns import encoded, is_kind
from replay.trace.schema import KINDS

KEEPS: Final = ("all", "calls")
LOSSES, IDENTITIES = ("lost",), ("grant_map", "grant_unmap")


def kept(settings: Mapping[str, str], machine: Physmap | None) -> np.ndarray:
    """By number of a kind, whether its rows are kept. ReplayError for another way to choose.

    settings: of the import, of which `keep` is one of KEEPS.
    """
    way = settings.get("keep", "all")
    if way not in KEEPS:
        raise unknown_name("way to choose rows, --keep", way, list(KEEPS))
    direct = machine is not None and machine.direct_mapped
    wanted = (*LOSSES, *(IDENTITIES if direct else ()))
    return np.array([way == "all" or name in wanted for name in KINDS])


def events_of(keep: np.ndarray) -> np.ndarray:
    """The table of events, those marked that make rows which are not kept."""
    events = KNOWN_EVENTS.copy()
    events["left_out"] = ~keep[events["kind"]]
    return events


def left_out(counts: Mapping[str, int]) -> Counter[str]:
    """Rows by kind that are not kept, as the account calls them."""
    return Counter({f"{name} (not kept)": count for name, count in counts.items() if count})


def without(part: Imported, keep: np.ndarray) -> Imported:
    """The rows of a Xen trace that are kept, the others skipped by name."""
    codes, names = encoded(part.table, "kind")
    gone = {name: int(count) for name, count in zip(
        names, np.bincount(codes, minlength=len(names)), strict=True)
        if name and not keep[KINDS.index(name)]}
    total = sum(gone.values())
    if not total:
        return part
    stays = is_kind(part.table, *(name for name, its in zip(KINDS, keep, strict=True) if its))
    skipped = Counter(part.accounting["skipped"]) + left_out(gone)
    anomalies = Anomalies(Counter(part.anomalies.counts))
    anomalies.count("events_skipped", total)
    account: dict[str, Any] = {
        **part.accounting, "imported": part.accounting["imported"] - total,
        "skipped": dict(sorted(skipped.items()))}
    return replace(part, table=part.table.filter(stays), anomalies=anomalies, accounting=account,
                   ticks=None if part.ticks is None else part.ticks[stays])
