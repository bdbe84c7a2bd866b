"""Costs fitted on one recording predict the others of the same machine, whose clock counts
instructions: the errors are the model's own, not the host's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from driving import ROOT, cli
from replay.api import calibrate_costs, predict_latency
from replay.calibration.calls import recorded_calls
from replay.trace.store import load

COUNTED = ROOT / "traces" / "counted"
NAMES = sorted(path.stem for path in COUNTED.glob("*.arrow"))
AIM = {"p50": 0.10, "p90": 0.10, "p99": 0.25}

@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("profiles")
    made = {name: folder / f"{name}.toml" for name in NAMES}
    for name, path in made.items():
        calibrate_costs([COUNTED / f"{name}.arrow"], path)
    return made


def service(profile: Path, name: str) -> dict[str, dict[str, Any]]:
    """Of allocations and of frees, recorded against modelled."""
    rows = predict_latency(COUNTED / f"{name}.arrow", str(profile)).rows
    return {r["group"]: r for r in rows if r["time"] == "service" and "," not in r["group"]}


@pytest.mark.parametrize("fitted_on", NAMES)
def test_one_recording_predicts_the_others_within_the_aim(fitted_on: str,
                                                          profiles: dict[str, Path]) -> None:
    for name in set(NAMES) - {fitted_on}:
        rows = service(profiles[fitted_on], name)
        missed = [(kind, p) for kind in ("alloc", "free") for p, aim in AIM.items()
                  if abs(rows[kind]["costs"][f"{p}_error"]) > aim]
        assert missed == [], (name, rows)


def test_the_same_load_takes_the_same_time_again() -> None:
    first, again = (recorded_calls(load(COUNTED / f"{name}.arrow")).service().frame
                    for name in ("first", "again"))
    assert first["pages"].to_list() == again["pages"].to_list()
    ratio = again["service_ns"] / first["service_ns"]
    assert abs(ratio.median() - 1) < 0.001
    assert ((ratio - 1).abs() < 0.01).mean() > 0.8


def test_info_shows_how_long_frees_took() -> None:
    shown = cli("info", COUNTED / "small.arrow").out
    assert re.search(r"^Frees\n.*\n.*\n1 +323 +323 +0 +3.24 us", shown, re.MULTILINE), shown
