"""Wake-ups of the balloon thread that a recording shows, and the cost that they give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from driving import ROOT
from recorded_rows import trace_of

from replay.calibration.calibrate import calibrate
from replay.calibration.wakes import MIN_WAKES, wake_cost, wake_latencies
from replay.costs import profile
from replay.costs.primitives import WAKE_LATENCY
from replay.trace.start import fact
from replay.trace.store import Trace, load

OWN = 1000
S = 10**9


def row(time: int, kind: str, nr: int, task: str = "xl") -> dict:
    return {"time_ns": time, "kind": kind, "nr_pages": nr, "task": task, "pid": 1,
            "errno": nr if kind in ("increase", "decrease") else 0}


def recorded(*rows: dict, current: int = OWN) -> Trace:
    trace = trace_of(list(rows), "qemu-virt-arm64-no-regions", "balloon")
    start = {"balloon": {"current": fact(current, "made up"), "target": fact(OWN, "made up")}}
    return replace(trace, meta=replace(trace.meta, start=start))


def thread(time: int, kind: str, nr: int) -> dict:
    return row(time, kind, nr, "xen-balloon")


def test_the_first_free_with_a_credit_wakes_it_and_a_pass_follows() -> None:
    trace = recorded(row(10, "free", 1), row(20, "decrease", 50), row(100, "free", 20),
                     row(150, "free", 30), thread(500, "increase", 50),
                     row(900, "decrease", 8), row(1000, "free", 8), thread(1007, "increase", 8))
    assert wake_latencies(trace).tolist() == [400, 7]


def test_a_new_target_wakes_it_but_a_pass_that_gives_up_begins_before_its_hypercall() -> None:
    up = {**row(10, "target", 0), "target_pages": OWN + 9}
    down = {**row(90, "target", 0), "target_pages": OWN}
    trace = recorded(up, thread(40, "increase", 9), down, thread(99, "decrease", 9))
    assert wake_latencies(trace).tolist() == [30]
    same = {**row(10, "target", 0), "target_pages": OWN}
    assert wake_latencies(recorded(same, thread(40, "increase", 9))).tolist() == []


def test_what_a_time_out_may_have_begun_is_left_out() -> None:
    late = recorded(row(20, "decrease", 5), row(100, "free", 5), thread(100 + S, "increase", 5))
    assert wake_latencies(late).tolist() == []
    # It sleeps with a credit: only a change of it wakes, and one long ago it has seen since.
    assert wake_latencies(recorded(row(100, "free", 1), thread(200, "increase", 1),
                                   current=OWN - 5)).tolist() == []
    changed = recorded(row(90, "decrease", 1), row(100, "free", 1), thread(200, "increase", 1),
                       current=OWN - 5)
    assert wake_latencies(changed).tolist() == [100]


def test_where_its_hot_adds_are_recorded_the_credit_it_slept_with_is_known() -> None:
    """It sleeps with 5 missing; as many miss at the first free, one more from the second on."""
    asleep = (row(20, "decrease", 8), row(30, "free", 8), thread(40, "increase", 3),
              thread(50, "hotplug_check", 0))
    late = S // 10  # longer ago than what counts as recent where none is recorded
    again = (row(90, "free", 1), row(100, "decrease", 1), row(100 + late, "free", 1),
             thread(107 + late, "increase", 1))
    assert wake_latencies(recorded(*asleep, *again)).tolist() == [10, 7]
    # The pass shows with its hypercall or, where nothing is listed, with the next look for memory.
    assert wake_latencies(recorded(*asleep, *again[:-1], thread(109 + late, "hotplug_check", 0))
                          ).tolist() == [10, 9]


def test_a_thread_that_adds_memory_is_not_asleep() -> None:
    asleep = (row(20, "decrease", 5), thread(30, "hotplug_check", 0), thread(40, "section", 32768))
    busy = (row(50, "decrease", 1), row(60, "free", 1), thread(900, "increase", 1))
    assert wake_latencies(recorded(*asleep, *busy)).tolist() == []


def test_what_dom0_had_at_the_start_may_be_its_machines() -> None:
    trace = recorded(row(20, "decrease", 5), row(100, "free", 5), thread(107, "increase", 5))
    assert wake_latencies(replace(trace, meta=replace(trace.meta, start={}))).tolist() == [7]
    assert len(wake_latencies(replace(trace, meta=replace(trace.meta, physmap=None)))) == 0
    assert wake_cost([trace] * (MIN_WAKES - 1)) is None
    assert wake_cost([trace] * MIN_WAKES) == (MIN_WAKES, (7.0, 7.0, 7.0))


def test_a_calibration_has_it_or_says_why_not() -> None:
    base = profile.load("arm64")
    pool = load(ROOT / "traces" / "arm64-dom0.arrow")
    found = {c.name: c for c in calibrate([pool], ["0"], base, "x").constants}[WAKE_LATENCY]
    assert (found.status, found.cost.ns) == ("few", base.costs[WAKE_LATENCY].ns)
    told = load(ROOT / "traces" / "arm64-dom0-no-regions.arrow")
    made = calibrate([told], ["0"], base, "x")
    found = {c.name: c for c in made.constants}[WAKE_LATENCY]
    assert found.status == "determined"
    assert found.nr_calls == len(wake_latencies(told)) > MIN_WAKES
    assert found.cost.low < found.cost.ns == pytest.approx(np.median(wake_latencies(told)))
    assert made.profile.costs[WAKE_LATENCY] == found.cost
