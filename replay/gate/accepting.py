"""Figures that become the accepted ones, and what that changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from replay.gate.baseline import Baseline, difference, load, save_all
from replay.gate.cause import Cause, cause_of
from replay.gate.commits import checkout_of, commit_of, ignored
from replay.gate.config import Check, Config
from replay.gate.exact import OK, Finding, findings, replayed


@dataclass(frozen=True)
class Accepted:
    """One check. changed: whether its file does. new: nothing was accepted before. findings: the
    figures that move, the gravest first; figures: how many there are. diff: the file's change."""

    name: str
    changed: bool
    new: bool
    figures: int
    strategies: list[str]
    findings: list[Finding]
    cause: Cause
    diff: str


def accept(config: Config, chosen: Sequence[Check], why: str, *, dry_run: bool) -> dict[str, Any]:
    """Replay all checks, then write all files or, where dry_run, none; plain values."""
    commit = commit_of(config.path.parent)
    made = {check.name: replayed(config, check, commit, why) for check in chosen}
    old = {check.name: load(config.baseline, check.name) for check in chosen}
    if not dry_run:
        save_all(config.baseline, {name: new for name, new in made.items()
                                   if not new.says_the_same(old[name])})
    found = [_accepted(config, check, old[check.name], made[check.name]) for check in chosen]
    return {"checks": [asdict(one) for one in found], "dry_run": dry_run,
            "baseline": str(config.baseline),
            "in_checkout": checkout_of(config.path.parent) is not None,
            "ignored": bool(ignored(config.path.parent, [config.baseline]))}


def _accepted(config: Config, check: Check, old: Baseline | None, new: Baseline) -> Accepted:
    changed = not new.says_the_same(old)
    strict = replace(config, tolerances=())
    moved = [] if old is None else sorted(
        (f for f in findings(strict, check, old, new) if f.status != OK), key=lambda f: f.rank)
    return Accepted(
        check.name, changed, old is None, sum(map(len, new.figures.values())),
        sorted(new.figures), moved, cause_of(old, new) if old else Cause(),
        difference(check.name, old, new) if changed else "")
