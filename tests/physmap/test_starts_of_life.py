"""What a domain has at boot and does not own: extra memory; and a driver domain's target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replay import allocators
from replay.base.errors import ReplayError
from replay.base.since import has
from replay.physmap import presets
from replay.physmap.host import extra_memory
from replay.physmap.model import DRIVER_DOMAIN, Physmap, from_json
from replay.physmap.readers import read_machine

from driving import cli, small  # isort: skip

# As recorded: 1,280 MiB of a host of 3 GiB, dom0_mem= without max:.
TREE = """\
00000000-00000fff : Reserved
00001000-0007ffff : System RAM
00080000-000fffff : Reserved
00100000-7ffd9fff : System RAM
7ffda000-7fffffff : Reserved
80000000-febfffff : PCI Bus 0000:00
100000000-13fffffff : System RAM
"""
EXTRA = [(0x50080, 0x7FFDA), (0x100000, 0x140000)]
"""Holes below 1,280 MiB are filled from above it, and page 0 counts."""
PAGES = 458_586
OWN_KB = 1280 << 10
XEN = "(XEN) Command line: {} com1=115200,8n1\n"
RAM = 0x7F + 0x7FEDA + 0x40000
"""Pages of System RAM, which an HVM domain counts."""
STATS = "/sys/devices/system/xen_memory/xen_memory0/info/"


def balloon(current: int, low: int = 0) -> str:
    return f"{STATS}current_kb:{current}\n{STATS}low_kb:{low}\n{STATS}high_kb:0\n"


def machine(folder: Path, kernel: str = "6.12.118", *, dmesg: str = "", mode: str = "pv",
            stated: dict[str, str] | None = None, **files: str) -> Physmap:
    folder.mkdir(exist_ok=True)
    for name, text in {"iomem": TREE, "dmesg": f"Linux version {kernel} (b@h) (gcc) #1\n{dmesg}",
                       "guest_type": mode, **files}.items():
        (folder / name.replace("_", "-") if name.startswith("xl") else folder / name
         ).write_text(text)
    return read_machine(folder, stated).physmap


# -- extra memory ----------------------------------------------------------------------------------
@pytest.mark.parametrize("files", [
    {"balloon": balloon(OWN_KB)},
    {"balloon": balloon(OWN_KB - 4096, 4096)},  # what is given up was its own
    {"xl_dmesg": XEN.format("dom0_mem=1280M")},
    {"xl_list": "Domain-0   0 1280    16     r-----   9.1\n"},
])
def test_what_lies_beyond_a_pv_domains_own_is_extra_memory(tmp_path: Path, files: dict[str, str]
                                                           ) -> None:
    made = machine(tmp_path / "m", **files)
    assert extra_memory(made) == EXTRA
    assert sum(b - a for a, b in EXTRA) == PAGES
    assert any(f"extra memory: {PAGES} pages" in n and "pool's list" in n for n in made.notes)
    assert from_json(made.to_json()) == made


def test_before_6_9_the_balloon_has_it_and_its_list_does_not_tell_how_much(tmp_path: Path) -> None:
    """Without dom0_mem= dom0 had all RAM, and what is listed was its own."""
    listed = balloon(OWN_KB, PAGES * 4)
    made = machine(tmp_path / "a", "6.1.0", balloon=listed, xl_dmesg=XEN.format("dom0_mem=1280M"))
    assert extra_memory(made) == EXTRA
    assert any("balloon's list from boot" in note for note in made.notes)
    made = machine(tmp_path / "b", "6.1.0", balloon=listed, xl_dmesg=XEN.format("loglvl=all"))
    assert extra_memory(made) == []
    assert made.memory.low == PAGES


def test_with_max_and_in_other_modes_there_is_none(tmp_path: Path) -> None:
    every = balloon((OWN_KB // 4 + PAGES) * 4)
    assert extra_memory(machine(tmp_path / "a", balloon=every)) == []
    assert extra_memory(machine(tmp_path / "b", "6.1.0", mode="pvh",
                                xl_dmesg=XEN.format("dom0_mem=1280M"))) == []


def test_hot_added_ram_is_neither_own_nor_extra(tmp_path: Path) -> None:
    tree = TREE + "140000000-147ffffff : System RAM\n"
    map_ = "".join(f"Xen: [mem 0x{a:016x}-0x{b - 1:016x}] usable\n" for a, b in (
        (0, 0x80000), (0x100000, 0x7FFDA000), (0x100000000, 0x140000000)))
    made = machine(tmp_path / "m", dmesg=map_, iomem=tree, balloon=balloon(OWN_KB, 0x8000 * 4))
    assert extra_memory(made) == EXTRA
    assert ("System RAM", 0x140000000) in {(c.name, c.start) for c in made.iomem}


def test_the_balloons_total_holds_what_was_hot_added_before(tmp_path: Path) -> None:
    """An offline block is in no counter of the balloon, only in the tree: the boot's map lacks it."""
    map_ = "".join(f"Xen: [mem 0x{a:016x}-0x{b - 1:016x}] usable\n" for a, b in (
        (0, 0x80000), (0x100000, 0x40000000)))
    tree = "00001000-0007ffff : System RAM\n00100000-3fffffff : System RAM\n"
    for name, more, pages in (("a", "", 0), ("b", "58000000-67ffffff : System RAM\n", 1 << 16)):
        made = machine(tmp_path / name, "6.1.0", dmesg=map_, iomem=tree + more,
                       balloon=balloon(1 << 20, 0), xl_dmesg=XEN.format("dom0_mem=1024M,max:1024M"))
        assert (made.memory.current, made.memory.total) == (1 << 18, (1 << 18) + pages)


