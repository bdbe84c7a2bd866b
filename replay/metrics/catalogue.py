"""The figures of a summary that runs are compared by: what each is, and how it is computed.

An entry of this list is all that a metric takes: the summary, the terminal's tables, `compare`, the
reports and the gate all read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from replay.engine.state import SECTION_SEED
from replay.metrics.hazards import Hazard, by_severity
from replay.metrics.measured import Measured

Better = Literal["lower", "higher", ""]
Unit = Literal["ns", "pages", "bytes", "count", "share", "ratio", ""]


@dataclass(frozen=True)
class Metric:
    """One figure of one strategy's part of `summary.json`.

    path: where it stands there. unit: ns (modelled time), pages, bytes, count, share (0 to 1) or
    ratio; empty for what is no number. better: which way is an improvement; empty where neither is.
    what: one sentence. compute: its value in a replay, None where it has none. in_tables: whether
    the terminal gives it a row; not where another table has the same number. first: whether it has
    a row in the short table of `replay run`.
    """

    path: tuple[str, ...]
    label: str
    unit: Unit
    better: Better
    what: str
    compute: Callable[[Measured], Any]
    in_tables: bool = True
    first: bool = False

    @property
    def name(self) -> str:
        """The path with dots, as gate.toml and tables of metrics write it."""
        return ".".join(self.path)

    def of(self, figures: Mapping[str, Any]) -> float | None:
        """The value in one strategy's figures; None where it has none."""
        found: Any = figures
        for step in self.path:
            found = found[step]
        return found

    def put(self, figures: dict[str, Any], m: Measured) -> None:
        """Compute the value and put it where it stands."""
        at = figures
        for step in self.path[:-1]:
            at = at.setdefault(step, {})
        at[self.path[-1]] = self.compute(m)


_RANKS = (("p50", "50 %"), ("p90", "90 %"), ("p99", "99 %"), ("p99_9", "99.9 %"),
          ("p99_99", "99.99 %"))


def _latency(part: str, name: str, label: str, what: str, unit: Unit = "ns", *,
             first: bool = False) -> Metric:
    """One figure of a distribution; a histogram gives all of its figures at once."""
    return Metric((part, name), label, unit, "lower", what, lambda m: m.latency[part][name],
                  first=first)


LATENCY_METRICS = (
    Metric(("requests",), "requests", "count", "", "allocations asked for",
           lambda m: int(m.tally.totals.allocations)),
    Metric(("failed",), "failed", "count", "lower", "allocations that got no pages",
           lambda m: int(m.tally.totals.failed), first=True),
    *(_latency("latency_ns", name, name.replace("_", "."),
               f"{share} of the allocations took at most this long",
               first=name in ("p50", "p99", "p99_9")) for name, share in _RANKS),
    _latency("latency_ns", "max", "max", "the longest allocation, exact", first=True),
    _latency("latency_ns", "mean", "mean", "arithmetic mean over allocations, exact", first=True),
    _latency("wait_ns", "p99", "waiting for the lock, p99",
             "99 % of the allocations waited at most this long"),
    _latency("wait_ns", "max", "waiting for the lock, max", "the longest wait", first=True),
    _latency("service_ns", "p99", "in the lock, p99",
             "99 % of the allocations held it this long at most"),
    _latency("slow", "share", "slow path, share of calls",
             "allocations that did more than take pages off a list", "share", first=True),
    _latency("slow", "p50", "slow path, p50", "median of the allocations off the fast path"),
    _latency("slow", "p99", "slow path, p99",
             "99th percentile of the allocations off the fast path"),
    _latency("free_latency_ns", "p50", "free, p50", "median of the frees"),
    _latency("free_latency_ns", "p99", "free, p99", "99th percentile of the frees", first=True),
)


