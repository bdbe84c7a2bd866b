"""The exact lane: replay what gate.toml names and hold each figure against its baseline.

A replay is deterministic, so every change has a cause; tolerances are zero unless gate.toml says
otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from replay.base.errors import InputError, ReplayError
from replay.base.progress import each
from replay.compare.effects import effect
from replay.engine.requests_digest import differ
from replay.gate.baseline import Baseline, load, of_run
from replay.gate.cause import Cause, as_rows, cause_of
from replay.gate.commits import commits_since
from replay.gate.config import Check, Config
from replay.gate.inputs import inputs_of
from replay.metrics.catalogue import FRAMES, Metric, catalogue
from replay.report.telling.telling import Warned, told
from replay.runs.run import Run
from replay.trace.meta import Meta

OK, IMPROVED, REGRESSED, CHANGED = "ok", "improved", "regressed", "changed"
NOT_PASSED = (REGRESSED, CHANGED)
"""What a gate does not let through."""


@dataclass(frozen=True)
class Finding:
    """One figure against its baseline; base and value are numbers, or texts of a digest. size: of
    the change, see compare.effects.SIZES; none of texts."""

    allocator: str
    metric: str
    label: str
    unit: str
    base: float | str | None
    value: float | str | None
    ratio: float | None
    tolerance: str
    status: str
    size: str = "none"

    @property
    def rank(self) -> tuple[bool, float]:
        """Sorts the gravest first: what is not let through, then by how many times it moved."""
        if self.ratio:
            moved = abs(math.log(self.ratio))
        else:  # from or to nothing, or of no number at all
            moved = 0.0 if self.size == "none" else math.inf
        return self.status not in NOT_PASSED, -moved


STRATEGY = "strategy"
"""Stands for a metric where all of a strategy is missing on one side."""


@dataclass(frozen=True)
class Checked:
    """One check. problem: why it could not be compared, else empty. provenance: what the replay
    rests on other than the baseline did: name, then, now. cause: the same, and what is known of the
    code. findings: all but those that are ok, the gravest first. counts: figures by status.
    warnings: what the replay says of itself. figures: by strategy and metric what was accepted and
    what is now. new: nothing was accepted yet."""

    name: str
    trace: str
    command: str
    since: str
    commits: int | None
    problem: str
    provenance: list[tuple[str, str, str]]
    findings: list[Finding]
    counts: dict[str, int]
    strategies: list[str]
    commands: dict[str, str] = field(default_factory=dict)
    warnings: list[Warned] = field(default_factory=list)
    cause: Cause = Cause()
    figures: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    new: bool = False

    @property
    def passed(self) -> bool:
        """Whether a gate lets it through."""
        return not self.problem and not any(f.status in NOT_PASSED for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "passed": self.passed,
                "warnings": [w.as_dict() for w in self.warnings]}


def lacks(meta: Meta) -> str:
    """What is missing of a recording, in words."""
    from replay.report.telling.tables import missing

    return missing(meta.lost, meta.cut, unknown=meta.losses_unknown)


def replay_check(check: Check) -> Run:
    """Replay one check as its command would; a recording with losses is refused unless allowed."""
    from replay.runs.replaying import replay_source
    from replay.trace.batches import open_batches

    trace = open_batches(check.trace)
    if (trace.meta.lost or trace.meta.cut) and not check.allow_loss:
        raise ReplayError(f"{check.trace}: {lacks(trace.meta)}; record "
                          f"again, or set allow_loss = true for check {check.name!r}")
    plan = replace(check.options, check=True, no_outcome=True)
    run = replay_source(trace, plan, check.trace.parent)
    for sentence in run.failed.values():
        raise ReplayError(sentence)
    for name, data in run.allocators.items():
        if data["broken_invariants"]:
            raise ReplayError(f"{name}: {data['broken_invariants'][0]}")
    return run


def replayed(config: Config, check: Check, commit: str = "", why: str = "") -> Baseline:
    """Replay one check; rows of kernel trees are called kernel, kernel-2 and so on, whatever the
    commit that their reports name. InputError names the check whose options cannot be."""
    try:
        run = replay_check(check)
    except InputError:
        raise
    except ReplayError as error:
        raise InputError(config.path, str(error), f"check {check.name}") from None
    names = _names(check, run)
    return of_run(run, commit, why, names, inputs_of(check, run, names))


def _names(check: Check, run: Run) -> dict[str, str]:
    """What rows of kernel trees are called."""
    trees = check.options.kernel_trees
    rows = run.summary["order"][-len(trees):] if trees else []
    return {name: "kernel" if not k else f"kernel-{k + 1}" for k, name in enumerate(rows)}


def check_all(config: Config, chosen: Sequence[Check], commit: str = "") -> list[Checked]:
    """Replay and compare each check; what cannot be done is the problem of that check alone.

    commit: the one that is checked out."""
    return [_checked(config, check, commit) for check in each(chosen, "checking", "checks")]


def _checked(config: Config, check: Check, commit: str) -> Checked:
    base: Baseline | None = None
    cause = Cause()
    try:
        if not check.trace.is_file():
            raise InputError(check.trace, "is missing", hint=f"{config.path} names it")
        base = load(config.baseline, check.name)
        if base is None:
            return _made(config, check, None, cause,
                         f"no accepted figures yet in {config.baseline}: `replay gate accept` "
                         "makes them", new=True)
        run = replay_check(check)
        names = _names(check, run)
        now = of_run(run, commit, "", names, inputs_of(check, run, names))
        cause = cause_of(base, now)
        if differ(now.provenance["requests_digest"], base.provenance.get("requests_digest", "")):
            raise ReplayError("the trace holds other requests than those of the baseline: "
                              "accept it anew")
    except (ReplayError, OSError) as error:
        return _made(config, check, base, cause, str(error))
    return _made(config, check, base, cause, "", now, findings(config, check, base, now),
                 _warnings(check, run))


def _warnings(check: Check, run: Run) -> list[Warned]:
    names = _names(check, run)
    return [replace(w, strategy=names.get(w.strategy, w.strategy))
            for w in told(run.summary).warnings]


def _made(config: Config, check: Check, base: Baseline | None, cause: Cause, problem: str,
          now: Baseline | None = None, found: Sequence[Finding] = (),
          warnings: Sequence[Warned] = (), new: bool = False) -> Checked:
    since = base.commit if base else ""
    shown = sorted((f for f in found if f.status != OK), key=lambda f: f.rank)
    return Checked(
        check.name, str(check.trace), check.options.command(check.trace), since,
        commits_since(config.baseline, since), problem, as_rows(cause), shown,
        dict(sorted(Counter(f.status for f in found).items())),
        sorted({f.allocator for f in found}),
        {name: check.options.command(check.trace, name)
         for name in sorted({f.allocator for f in shown})},
        list(warnings), cause, _figures(base, now) if base and now else {}, new)


def _figures(base: Baseline, now: Baseline) -> dict[str, dict[str, dict[str, float | None]]]:
    """Both values of each metric that has one now."""
    return {name: {metric: {"accepted": base.figures.get(name, {}).get(metric), "now": value}
                   for metric, value in values.items() if value is not None}
            for name, values in now.figures.items()}


def findings(config: Config, check: Check, base: Baseline, now: Baseline) -> list[Finding]:
    """A finding per figure of every strategy in either."""
    found = []
    for name in sorted({*base.figures, *now.figures}):
        if name not in now.figures or name not in base.figures:
            then, here = ("there" if name in side.figures else "missing" for side in (base, now))
            found.append(Finding(name, STRATEGY, "the strategy itself", "", then, here, None, "0",
                                 CHANGED, "large"))
            continue
        found.append(_frames(config, check.name, name, base.frames[name], now.frames[name]))
        found += [_figure(config, check.name, name, metric, base.figures[name], now.figures[name])
                  for metric in catalogue()]
    return found


def _frames(config: Config, check: str, allocator: str, then: str, here: str) -> Finding:
    same = then == here or config.tolerance(check, allocator, FRAMES).direction == "ignore"
    return Finding(allocator, FRAMES.name, FRAMES.label, "", then, here, None, "0",
                   OK if same else CHANGED)


def _figure(config: Config, check: str, allocator: str, metric: Metric,
            base: dict[str, float | None], now: dict[str, float | None]) -> Finding:
    rule = config.tolerance(check, allocator, metric)
    a, b = base.get(metric.name), now[metric.name]
    found = effect(metric, a, b)
    better = rule.direction or metric.better
    status = OK
    if found.verdict == "equal" or better == "ignore":
        pass
    elif a is None or b is None or found.change is None:
        status = CHANGED
    elif better == "":
        status = OK if rule.worse.allows(found.change, a) else CHANGED
    elif (found.change < 0) == (better == "lower"):
        status = OK if rule.better.allows(found.change, a) else IMPROVED
    elif not rule.worse.allows(found.change, a):
        status = REGRESSED
    return Finding(allocator, metric.name, metric.label, metric.unit, a, b, found.ratio,
                   str(rule.worse), status, found.size)