def test_stated_at_the_import(tmp_path: Path) -> None:
    made = machine(tmp_path / "m", stated={"memory.boot": str(OWN_KB // 4)})
    assert extra_memory(made) == EXTRA


def test_which_kernels_have_it_on_the_pool() -> None:
    assert [has("extra_on_pool", k) for k in ("5.8.1", "5.10.262", "5.17", "5.18.1", "6.1.190",
                                              "6.8", "6.9", "7.3.4", "")] == [
        False, True, True, False, False, False, True, True, True]


# -- domains that Xen starts beside dom0 (dom0less), and a dom0 with LLC colours ------------------
def arm(folder: Path, **files: str) -> Physmap:
    folder.mkdir(exist_ok=True)
    for name, text in {"iomem": "40000000-5fffffff : System RAM\n", **files}.items():
        (folder / name.replace("_", "-")).write_text(text)
    return read_machine(folder, {"arch": "arm64", "kernel": "6.12"}).physmap


DIRECT, NOT_DIRECT, IS_DOM0 = 1 << 17, 1 << 16, 1 << 11


@pytest.mark.parametrize(("features", "domain", "direct"), [
    (DIRECT | IS_DOM0, "dom0", True), (NOT_DIRECT | IS_DOM0, "dom0", False),
    (NOT_DIRECT, DRIVER_DOMAIN, False), (DIRECT, DRIVER_DOMAIN, True),
    (IS_DOM0, "dom0", True), (0, DRIVER_DOMAIN, False)])
def test_an_arm_domains_features_tell_whose_it_is_and_whether_it_is_direct_mapped(
        tmp_path: Path, features: int, domain: str, direct: bool) -> None:
    """Before Xen 4.15 neither bit of the two is set: then dom0 is direct-mapped, another is not."""
    made = arm(tmp_path / "m", features=f"{features:08x}\n")
    assert (made.domain, made.direct_mapped) == (domain, direct)
    assert any("direct_mapped" in fact for fact in made.assumed) == (
        not features & (DIRECT | NOT_DIRECT))


def test_a_file_of_features_that_is_none_is_passed_over(tmp_path: Path) -> None:
    assert arm(tmp_path / "m", features="n/a\n").domain == "dom0"


def test_a_domain_that_is_not_direct_mapped_keeps_nothing_reserved_in_xen(tmp_path: Path) -> None:
    made = arm(tmp_path / "m", features=f"{NOT_DIRECT:x}")
    notes = [n for name in ("balloon", "hypervisor") for n in allocators.load(name).init(
        made, 64, allocators.load(name).values({})).notes]
    assert not any("direct-mapped" in note for note in notes)
    assert any("the hypervisor names no regions" in note for note in notes)


# -- driver domains --------------------------------------------------------------------------------
HVM = "Booting kernel on Xen HVM\n"


def test_an_hvm_domain_is_no_dom0(tmp_path: Path) -> None:
    made = machine(tmp_path / "m", dmesg=HVM, mode="")
    assert (made.mode, made.domain) == ("hvm", DRIVER_DOMAIN)
    assert not any("dom0" in note for note in made.notes)
    assert not any(fact.startswith("domain ") for fact in made.assumed)


@pytest.mark.parametrize(("files", "domain"), [
    ({"capabilities": "control_d\n"}, "dom0"), ({"capabilities": "\n"}, DRIVER_DOMAIN),
    ({"xl_list": "Domain-0   0 1280    16     r-----   9.1\n"}, "dom0"), ({}, "dom0")])
def test_what_tells_dom0_from_a_driver_domain(tmp_path: Path, files: dict[str, str], domain: str
                                              ) -> None:
    made = machine(tmp_path / "m", "6.1.0", mode="pvh", **files)
    assert made.domain == domain
    assert ("domain dom0" in made.assumed) == (not files)
    path = tmp_path / "machine.toml"
    path.write_text(presets.to_toml(made))
    assert presets.load(path) == made == from_json(made.to_json())


def test_a_domain_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="domain=stubdom: expected dom0 or driver domain"):
        machine(tmp_path / "m", stated={"domain": "stubdom"})


@pytest.mark.parametrize(("mode", "domain"), [("hvm", ""), ("pvh", ""), ("pv", ""),
                                              ("pvh", "control_d")])
@pytest.mark.parametrize("said", ['static-max = "3150848"\n  target = "2097152"\n',
                                  "memory/target 2097152\nmemory/static-max 3150848\n",
                                  ('/local/domain/7/memory/target = "2097152"\n'
                                  '/local/domain/7/memory/static-max = "3150848"\n'),
                                  (' static-max = "3150848"   . . . . . .  (n0,r7)\n'
                                  ' target = "2097152"   . . . . . . . .  (n0,r7)\n')])
def test_a_guests_target_is_less_by_what_it_was_built_with_beyond_its_map(
        tmp_path: Path, said: str, mode: str, domain: str) -> None:
    """watch_target(): target - (static-max - first target); PV and dom0 take it as it is."""
    made = machine(tmp_path / "m", "6.1.0", mode=mode, xenstore=said, capabilities=domain)
    offset = 0 if domain or mode == "pv" else 3150848 // 4 - RAM
    target = 2097152 // 4 - offset
    assert made.memory.target == target
    assert made.memory.current == (RAM if domain or mode == "pv" else target)


def test_a_target_without_its_static_maximum_is_taken_as_it_is(tmp_path: Path) -> None:
    """watch_target(): static_max = balloon_stats.current_pages, which is the first target."""
    made = machine(tmp_path / "m", mode="hvm", xenstore='target = "2097152"\n', capabilities="\n")
    assert made.memory.target == 2097152 // 4


@pytest.mark.parametrize(("kernel", "files", "out"), [
    ("6.12.1", {}, 3000), ("", {}, 3000), ("5.15.0", {}, 0),
    ("6.12.1", {"balloon": balloon((RAM - 100) * 4, 400)}, 100),  # what the driver says is so
    ("6.12.1", {"capabilities": "control_d\n"}, 0)])
def test_a_guest_has_reached_its_target_before_any_program_runs(
        tmp_path: Path, kernel: str, files: dict[str, str], out: int) -> None:
    """balloon_wait_finish(): since 5.16 in HVM and PVH guests, of which xen.balloon_boot_timeout
    tells when they would have ended instead."""
    said = f'target = "{(RAM - 3000) * 4}"\nstatic-max = "{RAM * 4}"\n'
    made = machine(tmp_path / "m", kernel, mode="hvm", **{
        "xenstore": said, "capabilities": "\n", "cmdline": "quiet xen.balloon_boot_timeout=600",
        **files})
    memory = made.memory
    assert (memory.current, memory.low, memory.total) == (RAM - out, out, RAM)
    assert memory.target == RAM - 3000
    told = [note for note in made.notes if "were given up at boot" in note]
    assert bool(told) == (out == 3000)
    assert all("xen.balloon_boot_timeout=600 ends in a panic" in note for note in told)


@pytest.mark.parametrize("words", ["", "xen.balloon_boot_timeout=soon", "xen.balloon_boot_timeout"])
def test_a_limit_of_the_wait_that_is_not_stated(tmp_path: Path, words: str) -> None:
    made = machine(tmp_path / "m", mode="pvh", cmdline=words, capabilities="\n",
                   xenstore=f"target {RAM * 4 - 4}\nstatic-max {RAM * 4}\n")
    assert any("(xen.balloon_boot_timeout, 180 s, ends" in note for note in made.notes)


def test_a_trace_begins_with_what_a_guest_gave_up_at_boot(tmp_path: Path) -> None:
    machine(tmp_path / "m", mode="hvm", capabilities="\n",
            xenstore=f"target {(RAM - 3000) * 4}\nstatic-max {RAM * 4}\n")
    text = tmp_path / "trace.txt"
    text.write_text(
        "# tracer: nop\n"
        " xl-1 [001] d..1. 100.000000: a: (xen_alloc_ballooned_pages+0x0/0x3f0) nr=16 pages=0x1000\n"
        " xl-1 [001] d..1. 100.000050: r: (gntdev+0x2e/0x90 <- xen_alloc_ballooned_pages) ret=0\n")
    trace = tmp_path / "t.arrow"
    assert cli("import", text, "-o", trace, "--machine", tmp_path / "m").code == 0
    assert "the balloon's list: 3,000 pages (xenstore)" in cli("info", trace).out
    done = cli("run", trace, "--allocator", "balloon", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    work = summary(tmp_path)["balloon"]["work"]
    assert (work["list_pop"], work["page_alloc"], work["hypercall"]) == (16, 0, 0)


def test_the_preset_of_an_hvm_domain_runs_and_names_no_dom0(tmp_path: Path) -> None:
    trace = small(tmp_path / "t.arrow")
    told = cli("run", trace, "--physmap", "xen-hvm", "--out", tmp_path / "run", "--check")
    assert told.code == 0, told.err
    text = " ".join(told.out.split())
    assert "x86 driver domain (hvm)" in text
    own = [line for line in told.out.splitlines() if "dom0" in line]
    assert own == [], own
    # Nothing fits below 4 GiB: the window of the PCI bus is taken.
    assert all(s["start_pfn"] >= 0x810000 for s in summary(tmp_path)["pool"]["sections"])


def summary(folder: Path) -> dict:
    return json.loads((folder / "run" / "summary.json").read_text())["allocators"]
