"""Claims 2 and 3: untangled from balloon and hotplug; an in-place replacement."""

from __future__ import annotations

from replay.base.units import human_bytes, human_ns
from replay.claims.experiment import Claim, Column, Finding, Row, Rows, Run
from replay.claims.loads import (
    FAILED, MAX, MEAN, MOVING, P99, PAGES_BACK, RAM_MEAN, RAM_PEAK, SHIPPED, SLOW_CALLS, STILL,
    listed,
)  # fmt: skip
from replay.engine.arrivals import CLOSED

WAIT = Column("wait, max", "wait_ns.max", "ns")
PASSES = Column("balloon thread passes", "tallies.thread_passes")
CALLERS_SEE = (FAILED.name, SLOW_CALLS.name, MEAN.name, P99.name, MAX.name, WAIT.name)
"""What the callers of the allocator notice."""

THREE = ("balloon", "hotplug", "pool")
FOUR = (*THREE, "hypervisor")


RECORDED_TARGET = "counted/target"
"""A recorded PV dom0 that maps pages while `xl mem-set` moves its target down and up."""


def _seen(row: Row) -> tuple[float, ...]:
    return tuple(row[name] for name in CALLERS_SEE)


def untangled(rows: Rows) -> Finding:
    """Whether callers notice that the target moves, by strategy."""
    moved = {r.strategy: r for r in rows.of(trace=MOVING)}
    still = {r.strategy: r for r in rows.of(trace=STILL)}
    noticed = [name for name in moved if _seen(moved[name]) != _seen(still[name])]
    outcome = (
        "callers notice the moving target with: " + listed(noticed),
        *(f"{name}: slow calls {still[name][SLOW_CALLS.name]:,.0f} -> "
          f"{moved[name][SLOW_CALLS.name]:,.0f}, "
          f"mean {human_ns(round(still[name][MEAN.name]))} -> "
          f"{human_ns(round(moved[name][MEAN.name]))}" for name in moved),
        "own RAM given up while the target stays: " + ", ".join(
            f"{name} {human_bytes(still[name][RAM_MEAN.name])}" for name in still),
        "balloon thread passes while it stays, on the callers' lock except the pool's: "
        + ", ".join(f"{name} {still[name][PASSES.name]:,.0f}" for name in still))
    real = {r.strategy: r for r in rows.of(trace=RECORDED_TARGET)}
    outcome += ("recorded, one task maps while the target moves; longest wait for the lock, p99: "
                + "; ".join(f"{name} {human_ns(round(row[WAIT.name]))}, "
                            f"{human_ns(round(row[P99.name]))}" for name, row in real.items()),)
    if "pool" in noticed or still["pool"][RAM_PEAK.name] or real["pool"][WAIT.name]:
        return Finding("refuted", outcome)
    if "balloon" in noticed and "hotplug" in noticed:
        return Finding("supported", outcome)
    if noticed:
        return Finding("depends", outcome, f"what it is untangled from: {listed(noticed)} alone is "
                       "entangled on this stream")
    return Finding("depends", outcome, "a stream on which balloon or hotplug are entangled at all")


UNTANGLED = Claim(
    number=2, says="it untangles foreign mappings from balloon and hotplug",
    experiment="SYNTHETIC: one stream of backends, alone and while xl mem-set moves the target; "
               "and a recorded PV dom0 whose target moves while one task maps",
    runs=(Run(STILL, THREE, label="target stays"), Run(MOVING, THREE, label="target moves"),
          Run(RECORDED_TARGET, THREE, loop=CLOSED, label="target moves")),
    columns=(RAM_MEAN, RAM_PEAK, FAILED, SLOW_CALLS, MEAN, P99, MAX, WAIT, PASSES, PAGES_BACK),
    judge=untangled,
    rule="refuted if the moving target changes what the pool's callers see (failures, slow calls, "
         "latency, waits), if the pool gives up RAM while the target stays, or if its only caller "
         "in the recording, which asks when its call before has returned, ever waits; supported if "
         "the target changes what the callers of balloon and hotplug see; depends if not of both",
    caveats=(("the recorded run is closed-loop: at its recorded times the one task would ask while "
              "it waits for its own section, and be charged with it (the rule would say refuted)"),
             ("the pool shares iomem_resource with the balloon thread; no collision of the two is "
              "in these streams"), "the recorded load maps by one task; its backends are not real"))


def in_place(rows: Rows) -> Finding:
    """The same calls on each trace for all strategies, and who refuses which."""
    calls: dict[str, set[tuple[float, ...]]] = {}
    for row in rows:
        calls.setdefault(row.run.trace_name, set()).add(
            (row["requests"], row["frees"], row["targets"]))
    differ = [name for name, seen in calls.items() if len(seen) > 1]
    refused = [r for r in rows if r[FAILED.name]]
    more = [r for r in rows.of("pool") if r[FAILED.name] > rows.beside(r, "balloon")[FAILED.name]]
    kinds = (("-ENOMEM", "-ENOMEM"), ("-EBUSY", "-EBUSY or -EINVAL"), ("waits", "waits for ever"))
    outcome = (
        (f"{sum(next(iter(s))[0] for s in calls.values()):,.0f} requests on {len(calls)} traces, "
         f"the same calls for all strategies; different on: {listed(differ)}"),
        "errno differs: " + ("; ".join(
            f"{r.run.trace_name} {r.strategy} " + ", ".join(
                f"{r[name]:,.0f} x {said}" for name, said in kinds if r[name])
            for r in refused) or "nowhere"))
    if differ:
        return Finding("refuted", outcome)
    if more:
        return Finding("depends", outcome, "whether callers stand the pool's errno ("
                       + listed([r.run.trace_name for r in more]) + ")")
    return Finding("supported", outcome)


IN_PLACE = Claim(
    number=3, says="same parameters: an in-place replacement for the callers",
    experiment="every shipped trace; the four strategies get one request stream",
    runs=tuple(Run(t, FOUR) for t in SHIPPED),
    columns=(Column("requests", "requests"), Column("frees", "frees"), Column("targets", "targets"),
             FAILED, Column("-ENOMEM", "hazards.out_of_memory"),
             Column("-EBUSY", "hazards.no_region"), Column("waits", "hazards.waits_without_end")),
    judge=in_place,
    rule="refuted if a strategy gets other calls than the rest; depends if the pool refuses more "
         "requests of a trace than the balloon that it replaces",
    caveats=("whether a caller handles an errno that it never got before is not replayed",))
