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
import pyarrow as pa

from replay.base.anomalies import Anomalies
from replay.base.errors import unknown_name
from replay.base.scratch import Growing, Scratch
from replay.importers.source.imported import Imported
from replay.importers.source.rows import Rows
from replay.importers.xen.events import KNOWN_EVENTS
from replay.physmap.model import Physmap
from replay.trace.schema import KINDS, SCHEMA

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


def without(part: Imported, keep: np.ndarray, scratch: Scratch) -> Imported:
    """The rows of a Xen trace that are kept, the others skipped by name."""
    rows = part.all_rows(scratch)
    gone = {name: flags.total() for name, flags in rows.kinds.items()
            if not keep[KINDS.index(name)]}
    total = sum(gone.values())
    if not total:
        return part
    stays = np.array([keep[KINDS.index(name)] for name in rows.texts["kind"]], np.bool_)
    made, ticks = Rows(scratch), Growing(scratch)
    made.texts = rows.texts
    for number, begin in enumerate(rows.begins):
        batch = rows.read(number)
        these = stays[batch["kind"].to_numpy()]
        made.append(batch.filter(pa.array(these)))
        if part.ticks is not None:
            ticks.append(part.ticks[begin : begin + len(these)][these])
        scratch.relax()
    skipped = Counter(part.accounting["skipped"]) + left_out(gone)
    anomalies = Anomalies(Counter(part.anomalies.counts))
    anomalies.count("events_skipped", total)
    account: dict[str, Any] = {
        **part.accounting, "imported": part.accounting["imported"] - total,
        "skipped": dict(sorted(skipped.items()))}
    return replace(part, table=SCHEMA.empty_table(), rows=made, anomalies=anomalies,
                   accounting=account, ticks=None if part.ticks is None else ticks.array)
