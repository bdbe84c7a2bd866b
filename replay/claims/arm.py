"""Claim 8: hotplug made conditional, so that an Arm dom0 is left with the balloon."""

from __future__ import annotations

from replay.base.units import human_bytes
from replay.claims.experiment import Claim, Column, Finding, Rows, Run
from replay.claims.loads import (
    BOARDS, COLLISIONS, FAILED, HOT_ADDED, MEAN, P99, RAM_MEAN, RAM_PEAK, SECTIONS_ADDED,
    SLOW_CALLS,
)  # fmt: skip

WITHOUT = ("balloon.memory_hotplug=no",)
HYPERCALL_COUNT = Column("hypercalls", "hypercalls")
REQUESTS = Column("requests", "requests")


def no_hotplug(rows: Rows) -> Finding:
    """What the balloon alone gives up and refuses, and whether it is safe."""
    alone = rows.of("balloon", settings=WITHOUT)
    failing = [r for r in alone if r[FAILED.name]]
    unsafe = [r for r in alone if r[COLLISIONS.name] or r[HOT_ADDED.name]]
    beside = rows.of("hotplug")
    outcome = (
        (f"balloon without hotplug: {alone.total(COLLISIONS.name):,.0f} collisions and nothing "
        f"hot-added over RAM of others on {len(alone) - len(unsafe)} of {len(alone)} (hotplug: "
        f"{beside.total(COLLISIONS.name):,.0f} collisions); "
        f"{alone.total(FAILED.name):,.0f} of {alone.total(REQUESTS.name):,.0f} requests refused"),
        "requests refused: " + ", ".join(
            f"{r.run.trace_name} on {r.run.physmap} {r[FAILED.name]:,.0f}" for r in alone),
        "own RAM given up at the peak: " + ", ".join(
            f"{r.run.trace_name} on {r.run.physmap} {human_bytes(r[RAM_PEAK.name])}"
            for r in alone),
        (f"hypercalls {alone.total(HYPERCALL_COUNT.name):,.0f}, slow calls "
         f"{alone.total(SLOW_CALLS.name):,.0f} "
        f"(hotplug: {beside.total(HYPERCALL_COUNT.name):,.0f} and "
        f"{beside.total(SLOW_CALLS.name):,.0f})"))
    if unsafe or len(failing) == len(alone):
        return Finding("refuted", outcome)
    if failing:
        return Finding("depends", outcome, "the memory of dom0: all is served only where what is "
                       "mapped at once fits into its free RAM")
    return Finding("supported", outcome)


NO_HOTPLUG = Claim(
    number=8, says="making hotplug conditional on Arm is enough: ballooned pages serve the callers",
    experiment="the recorded Arm load (with its exhaustion phase) and the recorded PVH load on "
               "four boards, IOMMU on; balloon without memory hotplug, beside hotplug",
    runs=(*(Run(t, ("balloon",), physmap=b, iommu="on", settings=WITHOUT, label="no hotplug")
            for t in ("arm64-dom0", "pvh-dom0") for b in BOARDS),
          *(Run(t, ("hotplug",), physmap=b, iommu="on")
            for t in ("arm64-dom0", "pvh-dom0") for b in BOARDS)),
    columns=(REQUESTS, FAILED, RAM_MEAN, RAM_PEAK, HYPERCALL_COUNT, SLOW_CALLS, MEAN, P99,
             COLLISIONS, HOT_ADDED, SECTIONS_ADDED),
    judge=no_hotplug,
    rule="refuted if the balloon without hotplug meets a 1:1 entry or hot-adds over RAM of others, "
         "or refuses requests of every stream; depends if it refuses some",
    caveats=(("a direct-mapped dom0 keeps the pages that it balloons out: the RAM given up is lost "
             "to dom0 and gained by nobody (guest_remove_page, xen/common/memory.c)"),
             "free RAM of the boards' dom0 is assumed to be three quarters (their presets say so)"))
