"""What came out of a run, in at most five points: a rule each, made from the summary alone.

No rule says more than its figures: it is silent where the summary lacks them, and ranks nothing
that shows the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from replay.metrics.catalogue import catalogue
from replay.metrics.hazards import Hazard, by_severity
from replay.report.telling.escapes import named, plain
from replay.report.telling.ranking import order_of_work
from replay.report.telling.tables import count, duration, missing, share, size

Strategies = Mapping[str, Mapping[str, Any]]
Rule = Callable[[Mapping[str, Any], Strategies], str]
Shown = tuple[float, str, list[str]]
"""A value, how it is shown, and the strategies that have it."""

MOST_NAMED = 4
"""Values that one sentence names; of more it names the ends."""
SAMPLES_OF_P99 = 1000
"""Allocations from which on the 99th percentile rests on ten."""


def verdict(run: Mapping[str, Any], chosen: Strategies) -> tuple[str, ...]:
    """The sentences, the most important first; run, chosen: of a summary, see telling.told()."""
    return tuple(sentence for rule in SENTENCES if (sentence := rule(run, chosen)))


def alike(chosen: Strategies) -> list[list[str]]:
    """The strategies in groups that came to the same in everything that is counted."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, data in chosen.items():
        found.setdefault((data["frames_digest"], *(m.of(data) for m in catalogue())), []).append(
            name)
    return list(found.values())


def by_shown(chosen: Strategies, of: Callable[[Mapping[str, Any]], float | None],
             shown: Callable[[float | None], str]) -> list[Shown]:
    """Value, as shown, and whose, ascending; strategies that show the same stand together."""
    found: dict[str, tuple[float, list[str]]] = {}
    for name, data in chosen.items():
        value = of(data)
        if value is not None:
            found.setdefault(shown(value), (value, []))[1].append(name)
    return sorted((value, text, names) for text, (value, names) in found.items())


def times(ratio: float) -> str:
    """`1.3 times`, to two digits, whole from ten on."""
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"


# -- the rules -------------------------------------------------------------------------------------
def refused(run: Mapping[str, Any], chosen: Strategies) -> str:
    """Requests that got no pages, where some did not."""
    lost = {name: data["failed"] for name, data in chosen.items() if data["failed"]}
    if not lost:
        return ""
    of = {data["requests"] for data in chosen.values()}
    total = f" of {count(of.pop())}" if len(of) == 1 else ""
    told = [f"{plain(name)} {count(failed)}" for name, failed in lost.items()]
    served = [name for name in chosen if name not in lost]
    rest = f"; {named(served)} refuse{'s' if len(served) == 1 else ''} none" if served else ""
    return f"Requests refused{total}: {', '.join(told)}{rest}."


def latency(run: Mapping[str, Any], chosen: Strategies) -> str:
    """Mean, 99th percentile and longest time of an allocation: who is ahead, and by how much."""
    ranked = by_shown(chosen, lambda data: data["latency_ns"]["mean"], duration)
    if not ranked:
        return ""
    (least, text, names), *rest = ranked
    if not rest:
        who = named(names) if len(chosen) == 1 else "every strategy"
        said = f"An allocation takes {text} in the mean (modelled) under {who}"
    else:
        slower = rest if len(rest) < MOST_NAMED else [rest[0], rest[-1]]
        parts = [f"{named(whose)} {times(value / least)}" if least > 0 else
                 f"{named(whose)} {shown}" for value, shown, whose in slower]
        parts[0] += " as long" if least > 0 else ""
        said = (f"Fastest in the mean: {named(names)}, {text} an allocation (modelled); "
                f"{', '.join(parts)}")
    return f"{said}{_p99(chosen)}; {_longest(chosen)}."


def _p99(chosen: Strategies) -> str:
    """Where it parts the strategies otherwise than the mean does, and rests on enough of them."""
    mean = by_shown(chosen, lambda data: data["latency_ns"]["mean"], duration)
    p99 = by_shown(chosen, lambda data: data["latency_ns"]["p99"], duration)
    if (min(data["requests"] for data in chosen.values()) < SAMPLES_OF_P99 or len(p99) < 2
            or [whose for *_, whose in p99] == [whose for *_, whose in mean]):
        return ""
    return (f"; 99 of 100 are done within {p99[0][1]} under {named(p99[0][2])}, within "
            f"{p99[-1][1]} under {named(p99[-1][2])}")


def _longest(chosen: Strategies) -> str:
    longest = by_shown(chosen, lambda data: data["latency_ns"]["max"], duration)
    if len(longest) == 1:
        return f"the longest takes {longest[0][1]}"
    return (f"the longest takes {longest[0][1]} ({named(longest[0][2])}) to {longest[-1][1]} "
            f"({named(longest[-1][2])})")


def space(run: Mapping[str, Any], chosen: Strategies) -> str:
    """What making room costs: own RAM, address space."""
    return " ".join(part for part in (_own_ram(chosen), _sections(run, chosen)) if part)


