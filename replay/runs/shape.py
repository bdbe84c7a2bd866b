"""What a summary must look like before anything reads figures from it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from replay.base.errors import InputError
from replay.metrics.catalogue import catalogue
from replay.metrics.hazards import HAZARDS

NUMBER = {"type": ["number", "null"], "minimum": -1e19, "maximum": 1e19}
COUNT = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
TEXT, FLAG = {"type": "string"}, {"type": "boolean"}
MOST_ALLOCATORS = 64

HEADER = {
    **dict.fromkeys(("replay_version", "trace", "recorded_strategy", "recorded_times", "mode",
                     "times", "profile", "profile_summary", "physmap", "arch", "dom0_mode",
                     "kernel", "xen_version", "requests_digest", "machine_digest"), TEXT),
    **dict.fromkeys(("synthetic", "physmap_of_trace", "direct_mapped", "iommu"), FLAG),
    **dict.fromkeys(("records_lost", "sources_cut", "profile_constants", "profile_assumed",
                     "page_bytes", "section_bytes", "modelled_span_ns"), COUNT),
    "advertised": {"type": "object", "required": ["bytes", "usable_bytes"],
                   "properties": {"bytes": COUNT, "usable_bytes": COUNT}},
}
GROUPED = {**dict.fromkeys(("calls", "failed", "pages"), COUNT),
           **dict.fromkeys(("p50", "p90", "p99", "p99_9", "p99_99", "max", "mean"), NUMBER)}


def _object(properties: dict[str, Any], *, rest: Any = True) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": sorted(properties),
            "additionalProperties": rest}


def _rows(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": _object(properties)}


def _nested() -> dict[str, Any]:
    """An object schema that has every metric of the catalogue at its path."""
    tree: dict[str, Any] = {}
    for metric in catalogue():
        at = tree
        for step in metric.path[:-1]:
            at = at.setdefault(step, {})
        at[metric.path[-1]] = NUMBER
    return {name: value if value is NUMBER else
            _object({k: v if v is NUMBER else _object(v) for k, v in value.items()})
            for name, value in tree.items()}


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    figures = _nested()
    for part in ("latency_ns", "wait_ns", "service_ns", "slow", "free_latency_ns"):
        figures[part]["properties"] |= {"count": COUNT, "above": {
            "type": "object", "additionalProperties": COUNT}}
        figures[part]["required"] = [*figures[part]["required"], "count", "above"]
    counts = {"type": "object", "additionalProperties": COUNT}
    one = _object({
        **figures, "frames_digest": TEXT, "summary": TEXT, "models": TEXT,
        "work": counts, "tallies": counts, "options": {"type": "object"},
        "hazards": _object(dict.fromkeys(HAZARDS, COUNT), rest=COUNT),
        "collisions_assumed": COUNT, "duration_ns": COUNT, "nr_callers": COUNT,
        "notes": {"type": "array", "items": TEXT},
        "broken_invariants": {"type": "array", "items": TEXT},
        "sections": _rows({"time_ns": COUNT, "start_pfn": COUNT, "nr_pages": COUNT, "kind": TEXT}),
        "hazard_examples": _rows({"kind": TEXT, "time_ns": {"type": ["integer", "null"]},
                                  "user": TEXT, "other": TEXT, "what": TEXT}),
        **{f"latency_by_{key}": _rows({key: TEXT, **GROUPED})
           for key in ("caller", "size", "path")}})
    header = _object(HEADER)
    header["properties"] |= {
        "start": {"type": "array", "items": TEXT},
        "profile_fitted_on": _object({"arch": TEXT, "dom0_mode": TEXT})}
    whole = _object({
        "run": header,
        "order": {"type": "array", "items": {"type": "string", "pattern": r"^[^/\\\x00-\x1f]+$",
                                             "maxLength": 200},
                  "uniqueItems": True, "minItems": 1, "maxItems": MOST_ALLOCATORS},
        "allocators": {"type": "object", "additionalProperties": one}})
    whole["properties"]["failed_allocators"] = {"type": "object", "additionalProperties": TEXT}
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
