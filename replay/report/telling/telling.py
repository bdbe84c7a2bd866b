"""What every form of a report says of a run, as data: verdict, warnings, hazards, notes.

Made from the summary alone (metrics.summary), so that a run read from a folder says the same as one
in memory. Terminal, page, Markdown, CSV, JUnit and gate draw it; none of them words anything anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from replay.base.units import human_bytes
from replay.costs.primitives import ARCHITECTURES
from replay.metrics.catalogue import UNUSABLE
from replay.metrics.hazards import HAZARDS, by_severity
from replay.report.telling.escapes import plain
from replay.report.telling.tables import duration, missing
from replay.report.telling.verdict import verdict

FEW_SAMPLES = 10
"""A percentile with fewer samples above it is said to rest on few."""

TAILS = (("p99.9", "p99_9"), ("p99.99", "p99_99"))
"""Percentiles of which the samples above are counted: as shown, and their key in the summary."""


@dataclass(frozen=True)
class Kind:
    """A kind of warning. label: how every form titles it. when: for the documentation.
    fails: the command that made the run exits with 1."""

    label: str
    when: str
    fails: bool = False


WARNING_KINDS = {
    "broken_invariant": Kind("BROKEN INVARIANT", "a strategy's state contradicts itself", True),
    "failed_allocator": Kind("FAILED", "C code crashed, hung or broke the contract", True),
    "data_loss": Kind("DATA LOSS", "the recording lacks records"),
    "synthetic": Kind("SYNTHETIC", "the workload is generated"),
    "emulated": Kind("EMULATED", "recorded times are not of hardware"),
    "other_machine": Kind("OTHER MACHINE", "replayed on a machine other than the recorded one"),
    "partial_start": Kind("BEGAN ANEW", "what the recording began with is taken over in part"),
    "rescaled": Kind("OTHER PAGES", "requests were made in pages of another size"),
    "assumed_machine": Kind("ASSUMED FACTS", "facts of the machine that no file told"),
    "fitted_elsewhere": Kind("COSTS", "costs calibrated on another kind of machine"),
    "fitted_under_emulation": Kind("COSTS", "costs calibrated on what an emulator recorded"),
    "other_architecture": Kind("COSTS", "a cost profile of another architecture"),
    "assumed_costs": Kind("ASSUMED COSTS", "constants that nobody measured"),
    "assumed_frames": Kind("ASSUMED FRAMES", "machine frames of grants are not recorded"),
    "no_collisions": Kind("NO COLLISIONS", "the machine makes no 1:1 entries"),
    "failed_requests": Kind("FAILED REQUESTS", "allocations that got no pages"),
    "few_samples": Kind("FEW SAMPLES", "percentiles that rest on few calls"),
}
"""Every warning that a run can give, the gravest first."""


@dataclass(frozen=True)
class Warned:
    """One warning. strategy: whose, else empty: it concerns all figures."""

    kind: str
    text: str
    strategy: str = ""

    @property
    def label(self) -> str:
        """How every form titles it."""
        return WARNING_KINDS[self.kind].label

    @property
    def fails(self) -> bool:
        """Whether the command that made the run exits with 1."""
        return WARNING_KINDS[self.kind].fails

    @property
    def said(self) -> str:
        """Whose it is, and the sentence."""
        return f"{self.strategy}: {self.text}" if self.strategy else self.text

    def concerns(self, strategy: str) -> bool:
        """Whether it bears on a strategy's figures."""
        return self.strategy in ("", strategy)

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {**asdict(self), "label": self.label}


@dataclass(frozen=True)
class Met:
    """A hazard that was met. counts, examples: by strategy; an example is empty where none is."""

    kind: str
    means: str
    counts: dict[str, int]
    examples: dict[str, str]

    @property
    def name(self) -> str:
        """For a reader."""
        return plain(self.kind).replace("_", " ")

    def of(self, strategy: str) -> str:
        """What it means, with an example of a strategy's."""
        example = self.examples[strategy]
        return self.means + (f". Here: {example}" if example else "")


@dataclass(frozen=True)
class Note:
    """A remark. about: latency, memory or strategies."""

    about: str
    text: str


@dataclass(frozen=True)
class Told:
    """All that is said of a run, harmless to print; a form escapes what it takes for more than
    text. verdict: what came out, in a few sentences. clear: names of hazards that were not met.
    failures: what makes the run fail, for the end of a long text.
    """

    verdict: tuple[str, ...]
    header: tuple[tuple[str, str], ...]
    warnings: tuple[Warned, ...]
    hazards: tuple[Met, ...]
    clear: tuple[str, ...]
    notes: tuple[Note, ...]
    failures: tuple[str, ...]

    def about(self, what: str) -> list[str]:
        """The notes about one thing."""
        return [note.text for note in self.notes if note.about == what]


