"""`replay run --kernel-tree`: the kernel's own C as one more row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from driving import ROOT, cli, refused
from kernel_sources import POOL, patched

from replay.c.kernel_tree import source

INSTALLED = source.installed()
pytestmark = [
    pytest.mark.skipif(not INSTALLED, reason="no linux-source package: make kernel-source"),
    pytest.mark.skipif(not any(map(shutil.which, ("gcc", "clang", "cc"))), reason="no C compiler"),
]
TRACES = ROOT / "traces"


@pytest.fixture(scope="module")
def tree() -> source.Tree:
    return source.open_tree(INSTALLED[0])


def summary(folder: Path, *args: object) -> dict:
    ended = cli("run", *args, "--out", folder)
    assert ended.code == 0, ended.err
    return json.loads((folder / "summary.json").read_text())


def same_rows(found: dict, model: str, name: str) -> dict:
    """The kernel's row, after a look that the model's has the same in it."""
    assert found["order"] == [model, name]
    ours, theirs = found["allocators"][model], found["allocators"][name]
    for key in ("latency_ns", "fragmentation", "hazards", "work", "frames_digest", "sections",
                "failed", "tallies", "duration_ns"):
        assert ours[key] == theirs[key], key
    return theirs


@pytest.mark.parametrize("trace, model, kind, options", [
    ("pvh-dom0", "pool", "x86-pvh", {}),
    ("pv-dom0", "hotplug", "x86-pv", {"ballooned": 1, "hotplug_unpopulated": 1}),
    ("arm64-dom0", "hypervisor", "arm64", {}),
    ("arm64-dom0", "balloon", "arm64", {"ballooned": 1}),
])
def test_the_row_equals_its_model(tree: source.Tree, tmp_path: Path, trace: str, model: str,
                                  kind: str, options: dict[str, int], *mode: str) -> None:
    sets = [part for k, v in options.items() for part in ("--set", f"kernel.{k}={v}")]
    found = summary(tmp_path, TRACES / f"{trace}.arrow", "--allocator", model,
                    "--kernel-tree", tree.path, *sets, *mode)
    name = f"linux-{tree.name}-{kind}"
    theirs = same_rows(found, model, name)
    assert "times are modelled" in theirs["summary"]
    assert (tmp_path / f"outcome-{name}.arrow").exists()


@pytest.mark.parametrize("mode", [("--asap",), ("--closed-loop", "--lock", "lifo"),
                                  ("--asap", "--lock", "spin", "--time-scale", "0.001")])
def test_callers_that_compete_for_the_lock_find_the_same_in_both(
        tree: source.Tree, tmp_path: Path, mode: tuple[str, ...]) -> None:
    """Memory is hot-added without the lock, so that several callers add some, one after another."""
    test_the_row_equals_its_model(tree, tmp_path, "arm64-dom0", "hotplug", "arm64",
                                  {"ballooned": 1, "hotplug_unpopulated": 1}, *mode)


def test_the_balloon_beside_the_pool_follows_its_target(tree: source.Tree, tmp_path: Path) -> None:
    trace = tmp_path / "synthetic-target.arrow"
    made = cli("synth", "-o", trace, "--seed", 5, "--seconds", 20, "--model", "netback",
               "--model", "target")
    assert made.code == 0, made.err
    found = summary(tmp_path / "out", trace, "--allocator", "pool", "--kernel-tree", tree.path)
    theirs = same_rows(found, "pool", f"linux-{tree.name}-x86-pvh")
    assert theirs["tallies"]["thread_passes"] > 100
    assert theirs["fragmentation"]["ram_given_bytes"]["peak"] > 0


def test_a_patch_stands_beside_its_base(tree: source.Tree, tmp_path: Path) -> None:
    changed = patched(tree, tmp_path, POOL, "round_up(nr_pages, PAGES_PER_SECTION)",
                      "round_up(nr_pages, 2 * PAGES_PER_SECTION)")
    found = summary(tmp_path / "out", TRACES / "pvh-dom0.arrow", "--allocator", "pool",
                    "--kernel-tree", tree.path, "--kernel-tree", changed.path)
    base, patch = (found["allocators"][name]["sections"] for name in found["order"][1:])
    assert found["order"][2] == found["order"][1] + "#2"
    assert 2 * base[0]["nr_pages"] == patch[0]["nr_pages"]


def test_another_variant_of_the_same_architecture(tree: source.Tree, tmp_path: Path) -> None:
    found = summary(tmp_path, TRACES / "pvh-dom0.arrow", "--allocator", "pool", "--kernel-tree",
                    tree.path, "--kernel-variant", "x86-pv")
    assert found["allocators"][f"linux-{tree.name}-x86-pv"]["work"]["p2m_invalidate"] > 0


def test_a_kernel_that_gives_up_is_named_and_the_report_survives(tree: source.Tree,
                                                                 tmp_path: Path) -> None:
    changed = patched(tree, tmp_path, POOL, "mutex_lock(&list_lock);",
                      "mutex_lock(&list_lock);\n\tBUG_ON(list_count > 100);")
    ended = cli("run", TRACES / "pvh-dom0.arrow", "--allocator", "pool", "--kernel-tree",
                changed.path, "--out", tmp_path / "out")
    assert ended.code == 1
    assert "BUG_ON(list_count > 100) at " in ended.err and "(event " in ended.err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["order"] == ["pool"]


def test_what_is_refused(tree: source.Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                         ) -> None:
    run = ("run", TRACES / "pvh-dom0.arrow", "--out", tmp_path / "out", "--kernel-tree")
    refused(*run, tree.path, "--kernel-variant", "arm64", naming=("the machine is x86",))
    refused(*run, tree.path, "--kernel-variant", "x86", naming=("kernel variant 'x86'", "x86-pv"))
    refused(*run, tree.path, "--set", "kernel.scrub=maybe", naming=("expected 0 or 1",))
    refused(*run, tmp_path, naming=("Makefile is missing", "install a package"))
    changed = patched(tree, tmp_path, POOL, "static int fill_list", "static frob fill_list")
    refused(*run, changed.path, naming=("unpopulated-alloc.c", "'frob'", "shim_types.h"))
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(*run, tree.path, naming=("no C compiler", "install gcc or clang"))
    assert not (tmp_path / "out").exists()
