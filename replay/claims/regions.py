"""Claims 1 and 5: fewer additions of regions, and what it costs that they are never released."""

from __future__ import annotations

from replay.base.units import human_bytes
from replay.claims.experiment import Claim, Column, Finding, Rows, Run
from replay.claims.loads import (
    MOVING, PAGES_BACK, PAGES_OUT, RAM_MEAN, RECORDED_LOADS, SECTIONS_ADDED, SHIPPED, SLOW_CALLS,
    STRUCT_PAGES,
    listed,
)  # fmt: skip
from replay.engine.arrivals import ASAP

AS_FAST = "as fast as possible"
THREE = ("balloon", "hotplug", "pool")


def _moved(rows: Rows, column: str = "") -> int:
    return int(rows.total("pages out") + rows.total("pages back"))


def often(rows: Rows) -> Finding:
    """Sections against hotplug, pages moved in and out against the balloon."""
    pool = rows.of("pool")
    pairs = [(p, rows.beside(p, "hotplug"), rows.beside(p, "balloon")) for p in pool]
    column = SECTIONS_ADDED.name
    fewer = [p.run for p, h, _ in pairs if p[column] < h[column]]
    worse = [p.run for p, h, b in pairs if p[column] > h[column]
             or _moved(Rows((p,))) > _moved(Rows((b,)))]
    own = [run for run in fewer if run.trace in RECORDED_LOADS and not run.label]
    same = [p.run.trace_name for p, h, _ in pairs if p[column] == h[column]]
    outcome = (
        (f"sections: pool {pool.total(column):,.0f}, hotplug "
        f"{rows.of('hotplug').total(column):,.0f} over {len(pool)} streams"),
        f"as many as the pool, so not shown: {listed(same)}",
        "shown by: " + listed([" ".join((r.trace_name, r.label)).strip() for r in fewer]),
        (f"pages moved to Xen and back: balloon {_moved(rows.of('balloon')):,}, hotplug "
        f"{_moved(rows.of('hotplug')):,}, pool {_moved(pool):,}"))
    if worse:
        return Finding("refuted", outcome)
    if not fewer:
        return Finding("depends", outcome, "what it is held against: hotplug adds no more sections")
    if not own:
        return Finding("depends", outcome, "whether callers compete while a section is added "
                       "(against hotplug; against the balloon it holds on every stream)")
    return Finding("supported", outcome)


OFTEN = Claim(
    number=1, says="the pool avoids frequent additions and removals of regions",
    experiment="every shipped trace at its own times, the recorded PVH and Arm ones also as fast "
               "as possible, and a synthetic one with a moving target; balloon, hotplug, pool",
    runs=(*(Run(t, THREE) for t in SHIPPED),
          *(Run(t, THREE, loop=ASAP, label=AS_FAST) for t in ("pvh-dom0", "arm64-dom0")),
          Run(MOVING, THREE, label="target moves")),
    columns=(SECTIONS_ADDED, PAGES_OUT, PAGES_BACK, SLOW_CALLS, Column("hypercalls", "hypercalls")),
    judge=often,
    rule="refuted if on a stream the pool adds more sections than hotplug or moves more pages than "
         "the balloon; supported if hotplug adds more on a recording at its own times; else "
         "depends on what makes it add more",
    caveats=(("no strategy removes a section, hotplug neither: removals are shown by none; what "
              "the balloon moves to Xen and back are single pages"),))


def kept(rows: Rows) -> Finding:
    """Struct pages for ever against RAM given up, and slow calls avoided."""
    pairs = [(p, rows.beside(p, "balloon")) for p in rows.of("pool")]
    dearer = [p for p, b in pairs if p[STRUCT_PAGES.name] >= b[RAM_MEAN.name]]
    slower = [p for p, b in pairs if p[SLOW_CALLS.name] >= b[SLOW_CALLS.name]]
    avoided = sum(b[SLOW_CALLS.name] - p[SLOW_CALLS.name] for p, b in pairs)
    outcome = (
        "struct pages kept for ever against the RAM that the balloon gives up on average: "
        + ", ".join(f"{p.run.trace_name} {human_bytes(p[STRUCT_PAGES.name])} : "
                    f"{human_bytes(b[RAM_MEAN.name])}" for p, b in pairs),
        "held at the end per page live on average: " + ", ".join(
            f"{p['held, end'] / max(p['live, mean'], 1):.1f}" for p, _ in pairs),
        f"slow calls avoided: {avoided:,.0f}")
    if slower or len(dearer) == len(pairs):
        return Finding("refuted", outcome)
    if dearer:
        return Finding("depends", outcome, "how much is mapped (the buffer costs more than it "
                                           "saves "
                       "on " + listed([p.run.trace_name for p in dearer]) + ")")
    return Finding("supported", outcome)


NEVER_RELEASED = Claim(
    number=5, says="regions are never released: a buffer that costs little and saves slow paths",
    experiment="every shipped trace at its own times; balloon, pool",
    runs=tuple(Run(t, ("balloon", "pool")) for t in SHIPPED),
    columns=(STRUCT_PAGES, RAM_MEAN, SLOW_CALLS,
             Column("live, mean", "fragmentation.live_pages.mean"),
             Column("live, peak", "fragmentation.live_pages.peak"),
             Column("live, end", "fragmentation.live_pages.end"),
             Column("held, end", "fragmentation.held_pages.end"),
             Column("sections pinned, mean", "fragmentation.pinned_sections.mean", "number"),
             SECTIONS_ADDED),
    judge=kept,
    rule="refuted if on a trace the pool has no fewer slow calls than the balloon, or on all of "
         "them its struct pages take more memory than the RAM the balloon gives up on average; "
         "depends if they do on some",
    caveats=("the recordings are minutes long; a peak that is over is paid for until the reboot",))
