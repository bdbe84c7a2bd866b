"""The gate's figures in the text format of OpenMetrics 1.0, for a monitoring system.

https://github.com/OpenObservability/OpenMetrics/blob/main/specification/OpenMetrics.md: units are
base units at the end of a name, families are not interleaved, the last line is # EOF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from replay.base.units import NS_PER_S
from replay.metrics.catalogue import Metric, catalogue
from replay.report.telling.escapes import plain

BASE_UNITS = {"ns": "seconds", "bytes": "bytes", "pages": "pages", "share": "ratio",
              "ratio": "ratio"}
"""The unit of a family for that of a metric; counts have none."""
STATUSES = ("ok", "improved", "regressed", "changed")

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """One family. samples: labels and value."""

    name: str
    kind: str
    unit: str
    about: str
    samples: list[tuple[Labels, float]]


def openmetrics(data: dict[str, Any]) -> str:
    """All of a check of the gate; families without a sample are left out."""
    lines = [line for family in _families(data) if family.samples for line in _lines(family)]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _families(data: dict[str, Any]) -> Iterator[Family]:
    checks = data["checks"]

    def gauge(name: str, about: str, key: Any) -> Family:
        return Family(name, "gauge", "", about,
                      [({"check": one["name"]}, float(key(one))) for one in checks])

    yield Family("replay_gate", "info", "", "What checked.", [
        ({"version": data["replay_version"], "commit": data["commit"]}, 1.0)])
    yield Family("replay_gate_check", "info", "", "What is checked, and where it was accepted.", [
        ({"check": one["name"], "trace": one["trace"], "accepted_at": one["since"]}, 1.0)
        for one in checks])
    yield gauge("replay_gate_passed", "Whether the gate lets a check through.",
                lambda one: one["passed"])
    yield gauge("replay_gate_compared", "Whether a check could be compared.",
                lambda one: not one["problem"])
    yield Family("replay_gate_figures", "gauge", "", "Figures by what became of them.", [
        ({"check": one["name"], "status": status}, float(one["counts"].get(status, 0)))
        for one in checks if not one["problem"] for status in STATUSES])
    for metric in catalogue():
        yield _figures(metric, checks)


def _figures(metric: Metric, checks: list[dict[str, Any]]) -> Family:
    modelled = " MODELLED, not measured." if metric.unit == "ns" else ""
    scale = NS_PER_S if metric.unit == "ns" else 1
    return Family(
        family_name(metric), "gauge", BASE_UNITS.get(metric.unit, ""),
        f"{metric.label}: {metric.what}.{modelled}", [
            ({"check": one["name"], "strategy": name}, values[metric.name]["now"] / scale)
            for one in checks for name, values in sorted(one["figures"].items())
            if metric.name in values])


def family_name(metric: Metric) -> str:
    """The metric's name with its unit at the end."""
    words = [re.sub("[^a-zA-Z0-9_]", "_", word) for word in metric.path]
    unit = BASE_UNITS.get(metric.unit)
    if unit is None:
        return "_".join(["replay", *words])
    words = [re.sub(rf"(?:^|_){metric.unit}$", "", word) for word in words]
    return "_".join(["replay", *filter(None, words), unit])


def _lines(family: Family) -> Iterator[str]:
    yield f"# TYPE {family.name} {family.kind}"
    if family.unit:
        yield f"# UNIT {family.name} {family.unit}"
    yield f"# HELP {family.name} {_escaped(family.about)}"
    sample = f"{family.name}_info" if family.kind == "info" else family.name
    for labels, value in family.samples:
        pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        yield f"{sample}{{{pairs}}} {value!r}"


def _escaped(text: str) -> str:
    """As the format has it; what else is not printable is shown as an escape."""
    shown = "\n".join(map(plain, text.split("\n")))
    return shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