def _own_ram(chosen: Strategies) -> str:
    """Own RAM given up, and superpages broken up for it."""
    given = by_shown({name: data for name, data in chosen.items() if _peak_given(data)},
                     _peak_given, size)
    if not given:
        return ""
    parts = [f"{named(names)} as much as {text}{_broken(chosen, names)}"
             for _, text, names in given]
    rest = [name for name, data in chosen.items() if not _peak_given(data)]
    more = f"; {named(rest)} none" if rest else ""
    return f"Own RAM given up: {', '.join(parts)}{more}."


def _peak_given(data: Mapping[str, Any]) -> float | None:
    found: float | None = data["fragmentation"]["ram_given_bytes"]["peak"]
    return found


def _broken(chosen: Strategies, names: Sequence[str]) -> str:
    broken = by_shown({name: chosen[name] for name in names},
                      lambda data: data["fragmentation"]["superpages_broken"]["end"], count)
    if not broken or not broken[-1][0]:
        return ""
    ends = broken[0][1] if len(broken) == 1 else f"{broken[0][1]} to {broken[-1][1]}"
    return f", breaking {ends} superpages"


def _sections(run: Mapping[str, Any], chosen: Strategies) -> str:
    """Address space taken in sections, which no strategy gives back, and how much of it is used."""
    page = run["page_bytes"]
    kept = by_shown({name: data for name, data in chosen.items()
                     if data["fragmentation"]["added_pages"]["end"]},
                    lambda data: data["fragmentation"]["added_pages"]["end"] * page, size)
    if not kept:
        return ""
    parts = [f"{named(names)} {text}" + _used(chosen, names) for _, text, names in kept]
    return f"Address space taken in sections, for ever: {'; '.join(parts)}."


def _used(chosen: Strategies, names: Sequence[str]) -> str:
    used = by_shown({name: chosen[name] for name in names},
                    lambda data: data["fragmentation"]["section_use"]["mean"], share)
    if not used:
        return ""
    ends = used[0][1] if len(used) == 1 else f"{used[0][1]} to {used[-1][1]}"
    return f" (in the mean {ends} in use)"


def hazards(run: Mapping[str, Any], chosen: Strategies) -> str:
    """The gravest hazard but refusals, with what follows from it, and how many others were met."""
    looked = [one for one in by_severity() if one.severity != "refuses" and one.possible(run)]
    met = [(one, counts) for one in looked if (counts := _counts(one, chosen))]
    if not met:
        return f"None of {len(looked)} hazards that frames could meet here was met."
    (worst, counts), *others = sorted(met, key=lambda one: _gravity(*one))
    said = f"{_met(worst, counts)}{_follows(worst, chosen)}."
    if others:
        said += f" Also met: {', '.join(one.label for one, _ in others)}."
    return said


def _gravity(one: Hazard, counts: Sequence[Shown]) -> tuple[bool, bool, float]:
    """What may corrupt first, of it what was handed out to a caller, then the most."""
    return one.severity != "corrupts", one.within is None, -counts[-1][0]


def _counts(one: Hazard, chosen: Strategies) -> list[Shown]:
    return by_shown({name: data for name, data in chosen.items() if data["hazards"].get(one.name)},
                    lambda data: data["hazards"][one.name], count)


def _met(one: Hazard, counts: Sequence[Shown]) -> str:
    """`17,005 frames handed out lie inside a device window (pool; hotplug 2)`."""
    *less, (_, most, whose) = counts
    more = "".join(f"; {named(names)} {text}" for _, text, names in reversed(less))
    return f"{most} {one.brief} ({named(whose)}{more})"


def _follows(one: Hazard, chosen: Strategies) -> str:
    """What was met, and what comes of it, by the first example."""
    example = next((e for data in chosen.values() for e in data["hazard_examples"]
                    if e["kind"] == one.name), None)
    if example is None:
        return ""
    where = f", first in {plain(example['other'])}" if example["other"] else ""
    return f"{where}; what follows: {plain(example['what'])}"


def certainty(run: Mapping[str, Any], chosen: Strategies) -> str:
    """How far the order holds within the ranges of the costs, and what the figures rest on."""
    parts = []
    if run["profile_assumed"]:
        parts.append(f"{run['profile_assumed']} of {run['profile_constants']} costs are assumed")
    if order := order_of_work(run, alike(chosen), chosen):
        parts.append(order)
    if run["synthetic"]:
        parts.append("the workload is generated")
    if lost := missing(run["records_lost"], run["sources_cut"], run.get("trace_cut", ""),
                       unknown=run.get("losses_unknown", 0)):
        parts.append(f"the recording is not whole ({lost})")
    if not run["physmap_of_trace"]:
        parts.append("the machine is not that of the recording")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


SENTENCES: tuple[Rule, ...] = (refused, latency, space, hazards, certainty)
"""In the order in which they speak."""
