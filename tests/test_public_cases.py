"""The public cases, each from its own files through the command line."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pytest
from cases import CASES, folders, held, holds, needs_cases
from driving import ROOT, cli, refused
from needs import NO_NEW_KERNEL, need, needs_compiler

from replay.base.code_files import cache_root
from replay.c.kernel_tree import source
from replay.physmap.model import Physmap
from replay.trace.store import Trace, load

TEXT = CASES / "trace-40-allocs.txt"
PVH = ROOT / "traces/pvh-dom0.arrow"


def imported(case: str, folder: Path, text: Path = TEXT) -> Trace:
    """The trace of a text, on the case's machine if it has one."""
    path, machine = folder / "t.arrow", CASES / case / "machine"
    done = cli("import", text, "-o", path, *(("--machine", machine) if machine.is_dir() else ()))
    assert done.code == 0, done.err
    return load(path)


def machine_of(trace: Trace) -> Physmap:
    assert trace.meta.physmap is not None
    return trace.meta.physmap


def of_type(trace: Trace, kind: str) -> list[tuple[int, int]]:
    return [(h.start, h.end) for h in machine_of(trace).host if h.type == kind]


def summary(folder: Path, *args: object) -> dict:
    done = cli("run", *args, "--out", folder)
    assert done.code == 0, done.err
    return json.loads((folder / "summary.json").read_text())


@holds("01-arm-dom0less-banks")
def test_static_memory_of_another_domain_is_not_dom0s(tmp_path: Path) -> None:
    trace = imported("01-arm-dom0less-banks", tmp_path)
    assert of_type(trace, "ram_dom0") == [(0x10000000, 0x18000000)]
    assert (0x50000000, 0x70000000) in of_type(trace, "ram_other")
    assert trace.meta.provenance["xen_version"] == "4.19-unstable"


@holds("04-pvh-linux69-unusable-already-ram")
def test_scratch_memory_that_the_kernel_shows_as_ram_seeds_the_list(tmp_path: Path) -> None:
    case = "04-pvh-linux69-unusable-already-ram"
    trace = imported(case, tmp_path)
    assert machine_of(trace).memory.current == (36 << 30) >> 12
    found = summary(tmp_path / "run", tmp_path / "t.arrow")["allocators"]["hypervisor"]
    [seeded] = [note for note in found["notes"] if note.startswith("list seeded at boot")]
    pages = int(seeded.split()[5])
    assert abs(pages - ((50253484 - 36 * (1 << 20)) >> 2)) < 0.005 * pages
    assert found["nr_sections"] == 0
    copy = tmp_path / "machine"
    shutil.copytree(CASES / case / "machine", copy)
    (copy / "before/xen_balloon").unlink()
    without = tmp_path / "without.arrow"
    assert cli("import", TEXT, "-o", without, "--machine", copy).code == 0
    assert machine_of(load(without)).memory.current == (36 << 30) >> 12


@holds("07-iomem-deeper-than-five")
def test_a_tree_deeper_than_five_levels_is_read(tmp_path: Path) -> None:
    trace = imported("07-iomem-deeper-than-five", tmp_path)
    assert [(one.start, one.end) for one in machine_of(trace).iomem if one.name == "PCI Bus 0000:00"
            ] == [(0x80000000, 0xE0000000)]


@holds("08-perf-script-default-probe-names")
@pytest.mark.parametrize("name", ["no-stacks.txt", "perf-script.txt"])
def test_perfs_own_names_of_probes_give_their_calls(name: str, tmp_path: Path) -> None:
    case = "08-perf-script-default-probe-names"
    trace = imported(case, tmp_path, CASES / case / name)
    assert trace.table["kind"].to_pylist() == ["alloc", "free"]
    assert trace.table["nr_pages"].to_pylist() == [16, 16]
    accounting = trace.meta.accounting
    assert (accounting["records"], accounting["imported"]) == (3, 3)
    assert "lines_unmatched" not in trace.meta.anomalies


@holds("09-lost-events-of-unknown-number")
@pytest.mark.parametrize("name", ["trace.txt", "report.txt"])
def test_a_loss_of_unknown_number_is_a_loss(name: str, tmp_path: Path) -> None:
    case = "09-lost-events-of-unknown-number"
    imported(case, tmp_path, CASES / case / name)
    shutil.move(tmp_path / "t.arrow", tmp_path / "lossy.arrow")
    assert "DATA LOSS: an unknown number of records lost" in cli("info", tmp_path / "lossy.arrow").out
    (tmp_path / "gate.toml").write_text(
        'baseline = "accepted"\n[[check]]\ntrace = "lossy.arrow"\nallocators = ["pool"]\n')
    refused("gate", "accept", "--config", tmp_path / "gate.toml", "--why", "first",
            naming=("lost",))


@holds("10-arm-taken-for-x86")
def test_an_arm_machine_is_one_without_a_line_that_says_aarch64(tmp_path: Path) -> None:
    trace = imported("10-arm-taken-for-x86", tmp_path)
    machine = machine_of(trace)
    assert (machine.arch, machine.direct_mapped) == ("arm64", True)
    assert of_type(trace, "ram_dom0") == [(0, 0x20000000)]
    assert sum(end - start for start, end in of_type(trace, "ram_other")) == (
        0x3B400000 + (0xFC000000 - 0x40000000) + (0x200000000 - 0x100000000) - 0x20000000
        - (0x29BF5000 - 0x29AD1000))  # less Xen itself
    assert machine.grant_table == (0x29AD1000, 0x29B11000)
    assert trace.meta.provenance["cpu_hz"] == "54000000"


