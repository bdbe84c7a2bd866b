"""`replay run --kernel-tree`: the kernel's own C as one more row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from driving import ROOT, cli, refused
from kernel_sources import BALLOON, POOL, patched
from needs import needs_compiler, needs_kernel_source

from replay.c.kernel_tree import source

INSTALLED = source.installed()
pytestmark = [needs_kernel_source, needs_compiler]
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
    ("arm64-dom0-no-regions", "balloon", "arm64", {"ballooned": 1}),
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


@pytest.mark.parametrize("page", ["16384", "65536"])
@pytest.mark.parametrize("model, options", [
    ("hypervisor", {}), ("balloon", {"ballooned": 1}),
    ("hotplug", {"ballooned": 1, "hotplug_unpopulated": 1})])
def test_the_row_equals_its_model_on_larger_pages(
        tree: source.Tree, tmp_path: Path, model: str, options: dict[str, int], page: str) -> None:
    """The kernel's files are built with that PAGE_SHIFT: batches, extents and sections follow."""
    test_the_row_equals_its_model(tree, tmp_path, "arm64-dom0", model, "arm64", options,
                                  "--page-bytes", page)


@pytest.mark.parametrize("mode", [("--asap",), ("--closed-loop", "--lock", "lifo"),
                                  ("--asap", "--lock", "spin", "--time-scale", "0.001")])
def test_callers_that_compete_for_the_lock_find_the_same_in_both(
        tree: source.Tree, tmp_path: Path, mode: tuple[str, ...]) -> None:
    """Memory is hot-added without the lock, so that several callers add some, one after another."""
    test_the_row_equals_its_model(tree, tmp_path, "arm64-dom0", "hotplug", "arm64",
                                  {"ballooned": 1, "hotplug_unpopulated": 1}, *mode)


@pytest.mark.parametrize("trace, model, kind, options, faults", [
    ("pv-dom0", "balloon", "x86-pv", {"ballooned": 1},
     {"alloc_page": "1/50", "xen_alloc_p2m_entry": "1/400"}),
    ("pv-dom0", "pool", "x86-pv", {}, {"set_phys_to_machine": "1/50000", "kzalloc": "1/3",
                                      "xen_alloc_p2m_entry": "1/400"}),
    ("arm64-dom0", "hypervisor", "arm64", {}, {"memremap_pages": "1/2", "kzalloc": "1/4"}),
    ("arm64-dom0", "hotplug", "arm64", {"ballooned": 1, "hotplug_unpopulated": 1},
     {"add_memory_resource": "1/2", "signal": "1/2", "alloc_page": "1/5000"}),
])
def test_calls_fail_alike_in_both(tree: source.Tree, tmp_path: Path, trace: str, model: str,
                                  kind: str, options: dict[str, int], faults: dict[str, str]
                                  ) -> None:
    sets = [part for k, v in {**{f"kernel.{k}": v for k, v in options.items()},
                              **{f"fault.{k}": v for k, v in faults.items()}, "fault.seed": 4}.items()
            for part in ("--set", f"{k}={v}")]
    found = summary(tmp_path, TRACES / f"{trace}.arrow", "--allocator", model,
                    "--kernel-tree", tree.path, *sets)
    theirs = same_rows(found, model, f"linux-{tree.name}-{kind}")
    ours = found["allocators"][model]
    assert ours["failed_calls"] == theirs["failed_calls"]
    assert sum(ours["failed_calls"].values()) > 0
    assert ours["hazard_examples"] == theirs["hazard_examples"]


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
    changed = patched(tree, tmp_path, POOL, "static int fill_list",
                      "static frob fill_list(void);\nstatic void unused(void)\n"
                      "{\n\tshim_has_none_of_these(NOR_THIS);\n}\nstatic int fill_list")
    refused(*run, changed.path, naming=(
        "unpopulated-alloc.c", "'NOR_THIS', 'frob', 'shim_has_none_of_these'", "stubs.h"))
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(*run, tree.path, naming=("no C compiler", "install gcc or clang"))
    assert not (tmp_path / "out").exists()


NEWER = {
    "res = kzalloc(sizeof(*res), GFP_KERNEL);": "res = kzalloc_obj(*res);",
    "pgmap = kzalloc(sizeof(*pgmap), GFP_KERNEL);": "pgmap = kzalloc_objs(struct dev_pagemap, 1);",
    "	mutex_lock(&list_lock);\n	for (i = 0; i < nr_pages; i++) {":
        "	scoped_guard(mutex, &list_lock)\n	for (i = 0; i < nr_pages; i++) {",
    "	mutex_unlock(&list_lock);\n}\nEXPORT_SYMBOL(xen_free_unpopulated_pages);":
        "}\nEXPORT_SYMBOL(xen_free_unpopulated_pages);",
}
"""What kernels since 6.12 write otherwise, by what the pool of an older one has."""


