"""What Linux does since when, and what follows from it for a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from driving import ROOT, cli

from replay import allocators
from replay.base.since import SINCE, has, version_of

PVH = ROOT / "traces" / "pvh-dom0.arrow"


@pytest.mark.parametrize(("kernel", "version"), [
    ("6.1.0-54-amd64", (6, 1)), ("5.10", (5, 10)), ("7.3.4", (7, 3)), ("", None), ("linux", None),
    ("6", None), ("99999999999.1", None)])
def test_a_version(kernel: str, version: tuple[int, int] | None) -> None:
    assert version_of(kernel) == version


def test_a_fact_holds_from_its_version_on_and_for_a_kernel_that_nobody_knows() -> None:
    for fact, change in SINCE.items():
        major, minor = change.version
        assert has(fact, f"{major}.{minor}") and has(fact, "99.0") and has(fact, "")
        for gone, again in [change.without] if change.without else []:
            assert not has(fact, f"{gone[0]}.{gone[1]}")
            assert not has(fact, f"{again[0]}.{again[1] - 1}.999")
            assert has(fact, f"{gone[0]}.{gone[1] - 1}.999")
            assert has(fact, f"{again[0]}.{again[1]}")
        assert not has(fact, f"{major}.{minor - 1}.999") and not has(fact, f"{major - 1}.99")
        assert change.subject


def test_every_option_that_names_a_fact_is_off_before_it() -> None:
    named = {(strategy.name, name): option.since
             for strategy in allocators.discover().values()
             for name, option in strategy.options.items() if option.since}
    assert {"bounded_search", "extended_regions", "extra_on_pool",
            "unusable_seeding"} == set(named.values())
    for (strategy, name), fact in named.items():
        loaded = allocators.load(strategy)
        assert loaded.values(loaded.as_of("4.19", {}))[name] is False, fact
        assert loaded.values(loaded.as_of("7.3", {}))[name] is True
        assert loaded.values(loaded.as_of("4.19", {name: "yes"}))[name] is True


def run(folder: Path, *words: object) -> dict[str, Any]:
    done = cli("run", PVH, "--allocator", "hypervisor", *words, "--overwrite",
               "--out", folder, "--json")
    made: dict[str, Any] = json.loads(done.out)["allocators"]["hypervisor"]
    return made


def test_a_recording_of_6_1_is_not_seeded_as_6_9_does(tmp_path: Path) -> None:
    assert "Linux before 6.9 seeds the list with nothing" in run(tmp_path)["notes"][0]
    assert "list seeded at boot" in run(tmp_path, "--kernel", "6.9")["notes"][0]
    assert "list seeded at boot" in run(
        tmp_path, "--set", "hypervisor.seeding=yes")["notes"][0]


def test_a_kernel_that_is_no_version_is_refused(tmp_path: Path) -> None:
    done = cli("run", PVH, "--kernel", "newest", "--out", tmp_path)
    assert (done.code, "expected a version of Linux such as 6.9" in done.err) == (2, True)