@pytest.mark.case("12-hotplug-asleep-accounting")
def test_who_adds_a_section_waits_for_it_like_the_others(tmp_path: Path) -> None:
    found = summary(tmp_path, PVH, "--allocator", "hotplug", "--set", "hotplug.auto_online=no",
                    )["allocators"]["hotplug"]
    assert found["failed"] == found["hazards"]["waits_without_end"] == 4184
    assert found["slow"]["count"] == 0
    assert set(outcome_errnos(tmp_path)) == {-11}


def outcome_errnos(folder: Path) -> list[int]:
    """Every errno of a failed call in the outcome of the hotplug strategy."""
    with pa.OSFile(str(folder / "outcome-hotplug.arrow")) as file:
        return [e for e in pa.ipc.open_file(file).read_all()["errno"].to_pylist() if e]


@holds("13-arm-clock-frequency-assumed")
def test_an_arm_clocks_frequency_is_that_of_xl_info(tmp_path: Path) -> None:
    text = tmp_path / "xen.bin"
    text.write_bytes(bytes.fromhex("03f001200000000000000000"))
    trace = imported("13-arm-clock-frequency-assumed", tmp_path, text)
    assert trace.meta.clock["hz"] == 54_000_000
    assert not [note for note in machine_of(trace).assumed if "hz" in note]


def newest() -> list[source.Tree]:
    """Kernel trees of 7.x in the cache."""
    makefiles = sorted((cache_root() / "kernel-source").glob("*/Makefile"))
    found = [source.open_tree(path.parent) for path in makefiles]
    return [tree for tree in found if int(tree.version.split(".")[0]) >= 7]


@pytest.mark.case("15-kernel-7x-tree")
@need(newest(), NO_NEW_KERNEL)
@needs_compiler
@pytest.mark.parametrize("tree", newest() or [None], ids=lambda tree: tree and tree.version)
def test_trees_of_linux_7_build(tree: source.Tree, tmp_path: Path) -> None:
    trace = ROOT / "traces/pv-dom0.arrow"  # PVH seeds the list since 6.9, as `hypervisor` does
    found = summary(tmp_path, trace, "--allocator", "pool", "--kernel-tree", tree.path)["allocators"]
    ours, theirs = found["pool"], found[f"linux-{tree.name}-x86-pv"]
    assert ours["frames_digest"] == theirs["frames_digest"]
    assert ours["work"] == theirs["work"]


# -- made by hand or by mutation -----------------------------------------------------------------
@holds("hostile/alloc2e28")
@pytest.mark.parametrize("verb", ["run", "verify"])
def test_a_request_of_a_tebibyte_is_weighed_before_it_is_tried(verb: str, tmp_path: Path) -> None:
    out = ("--out", tmp_path) if verb == "run" else ()
    refused(verb, CASES / "hostile/alloc2e28.arrow", "--memory-limit", "4GiB", *out,
            naming=("268,435,456 pages", "may be used (as --memory-limit says)"))


@pytest.mark.parametrize("verb", ["info", "run", "verify"])
@holds("hostile/bomb20M")
def test_a_bomb_is_refused_unread(verb: str, tmp_path: Path) -> None:
    path = CASES / "hostile/bomb20M.arrow"
    out = ("--out", tmp_path) if verb == "run" else ()
    begun = time.process_time()
    refused(verb, path, *out, naming=(path, "expands to more than 1000 times its size"))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("verb", ["info", "run", "verify"])
@holds("hostile/nonutf8-metadata")
def test_metadata_that_is_no_text_is_a_sentence(verb: str, tmp_path: Path) -> None:
    path = CASES / "hostile/nonutf8-metadata.arrow"
    out = ("--out", tmp_path) if verb == "run" else ()
    refused(verb, path, *out, naming=(path, "not UTF-8"))


@holds("hostile/longname-50000")
def test_a_name_of_fifty_thousand_letters_takes_no_time() -> None:
    begun = time.process_time()
    done = cli("info", CASES / "hostile/longname-50000.arrow")
    assert done.code == 0
    assert time.process_time() - begun < 5
    assert len(done.out) < 50_000


@pytest.mark.parametrize("verb", ["info", "run", "verify", "predict", "sensitivity"])
@pytest.mark.parametrize("name", [
    pytest.param("verify-slot", marks=pytest.mark.case("hostile/verify-slot")),
    pytest.param("verify-slot-neg", marks=pytest.mark.case("hostile/verify-slot-neg"))])
@needs_cases
def test_a_slot_that_cannot_be_is_refused_in_one_way(name: str, verb: str, tmp_path: Path) -> None:
    path = CASES / f"hostile/{name}.arrow"
    more = {"run": ("--out", tmp_path), "predict": ("--profile", "x86")}.get(verb, ())
    refused(verb, path, *more, naming=(path, "row 148: names a slot beyond the trace's pages"))


@holds("hostile/zone")
def test_a_zone_without_its_number_is_named_by_file_and_line(tmp_path: Path) -> None:
    refused("import", CASES / "trace-4-allocs.txt", "-o", tmp_path / "t.arrow", "--machine",
            CASES / "hostile/zone", naming=("zoneinfo, line 160", "expected 'managed N'"))


@needs_cases
def test_every_numbered_case_that_is_there_is_held() -> None:
    assert set(folders()) <= held()