Strategies = Mapping[str, Mapping[str, Any]]


def told(summary: Mapping[str, Any]) -> Told:
    """What every form says of this summary."""
    run = summary["run"]
    chosen = {name: summary["allocators"][name] for name in summary["order"]}
    found = warnings(run, chosen, summary.get("failed_allocators", {}))
    return Told(
        verdict(run, chosen), tuple(_header(run)), found, tuple(_hazards(chosen)),
        tuple(_clear(run, chosen)), tuple(_notes(chosen)),
        tuple(f"{w.label}, {w.said}" for w in found if w.fails))


def warnings(run: Mapping[str, Any], chosen: Strategies,
             failed: Mapping[str, str]) -> tuple[Warned, ...]:
    """The warnings, in the order of WARNING_KINDS."""
    made = [*_of_run(run), *_of_strategies(run, chosen)]
    made += [Warned("failed_allocator", f"not in the tables: {plain(sentence)}")
             for sentence in failed.values()]
    order = list(WARNING_KINDS)
    return tuple(sorted(made, key=lambda w: order.index(w.kind)))


def of_header(run: Mapping[str, Any]) -> tuple[Warned, ...]:
    """The warnings that a summary's header alone gives: for what replays, but reports no run."""
    return tuple(_of_run(run))


def of_recording(about: Mapping[str, Any]) -> tuple[Warned, ...]:
    """What a recording alone gives (metrics.summary.about_recording): for what is held against it.
    """
    return tuple(_of_trace(about))


def of_times(about: Mapping[str, Any]) -> tuple[Warned, ...]:
    """The same, and what the costs give, for modelled times held against recorded ones; about: also
    metrics.summary.about_costs, arch and dom0_mode."""
    return (*_of_trace(about), *_of_costs(about))


def _of_trace(run: Mapping[str, Any]) -> Iterator[Warned]:
    if lost := missing(run["records_lost"], run["sources_cut"], run.get("trace_cut", ""),
                       unknown=run.get("losses_unknown", 0)):
        yield Warned("data_loss", f"{lost}; all figures suffer from it")
    if run["synthetic"]:
        yield Warned("synthetic", "a generated workload, no recording")
    elif run["recorded_times"] != "as recorded":
        yield Warned("emulated", f"RECORDED times: {plain(run['recorded_times'])}")
    if "rescaled" in run:
        yield Warned("rescaled", f"{plain(run['rescaled'])}")
    if assumed := ", ".join(plain(fact) for fact in run.get("assumed", ())):
        yield Warned("assumed_machine", f"no file tells, so these stand for it: {assumed}")


def _of_run(run: Mapping[str, Any]) -> Iterator[Warned]:
    yield from _of_trace(run)
    if not run["physmap_of_trace"]:
        yield Warned("other_machine", "NOT the machine of the recording")
        if "start" in run:
            yield Warned("partial_start", "on this other machine only the pages that callers held "
                         "are taken over from the recording")
    yield from _of_costs(run)


def _of_costs(run: Mapping[str, Any]) -> Iterator[Warned]:
    fitted = run.get("profile_fitted_on")
    known = run["arch"]  # of a recording without its machine it is empty
    if known and fitted and (fitted["arch"], fitted["dom0_mode"]) != (known, run["dom0_mode"]):
        yield Warned("fitted_elsewhere", "FITTED ON ANOTHER KIND OF MACHINE "
                     f"({plain(fitted['arch'])}, {plain(fitted['dom0_mode'])})")
    if fitted and fitted.get("emulated"):
        yield Warned("fitted_under_emulation", "fitted to times of an EMULATOR "
                     f"({plain(fitted['emulated'])}): they say nothing of hardware")
    if known and not fitted and run["profile"] in ARCHITECTURES and run["profile"] != known:
        yield Warned("other_architecture", f"profile of ANOTHER ARCHITECTURE ({run['profile']}, "
                     f"the machine is {plain(known)})")
    if run["profile_assumed"]:
        yield Warned("assumed_costs", f"{run['profile_assumed']} of {run['profile_constants']} "
                     "constants assumed")


def _of_strategies(run: Mapping[str, Any], chosen: Strategies) -> Iterator[Warned]:
    if any(data["collisions_assumed"] for data in chosen.values()):
        yield Warned("assumed_frames", "identity collisions: the recording lacks the machine "
                     "frames of its grants, so they are ASSUMED, spread over the RAM of others")
    if not HAZARDS["identity_collision"].possible(run):
        yield Warned("no_collisions", "identity collisions cannot happen on this machine: Xen "
                     "makes 1:1 entries only for a direct-mapped domain behind an IOMMU")
    for name, data in chosen.items():
        for broken in data["broken_invariants"]:
            yield Warned("broken_invariant", plain(broken), plain(name))
        if data["failed"]:
            yield Warned("failed_requests", f"failed {data['failed']:,} of {data['requests']:,} "
                         "requests: its figures are of those it served", plain(name))
    few = [f"above {label}: {_span(above)}" for label, above in _above(chosen)
           if min(above) < FEW_SAMPLES]
    if few:
        yield Warned("few_samples",
                     f"samples {', '.join(few)}; fewer than {FEW_SAMPLES} say little")


