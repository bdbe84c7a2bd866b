"""A machine under other assumptions: its IOMMU, RAM out of the resource tree; new boards."""

from __future__ import annotations

import pytest
from driving import ROOT, cli, refused

from replay.base.units import GIB, MIB
from replay.metrics.fragmentation import advertised, free_sections
from replay.physmap import presets
from replay.physmap.model import HostRange, Physmap, Resource
from replay.physmap.variants import SUBTRACTED, subtract_ram, with_iommu

BOARDS = ("qemu-virt-arm64", "rcar-h3", "zynqmp", "rk3399")
RAM = ("ram_dom0", "ram_other", "ram_xen")


def free_bytes(machine: Physmap, types: tuple[str, ...]) -> int:
    """Bytes of host ranges of these types that no child of iomem_resource covers."""
    taken = [(c.start, c.end) for c in machine.iomem]
    spans = [(h.start, h.end) for h in machine.host if h.type in types]
    return sum(b - a for a, b in free_sections(spans, (0, 1 << 62), machine.page_bytes, taken))


@pytest.mark.parametrize("board", BOARDS)
def test_known_ram_is_no_news_on_arm_and_all_ram_leaves_none(board: str) -> None:
    machine = presets.load(board)
    known, every = subtract_ram(machine, "known"), subtract_ram(machine, "all")
    assert free_bytes(machine, ("ram_other",)) == free_bytes(known, ("ram_other",)) > 0
    assert free_bytes(known, ("ram_dom0",)) == free_bytes(every, RAM) == 0
    assert (every.host, every.regions, every.memory) == (
        machine.host, machine.regions, machine.memory)


def test_busy_children_stay_and_only_the_gaps_between_them_are_taken() -> None:
    machine = presets.load("rcar-h3").with_changes(
        iomem=(Resource(0, 4, "a"), Resource(4, 8, "a"), Resource(20, 24, "b")),
        host=(HostRange(2, 22, "ram_other"), HostRange(30, 40, "ram_dom0"),
              HostRange(50, 60, "mmio")))
    assert [(c.start, c.end, c.name) for c in subtract_ram(machine, "all").iomem] == [
        (0, 4, "a"), (4, 8, "a"), (8, 20, SUBTRACTED), (20, 24, "b"), (30, 40, SUBTRACTED)]
    assert [c.start for c in subtract_ram(machine, "known").iomem] == [0, 4, 20, 30]


def test_the_iommu_alone_changes_and_a_machine_as_asked_for_is_the_same() -> None:
    machine = presets.load("rcar-h3")
    off = with_iommu(machine, "off")
    assert with_iommu(machine, "on") is machine
    assert not off.iommu
    assert off.with_changes(iommu=True, name=machine.name) == machine


def test_a_run_says_which_machine_it_was_and_refuses_unknown_words(tmp_path) -> None:
    trace = ROOT / "traces" / "pv-dom0.arrow"
    ran = cli("run", trace, "--allocator", "pool", "--physmap", "rk3399", "--iommu", "on",
              "--subtract-ram", "all", "--out", tmp_path)
    assert ran.code == 0
    assert "rk3399, IOMMU on, all RAM subtracted" in ran.out
    refused("run", trace, "--iommu", "maybe", naming=("maybe", "on"))
    refused("run", trace, "--subtract-ram", "some", naming=("some", "known"))


def test_new_boards_lose_to_sections_what_the_published_regions_lose() -> None:
    rk3399, zynqmp = (advertised(presets.load(b)) for b in ("rk3399", "zynqmp"))
    assert rk3399["bytes"] / GIB == pytest.approx(3.34, abs=0.005)
    assert rk3399["usable_bytes"] / rk3399["bytes"] == pytest.approx(0.97, abs=0.005)
    low = [r for r in zynqmp["regions"] if r["end"] <= 4 * GIB]
    assert sum(r["bytes"] for r in low) / MIB == pytest.approx(1260, abs=1)
    assert sum(r["usable_bytes"] for r in low) == 1024 * MIB


def test_regions_named_with_an_iommu_hold_no_ram_and_those_without_are_ram() -> None:
    for board in BOARDS:
        machine = presets.load(board)
        ram = sum(min(h.end, b) - max(h.start, a) for a, b in machine.regions
                  for h in machine.host if h.type in RAM and h.start < b and a < h.end)
        whole = sum(b - a for a, b in machine.regions)
        assert ram == (0 if machine.iommu else whole), board
