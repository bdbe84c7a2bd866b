"""Claim 9: only the hypervisor can know: static regions, and asking at run time."""

from __future__ import annotations

from replay.base.units import human_bytes
from replay.claims.experiment import Claim, Column, Finding, Rows, Run
from replay.claims.loads import (
    ASSUMED_FRAMES, BOARDS, COLLISIONS, FAILED, OTHERS_RAM, SECTIONS_ADDED, STRUCT_PAGES, listed,
)  # fmt: skip
from replay.physmap import presets

QUERY, RACE = ("hypervisor.mode=query",), ("hypervisor.mode=query", "hypervisor.stale_every=2")
STALE = Column("pages from stale answers", "hazards.stale_region_pages")
NAMED = Column("named by Xen", "run.advertised.bytes_2mib", "bytes")
LOST_BYTES = Column("lost to sections", "run.advertised.unusable_bytes", "bytes")
OURS, OTHER_BOOT = "regions of this setting", "regions of a boot without IOMMU"


def _label(board: str) -> str:
    """Whether Xen named a preset's regions with the IOMMU on, as these runs have it."""
    return OURS if presets.load(board).iommu else OTHER_BOOT


def knows(rows: Rows) -> Finding:
    """Where regions and queries avoid what the pool hits, and where not."""
    static = rows.of("hypervisor", settings=())
    safe, other = static.of(label=OURS), static.of(label=OTHER_BOOT)
    asked, raced = rows.of(settings=QUERY), rows.of(settings=RACE)
    same = rows.of("pool", label=OURS)
    at = {name: part.total(COLLISIONS.name) for name, part in (
        ("static regions", safe), ("pool on the same boards", same), ("run-time query", asked),
        ("pool on all boards", rows.of("pool")))}
    outcome = (
        "collisions, IOMMU on: " + ", ".join(f"{n} {c:,.0f}" for n, c in at.items()),
        "regions that Xen named without an IOMMU, used with it: "
        f"{other.total(COLLISIONS.name):,.0f} collisions ("
        + listed([r.run.physmap or "" for r in other]) + ")",
        f"query, every second answer out of date: {raced.total(STALE.name):,.0f} pages",
        "named at 2 MiB grain, lost to whole sections: " + ", ".join(
            f"{r.run.physmap} {human_bytes(r[LOST_BYTES.name])} of {human_bytes(r[NAMED.name])}"
            for r in static))
    if at["static regions"] or at["run-time query"] or not at["pool on the same boards"]:
        return Finding("refuted", outcome)
    needs = ["regions named for this IOMMU setting"] if other.total(COLLISIONS.name) else []
    needs += ["a query's answer still holding when it is used"] if raced.total(STALE.name) else []
    if needs:
        return Finding("depends", outcome, " and ".join(needs))
    return Finding("supported", outcome)


KNOWS = Claim(
    number=9, says="only the hypervisor can know: static regions, or a query at run time",
    experiment="the recorded Arm load on four boards, IOMMU on: pool, static regions, run-time "
               "query with and without out-of-date answers",
    runs=(*(Run("arm64-dom0", ("pool", "hypervisor"), physmap=b, iommu="on", label=_label(b))
            for b in BOARDS),
          *(Run("arm64-dom0", ("hypervisor",), physmap=b, iommu="on", settings=s, label=label)
            for s, label in ((QUERY, "query"), (RACE, "query, every 2nd answer stale"))
            for b in BOARDS)),
    columns=(COLLISIONS, OTHERS_RAM, STALE, FAILED, SECTIONS_ADDED, STRUCT_PAGES, NAMED,
             LOST_BYTES),
    judge=knows,
    rule="refuted if regions named for this setting, or query answers, meet 1:1 entries, or the "
         "pool meets none on the same boards; depends if regions of another boot do, or "
         "out-of-date answers are used",
    caveats=(ASSUMED_FRAMES,
             ("the query was rejected and no kernel has it; how often an answer is out of date is "
             "assumed, no data exists. Who takes a range between answer and use (a BAR, hotplugged "
             "RAM, another mapping of dom0) is outside the model: it can only count the pages"),
             "what Xen knows is taken to be the preset's host map"))
