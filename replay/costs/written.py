"""A profile as a TOML file, written aside and then renamed."""

from __future__ import annotations

import json
from pathlib import Path

from replay.base.files import written
from replay.costs.fitted import STEPS, Fitted
from replay.costs.profile import Profile


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's, but for DEL, which it must escape."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def _number(value: float) -> str:
    return repr(float(f"{value:.6g}"))


def _fitted(fitted: Fitted) -> list[str]:
    lines = ["", "[fitted]", *(f"{name} = {_text(getattr(fitted, name))}"
                               for name in ("arch", "mode", "emulated", "base")),
             f"# ns besides the work: {', '.join(STEPS)}",
             f"steps = [{', '.join(map(_number, fitted.steps))}]"]
    for trace in fitted.traces:
        lines += ["", "[[fitted.trace]]", f"name = {_text(trace.name)}",
                  f"sha256 = {_text(trace.sha256)}", f"calls = {trace.calls}"]
    lines += ["", "# Recorded over modelled service time: quantiles at replay.costs.fitted.SHARES,",
              "# by kind, path, size (up to so many pages) and pause (as many steps) of the call.",
              "[fitted.spread]"]
    return lines + [f"{_text(name)} = [{', '.join(map(_number, values))}]"
                    for name, values in fitted.spread.items()]


def to_toml(profile: Profile) -> str:
    """The text of a profile file."""
    lines = [f"name = {_text(profile.name)}", f"summary = {_text(profile.summary)}"]
    if profile.fitted:
        lines += _fitted(profile.fitted)
    for name, cost in profile.costs.items():
        lines += ["", f"[cost.{name}]", f"ns = {_number(cost.ns)}", f"low = {_number(cost.low)}",
                  f"high = {_number(cost.high)}", f"source = {_text(cost.source)}"]
    return "\n".join(lines) + "\n"


def save(profile: Profile, path: Path) -> None:
    """Write a profile so that no reader sees half of it."""
    with written(path) as aside:
        aside.write_text(to_toml(profile), encoding="utf-8")
