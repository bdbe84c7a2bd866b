"""What folders of runs are called."""

from __future__ import annotations

import pytest

from replay.runs.naming import MOST_LABEL_BYTES, label, name_of
from replay.runs.options import given


@pytest.mark.parametrize(("options", "expected"), [
    ({}, "t"),
    ({"allocators": ["balloon", "hotplug", "pool", "hypervisor"]}, "t"),
    ({"allocators": ["pool", "dir/mine.py"]}, "t-pool+mine"),
    ({"iommu": "on", "loop": "asap", "lock": "spin"}, "t-iommu=on-asap-lock=spin"),
    ({"loop": "closed", "no_outcome": True}, "t-closed-loop-no-outcome"),
    ({"settings": {"pool.section_pages": "65536", "fault.alloc_page": "1/1000"}},
     "t-fault.alloc_page=1_1000-pool.section_pages=65536"),
    ({"kernel_trees": ["/usr/src/linux-6.1"], "physmap": "../a b.toml"},
     "t-kernel-tree=linux-6.1-physmap=a_b.toml"),
    ({"time_scale": "0.5"}, "t-time-scale=0.5")])
def test_it_says_what_was_asked_for(options: dict[str, object], expected: str) -> None:
    assert label("t", given(options)) == expected


@pytest.mark.parametrize(("trace", "expected"), [
    ("../../etc", "_.._etc"), ("..", "unnamed"), ("", "unnamed"), ("-rf", "rf"),
    ("a\x1b[2J\u202eb\n", "a__2J_b_"), ("\ud800x", "_x"), ("дом0", "дом0"), ("a:b", "a_b")])
def test_a_hostile_name_of_a_trace_stays_a_name(trace: str, expected: str) -> None:
    assert label(trace, given({})) == expected


def test_a_long_one_is_cut_where_a_letter_ends() -> None:
    found = label("д" * 500, given({"iommu": "on"}))
    assert found == "д" * (MOST_LABEL_BYTES // 2)


def test_the_digest_tells_runs_apart() -> None:
    first = {"run": {"replay_version": "1.2"}, "figure": 1}
    assert name_of("a", first) == name_of("a", dict(reversed(first.items())))
    assert name_of("a", first).startswith("a-1.2-")
    assert name_of("a", first) != name_of("a", {**first, "figure": 2})
