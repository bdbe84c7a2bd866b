"""What a run rests on, to tell the same run again from another one in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import replay

if TYPE_CHECKING:
    from replay.runs.options import RunOptions
    from replay.runs.plan import Named
    from replay.trace.meta import Meta

TOLD_OF_HEADER: Final = {"trace": "trace", "replay_version": "version of replay",
                    "requests_digest": "requests", "machine_digest": "machine",
                    "profile": "cost profile", "costs_ns": "costs", "mode": "mode"}
"""Entries of a summary's header, and what they are called."""


def rests_on(summary: Mapping[str, Any]) -> dict[str, Any]:
    """By what it is called; a summary that is none gives what it has."""
    header, figures = _object(summary.get("run")), _object(summary.get("allocators"))
    found = {said: header[entry] for entry, said in TOLD_OF_HEADER.items() if entry in header}
    return {**found, "strategies": sorted({*figures, *_object(summary.get("failed_allocators"))}),
            **{f"options of {name}": _object(one).get("options") for name, one in figures.items()}}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def known_before(meta: Meta, named: Named, plan: RunOptions) -> dict[str, Any]:
    """The same as far as it is known before the trace is replayed."""
    from replay.metrics.summary import about_costs, digest_of, rounded

    figures = {name: {"options": one.values(named.options[name])}
               for name, one in named.chosen.items()}
    found = rests_on({"allocators": figures, "run": {
        "trace": meta.name, "replay_version": replay.__version__,
        "machine_digest": digest_of(named.machine.to_json()), **about_costs(named.costs)}})
    if named.objects or plan.kernel_trees:  # what these are called is known when they are built
        del found["strategies"]
    return json.loads(json.dumps(rounded(found)))


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What is not the same of two runs, as far as both say it."""
    return [said for said, value in ours.items() if said in theirs and theirs[said] != value]
