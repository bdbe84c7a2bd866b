"""The texts of `replay calibrate` and `replay predict`."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from replay.report.tables import NONE, count, duration, fitted, notes, pairs, plain, render, table

REASONS = {"failed": "failed", "latency_not_recorded": "return not recorded",
           "overlapping": "overlapping another call, so that it may have waited"}


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:+.1f} %"


def _used(used: dict[str, int]) -> str:
    left = [f"{used[key]:,} {words}" for key, words in REASONS.items() if used[key]]
    text = f"{used['used']:,} of {used['calls']:,} calls"
    return text + (f"; left out: {', '.join(left)}" if left else "")


def _cost(ns: float) -> str:
    """A cost to three digits; below 10 ns a whole number would not do."""
    return f"{ns:.2f} ns" if 0 < ns < 10 else duration(ns)


def _told(constant: dict[str, Any]) -> str:
    """What the recording says of a constant."""
    others = ", ".join(constant["others"])
    return {"determined": "determined", "sum": f"only as a sum with {others}",
            "held": "base cost: made up of other work",
            "not seen": "base cost: does not occur"}[constant["status"]]


def calibrated(data: dict[str, Any], *, color: bool = False) -> str:
    """The text of a Calibration's JSON form."""
    rows = [("Profile", plain(data["profile"])), ("Fitted", plain(data["fitted"])),
            *((("Used" if k == 0 else ""), f"{plain(name)}: {_used(used)}")
              for k, (name, used) in enumerate(data["calls"].items())),
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
        notes(["intervals: bootstrap of 100 blocks of neighbouring calls; where fewer than 10 "
               "calls show a constant, the range of the base profile",
               "not seen, base costs kept: " + (", ".join(unseen) or "none")]),
        table("Residuals of the service time: modelled / recorded - 1",
              ["kind, path, pages", "calls", "recorded p50", "median", "median size", "p90 size"],
              errors),
    ], color=color)


def _prediction_table(time: str, rows: list[dict[str, Any]]) -> RenderableType:
    shown = []
    for row in rows:
        recorded = [duration(row["recorded"][p]) for p in ("p50", "p90", "p99")]
        shown.append([row["group"], "recorded", count(row["calls"]), *recorded, "", ""])
        for model, words in (("costs", "modelled, costs"), ("spread", "modelled, + spread")):
            if model in row:
                cells = [f"{duration(row[model][p])} ({_percent(row[model][p + '_error'])})"
                         for p in ("p50", "p90", "p99")]
                shown.append(["", words, "", *cells, f"{row[model]['wasserstein_1']:.3f}",
                              f"{row[model]['kolmogorov_smirnov']:.3f}"])
    title = {"service": "Service time (calls that waited for nobody)",
             "latency": "Latency with waiting for the lock (all calls)"}[time]
    return table(title, ["", "", "calls", "p50", "p90", "p99", "W1", "KS"], shown,
                 align="llrrrrrr")


def predicted(data: dict[str, Any], *, color: bool = False) -> str:
    """The text of a Prediction's JSON form."""
    by_time = {time: [r for r in data["rows"] if r["time"] == time]
               for time in ("service", "latency")}
    return render([
        pairs([("Trace", fitted(data["trace"], 60)), ("Calls", _used(data["calls"])),
               ("Costs", f"{plain(data['profile'])}: {plain(data['profile_summary'])}")]),
        *(_prediction_table(time, rows) for time, rows in by_time.items() if rows),
        notes(["in brackets: modelled / recorded - 1",
               "costs: work x costs, so that calls of equal work take equally long",
               "+ spread: times a factor drawn from what the calibration saw of like calls",
               "W1: Wasserstein-1 distance / recorded mean; KS: Kolmogorov-Smirnov distance"]),
    ], color=color)
