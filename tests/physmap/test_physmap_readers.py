"""Machines read from recordings and presets: what a resource search finds in them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import naive_resource as naive
import pytest

from recordings import RECORDINGS, recordings

from replay.base.errors import InputError, ReplayError
from replay.physmap import fdt, iomem, presets, proc, x86
from replay.physmap.host import paint
from replay.physmap.model import HostRange, Physmap, from_dict
from replay.physmap.readers import read_machine

WHOLE = 1 << 62



def pool_sections(machine: Physmap, limit: int) -> list[int]:
    """Where the pool's sections go: the Xen resource if there are regions, else the iomem tree."""
    bounds = machine.pluggable[0], machine.pluggable[1] - 1
    cuts = [(start, end - 1) for start, end in machine.clip]
    if machine.regions:
        holes = [(a[1], b[0] - 1) for a, b in zip(machine.regions, machine.regions[1:],
                                                  strict=False) if a[1] < b[0]]
        root = machine.regions[0][0], machine.regions[-1][1] - 1
    else:
        holes = [(r.start, r.end - 1) for r in machine.iomem]
        root = 0, machine.iomem_end - 1
    return naive.fill(root, holes, machine.section_bytes, bounds, cuts, limit)


def hotplug_sections(machine: Physmap, limit: int) -> list[int]:
    """Where the balloon's hot-added memory goes: the iomem tree, bounds 0 and -1."""
    tree = [(r.start, r.end - 1) for r in machine.iomem]
    return naive.fill((0, machine.iomem_end - 1), tree, machine.section_bytes, (0, WHOLE),
                      [(start, end - 1) for start, end in machine.clip], limit)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with nothing but /proc/iomem."""
    (tmp_path / "iomem").write_text("00100000-3fffffff : System RAM\n")
    return tmp_path


@pytest.mark.parametrize(("name", "first"), [
    ("qemu-q35-pvh", [0xC0000000, 0x980000000]),
    ("qemu-q35-pv", [0x68000000, 0x70000000, 0x100000000]),
    ("qemu-virt-arm64", [0x100000000 + 0x8000000 * k for k in range(8)]),
    ("x86-laptop-pvh", [0xE0000000, 0x420000000]),
    ("rcar-h3", [0xC0000000, 0xC8000000, 0xD0000000, 0xD8000000, 0x100000000]),
    ("rcar-h3-no-iommu", [0x48000000, 0x58000000, 0x70000000]),
])
def test_the_pools_first_sections_in_a_preset(name: str, first: list[int]) -> None:
    assert pool_sections(presets.load(name), len(first)) == first


def test_only_eight_sections_fit_above_the_dram_base() -> None:
    assert len(pool_sections(presets.load("qemu-virt-arm64"), 99)) == 8


def test_without_regions_the_balloon_hot_adds_the_lowest_holes() -> None:
    machine = presets.load("qemu-virt-arm64-no-regions")
    assert hotplug_sections(machine, 6) == [
        0, 0x40000000, 0x48000000, 0x50000000, 0x58000000, 0x60000000]


@pytest.mark.parametrize("name", presets.names())
def test_presets_round_trip_through_toml_and_json(name: str, tmp_path: Path) -> None:
    machine = presets.load(name)
    for suffix, text in ((".toml", presets.to_toml(machine)), (".json", machine.to_json())):
        path = tmp_path / f"machine{suffix}"
        path.write_text(text)
        assert presets.load(path) == machine


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ReplayError, match="Did you mean 'rcar-h3'"):
        presets.load("rcar-h4")


def test_a_malformed_machine_file_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    for text in ("name = ", "name = 'x'", "[[", "memory = 3\narch='x86'"):
        path.write_text(text)
        with pytest.raises(InputError):
            presets.load(path)


@recordings
@pytest.mark.parametrize(("field", "value", "says"), [
    ("page_bytes", "x", "page_bytes is 'x', expected a whole number"),
    ("iomem_end", float("inf"), "iomem_end is inf, expected a whole number"),
    ("iomem", 5, "iomem is 5, expected a list"), ("host", None, "host is None, expected a list"),
    ("iomem", [3], r"iomem\[0\] is 3, expected a table"),
    ("host", [{"start": "a", "end": 1}], r"host\[0\].start is 'a', expected a whole number"),
    ("host", [{"start": 1}], "field 'end' is missing"),
    ("pluggable", [1], r"pluggable is \[1\], expected \[start, end\]"),
    ("clip", [[1, "b"]], r"clip\[0\] is 'b', expected a whole number"),
    ("memory", {"low": "9" * 90 + "x"}, "memory.low is '9{59}..., expected a whole number"),
    ("memory", {"most": 1}, "memory is .* expected a table of available")])
def test_what_a_field_cannot_be_is_said_by_its_place(field: str, value: object, says: str) -> None:
    said = json.loads(presets.load("qemu-q35-pvh").to_json())
    with pytest.raises(ReplayError, match=says) as caught:
        from_dict({**said, field: value})
    assert "int()" not in str(caught.value)


@pytest.mark.parametrize("bits", ["5", "65", "9" * 900])
def test_bits_of_an_address_that_no_processor_has_are_refused(written: Path, bits: str) -> None:
    (written / "cpuinfo").write_text(f"address sizes\t: {bits} bits physical, 48 bits virtual\n")
    with pytest.raises(InputError, match="phys_bits is .* expected 32 to 64"):
        read_machine(written)


@pytest.mark.parametrize(("folder", "first"), [
    ("x86-pvh-churn", 0xC0000000), ("x86-pvh-guests", 0xC0000000), ("x86-pv-churn", 0x68000000),
    ("x86-pv-concurrent", 0x68000000), ("x86-pv-blkback", 0x68000000),
    ("x86-pv-balloon-target", 0x68000000), ("arm64-regions", 0x100000000),
])
def test_the_pools_first_section_in_a_recording(folder: str, first: int) -> None:
    machine = iomem.without_scratch(read_machine(RECORDINGS / folder).physmap)
    assert pool_sections(machine, 1) == [first]


@recordings
def test_the_clipped_early_tree_of_pvh_gives_the_section_inside_the_host_bridge_window() -> None:
    """The tree when the grant table was set up, rebuilt from the e820 lines alone."""
    dmesg = (RECORDINGS / "x86-pvh-churn" / "dmesg").read_text()
    table = x86.e820_table(dmesg)
    early = [(start, end - 1) for start, end, kind in table
             if start < 1 << 20 or kind != "reserved"]
    cuts = [(start, end - 1) for start, end in x86.clip_list(table)]
    assert naive.first_fit((0, (1 << 40) - 1), early, 1 << 27, (0, (1 << 46) - 1), 1 << 27,
                           cuts) == 0xC0000000
    assert naive.clipped((0x7FFCB000, 0xFFFFFFFF), cuts) == (0xC0000000, 0xFED1BFFF)
    assert "clipped [mem 0xc0000000-0xffdfffff] to [mem 0xc0000000-0xfed1bfff]" in dmesg


@recordings
def test_the_balloon_kernel_hot_adds_at_0x68000000() -> None:
    folder = RECORDINGS / "x86-pv-ballooned-churn"
    assert hotplug_sections(read_machine(folder).physmap, 1) == [0x68000000]
    after = iomem.parse(folder, (folder / "after" / "iomem").read_text())
    assert (0x68000000, 0x70000000, "System RAM") in [(e.start, e.end, e.name) for e in after]


@recordings
def test_sections_from_before_the_recording_stay_in_the_tree() -> None:
    machine = read_machine(RECORDINGS / "x86-pvh-churn")
    assert iomem.scratch_sections(machine.physmap) == ((0xC0000000, 0xC8000000),)
    assert machine.provenance["scratch"] == [[0xC0000000, 0xC8000000]]
    # A search that comes later meets the host bridge's window.
    assert pool_sections(machine.physmap, 1) == [0x980000000]


@recordings
def test_facts_of_a_recording() -> None:
    facts = read_machine(RECORDINGS / "arm64-regions").provenance
    assert (facts["arch"], facts["mode"], facts["cpu_hz"], facts["xen_version"],
            facts["kernel"], facts["page_bytes"]) == (
        "arm64", "arm", 62_500_000, "4.17.7", "6.12.95+deb12-arm64", 4096)
    facts = read_machine(RECORDINGS / "x86-pv-churn").provenance
    assert (facts["mode"], facts["cpu_hz"], facts["dom0_cmdline"]) == (
        "pv", 2_596_141_000, "console=hvc0 nokaslr loglevel=6 mitigations=off lab=pvgnt")
    memory = read_machine(RECORDINGS / "arm64-regions").physmap.memory
    assert (memory.available, memory.current, memory.total_reserve) == (203466, 262144, 8448)


@recordings
def test_a_host_view_knows_dom0s_bank_on_arm() -> None:
    host = read_machine(RECORDINGS / "arm64-no-regions").physmap.host
    assert HostRange(0xC0000000, 0x100000000, "ram_dom0") in host
    assert HostRange(0, 0x8000000, "mmio", "flash@0") in host


def test_a_tree_alone_is_enough_and_the_rest_is_stated_as_assumed(written: Path) -> None:
    machine = read_machine(written, {"mode": "pvh", "memory.available": "1000"})
    assert machine.physmap.mode == "pvh"
    assert machine.physmap.memory.available == 1000
    assert machine.provenance["files"]["memory.current"] == "assumed"
    assert any("memory.current" in note for note in machine.physmap.notes)


@pytest.mark.parametrize(("text", "message"), [
    ("\n", "holds no resource"),
    ("00000000-00000000 : System RAM\n00000000-00000000 : Reserved\n", "as root"),
    ("nonsense\n# nothing\n", "holds no resource: expected 'start-end : name', found 'nonsense'"),
    ("00000000-00000fff : Reserved\n00002000-0000\n", "line 2"),
    ("00000000-00000fff : Reserved\n00002000\n", "line 2"),
    ("00000000-00000fff : Reserved\n    00000000-00000fff : Xen scratch\n", "line 2"),
    ("00000000-00000fff : Reserved\n  00000000-00000fff : b\n  00000800-00000fff : Xen scratch\n",
     "line 3"),
    ("00001000-00000fff : backwards\n00002000-00002fff : ok\n", "line 1"),
    ("00001000-00001fff : b\n00001800-00002fff : overlap\n", "line 2"),
    ("00001000-1ffffffffffffffff : long\n", "line 1"),
])
def test_a_malformed_tree_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "iomem").write_text(text)
    with pytest.raises(InputError, match=message):
        read_machine(tmp_path)


@pytest.mark.parametrize(("file", "text", "message"), [
    ("meminfo", "MemAvailable: many kB\n", "line 1"),
    ("zoneinfo", "Node 0\n high x\n", "line 2"),
    ("balloon", "target_kb=5\n", "line 1"),
])
def test_malformed_numbers_are_refused_with_their_line(
        tmp_path: Path, file: str, text: str, message: str) -> None:
    (tmp_path / "iomem").write_text("00100000-3fffffff : System RAM\n")
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_machine(tmp_path)


@pytest.mark.parametrize("override", [{"mode": "xen"}, {"arch": "vax"}, {"iommu": "maybe"},
                                      {"phys_bits": "many"}, {"page_bytes": "123"}])
def test_a_stated_fact_that_cannot_be_is_refused(written: Path, override: dict[str, str]) -> None:
    with pytest.raises(ReplayError):
        read_machine(written, override)


def test_total_reserve_is_high_plus_largest_protection_capped_by_managed() -> None:
    text = "".join(f"Node 0, zone {n}\n  high {high}\n  managed {managed}\n"
                   f"  protection: ({prot})\n  pagesets\n   high:  999\n"
                   for n, high, managed, prot in [("DMA", 19, 3983, "0, 1365, 1365"),
                                                  ("DMA32", 1873, 352161, "0, 0, 0"),
                                                  ("Small", 50, 30, "0, 9, 0")])
    assert proc.total_reserve_pages(Path("zoneinfo"), text) == 19 + 1365 + 1873 + 30


def test_e820_updates_and_removals_are_applied() -> None:
    table = x86.e820_table(
        "BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff] usable\n"
        "BIOS-e820: [mem 0x0000000000100000-0x00000000001fffff] usable\n"
        "e820: update [mem 0x00000000-0x00000fff] usable ==> reserved\n"
        "e820: remove [mem 0x00090000-0x001000ff] usable\n")
    assert table == [(0, 0x1000, "reserved"), (0x1000, 0x90000, "usable"),
                     (0x100100, 0x200000, "usable")]


def test_both_forms_of_xens_ram_map_are_read() -> None:
    new = "(XEN) Xen-e820 RAM map:\n(XEN)  [0000000000000000, 000000000009fbff] (usable)\n(XEN) x"
    old = "(XEN) Xen-e820 RAM map:\n(XEN)  0000000000000000 - 000000000009fc00 (usable)\n(XEN) x"
    assert x86.xen_ram_map(new) == x86.xen_ram_map(old) == [(0, 0x9FC00, "usable")]


def test_a_later_claim_covers_an_earlier_one() -> None:
    assert paint([HostRange(0, 100, "mmio"), HostRange(10, 20, "ram_dom0")]) == [
        HostRange(0, 10, "mmio"), HostRange(10, 20, "ram_dom0"), HostRange(20, 100, "mmio")]


def tree_blob(reg: bytes) -> bytes:
    """A device tree with two cells each, a hypervisor node and one UART behind a bus."""
    strings = b"#address-cells\0#size-cells\0compatible\0reg\0ranges\0"

    def prop(name: bytes, value: bytes) -> bytes:
        at = strings.index(name + b"\0")
        return struct.pack(">III", 3, len(value), at) + value + b"\0" * (-len(value) % 4)

    def node(name: bytes, body: bytes) -> bytes:
        text = name + b"\0"
        return struct.pack(">I", 1) + text + b"\0" * (-len(text) % 4) + body + struct.pack(">I", 2)

    two, one = struct.pack(">I", 2), struct.pack(">I", 1)
    uart = node(b"uart@10", prop(b"reg", struct.pack(">II", 0x10, 0x20)))
    bus = node(b"bus", prop(b"#address-cells", one) + prop(b"#size-cells", one)
               + prop(b"ranges", struct.pack(">IQI", 0, 0x9000000, 0x1000)) + uart)
    hyper = node(b"hypervisor", prop(b"compatible", b"xen,xen-4.17\0xen,xen\0") + prop(b"reg", reg))
    root = node(b"", prop(b"#address-cells", two) + prop(b"#size-cells", two) + bus + hyper)
    root += struct.pack(">I", 9)
    at = 40 + 16
    return struct.pack(">10I", fdt.FDT_MAGIC, at + len(root) + len(strings), at, at + len(root), 40,
                       17, 16, 0, len(strings), len(root)) + bytes(16) + root + strings


REG = struct.pack(">6Q", 0x40200000, 0x40000, 0x40400000, 0x7FC00000, 0x100000000, 0x40000000)


def test_a_device_tree_gives_regions_and_translated_addresses(tmp_path: Path) -> None:
    (tmp_path / "iomem").write_text("c0000000-ffffffff : System RAM\n")
    (tmp_path / "dom0.dtb").write_bytes(tree_blob(REG))
    machine = read_machine(tmp_path, {"arch": "arm64"}).physmap
    assert machine.regions == ((0x40400000, 0xC0000000), (0x100000000, 0x140000000))
    assert machine.grant_table == (0x40200000, 0x40240000)
    assert HostRange(0x9000010, 0x9000030, "mmio", "uart@10") in machine.host
    assert machine.pluggable == (0xC0000000, 0xC0000000 + (1 << 47))


def test_a_device_tree_cut_anywhere_is_an_input_error(tmp_path: Path) -> None:
    blob = tree_blob(REG)
    for length in range(len(blob)):
        path = tmp_path / "cut.dtb"
        path.write_bytes(blob[:length])
        with pytest.raises(InputError):
            fdt.parse(path)


def test_a_device_tree_with_any_byte_changed_never_ends_in_a_traceback(tmp_path: Path) -> None:
    blob = tree_blob(REG)
    (tmp_path / "iomem").write_text("c0000000-ffffffff : System RAM\n")
    for at in range(len(blob)):
        (tmp_path / "dom0.dtb").write_bytes(blob[:at] + bytes([blob[at] ^ 0xFF]) + blob[at + 1:])
        try:
            read_machine(tmp_path, {"arch": "arm64"})
        except ReplayError:
            pass


def test_a_reg_dump_in_hex_equals_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "iomem").write_text("c0000000-ffffffff : System RAM\n")
    (tmp_path / "dt").mkdir()
    lines = [f"{at:08x}: {REG[at:at + 16].hex(' ', 4)}  ........" for at in range(0, len(REG), 16)]
    (tmp_path / "dt" / "reg.xxd").write_text("\n".join(lines))
    dumped = read_machine(tmp_path, {"arch": "arm64"}).physmap
    (tmp_path / "dt" / "reg").write_bytes(REG)
    assert read_machine(tmp_path, {"arch": "arm64"}).physmap.regions == dumped.regions
    assert len(dumped.regions) == 2
