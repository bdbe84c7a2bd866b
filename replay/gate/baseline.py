"""The accepted figures: one text file per check, a line per figure, so that a diff reads well."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay.base.errors import InputError
from replay.base.files import all_written
from replay.compare.effects import PROVENANCE
from replay.gate.commits import code_digest
from replay.gate.inputs import INPUTS_SHAPE, Inputs, costs_in
from replay.metrics.catalogue import catalogue
from replay.runs.run import Run
from replay.runs.shape import NUMBER_SHAPE

MOST_BASELINE_BYTES = 16 << 20
SHAPE: dict[str, Any] = {
    "type": "object", "required": ["accepted", "allocators", "provenance"],
    "additionalProperties": False, "properties": {
        "accepted": {"type": "object", "required": ["commit", "why"],
                     "additionalProperties": {"type": "string"}},
        "provenance": {"type": "object", "additionalProperties": {"type": "string"}},
        "inputs": INPUTS_SHAPE,
        "allocators": {"type": "object", "additionalProperties": {
            "type": "object", "required": ["frames_digest", "metrics"],
            "additionalProperties": False, "properties": {
                "frames_digest": {"type": "string"},
                "metrics": {"type": "object", "additionalProperties": NUMBER_SHAPE}}}}}}


COSTS_NS = "costs_ns"
"""In what a run says of itself: of the inputs, each for itself; once one text."""
REPLAY_VERSION = "replay_version"


@dataclass(frozen=True)
class Baseline:
    """Figures that were accepted, at which commit and why; frames: digests by allocator.

    inputs: what the figures rest on, one by one; of a file from before they were kept only what it
    tells. rounded: of these, the groups whose numbers have six digits. version, code: of `replay`,
    see gate.commits.code_digest(); empty where the file does not say.
    """

    commit: str
    why: str
    provenance: dict[str, str]
    figures: dict[str, dict[str, float | None]]
    frames: dict[str, str] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=dict)
    rounded: tuple[str, ...] = ()
    version: str = ""
    code: str = ""

    def text(self) -> str:
        """The file: JSON with sorted keys."""
        made_by = {REPLAY_VERSION: self.version, "code": self.code}
        return json.dumps({
            "accepted": {"commit": self.commit, "why": self.why,
                         **{name: said for name, said in made_by.items() if said}},
            "provenance": self.provenance, "inputs": self.inputs,
            "allocators": {name: {"frames_digest": self.frames[name], "metrics": values}
                           for name, values in self.figures.items()},
        }, indent=1, sort_keys=True) + "\n"

    def says_the_same(self, other: Baseline | None) -> bool:
        """Whether nothing but commit, reason and code differs."""
        return other is not None and (
            self.provenance, self.figures, self.frames, self.inputs) == (
            other.provenance, other.figures, other.frames, other.inputs)


def of_run(run: Run, commit: str, why: str, names: Mapping[str, str],
           inputs: Inputs | None = None) -> Baseline:
    """What is accepted when a run is; names: what some of its strategies are called instead."""
    header = {name: str(run.header[name]) for name in PROVENANCE
              if name not in (COSTS_NS, REPLAY_VERSION)}
    rows = {names.get(name, name): data for name, data in run.allocators.items()}
    return Baseline(
        commit, why, header,
        {name: {m.name: m.of(data) for m in catalogue()} for name, data in rows.items()},
        {name: data["frames_digest"] for name, data in rows.items()}, inputs or {},
        version=str(run.header[REPLAY_VERSION]), code=code_digest())


def file_of(folder: Path, check: str) -> Path:
    """Where the baseline of a check lies."""
    return folder / f"{check}.json"


def load(folder: Path, check: str) -> Baseline | None:
    """The baseline of a check, None where none was accepted; InputError for a damaged file."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    path = file_of(folder, check)
    hint = "take it from version control, or accept anew"
    try:
        if path.stat().st_size > MOST_BASELINE_BYTES:
            raise InputError(path, f"larger than {MOST_BASELINE_BYTES >> 20} MiB", hint=hint)
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"not JSON ({error})", hint=hint) from None
    wrong = best_match(Draft202012Validator(SHAPE).iter_errors(data))
    if wrong is not None:
        place = ".".join(map(str, wrong.absolute_path)) or "the whole"
        raise InputError(path, wrong.message[:160], where=place, hint=hint)
    return _read(data)


def _read(data: dict[str, Any]) -> Baseline:
    """What a file of the right shape holds."""
    accepted, provenance, inputs = data["accepted"], data["provenance"], data.get("inputs", {})
    rounded: tuple[str, ...] = ()
    if COSTS_NS not in inputs and (costs := costs_in(provenance.get(COSTS_NS, ""))) is not None:
        inputs, rounded = {**inputs, COSTS_NS: costs}, (COSTS_NS,)
    return Baseline(accepted["commit"], accepted["why"], provenance,
                    {name: one["metrics"] for name, one in data["allocators"].items()},
                    {name: one["frames_digest"] for name, one in data["allocators"].items()},
                    inputs, rounded, accepted.get(REPLAY_VERSION, ""), accepted.get("code", ""))


def save_all(folder: Path, baselines: Mapping[str, Baseline]) -> None:
    """Write all aside, then rename each: a full disk changes none."""
    texts = {file_of(folder, check): one.text() for check, one in baselines.items()}
    with all_written(texts) as aside:
        for path, text in texts.items():
            aside[path].write_text(text, encoding="utf-8")


def difference(check: str, old: Baseline | None, new: Baseline) -> str:
    """The change of the file as a unified diff."""
    before = old.text().splitlines() if old else []
    return "\n".join(difflib.unified_diff(
        before, new.text().splitlines(), f"a/{check}.json" if old else "/dev/null",
        f"b/{check}.json", lineterm="", n=2))
