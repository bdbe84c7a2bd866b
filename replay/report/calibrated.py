"""The texts of `replay calibrate` and `replay predict`."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from replay.report.telling.escapes import plain
from replay.report.telling.tables import (
    NO_VALUE, count, duration, fitted, notes, pairs, render, table, warning_rows,
)  # fmt: skip

MODEL_TITLES = {"costs": "costs", "spread": "+ spread"}
DISTANCES = {"W1": "wasserstein_1", "KS": "kolmogorov_smirnov"}
TIME_TITLES = {"service": "Service time (latency without the wait for the lock)",
               "latency": "Latency (closed loop, one lock)"}
LEFT_OUT = {"failed": "failed", "latency_not_recorded": "return not recorded",
            "overlapping": "overlapping another call, wait not recorded"}


def _percent(value: float | None) -> str:
    return NO_VALUE if value is None else f"{100 * value:+.1f} %"


def _used(used: dict[str, int]) -> str:
    left = [f"{used[key]:,} {words}" for key, words in LEFT_OUT.items() if used[key]]
    text = f"{used['used']:,} of {used['calls']:,} calls"
    return text + (f"; left out: {', '.join(left)}" if left else "")


def _cost(ns: float) -> str:
    """A cost to three digits; below 10 ns a whole number would not do."""
    return f"{ns:.2f} ns" if 0 < ns < 10 else duration(ns)


def _told(constant: dict[str, Any]) -> str:
    """What the recording says of a constant."""
    others = ", ".join(constant["others"])
    return {"determined": "determined", "bounded": "bounded from above",
            "sum": f"only as a sum with {others}",
            "held": "base cost: made up of other work", "few": "base cost: too few calls",
            "not seen": "base cost: does not occur"}[constant["status"]]


def calibrated(data: dict[str, Any], *, color: bool = False) -> str:
    """The text of a Calibration's JSON form."""
    rows = [("Profile", plain(data["profile"])), ("Fitted", plain(data["fitted"])),
            *((("Used" if k == 0 else ""), f"{plain(used['trace'])}: {_used(used)}")
              for k, used in enumerate(data["calls"])),
            ("Base", f"{plain(data['base'])}, for what the recordings do not tell")]
    constants = [[c["name"], _cost(c["ns"]), f"{_cost(c['low'])} to {_cost(c['high'])}",
                  count(c["calls"]), _told(c)]
                 for c in data["constants"] if c["status"] != "not seen"]
    unseen = [c["name"] for c in data["constants"] if c["status"] == "not seen"]
    errors = [[f"{r['kind']}, {r['path']}, {r['size']}", count(r["calls"]),
               duration(r["recorded_p50_ns"]), _percent(r["bias"]),
               f"{100 * r['error_p50']:.1f} %", f"{100 * r['error_p90']:.1f} %"]
              for r in data["residuals"]]
    return render([
        pairs(rows),
        table("Constants (fitted to recorded service times)",
              ["", "cost", "95 % interval", "calls", "by the recording"], constants,
              align="lrrrw"),
        notes(["intervals: bootstrap of 100 blocks of neighbouring calls",
               ("pause_T: added once its CPU made no allocation for T; alloc_entry: what an "
               "allocation takes besides the lock; neither is in a run's costs"),
               "not seen, base costs kept: " + (", ".join(unseen) or "none")]),
        table("Residuals of the service time: modelled / recorded - 1",
              ["kind, path, pages", "calls", "recorded p50", "median", "median size", "p90 size"],
              errors),
        table("Held out: blocks of calls, predicted by a fit to the rest (+ spread)",
              ["trace", "kind", "calls", "p50", "p90", "p99", "W1", "KS"],
              [[fitted(r["trace"], 30), r["kind"], count(r["calls"]),
                *(_percent(r["spread"][f"{p}_error"]) for p in ("p50", "p90", "p99")),
                *(_distance(r["spread"][key]) for key in DISTANCES.values())]
               for r in data["held_out"]], align="llrrrrrr"),
    ], color=color)


def _distance(value: float) -> str:
    return f"{value:.3f}"


def _prediction_table(time: str, rows: list[dict[str, Any]]) -> RenderableType:
    """Per group three percentiles and two distances; modelled values with their errors."""
    shown = []
    models = [model for model in MODEL_TITLES if model in rows[0]]
    for row in rows:
        for at, p in enumerate(("p50", "p90", "p99")):
            cells = [(duration(row[m][p]), _percent(row[m][f"{p}_error"])) for m in models]
            shown.append([row["group"] if not at else f"  {count(row['calls'])} calls"
                          if at == 1 else "", p, duration(row["recorded"][p]), *sum(cells, ())])
        for name, key in DISTANCES.items():
            shown.append(["", name, "", *sum(((_distance(row[m][key]), "") for m in models), ())])
    columns = ["", "", "recorded", *sum(((MODEL_TITLES[m], "error") for m in models), ())]
    return table(TIME_TITLES[time], columns, shown, align="ll" + "r" * (len(columns) - 2))


def _guessed(guessed: dict[str, int]) -> list[tuple[str, str]]:
    """The row that names costs no recording determined."""
    named = ", ".join(f"{name} ({n:,} calls)" for name, n in guessed.items())
    return [("Assumed", f"not fitted, but at work here: {named}")] if guessed else []


def predicted(data: dict[str, Any], *, color: bool = False) -> str:
    """The text of a Prediction's JSON form."""
    by_time = {time: [r for r in data["rows"] if r["time"] == time] for time in TIME_TITLES}
    return render([
        pairs([("Trace", fitted(data["trace"], 60)), ("Calls", _used(data["calls"])),
               ("Costs", f"{plain(data['profile'])}: {plain(data['profile_summary'])}"),
               *_guessed(data["guessed"])]),
        *warning_rows([(w["label"], plain(w["text"]), False) for w in data["warnings"]]),
        *(_prediction_table(time, rows) for time, rows in by_time.items() if rows),
        notes(["error: modelled / recorded - 1",
               "W1: Wasserstein-1 distance / recorded mean; KS: Kolmogorov-Smirnov distance",
               ("costs: work x costs, and steps for a pause of the CPU and for an allocation "
                "where the profile has them"),
               *(["+ spread: times a factor drawn from what the calibration saw of like calls"]
                 if "spread" in data["rows"][0] else [])]),
    ], color=color)
