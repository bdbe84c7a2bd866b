"""What a gate says, as data: results, causes, findings by importance, the verdict, what to type.

Terminal, Markdown, JUnit and page draw it; none of them words, sorts or folds anything anew.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from replay.report.telling.escapes import plain
from replay.report.telling.moved import both, moved
from replay.report.telling.tables import fitted
from replay.report.telling.telling import WARNING_KINDS

Checked = dict[str, Any]
Finding = dict[str, Any]

WORDS = {"regressed": "worse", "changed": "changed", "improved": "better", "ok": "as accepted"}
NOT_LET_THROUGH = ("regressed", "changed")
FINDING_COLUMNS = ("strategy", "figure", "accepted", "now", "change", "allowed", "result")
CAUSE_COLUMNS = ("input", "then", "now", "checks")
CAUSE_TITLE = "What changed since the figures were accepted"

MOST_FINDINGS, MOST_INPUTS, FEW_INPUTS = 20, 20, 3
"""Findings of a check; rows of inputs; inputs named in a sentence."""

OF_GROUPS = {"trace": "trace: ", "machine": "machine: ", "options": "option ", "strategies": "",
             "costs_ns": "", "header": ""}
"""How the name of an input begins."""
GROUP_TITLES = {"trace": "the trace's events", "machine": "the machine",
                "options": "the options", "strategies": "the strategies' options",
                "costs_ns": "the costs"}
TRACE_FACTS = {"file": "its file", "last_event_ns": "the last event", "pages": "pages asked for"}
"""Of facts of a trace."""


def figures(count: int) -> str:
    """How many figures."""
    return f"{count:,} figure{'' if count == 1 else 's'}"


def said(checked: Checked) -> str:
    """One check in a few words."""
    if checked["problem"]:
        return "not accepted yet" if checked["new"] else "cannot be compared"
    counts = Counter(f["status"] for f in checked["findings"])
    parts = [f"{counts[s]:,} {WORDS[s]}" for s in ("regressed", "changed", "improved") if counts[s]]
    return ", ".join(parts) or f"all {figures(sum(checked['counts'].values()))} as accepted"


def since(checked: Checked) -> str:
    """Which commit the baseline was accepted at, and how many came since."""
    if checked["new"]:
        return "never"
    if not checked["since"]:
        return "before any commit"
    n = checked["commits"]
    behind = "" if n is None else f" ({n:,} commit{'' if n == 1 else 's'} ago)"
    return f"{fitted(checked['since'], 16)}{behind}"


def ordered(data: dict[str, Any]) -> list[Checked]:
    """The checks by importance: what failed, by how far; then what could not be compared; then
    what is better; then the others as gate.toml has them."""
    def rank(one: Checked) -> tuple[int, float]:
        found = one["findings"]
        if one["problem"]:
            return 1, 0.0
        return (3 if not found else 0 if not one["passed"] else 2), -_factor(found)
    return sorted(data["checks"], key=rank)


def _factor(found: Sequence[Finding]) -> float:
    """How many times the gravest finding moved; the largest number where there is no ratio."""
    if not found or not found[0]["ratio"]:
        return float("inf") if found and found[0]["size"] != "none" else 0.0
    return max(float(found[0]["ratio"]), 1 / float(found[0]["ratio"]))


def told(data: dict[str, Any]) -> list[Checked]:
    """The checks that there is something to say of, by importance."""
    return [c for c in ordered(data) if c["problem"] or c["findings"] or c["cause"]["inputs"]]


def cells(finding: Finding) -> list[str]:
    """A finding as a row of FINDING_COLUMNS."""
    base, value = both(finding["unit"], finding["base"], finding["value"])
    allowed = finding["tolerance"] if finding["tolerance"] != "0" else "none"
    return [fitted(finding["allocator"], 18), finding["label"], base, value,
            moved(finding["base"], finding["value"]), allowed, WORDS[finding["status"]]]


def shown(checked: Checked, everything: bool = False) -> tuple[list[Finding], list[str]]:
    """The findings to show, and a line for those that are folded; see compare.effects.SIZES for
    what is negligible."""
    found = checked["findings"]
    if everything:
        return found, []
    large = [f for f in found if f["size"] != "negligible"]
    # Other frames have no size, and are no small matter.
    kept = [f for k, f in enumerate(large) if k < MOST_FINDINGS or f["size"] == "none"] or found[:1]
    rest = [f for f in found if not any(f is one for one in kept)]
    better = [f for f in rest if f["status"] == "improved"]
    failing = [f for f in rest if f["status"] in NOT_LET_THROUGH]
    return kept, [_folded(part, word) for part, word in (
        (failing, "worse or changed"), (better, "better")) if part]


def _folded(rest: Sequence[Finding], word: str) -> str:
    """Findings in one line. They are sorted: the first one moved the farthest."""
    most = rest[0]
    each = "each " if len(rest) > 1 else ""
    small = f", {each}by less than 1 %" if all(f["size"] == "negligible" for f in rest) else ""
    count = f"{len(rest):,} more figure{' is' if len(rest) == 1 else 's are'}"
    return (f"{count} {word}{small}; the largest change: {fitted(most['allocator'], 18)}, "
            f"{most['label']}, {moved(most['base'], most['value'])}")


def _name(one: dict[str, Any]) -> str:
    name = TRACE_FACTS.get(one["name"], one["name"]) if one["group"] == "trace" else one["name"]
    if one["group"] == "header":
        name = name.replace("_", " ")
    return OF_GROUPS[one["group"]] + fitted(name, 60)


def _values(one: dict[str, Any]) -> tuple[str, str]:
    """Then and now, with the unit behind the second one."""
    absent = "default" if one["group"] == "options" else "none"
    then, now = (absent if one[side] is None else _value(one[side]) for side in ("then", "now"))
    unit = "" if one["now"] is None else _unit(one)
    return then, now + unit


def _unit(one: dict[str, Any]) -> str:
    if one["group"] == "costs_ns" or one["name"].endswith("_ns"):
        return " ns"
    return " events" if one["group"] == "trace" and one["name"].startswith("events.") else ""


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.12f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else fitted(value, 60) or "none"


def changed(one: dict[str, Any]) -> str:
    """One input as `list_pop 3 -> 5 ns`."""
    then, now = _values(one)
    return f"{_name(one).replace('events.', '')} {then} -> {now}"


def cause(checked: Checked) -> str:
    """Why figures moved, in a sentence without its end; empty where none did."""
    its = checked["cause"]
    if its["inputs"]:
        few = [changed(one) for one in its["inputs"][:FEW_INPUTS]]
        more = len(its["inputs"]) - len(few)
        text = ", ".join(few) + (f" and {more:,} more" if more else "")
        return text + ("; the code changed too" if its["code"] == "changed" else "")
    return code(checked) if checked["findings"] else ""


def code(checked: Checked) -> str:
    """What is to be said of the code where no input changed."""
    its = checked["cause"]
    between = _between(its)
    if its["code"] == "changed":
        return f"the code{between}; no input changed"
    if its["code"] == "same":
        return ("neither an input nor the code changed: look at the file of accepted figures, and "
                "at the libraries")
    absent = ", ".join(GROUP_TITLES[name] for name in its["not_recorded"])
    return (f"the code{between}, or what was not recorded: {absent}" if absent
            else f"the code{between}; no input changed")


def _between(its: dict[str, Any]) -> str:
    """From which commit to which, else from which version to which."""
    for word, pair in (("commit", its["commits"]), ("replay", its["versions"])):
        then, now = (fitted(text, 16) for text in pair)
        if then and now and then != now:
            return f" ({word} {then} -> {now})"
    return ""


def causes(data: dict[str, Any], everything: bool = False) -> tuple[list[list[str]], str]:
    """Rows of CAUSE_COLUMNS, an input that several checks share once; and how many are left out."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    compared = [c for c in ordered(data) if not c["problem"] or c["cause"]["inputs"]]
    for one in compared:
        for its in one["cause"]["inputs"]:
            rows.setdefault((_name(its).replace("events.", ""), *_values(its)), []).append(
                plain(one["name"]))
        if one["findings"] and (not one["cause"]["inputs"] or one["cause"]["code"] == "changed"):
            rows.setdefault(_code_row(one), []).append(plain(one["name"]))
    found = [[*key, _whose(names, len(compared))] for key, names in rows.items()]
    kept = found if everything else found[:MOST_INPUTS]
    left = len(found) - len(kept)
    return kept, f"{left:,} more inputs changed" if left else ""