def _above(chosen: Strategies) -> list[tuple[str, list[int]]]:
    """Samples above each of TAILS, of all strategies."""
    return [(label, [int(data["latency_ns"]["above"].get(key, 0)) for data in chosen.values()])
            for label, key in TAILS]


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" + (f" to {high:,}" if high > low else "")


# -- header ----------------------------------------------------------------------------------------
def _header(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Trace", plain(run["trace"])
    yield "Mode", plain(run["mode"])
    yield "Machine", _machine(run)
    yield "Costs", f"{plain(run['profile'])}: {plain(run['profile_summary'])}"
    yield "Times", ("all MODELLED (work counts x costs + waiting), never measured; "
                    f"{duration(run['modelled_span_ns'])} in all")
    if run["synthetic"]:
        yield "Recorded", "nothing"
    else:
        yield "Recorded", (f"Linux {plain(run['kernel']) or 'unknown'}, Xen "
                           f"{plain(run['xen_version']) or 'unknown'}, allocator "
                           f"{plain(run['recorded_strategy']) or 'not known'}")
    if "start" in run:
        began = "; ".join(plain(sentence) for sentence in run["start"])
        yield "Began with", (f"{began or 'pages held by callers'}. How each allocator takes it "
                             "over stands in the notes")
    yield "Version", f"replay {plain(run['replay_version'])}"


def _machine(run: Mapping[str, Any]) -> str:
    text = (f"{plain(run['physmap'])}: {plain(run['arch'])} "
            f"{plain(run.get('domain', 'dom0'))} ({plain(run['dom0_mode'])}), "
            f"{human_bytes(run['page_bytes'])} pages, "
            f"{human_bytes(run['section_bytes'])} sections, "
            f"{'direct-mapped' if run['direct_mapped'] else 'not direct-mapped'}, "
            f"IOMMU {'on' if run['iommu'] else 'off'}")
    regions = run["advertised"]
    if not regions["bytes"]:
        return text
    return (f"{text}; extended regions {human_bytes(regions['bytes'])}, of which Linux can use "
            f"{human_bytes(regions['usable_bytes'])} in whole sections")


# -- hazards and notes -----------------------------------------------------------------------------
def _hazards(chosen: Strategies) -> Iterator[Met]:
    means = dict.fromkeys((k for d in chosen.values() for k in d["hazards"] if k not in HAZARDS),
                          "not known to this version")
    for kind, text in ({one.name: one.means for one in by_severity()} | means).items():
        counts = {plain(name): int(data["hazards"].get(kind, 0)) for name, data in chosen.items()}
        if any(counts.values()):
            yield Met(kind, text, counts, {
                plain(name): next((plain(e["what"]) for e in data["hazard_examples"]
                                   if e["kind"] == kind), "")
                for name, data in chosen.items()})


def _clear(run: Mapping[str, Any], chosen: Strategies) -> list[str]:
    """Hazards that could have been met and were not."""
    return [one.label for one in by_severity()
            if one.possible(run) and not any(d["hazards"].get(one.name) for d in chosen.values())]


def _notes(chosen: Strategies) -> Iterator[Note]:
    yield Note("latency", "percentiles: nearest rank, from buckets 0.1 % wide; max and mean are "
               "exact")
    if rough := [plain(name) for name, data in chosen.items() if "latency_by_error" in data]:
        yield Note("latency", f"by caller, size and path likewise, of {', '.join(rough)}: too many "
                   "distinct latencies to keep each; else these are exact")
    for label, above in _above(chosen):
        yield Note("latency", f"samples above {label}: {_span(above)}")
    yield Note("memory", "means are exact over modelled time: each gauge is integrated at every "
               "change")
    yield Note("memory", f"unusable free index: {UNUSABLE}")
    for name, data in chosen.items():
        who = plain(name)
        yield Note("strategies", f"{who}: {plain(data['summary'])}; models {plain(data['models'])}")
        options = ", ".join(f"{plain(k)}={plain(v)}" for k, v in sorted(data["options"].items()))
        if options:
            yield Note("strategies", f"{who}: options {options}")
        for note in data["notes"]:
            yield Note("strategies", f"{who}: {plain(note)}")
