"""How the times of a Xen trace were put on ftrace's clock, in a sentence."""

from __future__ import annotations

from typing import Any

from replay.report.telling.tables import count, duration


def relation(source: dict[str, Any]) -> str:
    """What a source's metadata say of its clock, "" if nothing (a first source, an old trace)."""
    facts = source.get("relation")
    if not isinstance(facts, dict):
        return ""
    kind, offset = str(facts.get("source", "")), _whole(facts, "offset_ns")
    if kind.startswith("one counter"):
        said = f"{kind}: raw times compare as they are"
    else:
        error = f" +- {duration(float(_whole(facts, 'error_ns')))}" if "error_ns" in facts else ""
        said = f"{kind}: {offset:+,} ns{error} added to Xen's time gives ftrace's"
        said += _drift(facts)
    return f"{said}; {_evidence(facts)}"


def _drift(facts: dict[str, Any]) -> str:
    ppb = facts.get("drift_ppb")
    if not isinstance(ppb, int | float) or not -1e9 < ppb < 1e9:  # a file may say anything
        return ""
    if not str(facts.get("source", "")).startswith("measured"):
        return ""
    return (f" at {_whole(facts, 'drift_at_ns'):,} ns, from where ftrace's gains "
            f"{ppb / 1000:+.3f} ppm on Xen's")


def _evidence(facts: dict[str, Any]) -> str:
    """What the recording shows, whether it was used or not."""
    if "not_measured" in facts:
        return f"not checked: {facts['not_measured']}"
    found = (f"{count(_whole(facts, 'pairs'))} groups of calls match their records, "
             f"{count(_whole(facts, 'contradictions'))} contradict")
    if unseen := _whole(facts, "unseen"):
        found += f", {count(unseen)} have none"
    if str(facts.get("source", "")).startswith("measured"):
        return found
    offset, error = _whole(facts, "measured_offset_ns"), _whole(facts, "measured_error_ns")
    found = f"measured: {offset:+,} ns +- {duration(float(error))}, {found}"
    if facts.get("source") == "stated" and abs(offset - _whole(facts, "offset_ns")) > error:
        found += "; WHAT WAS STATED DISAGREES with it"
    return found


def _whole(facts: dict[str, Any], name: str) -> int:
    value = facts.get(name, 0)
    return value if isinstance(value, int) and abs(value) < 1 << 62 else 0