def _code_row(one: Checked) -> tuple[str, str, str]:
    its = one["cause"]
    if its["code"] == "same":
        return "neither inputs nor code", "-", "-"
    then, now = its["commits"] if any(its["commits"]) else its["versions"]
    name = "the code" if its["code"] == "changed" or not its["not_recorded"] else \
        "the code, or what was not recorded"
    return name, fitted(then, 16) or "not recorded", fitted(now, 16) or "not recorded"


def _whose(names: Sequence[str], of: int) -> str:
    if len(names) < of or of < 2:
        return ", ".join(names)
    return "both checks" if of == 2 else f"all {of} checks"


def mind(data: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(label, sentence, checks) of each warning of the replays, said once for all that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in data["checks"]:
        for w in one["warnings"]:
            text = f"{w['strategy']}: {w['text']}" if w["strategy"] else w["text"]
            found.setdefault((w["label"], text), []).append(plain(one["name"]))
    order = [kind.label for kind in WARNING_KINDS.values()]
    ran = sum(bool(one["strategies"]) for one in data["checks"])
    return [(label, plain(text), _whose(names, ran))
            for (label, text), names in sorted(found.items(), key=lambda f: order.index(f[0][0]))]


def verdict(data: dict[str, Any]) -> str:
    """Whether the gate is open, and the cause where it is not."""
    checks = data["checks"]
    bad = [c for c in ordered(data) if not c["passed"]]
    better = sum(f["status"] == "improved" for c in checks for f in c["findings"])
    are = f"{figures(better)} {'is' if better == 1 else 'are'} better than accepted"
    if data["strict"] and better and not bad:
        return f"FAILED (--strict): {are}; accept them"
    tail = f"; {are}" if better else ""
    count = f"{len(checks)} check{'' if len(checks) == 1 else 's'}"
    if bad and all(c["new"] for c in bad):
        return (f"NOT COMPARED: {len(bad)} of {count} ({_listed(bad)}): "
                f"no figures are accepted yet{tail}")
    if bad:
        why = _shared_cause(bad)
        return f"FAILED: {len(bad)} of {count} ({_listed(bad)}){why}{tail}"
    return f"passed: {count}{tail}"


def _listed(checks: Sequence[Checked]) -> str:
    return ", ".join(plain(one["name"]) for one in checks)


def _shared_cause(bad: Sequence[Checked]) -> str:
    """The cause, where all that failed share it."""
    found = {why for one in bad if (why := cause(one))}
    return f": {found.pop()}" if len(found) == 1 else ""


def command(one: Checked) -> str:
    """What reproduces a check's findings: one strategy's command, or that of all."""
    named = list(one["commands"].values())
    return plain(named[0] if len(named) == 1 else one["command"])


def following(data: dict[str, Any]) -> list[str]:
    """What to type next; nothing where all is as accepted."""
    given = data.get("config", "gate.toml")
    config = "" if given == "gate.toml" else f" --config {shlex.quote(plain(given))}"
    if any(c["new"] for c in data["checks"]):
        return [f'replay gate accept{config} --why "first figures"']
    if any(c["findings"] for c in data["checks"]):
        return [f'replay gate accept{config} --why "..."']
    return []
