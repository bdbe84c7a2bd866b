"""The one list of work: what counts it, what C calls it, and profiles that lack some of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from driving import ROOT, cli

from replay.base.errors import InputError
from replay.costs.primitives import (
    ALL, ARCHITECTURES, COSTED, LOCK, PRIMITIVES, WAKE_LATENCY, WORK,
)  # fmt: skip
from replay.costs.profile import built_in, load
from replay.engine import state

HEADER = ROOT / "replay" / "c" / "replay_allocator.h"


def test_c_counts_the_same_work_in_the_same_order() -> None:
    body = re.search(r"enum replay_work \{(.*?)REPLAY_NR_WORK", HEADER.read_text(), re.S)
    assert body is not None
    assert tuple(re.findall(r"REPLAY_(\w+),", body[1])) == tuple(name.upper() for name in WORK)


def test_a_state_counts_it_in_that_order() -> None:
    first = state.word_of("work")
    assert [state.word_of(f"work.{name}") - first for name in WORK] == [*range(len(WORK))]


def test_each_has_a_sentence_a_unit_and_costs_of_every_architecture() -> None:
    assert COSTED == (*PRIMITIVES, WAKE_LATENCY) == (*WORK, LOCK, WAKE_LATENCY)
    for one in ALL:
        assert one.said and one.unit and set(one.costs) == set(ARCHITECTURES)
        for cost in one.costs.values():
            assert 0 <= cost.low <= cost.ns <= cost.high and cost.source


def test_what_a_profile_lacks_costs_what_it_does_by_default_and_the_report_says_so(
        tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nsummary = "of my board"\n[cost.hypercall]\nns = 5\nlow = 1\n'
                    'high = 9\nsource = "measured"\n')
    mine = load(str(path), "arm64")
    assert mine.costs["hypercall"].ns == 5
    assert {n: c for n, c in mine.costs.items() if n != "hypercall"} == {
        n: c for n, c in built_in("arm64").costs.items() if n != "hypercall"}
    assert mine.built_in == tuple(name for name in COSTED if name != "hypercall")
    shown = cli("run", ROOT / "traces/arm64-dom0-no-regions.arrow", "--allocator", "balloon",
                "--profile", path, "--out", tmp_path / "out").out
    assert "of my board; built-in costs (arm64)" in " ".join(shown.split())


@pytest.mark.parametrize(("text", "said"), [
    ("[cost.hypercal]\nns = 1\nlow = 1\nhigh = 1\nsource = 'x'", "hypercall"),
    ("[cost.hypercall]\nns = 1", "needs ns, low, high and source"),
    ("[cost.hypercall]\nns = 3\nlow = 1\nhigh = 2\nsource = 'x'", "low <= ns <= high"),
    ("name = 'x'", "expected a table per primitive"),
])
def test_a_wrong_profile_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(InputError, match=said):
        load(str(tmp_path / "p.toml"))
