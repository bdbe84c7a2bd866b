"""Models against the kernel's own source, in the short form; and that the comparison can fail."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from kernel_sources import BALLOON, INSTALLED, POOL, patched, tree  # noqa: F401 (a fixture among them)
from driving import cli, refused
from needs import needs_compiler, needs_kernel_source
from replay.base.errors import ReplayError
from replay.c.kernel_tree import build, source
from replay.engine.faults import FAULT_KINDS
from replay.physmap.host import extra_memory
from replay.truth.witness import compare, streams

REQUESTS = int(os.environ.get("REPLAY_FUZZ_REQUESTS", "20000"))
pytestmark = [needs_kernel_source, needs_compiler]

NOWHERE = ("static struct page *page_list;\nextern int nowhere(void);\n"
           "int use_it(void) { return nowhere(); }")


@pytest.mark.parametrize("path", INSTALLED or [None], ids=lambda p: p and p.name)
@pytest.mark.parametrize("name", streams.STRATEGIES)
def test_every_call_is_equal(name: str, path: Path) -> None:
    result = next(iter(compare.compare([path], [name], REQUESTS, 0)))
    assert result.difference == ""
    assert result.counts["requests"] == REQUESTS
    assert result.counts["lists_compared"] >= result.seeds > 0


def test_the_streams_reach_what_they_should(tree: source.Tree) -> None:
    """Failures, sleeps, passes, sections: a comparison of nothing but fast calls proves little."""
    found = {name: streams.run_streams(name, tree, REQUESTS).counts for name in streams.STRATEGIES}
    for name, counts in found.items():
        assert 0 < counts["failed"] < counts["allocations"], name
    assert found["hotplug"]["slept"] > 0
    assert all(found[name]["thread_passes"] > 0 for name in found)
    assert all(found[name]["sections"] > 0 for name in ("pool", "hypervisor", "hotplug"))


@pytest.mark.parametrize("name", ["pool", "balloon"])
def test_the_streams_begin_as_machines_do(name: str) -> None:
    """Extra memory, lists that are not empty, HVM domains; with what a kernel would do of each."""
    begun = []
    for seed in range(60):
        rng = random.Random(f"{name} {seed}")
        begun.append(streams.started(rng, streams.machine_for(name, rng, seeds_memory=True)))
    assert {machine.mode for machine, _ in begun} == {"pv", "hvm", "pvh"} | (
        {"arm"} if name == "balloon" else set())
    extra = [bool(extra_memory(machine)) for machine, _ in begun]
    given = [start.balloon > 0 for _, start in begun]
    assert {*zip(extra, given, strict=True)} == {(a, b) for a in (True, False)
                                                 for b in (True, False)}


@pytest.mark.parametrize("name, file, old, new", [
    ("balloon", BALLOON, "min(max_pfn, start_pfn + pages)", "min(max_pfn, start_pfn + pages - 1)"),
    ("pool", BALLOON, "min(max_pfn, start_pfn + pages)", "min(max_pfn, start_pfn + pages - 1)"),
    ("hotplug", BALLOON, "balloon_stats.total_pages += extra_pfn_end - start_pfn;", ";"),
    ("pool", POOL, "pages[i] = pg;", "pages[nr_pages - 1 - i] = pg;"),
    ("pool", POOL, "round_up(nr_pages, PAGES", "round_up(nr_pages + 1, PAGES"),
    ("hypervisor", POOL, "err_insert:\n\trelease_resource(res);", "err_insert:"),
    ("balloon", BALLOON, "list_add(&page->lru, &ballooned_pages)",
     "list_add_tail(&page->lru, &ballooned_pages)"),
    ("balloon", BALLOON, "max_retry_count = 4", "max_retry_count = 5"),
    ("balloon", BALLOON, "n_pages < totalreserve_pages", "n_pages <= totalreserve_pages"),
    ("pool", BALLOON, "max_retry_count = 4", "max_retry_count = 5"),
    ("pool", BALLOON, "list_add(&page->lru, &ballooned_pages)",
     "list_add_tail(&page->lru, &ballooned_pages)"),
    ("hotplug", BALLOON, "total_pages += balloon_hotplug", "total_pages += credit"),
])
def test_a_changed_kernel_is_noticed(tree: source.Tree, tmp_path: Path, name: str, file: str,
                                     old: str, new: str) -> None:
    changed = patched(tree, tmp_path, file, old, new)
    result = streams.run_streams(name, changed, 100_000)
    assert " in the model, " in result.difference


def test_streams_have_failures_of_every_kind(tree: source.Tree) -> None:
    """Half of the streams none, so that what nothing disturbs is compared as well."""
    drawn = {name: [streams.faults_for(name, seed, streams.machine_for(
        name, random.Random(f"{name} {seed}"), True)) for seed in range(200)]
        for name in streams.STRATEGIES}
    for name, every in drawn.items():
        assert 70 < sum(map(bool, every)) < 130, name
    assert {kind for every in drawn.values() for one in every for kind in one.ratios} == set(FAULT_KINDS)
    assert any(one.max_pages for one in drawn["balloon"])
    met = [streams.run_streams(name, tree, 60_000).faults for name in streams.STRATEGIES]
    assert {kind for one in met for kind, count in one.items() if count} == set(FAULT_KINDS)


def test_what_fails_in_all_streams_can_be_said(tree: source.Tree, tmp_path: Path) -> None:
    sets = ("--set", "fault.kzalloc=1/2", "--set", "fault.seed=5")
    shown = cli("witness", "--kernel-tree", tree.path, "--strategy", "pool", "--requests", "8000",
                "--json", *sets)
    assert shown.code == 0, shown.err
    (result,) = json.loads(shown.out)["results"]
    assert result["faults"]["kzalloc"] > 20
    assert sum(result["faults"].values()) == result["faults"]["kzalloc"]
    changed = patched(tree, tmp_path, POOL, "\tkfree(res);", "\t;")
    ended = cli("witness", "--kernel-tree", changed.path, "--strategy", "pool", "--requests",
                "8000", *sets)
    assert ended.code == 1
    assert "kernel objects lost [0] is 0 in the model, 1 in the kernel" in " ".join(ended.out.split())
    assert "--requests 4000 --set fault.kzalloc=1/2 --set fault.seed=5" in " ".join(ended.out.split())
    refused("witness", "--kernel-tree", tree.path, "--set", "pool.scrub=0", naming=(
        "unknown setting 'pool.scrub'", "fault.alloc_page"))
    refused("witness", "--kernel-tree", tree.path, "--set", "fault.signal=3/2", naming=(
        "expected a ratio",))


def test_a_difference_comes_with_a_command_that_shows_it(tree: source.Tree, tmp_path: Path) -> None:
    changed = patched(tree, tmp_path, BALLOON, "max_retry_count = 4", "max_retry_count = 5")
    result = streams.run_streams("balloon", changed, 100_000)
    again = streams.run_streams("balloon", changed, 4000, first_seed=result.seed)
    assert again.difference == result.difference
    assert f"--first-seed {result.seed} " in compare.command(changed.path, result)


def test_a_bug_in_the_kernels_code_ends_its_own_process_only(tree: source.Tree,
                                                             tmp_path: Path) -> None:
    changed = patched(tree, tmp_path, POOL, "mutex_lock(&list_lock);",
                      "mutex_lock(&list_lock);\n\tBUG_ON(list_count > 5);")
    result = next(iter(compare.compare([changed.path], ["pool"], 4000, 1)))
    assert "the kernel's code stopped: BUG_ON(list_count > 5) at " in result.difference
    assert result.seed == 1


def test_a_lock_that_is_taken_twice_is_named(tree: source.Tree, tmp_path: Path) -> None:
    changed = patched(tree, tmp_path, POOL, "out:\n\tmutex_unlock(&list_lock);", "out:\n\t;")
    result = next(iter(compare.compare([changed.path], ["pool"], 4000, 0)))
    assert "held already: deadlock" in result.difference


@pytest.mark.parametrize("old, new, said", [
    ("mutex_lock(&list_lock);", "mutex_lock(&list_lock)", "error: expected"),
    ("mutex_lock(&list_lock);", "frobnicate(&list_lock);", "the shims have no 'frobnicate'"),
    ("static struct page *page_list;", NOWHERE, "the shims have no 'nowhere'"),
])
def test_what_does_not_compile_says_where_and_which_shim(tree: source.Tree, tmp_path: Path,
                                                         old: str, new: str, said: str) -> None:
    changed = patched(tree, tmp_path, POOL, old, new)
    with pytest.raises(ReplayError) as caught:
        build.build(changed, "x86", 4096)
    assert said in str(caught.value)
    assert str(changed.path) in str(caught.value)
    assert "unpopulated-alloc.c" in str(caught.value) or "nowhere" in said


def test_an_object_is_built_once(tree: source.Tree) -> None:
    first = build.build(tree, "arm64", 65536).path
    made = first.stat().st_mtime_ns
    assert build.build(tree, "arm64", 65536).path == first
    assert first.stat().st_mtime_ns == made


def test_a_tree_without_the_pool_falls_back_to_the_balloon(tree: source.Tree,
                                                           tmp_path: Path) -> None:
    """Before Linux 5.9 there was no unpopulated-alloc.c, before 5.17 none for Arm."""
    shutil.copytree(tree.path, tmp_path / "tree")
    (tmp_path / "tree" / POOL).unlink()
    older = source.open_tree(tmp_path / "tree")
    for arch in ("x86", "arm64"):
        assert build.build(older, arch, 4096).notes == (build.NO_POOL,)
    assert streams.run_streams("balloon", older, 4000).difference == ""
    assert streams.run_streams("pool", older, 4000).seeds == 0


def test_a_tree_with_the_names_of_older_kernels(tree: source.Tree, tmp_path: Path) -> None:
    """Before Linux 5.16 the balloon's calls had other names, before 5.11 the merge flag, too."""
    shutil.copytree(tree.path, tmp_path / "tree")
    for name in (POOL, BALLOON, "include/xen/balloon.h"):
        path, text = tmp_path / "tree" / name, (tree.path / name).read_text()
        for old, new in (("xen_alloc_ballooned_pages", "alloc_xenballooned_pages"),
                         ("xen_free_ballooned_pages", "free_xenballooned_pages"),
                         ("MHP_MERGE_RESOURCE", "MEMHP_MERGE_RESOURCE")):
            text = text.replace(old, new)
        path.write_text(text)
    older = source.open_tree(tmp_path / "tree")
    for name in ("pool", "balloon", "hotplug"):
        assert streams.run_streams(name, older, 4000).difference == "", name


