"""Claim 4: a PVH dom0 works better with the pool."""

from __future__ import annotations

from replay.base.units import human_bytes, human_ns
from replay.claims.experiment import Claim, Column, Finding, Row, Rows, Run
from replay.claims.loads import MAX, MEAN, P50, P99, RAM_MEAN, RAM_PEAK, listed

ENTRIES_BROKEN = Column("2 MiB entries broken", "fragmentation.superpages_broken.end")
WINDOW_FRAMES = Column("frames in device windows", "hazards.mmio_window")
LOWER_IS_BETTER = (RAM_MEAN.name, ENTRIES_BROKEN.name, P50.name, P99.name, MEAN.name, MAX.name)
THREE = ("balloon", "hotplug", "pool")


def _worse(pool: Row, balloon: Row) -> list[str]:
    return [name for name in LOWER_IS_BETTER if pool[name] > balloon[name]]


def better(rows: Rows) -> Finding:
    """RAM, entries left whole and latency against the balloon; and what is hit that was not."""
    pairs = [(p, rows.beside(p, "balloon")) for p in rows.of("pool")]
    worse = [name for p, b in pairs for name in _worse(p, b)]
    gains = [p for p, b in pairs if any(p[n] < b[n] for n in LOWER_IS_BETTER)]
    window = [p for p, b in pairs if p[WINDOW_FRAMES.name] > b[WINDOW_FRAMES.name]]
    outcome = tuple(
        f"{p.run.trace_name} on {p.machine}: balloon {human_bytes(b[RAM_MEAN.name])} of RAM given "
        f"on average, {b[ENTRIES_BROKEN.name]:,.0f} entries broken, mean "
        f"{human_ns(round(b[MEAN.name]))}; "
        f"pool {human_bytes(p[RAM_MEAN.name])}, {p[ENTRIES_BROKEN.name]:,.0f}, "
        f"{human_ns(round(p[MEAN.name]))}, and {p[WINDOW_FRAMES.name]:,.0f} frames inside device "
        "windows"
        for p, b in pairs)
    if worse or not gains:
        return Finding("refuted", (*outcome, f"worse: {listed(worse)}"))
    if window:
        return Finding("depends", outcome, "whether a device comes to lie in the window that the "
                       "first section is taken from; RAM, entries and latency are better")
    return Finding("supported", outcome)


BETTER = Claim(
    number=4, says="a PVH dom0 works (slightly) better with it",
    experiment="the recorded PVH dom0 on its own machine and on a laptop's map, and the synthetic "
               "mix; balloon, hotplug, pool",
    runs=(Run("pvh-dom0", THREE), Run("pvh-dom0", THREE, physmap="x86-laptop-pvh"),
          Run("synthetic-mixed", THREE)),
    columns=(RAM_MEAN, RAM_PEAK, ENTRIES_BROKEN, P50, P99, MEAN, MAX, WINDOW_FRAMES),
    judge=better,
    rule="refuted if RAM given up (mean), 2 MiB entries broken, or latency (p50, p99, mean, max) "
         "is worse than the balloon's on a machine, or none better; depends if all are as good or "
         "better, but frames lie in device windows where the balloon's do not",
    caveats=(("latencies are modelled with costs that are mostly assumed: `replay sensitivity "
              "traces/pvh-dom0.arrow` moves them across their ranges"),
             ("the pool's longest call adds a section, and nearly all of it is the assumed wait "
              "for RCU (grace_period: 18 ms, 8 to 200); of RAM, entries, p50, p99 and mean the "
              "pool has less")))
