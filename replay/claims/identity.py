"""Claims 6 and 7: on Arm, scratch regions and the 1:1 entries of granted pages."""

from __future__ import annotations

from replay.claims.experiment import Claim, Column, Finding, Rows, Run
from replay.claims.loads import (
    ASSUMED_FRAMES, BOARDS, COLLISIONS, FAILED, HOT_ADDED, OTHERS_RAM, SECTIONS_ADDED, listed,
)  # fmt: skip

TWO = ("pool", "hotplug")
RECORDINGS = ("arm64-dom0", "pvh-dom0")
ASSUMED = Column("of these, frame assumed", "collisions_assumed")
GRANTS = Column("batches of grants", "events.grant_map")
FOREIGN = Column("batches of foreign maps", "events.foreign_map")


def _by_board(rows: Rows) -> str:
    return ", ".join(f"{board} {rows.of(physmap=board).total(COLLISIONS.name):,.0f}"
                     for board in BOARDS)


def hit(rows: Rows) -> Finding:
    """On which boards, with the IOMMU on and off, either strategy's frames meet 1:1 entries."""
    on, off = rows.of(iommu="on"), rows.of(iommu="off")
    hit_on = [b for b in BOARDS if on.of("pool", physmap=b).total(COLLISIONS.name)]
    spared = [b for b in BOARDS if b not in hit_on]
    hit_off = [b for b in BOARDS if off.of(physmap=b).total(COLLISIONS.name)]
    one = rows.of(trace=RECORDINGS[0])[0]
    outcome = (
        (f"collisions on four boards, IOMMU on: pool {on.of('pool').total(COLLISIONS.name):,.0f}, "
         f"hotplug {on.of('hotplug').total(COLLISIONS.name):,.0f}; "
         f"off: {off.total(COLLISIONS.name):,.0f}"),
        f"IOMMU on, pool: {_by_board(on.of('pool'))}",
        f"IOMMU on, hotplug: {_by_board(on.of('hotplug'))}",
        (f"only grants get a 1:1 entry: {one[GRANTS.name]:,.0f} batches of grants and "
        f"{one[FOREIGN.name]:,.0f} of foreign maps in {RECORDINGS[0]}"),
        ("what breaks: Arm replaces the entry without a word; the caller, or a device by DMA, "
        "reads and writes the wrong page"))
    if not hit_on:
        return Finding("refuted", outcome)
    needs = ["the IOMMU (no collision without)"] if not hit_off else []
    needs += [f"the board (none on {listed(spared)})"] if spared else []
    if needs:
        return Finding("depends", outcome, " and ".join(needs))
    return Finding("supported", outcome)


HIT = Claim(
    number=6, says="on Arm a region from iomem_resource can be hit by the 1:1 mapping of a foreign "
                   "page; hotplug may have that already",
    experiment="the recorded Arm and PVH dom0 loads on four direct-mapped boards, IOMMU on and "
               "off; pool, hotplug",
    runs=tuple(Run(t, TWO, physmap=b, iommu=i) for t in RECORDINGS for b in BOARDS
               for i in ("on", "off")),
    columns=(COLLISIONS, ASSUMED, OTHERS_RAM, HOT_ADDED, SECTIONS_ADDED, GRANTS, FOREIGN),
    judge=hit,
    rule="refuted if the pool meets no 1:1 entry on any board with the IOMMU on; supported if on "
         "every board and also with it off; else depends on what decides",
    caveats=(ASSUMED_FRAMES,
             ("Xen makes 1:1 entries for grants only (map_grant_ref), not for foreign maps: "
              "narrower than the mail thread's words; dom0's grants to itself get none either"),
             "Linux never used iomem_resource for the pool on Arm",
             "Ampere Altra is left out: where its dom0 and its RAM end is not known"))


def subtracted(rows: Rows) -> Finding:
    """Collisions with nothing, the known and all RAM taken out of the resource tree."""
    two = Rows(r for r in rows if r.strategy in TWO)
    none, known, every = (two.of(subtract_ram=s) for s in (None, "known", "all"))
    at = {name: part.total(COLLISIONS.name) for name, part in
          (("nothing", none), ("known RAM", known), ("all RAM", every))}
    lost = [r for r in rows.of("hypervisor") if r[FAILED.name] == r["requests"]]
    outcome = (
        "collisions, pool and hotplug on four boards: " + ", ".join(
            f"{name} subtracted {count:,.0f}" for name, count in at.items()),
        (f"requests refused with all RAM subtracted: {every.total(FAILED.name):,.0f} of "
        f"{every.total('requests'):,.0f}"),
        "regions that Xen names without an IOMMU are RAM of others: with all RAM subtracted the "
        "hypervisor strategy serves nothing on " + listed([r.run.physmap or "" for r in lost]))
    if at["all RAM"] or not at["nothing"]:
        return Finding("refuted", outcome)
    if at["known RAM"]:
        return Finding("depends", outcome, "knowing all RAM of the host, which an "
                       "Arm dom0 does not")
    return Finding("supported", outcome)


SUBTRACTING = Claim(
    number=7, says="subtracting all RAM from iomem_resource makes pool and hotplug safe",
    experiment="the recorded Arm load, IOMMU on, four boards, with nothing, the RAM that dom0 "
               "knows and all RAM of the host subtracted; pool, hotplug",
    runs=(*(Run("arm64-dom0", TWO, physmap=b, iommu="on", subtract_ram=s)
            for s in (None, "known", "all") for b in BOARDS),
          *(Run("arm64-dom0", ("hypervisor",), physmap=b, iommu="off", subtract_ram="all")
            for b in ("qemu-virt-arm64", "rk3399"))),
    columns=(COLLISIONS, OTHERS_RAM, HOT_ADDED, FAILED, Column("requests", "requests"),
             SECTIONS_ADDED),
    judge=subtracted,
    rule="refuted if collisions are left with all RAM subtracted, or there were none before; "
         "supported if what dom0 knows is enough; else depends on the rest being known",
    caveats=(ASSUMED_FRAMES,
             ("modelled as busy children of iomem_resource over each range of RAM that has none; "
             "known: dom0's own RAM and what its tree calls RAM; all: also RAM of other domains "
             "and of Xen, a counterfactual on Arm"),
             ("RAM that joins the host later, and the frames of grants already seen, are not "
             "modelled")))