def test_trees_that_are_none(tmp_path: Path, tree: source.Tree) -> None:
    with pytest.raises(ReplayError, match="no such kernel source tree"):
        source.open_tree(tmp_path / "none")
    with pytest.raises(ReplayError, match=r"Makefile is missing"):
        source.open_tree(tmp_path)
    (tmp_path / "broken.tar.xz").write_bytes(b"no tarball")
    with pytest.raises(ReplayError, match=r"broken\.tar\.xz: cannot be unpacked"):
        source.open_tree(tmp_path / "broken.tar.xz")
    shutil.copytree(tree.path, tmp_path / "tree")
    (tmp_path / "tree" / "Makefile").write_text("all:\n")
    with pytest.raises(ReplayError, match="names no kernel version"):
        source.open_tree(tmp_path / "tree")


def test_no_source_package_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PACKAGES", tmp_path)
    monkeypatch.setattr(source, "cache_root", lambda: tmp_path)
    with pytest.raises(ReplayError, match=r"no kernel source in .*; .*install a package such as"):
        source.all_installed()
    (tmp_path / "linux-source-6.10.tar.xz").touch()
    (tmp_path / source.FETCHED / "usr" / "src").mkdir(parents=True)
    (tmp_path / source.FETCHED / "usr" / "src" / "linux-source-6.9.tar.xz").touch()
    assert [p.name for p in source.all_installed()] == [
        "linux-source-6.9.tar.xz", "linux-source-6.10.tar.xz"]


def test_a_git_tree_is_named_by_its_commit(tree: source.Tree, tmp_path: Path) -> None:
    shutil.copytree(tree.path, tmp_path / "tree")
    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", *args],
            cwd=tmp_path / "tree", capture_output=True, text=True, check=True).stdout.strip()
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "as it was")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert source.open_tree(tmp_path / "tree").name == f"{tree.version}-{commit}"
    (tmp_path / "tree" / POOL).write_text("/* changed */\n")
    assert source.open_tree(tmp_path / "tree").name == f"{tree.version}-{commit}+"