def test_names_of_newer_kernels_mean_the_same(tree: source.Tree, tmp_path: Path) -> None:
    """As far as a tree of this machine's is rewritten with them: its row stays what it was."""
    changed = patched(tree, tmp_path, POOL, *next(iter(NEWER.items())))
    path = changed.path / POOL
    text = path.read_text()
    for old, new in list(NEWER.items())[1:]:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text.replace(
        "static int fill_list", "static void __maybe_unused count(struct page *page)\n{\n"
        "\tguard(mutex)(&list_lock);\n\tinc_node_page_state(page, NR_BALLOON_PAGES);\n"
        "\t_Static_assert(COUNT_ARGS(a, b, c) == 3 && MAX_NUMNODES > numa_node_id(), \"\");\n"
        "\tBUG_ON(page_to_nid(page) != CONCATENATE(numa_node, _id)());\n}\n"
        "static int fill_list", 1))
    found = summary(tmp_path / "out", TRACES / "pvh-dom0.arrow", "--allocator", "pool",
                    "--kernel-tree", changed.path)
    same_rows(found, "pool", f"linux-{tree.name}-x86-pvh")


def test_a_table_of_sysctls_may_have_no_end(tree: source.Tree, tmp_path: Path) -> None:
    """Since Linux 6.11 there is no entry without a name behind the last one."""
    changed = patched(tree, tmp_path, BALLOON, "	register_sysctl_table(xen_root);",
                      "	register_sysctl_init(\"xen/balloon\", balloon_table);")
    path = changed.path / BALLOON
    text = path.read_text()
    a, b = text.index("	{ }\n};\n\nstatic struct ctl_table balloon_root"), text.index("#else\n#define "
                                                                                       "xen_hotplug_unpopulated 0")
    path.write_text(text[:a] + "};\n" + text[b:])
    found = summary(tmp_path / "out", TRACES / "pv-dom0.arrow", "--allocator", "hotplug",
                    "--kernel-tree", changed.path, "--set", "kernel.ballooned=1",
                    "--set", "kernel.hotplug_unpopulated=1")
    same_rows(found, "hotplug", f"linux-{tree.name}-x86-pv")


@pytest.mark.case("11-relative-kernel-tree")
@pytest.mark.parametrize("where", [".", "../tree", "../../sources/tree"])
def test_a_relative_path_is_as_good(tree: source.Tree, tmp_path: Path, where: str,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "sources" / "tree"
    shutil.copytree(tree.path, folder)
    monkeypatch.chdir(folder)
    found = summary(tmp_path / "out", TRACES / "pvh-dom0.arrow", "--allocator", "pool",
                    "--kernel-tree", where)
    same_rows(found, "pool", f"linux-{tree.name}-x86-pvh")


@pytest.mark.case("11-relative-kernel-tree")
def test_an_error_names_its_file_as_it_is(tree: source.Tree, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree whose name occurs in other paths: nothing is cut out of those."""
    changed = patched(tree, tmp_path, POOL, "static int fill_list", "static frob fill_list")
    short = changed.path.rename(tmp_path / "t")
    monkeypatch.chdir(tmp_path)
    ended = cli("run", TRACES / "pvh-dom0.arrow", "--allocator", "pool", "--kernel-tree", "t",
                "--out", tmp_path / "out")
    assert ended.code == 2
    assert f"{short}: does not compile against the shims: {POOL}:" in ended.err


@pytest.mark.case("11-relative-kernel-tree")
def test_a_gate_finds_its_tree_from_its_own_folder(tree: source.Tree, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tree.path, tmp_path / "linux")
    shutil.copy(TRACES / "pvh-dom0.arrow", tmp_path)
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "gate.toml").write_text(
        'baseline = "accepted"\n[[check]]\ntrace = "../pvh-dom0.arrow"\n'
        'allocators = ["pool"]\nkernel_trees = ["../linux"]\n')
    monkeypatch.chdir(tmp_path)
    done = cli("gate", "accept", "--config", "job/gate.toml", "--why", "first")
    assert done.code == 0, done.err
    checked = cli("gate", "check", "--config", "job/gate.toml")
    assert (checked.code, "passed: 1 check" in checked.out) == (0, True), checked.out
