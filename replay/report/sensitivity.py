"""The outcome of `replay sensitivity` as tables."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from replay.report.telling.escapes import plain
from replay.report.telling.tables import (
    count, duration, notes, pairs, render, share, size, table, warning_rows,
)  # fmt: skip

PAIR_COLUMNS = ("A", "B", "A better", "equal", "B better", "A now", "B now", "turned alone by",
                "goes with")
MEASURE_TITLES = {
    "p50": ("Latency of an allocation, p50 (modelled)", duration),
    "p99": ("Latency of an allocation, p99 (modelled)", duration),
    "max": ("Latency of an allocation, max (modelled)", duration),
    "ram_given_bytes": ("Own RAM given up, time-weighted mean", size),
    "unusable_free_index": ("Unusable free index, time-weighted mean", share),
}


def _turns(pair: dict[str, Any]) -> str:
    """Constants that change who is better when nothing else moves."""
    names = {"a": plain(pair["a"]), "b": plain(pair["b"]), "equal": "equal"}
    return "; ".join(f"{f['constant']} at {duration(f['at_ns'])}: {names[f['then']]}"
                     for f in pair["flips"]) or "none"


def _influence(pair: dict[str, Any]) -> str:
    """The constant that the difference follows most, with Spearman's rank correlation."""
    return next((f"{name} {value:+.2f}" for name, value in pair["influence"].items()), "none")


def _measure(data: dict[str, Any], name: str) -> RenderableType:
    title, shown = MEASURE_TITLES[name]
    rows = [(plain(p["a"]), plain(p["b"]), share(p["a_wins"]), share(p["equal"]),
             share(p["b_wins"]), shown(p["own_a"]), shown(p["own_b"]), _turns(p), _influence(p))
            for p in data["pairs"] if p["measure"] == name]
    return table(title, PAIR_COLUMNS, rows, align="llrrrrrww")


def sensitivity(data: dict[str, Any], *, color: bool = False) -> str:
    """A table per measure, a row per pair of strategies; lower is better."""
    head = pairs([
        ("Trace", plain(data["trace"])),
        ("Costs", f"{plain(data['profile'])}: {plain(data['profile_summary'])}"),
        ("Times", "all MODELLED (work counts x costs + waiting), never measured"),
        ("Ranges", (f"{len(data['constants'])} constants that occur, each from its low to its "
                    f"high; jointly at {count(data['samples'])} Sobol points (seed "
                    f"{data['seed']})")),
    ])
    said = [
        ("shares are of the joint range; lower is better in every table; now: at the profile's own "
         "values"),
        ("turned alone by: the constant moves, all others stay; the value nearest to its own at "
         "which another is better, or both are equal"),
        ("goes with: Spearman's rank correlation of A - B with the constant over the joint range"),
    ]
    if data["never"]:
        said.append(f"never occur here, so they decide nothing: {', '.join(data['never'])}")
    if data["replayed"]:
        said.append("replayed at each point, since others than its requests take the lock: "
                    + ", ".join(plain(n) for n in data["replayed"])
                    + "; the others' times follow from their work counts, exactly")
    mind = warning_rows([(w["label"], w["text"], False) for w in data["warnings"]])
    return render([head, *mind, *(_measure(data, name) for name in MEASURE_TITLES), notes(said)],
                  color=color)
