"""What a summary must look like before anything reads figures from it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from replay.base.errors import InputError
from replay.metrics.catalogue import catalogue
from replay.metrics.hazards import HAZARDS

NUMBER_SHAPE = {"type": ["number", "null"], "minimum": -1e19, "maximum": 1e19}
COUNT_SHAPE = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
TEXT_SHAPE, FLAG_SHAPE = {"type": "string"}, {"type": "boolean"}
MOST_ALLOCATORS = 64

HEADER_SHAPE = {
    **dict.fromkeys(("replay_version", "trace", "recorded_strategy", "recorded_times", "mode",
                     "times", "profile", "profile_summary", "physmap", "arch", "dom0_mode",
                     "kernel", "xen_version", "requests_digest", "machine_digest"), TEXT_SHAPE),
    **dict.fromkeys(("synthetic", "physmap_of_trace", "direct_mapped", "iommu"), FLAG_SHAPE),
    **dict.fromkeys(("records_lost", "sources_cut", "profile_constants", "profile_assumed",
                     "page_bytes", "section_bytes", "modelled_span_ns"), COUNT_SHAPE),
    "advertised": {"type": "object", "required": ["bytes", "usable_bytes"],
                   "properties": {"bytes": COUNT_SHAPE, "usable_bytes": COUNT_SHAPE}},
}
GROUPED = {**dict.fromkeys(("calls", "failed", "pages"), COUNT_SHAPE),
           **dict.fromkeys(("p50", "p90", "p99", "p99_9", "p99_99", "max", "mean"), NUMBER_SHAPE)}


def _object(properties: dict[str, Any], *, rest: Any = True) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": sorted(properties),
            "additionalProperties": rest}


COST_SHAPE = _object({"ns": NUMBER_SHAPE})
COST_SHAPE["properties"] |= {"low": NUMBER_SHAPE, "high": NUMBER_SHAPE}


def _rows(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": _object(properties)}


def _nested() -> dict[str, Any]:
    """An object schema that has every metric of the catalogue at its path."""
    tree: dict[str, Any] = {}
    for metric in catalogue():
        at = tree
        for step in metric.path[:-1]:
            at = at.setdefault(step, {})
        at[metric.path[-1]] = NUMBER_SHAPE
    return {name: value if value is NUMBER_SHAPE else
            _object({k: v if v is NUMBER_SHAPE else _object(v) for k, v in value.items()})
            for name, value in tree.items()}


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    figures = _nested()
    for part in ("latency_ns", "wait_ns", "service_ns", "slow", "free_latency_ns"):
        figures[part]["properties"] |= {"count": COUNT_SHAPE, "above": {
            "type": "object", "additionalProperties": COUNT_SHAPE}}
        figures[part]["required"] = [*figures[part]["required"], "count", "above"]
    counts = {"type": "object", "additionalProperties": COUNT_SHAPE}
    one = _object({
        **figures, "frames_digest": TEXT_SHAPE, "summary": TEXT_SHAPE, "models": TEXT_SHAPE,
        "work": counts, "tallies": counts, "options": {"type": "object"},
        "hazards": _object(dict.fromkeys(HAZARDS, COUNT_SHAPE), rest=COUNT_SHAPE),
        "collisions_assumed": COUNT_SHAPE, "duration_ns": COUNT_SHAPE, "nr_callers": COUNT_SHAPE,
        "notes": {"type": "array", "items": TEXT_SHAPE},
        "broken_invariants": {"type": "array", "items": TEXT_SHAPE},
        "sections": _rows({**dict.fromkeys(("time_ns", "start_pfn", "nr_pages"), COUNT_SHAPE),
                           "kind": TEXT_SHAPE}),
        "hazard_examples": _rows({"kind": TEXT_SHAPE, "time_ns": {"type": ["integer", "null"]},
                                  "user": TEXT_SHAPE, "other": TEXT_SHAPE, "what": TEXT_SHAPE}),
        **{f"latency_by_{key}": _rows({key: TEXT_SHAPE, **GROUPED})
           for key in ("caller", "size", "path")}})
    header = _object(HEADER_SHAPE)
    header["properties"] |= {
        "outcome": TEXT_SHAPE, "losses_unknown": COUNT_SHAPE,
        "rescaled": TEXT_SHAPE,
        "start": {"type": "array", "items": TEXT_SHAPE},
        "assumed": {"type": "array", "items": TEXT_SHAPE},
        "costs_ns": {"type": "object", "additionalProperties": COST_SHAPE},
        "profile_fitted_on": _object({"arch": TEXT_SHAPE, "dom0_mode": TEXT_SHAPE})}
    whole = _object({
        "run": header,
        "order": {"type": "array", "items": {"type": "string", "pattern": r"^[^/\\\x00-\x1f]+$",
                                             "maxLength": 200},
                  "uniqueItems": True, "minItems": 1, "maxItems": MOST_ALLOCATORS},
        "allocators": {"type": "object", "additionalProperties": one}})
    whole["properties"]["failed_allocators"] = {"type": "object",
                                                "additionalProperties": TEXT_SHAPE}
    return Draft202012Validator(whole)


def checked(path: Path, data: Any) -> dict[str, Any]:
    """The summary as it is, or an InputError that names the first place that is not as expected."""
    hint = "run `replay run` again, with this version"
    from jsonschema.exceptions import best_match

    wrong = best_match(_validator().iter_errors(data))
    if wrong is not None:
        place = ".".join(map(str, wrong.absolute_path)) or "the whole"
        said = wrong.message if len(wrong.message) < 160 else wrong.message[:157] + "..."
        raise InputError(path, f"{place}: {said}", hint=hint)
    missing = [name for name in data["order"] if name not in data["allocators"]]
    if missing:
        raise InputError(path, f"no figures of allocator {missing[0]!r}", hint=hint)
    found: dict[str, Any] = data
    return found