def _gauge(name: str, part: str, label: str, unit: Unit, better: Better, what: str, *,
           first: bool = False) -> Metric:
    """part: end, peak, or mean: exact over modelled time, integrated at each change."""
    return Metric(("fragmentation", name, part), f"{label}, {part}", unit, better, what,
                  lambda m: m.gauges[name][part], first=first)


UNUSABLE = "share of the free frames outside wholly free 2 MiB blocks"
_RUNS = "runs of neighbouring frames that one request gets"

MEMORY_METRICS = (
    _gauge("live_pages", "mean", "live pages", "pages", "", "pages that callers hold"),
    _gauge("live_pages", "peak", "live pages", "pages", "", "pages that callers hold",
           first=True),
    _gauge("idle_pages", "mean", "listed, unused pages", "pages", "lower", "held - live"),
    _gauge("held_pages", "peak", "held (live + listed)", "pages", "lower",
           "address space taken, in pages", first=True),
    Metric(("high_water_ratio",), "held peak / live mean", "ratio", "lower",
           "most pages held against the mean of those in use",
           lambda m: m.singles["high_water_ratio"]),
    _gauge("unusable_free_index", "mean", "unusable free index", "share", "lower", UNUSABLE,
           first=True),
    _gauge("unusable_free_index", "end", "unusable free index", "share", "lower", UNUSABLE),
    _gauge("largest_free_run", "mean", "largest free run", "share", "higher",
           "longest run of wholly free 2 MiB blocks / free frames"),
    _gauge("runs_per_request", "mean", "runs per request", "ratio", "lower", _RUNS,
           first=True),
    _gauge("runs_per_request", "peak", "runs per request", "count", "lower", _RUNS),
    Metric(("nr_sections",), "sections added", "count", "lower",
           "memory sections added, without what the list was seeded with at boot",
           lambda m: int((m.ended.sections["kind"] != SECTION_SEED).sum()), first=True),
    _gauge("added_pages", "end", "pages of sections", "pages", "lower", "pages of sections added"),
    _gauge("section_use", "mean", "use of added sections", "share", "higher",
           "live / added pages", first=True),
    _gauge("pinned_section_use", "mean", "use of pinned sections", "share", "higher",
           "live pages / pages of the sections they pin"),
    _gauge("pinned_sections", "peak", "sections pinned", "count", "lower",
           "sections with at least one live page"),
    _gauge("memmap_overhead_bytes", "end", "struct pages", "bytes", "lower",
           "64 bytes per page of added sections", first=True),
    _gauge("ram_given_bytes", "mean", "own RAM given up", "bytes", "lower",
           "own RAM ballooned out to make room"),
    _gauge("ram_given_bytes", "peak", "own RAM given up", "bytes", "lower",
           "own RAM ballooned out to make room", first=True),
    _gauge("superpages_broken", "end", "superpages broken", "count", "lower",
           "2 MiB stage-2 entries of own RAM broken up; nothing mends them", first=True),
)

WORK_METRICS = (
    Metric(("hypercalls",), "hypercalls", "count", "lower",
           "hypercalls of requests and background passes", lambda m: m.work["hypercall"],
           in_tables=False),
)


def _hazard(one: Hazard) -> Metric:
    return Metric(("hazards", one.name), one.label, "count", "lower", one.means,
                  lambda m: m.hazards[0][one.name])


def families() -> dict[str, tuple[Metric, ...]]:
    """All of them. Times are modelled; everything else is the model's exact result."""
    return {"latency": LATENCY_METRICS, "memory": MEMORY_METRICS,
            "hazards": tuple(map(_hazard, by_severity())), "work": WORK_METRICS}


def catalogue() -> tuple[Metric, ...]:
    """Every metric, family by family."""
    return tuple(metric for family in families().values() for metric in family)


FRAMES = Metric(("frames_digest",), "frames handed out, in order", "", "",
                "SHA-256 over all frames that were handed out; `ignore` is the only tolerance",
                lambda m: m.folded.digest.hexdigest())
"""What the gate compares beside the catalogue: no number."""
