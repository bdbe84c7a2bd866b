"""Machines of public logs, made small: each with the values that its own files give."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from replay import allocators
from replay.base.errors import InputError, ReplayError
from replay.physmap import arm64, fdt, folder, iomem, logs, presets, proc, x86
from replay.physmap.model import HostRange, Physmap, from_json
from replay.physmap.readers import Machine, read_machine

from driving import ROOT, cli, refused  # isort: skip

GIB = 1 << 30
ONE_BANK = "10000000-17ffffff : System RAM\n"
PI_5 = """\
(XEN) RAM: 0000000000000000 - 000000003fbfffff
(XEN) RAM: 0000000040000000 - 00000001ffffffff
(XEN) MODULE[0]: 000000002efec900 - 000000002f005fff Device Tree
(XEN) Command line: console=dtuart dom0_mem=128M
(XEN) Xen version 4.19-unstable (build@) (gcc (GCC) 13.2.0) debug=y 2024-02-02
(XEN) Generic Timer IRQ: phys=30 hyp=26 virt=27 Freq: 54000 KHz
(XEN) I/O virtualisation disabled
(XEN) *** LOADING DOMAIN 0 ***
(XEN) Loading d0 kernel from boot module @ 0000000000e00000
(XEN) Allocating 1:1 mappings totalling 128MB for dom0:
(XEN) BANK[0] 0x00000010000000-0x00000018000000 (128MB)
(XEN) Grant table range: 0x00000002000000-0x00000002040000
(XEN) d0: extended region 0: 0x2200000->0x7e00000
(XEN) d0: extended region 1: 0x40000000->0x4fe00000
(XEN) *** LOADING DOMU cpus=1 memory=0x80000KB ***
(XEN) Loading d1 kernel from boot module @ 0000000001200000
(XEN) d1: STATIC BANK[0] 0x00000050000000-0x00000070000000
(XEN) d1: extended region 0: 0x200000->0x7e00000
(XEN) DOM1: [    0.000000] Linux version 5.4.0 (build@host) (gcc) #1
(XEN) DOM1: [    0.000000] Kernel command line: console=ttyAMA0
"""
RELEASE = "Linux version 6.1.77 (build@host) (gcc (Alpine 12.2.1) 12.2.1) #1 SMP PREEMPT\n"


def machine(folder: Path, files: dict[str, str], **stated: str) -> Machine:
    """A machine of these files, and of one bank of RAM where no tree is among them."""
    for name, text in {"iomem": ONE_BANK, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return read_machine(folder, stated)


def of_type(made: Physmap, kind: str) -> list[tuple[int, int]]:
    return [(h.start, h.end) for h in made.host if h.type == kind]


# -- whose lines ---------------------------------------------------------------------------------
def test_static_memory_of_another_domain_is_ram_of_others(tmp_path: Path) -> None:
    made = machine(tmp_path, {"xl-dmesg": PI_5}).physmap
    assert of_type(made, "ram_dom0") == [(0x10000000, 0x18000000)]
    assert HostRange(0x50000000, 0x70000000, "ram_other", "d1") in made.host
    assert made.regions == ((0x2200000, 0x7E00000), (0x40000000, 0x4FE00000))
    assert made.grant_table == (0x2000000, 0x2040000)
    assert made.direct_mapped and not made.iommu


@pytest.mark.parametrize("time", ["", "[    0.928173] ", "[2026-11-30 12:00:00] ",
                                  "[2026-11-30 12:00:00.123] ", "[00000001a2b3c4d5] "])
@pytest.mark.parametrize("own", ["dom0", "d0"])  # until 4.20 and since, by %pd
def test_every_time_stamp_and_name_of_dom0(tmp_path: Path, time: str, own: str) -> None:
    log = PI_5.replace("(XEN) ", f"(XEN) {time}").replace("for dom0:", f"for {own}:")
    made = machine(tmp_path, {"xl-dmesg": log})
    assert of_type(made.physmap, "ram_dom0") == [(0x10000000, 0x18000000)]
    assert len(made.physmap.regions) == 2
    assert made.provenance["xen_version"] == "4.19-unstable"
    assert made.provenance["xen_cmdline"] == "console=dtuart dom0_mem=128M"


def test_an_end_may_be_that_of_the_last_byte(tmp_path: Path) -> None:
    log = PI_5.replace("0x00000018000000 (", "0x00000017ffffff (").replace(
        "0x7e00000\n(XEN) d0", "0x7dfffff\n(XEN) d0").replace("02040000", "0203ffff")
    assert log.count("ffff") > PI_5.count("ffff") + 2
    made = machine(tmp_path, {"xl-dmesg": log}).physmap
    assert of_type(made, "ram_dom0") == [(0x10000000, 0x18000000)]
    assert made.regions == ((0x2200000, 0x7E00000), (0x40000000, 0x4FE00000))
    assert made.grant_table == (0x2000000, 0x2040000)


def test_regions_of_4_16_have_no_domain(tmp_path: Path) -> None:
    log = PI_5.replace("d0: extended region", "Extended region")
    assert machine(tmp_path, {"xl-dmesg": log}).physmap.regions == (
        (0x2200000, 0x7E00000), (0x40000000, 0x4FE00000))


def test_banks_of_a_domain_that_xen_maps_elsewhere_are_its_own_addresses(tmp_path: Path) -> None:
    log = PI_5 + """\
(XEN) *** LOADING DOMU cpus=1 memory=fa000KB ***
(XEN) Loading d2 kernel from boot module @ 0000000003400000
(XEN) Allocating mappings totalling 1000MB for d2:
(XEN) d2 BANK[0] 0x00000040000000-0x0000007e800000 (1000MB)
(XEN) d2 BANK[1] 0x00000200000000-0x00000200000000 (0MB)
"""
    made = machine(tmp_path, {"xl-dmesg": log}).physmap
    assert of_type(made, "ram_dom0") == [(0x10000000, 0x18000000)]
    assert HostRange(0x40000000, 0x50000000, "ram_other", "") in made.host


def test_the_hardware_domain_may_come_second_and_have_another_number() -> None:
    found = arm64.domains(logs.xen_log("""\
(XEN) *** LOADING DOMU cpus=1 memory=0x80000KB ***
(XEN) Loading d1 kernel from boot module @ 0000000001200000
(XEN) d1: STATIC BANK[0] 0x00000050000000-0x00000070000000
(XEN) d1: extended region 0: 0x200000->0x7e00000
(XEN) *** LOADING DOMU cpus=2 memory=0x80000KB ***
(XEN) Loading d2 kernel from boot module @ 0000000000e00000
(XEN) Allocating 1:1 mappings totalling 512MB for d2:
(XEN) BANK[0] 0x00000010000000-0x00000030000000 (512MB)
(XEN) Grant table range: 0x00000002000000-0x00000002040000
(XEN) d2: extended region 0: 0x2200000->0x10000000
"""))
    assert found.dom0 == "d2"
    assert found.own.banks == [(0x10000000, 0x30000000)]
    assert found.own.regions == [(0x2200000, 0x10000000)]
    assert found.of_others() == [("d1", [(0x50000000, 0x70000000)])]


def test_a_coloured_dom0_is_not_direct_mapped(tmp_path: Path) -> None:
    log = PI_5.replace(" 1:1 mappings totalling 128MB for dom0", " mappings totalling 128MB for d0"
                       ).replace("BANK[0] 0x00000010", "d0 BANK[0] 0x00000010")
    made = machine(tmp_path, {"xl-dmesg": log}).physmap
    assert not made.direct_mapped
    assert of_type(made, "ram_dom0") == []
    # without the lines of dom0's building the command line says so
    short = "(XEN) Command line: llc-coloring=on dom0_mem=1G\n(XEN) Generic Timer IRQ: phys=30\n"
    assert not machine(tmp_path, {"xl-dmesg": short}).physmap.direct_mapped


def test_the_last_of_two_boots_in_a_log_counts(tmp_path: Path) -> None:
    again = "(XEN) Checking for initrd in /chosen\n" + PI_5.replace("0x00000010000000-0x00000018", "0x00000020000000-0x00000028").replace(
        "0x40000000->0x4fe00000", "0x41000000->0x4fe00000")
    made = machine(tmp_path, {"xl-dmesg": PI_5 + again, "iomem": "20000000-27ffffff : System RAM\n"
                              }).physmap
    assert of_type(made, "ram_dom0") == [(0x20000000, 0x28000000)]
    assert made.regions == ((0x2200000, 0x7E00000), (0x41000000, 0x4FE00000))
    assert of_type(made, "ram_other")[0] == (0, 0x20000000)


def test_the_last_of_two_boots_of_the_kernel_counts(tmp_path: Path) -> None:
    boot = ("[    0.0] Linux version {} (b@h) (gcc) #1\n[    0.0] BIOS-provided physical RAM map:\n"
            "[    0.0] BIOS-e820: [mem 0x0000000000000000-0x{:016x}] usable\n")
    made = machine(tmp_path, {"dmesg": boot.format("6.1.0", 0xFFFF) + boot.format("6.12.1", 0xFFF)})
    assert made.provenance["kernel"] == "6.12.1"
    assert made.physmap.clip == (x86.BIOS_ROM, (0, 0x1000))


def test_a_serial_capture_has_the_boot_loaders_lines_and_both_consoles(tmp_path: Path) -> None:
    boot = "".join(f"U-Boot 2023.01 line {k}: Loading Environment\r\n" for k in range(400))
    both = boot + PI_5.replace("\n", "\r\n") + "[    0.000000] " + RELEASE
    made = machine(tmp_path, {"dmesg": both})
    assert (made.provenance["arch"], made.provenance["kernel"]) == ("arm64", "6.1.77")
    assert made.provenance["cpu_hz"] == 54_000_000
    assert of_type(made.physmap, "ram_dom0") == [(0x10000000, 0x18000000)]


# -- which architecture --------------------------------------------------------------------------
@pytest.mark.parametrize(("file", "text"), [
    ("uname", "Linux box 6.1.77 #1 SMP PREEMPT aarch64 GNU/Linux\n"),
    ("uname", "6.12.118+deb13-arm64\n"),  # uname -r
    ("xl-info", "release : 6.1.77\nmachine : aarch64\n"),
    ("xl-info", "xen_caps : xen-3.0-aarch64 xen-3.0-armv7l\n"),
    ("dmesg", "[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x410fd083]\n"),
    ("dmesg", "[    0.000000] Machine model: Raspberry Pi 4 Model B Rev 1.4\n"),
    ("dmesg", "[    0.000000] psci: probing for conduit method from DT.\n"),
    ("dmesg", "[    0.000000] Linux version 6.12.0-rc1-arm64 (build@host) (gcc) #1\n"),
    ("xl-dmesg", "(XEN) Generic Timer IRQ: phys=30 hyp=26 virt=27 Freq: 54000 KHz\n"),
    ("xl-dmesg", "(XEN) RAM: 0000000000000000 - 000000003b3fffff\n"),
    ("xl-dmesg", "(XEN) Allocating 1:1 mappings totalling 512MB for dom0:\n"),
    ("cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\n"),
    ("iomem", ONE_BANK + "fd580000-fd58ffff : fd580000.ethernet ethernet@7d580000\n"),
])
def test_any_file_may_tell_that_it_is_an_arm(tmp_path: Path, file: str, text: str) -> None:
    made = machine(tmp_path, {file: text})
    assert made.provenance["arch"] == "arm64"
    assert made.provenance["files"]["arch"] == file


@pytest.mark.parametrize(("file", "text"), [
    ("uname", "Linux aarch64-lab 6.1.0-54-amd64 #1 SMP PREEMPT_DYNAMIC x86_64 GNU/Linux\n"),
    ("uname", "6.19.10-200.fc43.x86_64\n"),
    ("xl-info", "machine : x86_64\n"),
    ("xl-info", "xen_caps : hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64\n"),  # CONFIG_PV=n
    ("dmesg", "[    0.000000] BIOS-provided physical RAM map:\n"),
    ("dmesg", "[    0.000000] Hypervisor detected: Xen PV\n"),
    ("xl-dmesg", "(XEN) EFI RAM map:\n"),
    ("xl-dmesg", "(XEN) Detected 3393.640 MHz processor.\n"),
    ("guest_type", "PVH\n"),
    ("cpuinfo", "vendor_id\t: AuthenticAMD\n"),
    ("iomem", ONE_BANK + "fee00000-fee00fff : Local APIC\n"),
])
def test_any_file_may_tell_that_it_is_an_x86(tmp_path: Path, file: str, text: str) -> None:
    made = machine(tmp_path, {file: text})
    assert made.provenance["arch"] == "x86"
    assert made.provenance["files"]["arch"] == file


def test_no_file_that_tells_is_said(tmp_path: Path) -> None:
    made = machine(tmp_path, {"dmesg": "[    0.000000] " + RELEASE})
    assert "arch x86" in made.physmap.assumed


def test_files_of_two_machines_and_machines_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="files of two machines"):
        machine(tmp_path, {"dmesg": "Machine model: R-Car\n", "xl-dmesg": "(XEN) EFI RAM map:\n"})
    assert machine(tmp_path, {}, arch="arm64").provenance["arch"] == "arm64"
    (tmp_path / "dmesg").unlink()
    (tmp_path / "xl-dmesg").unlink()
    for word in ("armv7l", "i686", "riscv64"):
        with pytest.raises(InputError, match=f"'{word}'.*x86-64 and arm64"):
            machine(tmp_path, {"uname": f"Linux box 6.1.77 #1 SMP {word} GNU/Linux\n"})


@pytest.mark.parametrize(("file", "line"), [
    ("dmesg", "Linux version 6.12.0 (b@h) (riscv64-linux-gnu-gcc (Debian) 13, GNU ld) #1"),
    ("dmesg", "Linux version 5.10.0 (b@h) (arm-linux-gnueabihf-gcc (GCC) 10.2) #1"),
    ("dmesg", "CPU: ARMv7 Processor [410fd0f1] revision 1 (ARMv7), cr=10c5387d"),
    ("xl-dmesg", "(XEN) Xen version 4.14.0 (b@h) (arm-linux-gnueabihf-gcc (GCC) 10.2) debug=n")])
def test_a_machine_that_is_not_modelled_is_no_arm64_for_its_device_tree(
        tmp_path: Path, file: str, line: str) -> None:
    """These print "Machine model:" and "Booting Linux on physical CPU" as well."""
    arm = "[    0.0] Booting Linux on physical CPU 0x0\n[    0.0] Machine model: a board\n"
    with pytest.raises(InputError, match="only x86-64 and arm64 are modelled"):
        machine(tmp_path, {"dmesg": arm, file: (arm if file == "dmesg" else "") + line + "\n"})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_copy_that_a_shell_of_windows_has_written(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding in ("utf-8-sig", "utf-16") else "\ufeff"
    plain = iomem.parse(Path("iomem"), ONE_BANK + "  10000000-11ffffff : Kernel code\n")
    (tmp_path / "iomem").write_bytes(
        (mark + ONE_BANK + "  10000000-11ffffff : Kernel code\n").replace("\n", "\r\n").encode(encoding))
    assert iomem.parse(Path("iomem"), folder.read(tmp_path / "iomem")) == plain
    assert read_machine(tmp_path, {}).physmap.memory.current == 32768


@pytest.mark.parametrize(("raw", "cells"), [
    (struct.pack(">6Q", 0x40200000, 0x40000, 0x40400000, 0x7FC00000, 0x100000000, 0x40000000),
     (2, 2)),
    (struct.pack(">QIQI", 0x29AD1000, 0x40000, 0x40000000, 0xBC000000), (2, 1)),
    (struct.pack(">4I", 0x2000000, 0x40000, 0x40000000, 0x10000000), (1, 1)),
])
def test_cells_of_a_reg_without_its_tree(tmp_path: Path, raw: bytes, cells: tuple[int, int]) -> None:
    (tmp_path / "dt").mkdir()
    (tmp_path / "dt" / "reg").write_bytes(raw)
    made = machine(tmp_path, {})
    assert made.provenance["arch"] == "arm64"
    spans = fdt.pairs(raw, *cells)
    assert made.physmap.grant_table == (spans[0][0], sum(spans[0]))
    assert made.physmap.regions == tuple((start, start + size) for start, size in spans[1:])


def test_a_kernels_configuration_tells_its_pages_and_addresses(tmp_path: Path) -> None:
    made = machine(tmp_path, {"xen-config": "CONFIG_ARM64=y\nCONFIG_ARM64_16K_PAGES=y\n"
                              "CONFIG_ARM64_VA_BITS=47\nCONFIG_ARM64_PA_BITS=48\n"}).physmap
    assert (made.arch, made.page_bytes) == ("arm64", 16384)
    assert made.pluggable == (0, 1 << 46)
    assert not {"va_bits", "phys_bits", "page_bytes"} & {f.split()[0] for f in made.assumed}
    large = machine(tmp_path, {"xen-config": "CONFIG_ARM64=y\nCONFIG_ARM64_VA_BITS=52\n"}).physmap
    assert "va_bits 48" in large.assumed  # the processor decides


# -- clocks --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("files", "hz"), [
    ({"xl-info": "machine : aarch64\ncpu_mhz : 54.000\n"}, 54_000_000),
    ({"dmesg": "arch_timer: cp15 timer(s) running at 62.50MHz (virt).\n"}, 62_500_000),
    ({"dmesg": "arch_timer: cp15 and mmio timer(s) running at 19.20MHz (virt/virt).\n"},
     19_200_000),
    ({"dmesg": "arch_timer: cp15 timer running at 24.00MHz (virt).\n"}, 24_000_000),  # 6.18
    ({"dmesg": "arch-timer-mmio: mmio timer running at 8.00MHz (phys)\n"
      "arch_timer: cp15 timer running at 8.33MHz (phys).\n"}, 8_330_000),
    ({"dmesg": "Architected cp15 timer(s) running at 54.00MHz (virt).\npsci: x\n"}, 54_000_000),
    ({"xl-info": "machine : aarch64\ncpu_mhz : 24.000\n", "dmesg":
      "arch_timer: cp15 timer(s) running at 24.01MHz (phys).\n"}, 24_000_000),
    ({"xl-dmesg": PI_5, "xl-info": "machine : aarch64\ncpu_mhz : 53.999\n"}, 54_000_000),
    ({"dmesg": "tsc: Detected 3400.000 MHz processor\ntsc: Detected 3393.624 MHz TSC\n"},
     3_393_624_000),
    ({"xl-info": "machine : x86_64\ncpu_mhz : 2596.141\n"}, 2_596_141_000),
])
def test_each_source_of_the_clocks_frequency(tmp_path: Path, files: dict[str, str], hz: int
                                             ) -> None:
    assert machine(tmp_path, files).provenance["cpu_hz"] == hz


@pytest.mark.parametrize("arch", ["arm64", "x86"])
def test_a_frequency_that_nothing_states_is_asked_for(tmp_path: Path, arch: str) -> None:
    made = machine(tmp_path / "machine", {}, arch=arch)
    assert made.provenance["cpu_hz"] == 0
    assert any(note.startswith("cpu_hz: not known") for note in made.physmap.notes)
    trace = tmp_path / "xen.bin"
    trace.write_bytes(bytes.fromhex("03f001200000000000000000"))
    refused("import", trace, "-o", tmp_path / "t.arrow", "--machine", tmp_path / "machine",
            "--set", f"arch={arch}", naming=("--cpu-hz",))


# -- versions ------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", ["4.17.7", "4.17.4-pre", "4.19-unstable", "4.20.0-rc3", "4.14",
                                     "4.22.1"])
def test_every_form_of_xens_version(tmp_path: Path, version: str) -> None:
    for file, text in (("xl-dmesg", f"(XEN) Xen version {version} (build@) (gcc) debug=n\n"),
                       ("dmesg", f"[    0.1] Xen version: {version} (preserve-AD)\n"),
                       ("xl-info", f"xen_version : {version}\n")):
        (tmp_path / file).mkdir()
        assert machine(tmp_path / file, {file: text}).provenance["xen_version"] == version


def test_xens_version_in_the_log_of_an_hvm_domain(tmp_path: Path) -> None:
    """init_hvm_pv_info() ends the sentence behind it, and has no colon."""
    made = machine(tmp_path, {"dmesg": "[    0.0] Hypervisor detected: Xen HVM\n"
                              "[    0.0] Xen version 4.17.\n"})
    assert made.provenance["xen_version"] == "4.17"
    assert made.provenance["files"]["xen_version"] == "dmesg"


@pytest.mark.parametrize(("kernel", "section"), [
    ("6.9", 1 << 27), ("6.12.0-rc1", 1 << 27), ("7.3-arm64", 1 << 27), ("5.11.0", 1 << 30)])
def test_every_form_of_linuxs_version(tmp_path: Path, kernel: str, section: int) -> None:
    made = machine(tmp_path, {"dmesg": f"Linux version {kernel} (b@h) (gcc) #1\npsci: x\n"})
    assert (made.provenance["kernel"], made.physmap.section_bytes) == (kernel, section)


def test_an_unknown_kernel_has_a_section_that_is_said_to_be_assumed(tmp_path: Path) -> None:
    assert "section_bytes 134217728" in machine(tmp_path, {}, arch="arm64").physmap.assumed


def test_a_command_line_in_several_lines() -> None:
    assert logs.kernel_command_line(
        "[    0.0] Kernel command line: a=1 b=2 \\\n[    0.0] Kernel command line: c=3\n"
        "[    9.9] Kernel command line: of another boot\n") == "a=1 b=2 c=3"


@pytest.mark.parametrize(("line", "mode"), [
    ("Booting paravirtualized kernel on Xen", "pv"), ("Booting kernel on Xen PVH", "pvh"),
    ("Booting paravirtualized kernel on Xen PVH", "pvh"), ("Booting kernel on Xen HVM", "hvm"),
    ("Booting paravirtualized kernel with PVH extensions on Xen", "pvh"),
    ("Hypervisor detected: Xen PV", "pv"), ("Hypervisor detected: Xen HVM", "hvm")])
def test_what_the_kernel_calls_its_mode(tmp_path: Path, line: str, mode: str) -> None:
    assert machine(tmp_path, {"dmesg": f"[    0.1] {line}\n"}).physmap.mode == mode


def test_xen_says_which_dom0_it_builds(tmp_path: Path) -> None:
    log = "(XEN) *** Building a PVH Dom0 ***\n"
    made = machine(tmp_path, {"xl-dmesg": log, "dmesg": "Hypervisor detected: Xen HVM\n"})
    assert made.physmap.mode == "pvh"


@pytest.mark.parametrize(("caps", "iommu"), [
    ("pv hvm hvm_directio pv_directio hap", True), ("pv hvm hap shadow", False)])
def test_xl_info_tells_whether_the_iommu_is_used(tmp_path: Path, caps: str, iommu: bool) -> None:
    made = machine(tmp_path, {"xl-info": f"machine : x86_64\nvirt_caps : {caps}\n"})
    assert made.physmap.iommu == iommu
    assert made.provenance["files"]["iommu"] == "xl-info"


# -- memory maps ---------------------------------------------------------------------------------
def test_a_tree_deeper_than_the_kernel_indents() -> None:
    top = iomem.parse(Path("iomem"), """\
00001000-0009efff : System RAM
80000000-dfffffff : PCI Bus 0000:00
  c4000000-da0fffff : PCI Bus 0000:04
    c4000000-da0fffff : PCI Bus 0000:05
      c4100000-d9efffff : PCI Bus 0000:07
        c4100000-c42fffff : PCI Bus 0000:08
          c4100000-c420ffff : 0000:08:00.0
          c4100000-c410ffff : xhci-hcd
          c4110000-c411ffff : another
          c4210000-c421ffff : 0000:08:01.0
fee00000-fee00fff : Local APIC
""")
    assert [e.name for e in top] == ["System RAM", "PCI Bus 0000:00", "Local APIC"]
    deep = top[1].children[0].children[0].children[0].children[0].children
    assert [(e.name, [c.name for c in e.children]) for e in deep] == [
        ("0000:08:00.0", ["xhci-hcd", "another"]), ("0000:08:01.0", [])]


def test_what_overlaps_below_the_first_level_is_passed_over_by_name(tmp_path: Path) -> None:
    tree = ONE_BANK + "  10000000-11ffffff : Kernel code\n  11000000-12ffffff : Kernel data\n"
    made = machine(tmp_path, {"iomem": tree}).physmap
    assert [r.name for r in made.iomem] == ["System RAM"]
    assert any("line 3: 'Kernel data'" in note and "passed over" in note for note in made.notes)


@pytest.mark.parametrize(("tree", "note"), [
    ("root@dom0:~# cat /proc/iomem\n" + ONE_BANK, "line 1: 'root@dom0:~# cat /proc/iomem' is no"),
    (ONE_BANK + "--- end ---\n", "line 2: '--- end ---' is no 'start-end : name'; passed over"),
    (ONE_BANK + "      10000000-11ffffff : Kernel code\n", "line 2: 'Kernel code' is indented"),
    (ONE_BANK + "   10000000-11ffffff : Kernel code\n", "line 2: 'Kernel code' is indented"),
    (ONE_BANK + "  11000000-10ffffff : Kernel code\n", "line 2: 'Kernel code' ends before"),
    ("10000000-17ffffff : System RAM\n10000000-11ffffff : Kernel code\n",
     "line 2: 'Kernel code' lies in its predecessor and is not indented; taken for a part of it"),
])
def test_what_a_search_does_not_need_is_passed_over_by_name(
        tmp_path: Path, tree: str, note: str) -> None:
    made = machine(tmp_path, {"iomem": tree}).physmap
    assert [(r.start, r.end, r.name) for r in made.iomem] == [
        (0x10000000, 0x18000000, "System RAM")]
    assert [n for n in made.notes if n.startswith(f"iomem, {note}")]


def test_a_tree_copied_with_a_margin_is_the_same(tmp_path: Path) -> None:
    tree = ONE_BANK + "  10000000-11ffffff : Kernel code\n20000000-2000ffff : uart\n"
    wide = "$ cat /proc/iomem\n" + "".join(f"    {line}\n" for line in tree.splitlines())
    assert iomem.parse(Path("a"), wide) == iomem.parse(Path("a"), tree)


def test_of_many_lines_passed_over_a_few_are_told(tmp_path: Path) -> None:
    made = machine(tmp_path, {"iomem": ONE_BANK + "what?\n" * 1000}).physmap
    told = [n for n in made.notes if n.startswith("iomem")]
    assert (len(told), told[-1]) == (5, "iomem: 996 more lines passed over")


def test_the_words_of_e820_changed() -> None:
    old = x86.e820_table("""\
BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff] usable
BIOS-e820: [mem 0x00000000000f0000-0x00000000000fffff] reserved
BIOS-e820: [mem 0x0000000000100000-0x00000000001fffff] usable
e820: update [mem 0x00000000-0x00000fff] usable ==> reserved
e820: remove [mem 0x00180000-0x001fffff] usable
""")
    new = x86.e820_table("""\
BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff]  System RAM
BIOS-e820: [gap 0x00000000000a0000-0x00000000000effff]
BIOS-e820: [mem 0x00000000000f0000-0x00000000000fffff]  device reserved
BIOS-e820: [mem 0x0000000000100000-0x00000000001fffff]  System RAM
e820: update [mem 0x00000000-0x00000fff] System RAM ==> device reserved
e820: remove [mem 0x00180000-0x001fffff] System RAM
""")
    sizes = x86.e820_table("""\
BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff]  640   KB kernel usable RAM
BIOS-e820: [gap 0x00000000000a0000-0x00000000000effff]  320   KB ...
BIOS-e820: [mem 0x00000000000f0000-0x00000000000fffff]   64   KB device reserved
BIOS-e820: [mem 0x0000000000100000-0x00000000001fffff]    1.0 MB System RAM
e820: update [mem 0x00000000-0x00000fff] System RAM ==> device reserved
e820: remove [mem 0x00180000-0x001fffff] System RAM
""")
    assert sizes == old == new == [(0, 0x1000, "reserved"), (0x1000, 0xA0000, "usable"),
                          (0xF0000, 0x100000, "reserved"), (0x100000, 0x180000, "usable")]


@pytest.mark.parametrize("who", ["BIOS-e801", "BIOS-88", "Xen", "user", "modified", "extended"])
def test_every_name_of_an_e820_table(who: str) -> None:
    assert x86.e820_table(f"{who}: [mem 0x0000000000000000-0x0000000000000fff] type 20\n") == [
        (0, 0x1000, "type 20")]


@pytest.mark.parametrize("name", [
    "ACPI Tables", "ACPI Non-volatile Storage", "Persistent Memory", "Persistent Memory (legacy)",
    "Reserved", "Soft Reserved", "Unknown E820 type"])
def test_no_memory_of_the_firmwares_map_is_a_devices(tmp_path: Path, name: str) -> None:
    """e820_type_to_string(), which /proc/iomem shows."""
    made = machine(tmp_path, {"iomem": ONE_BANK + f"20000000-2fffffff : {name}\n"
                              "fee00000-fee00fff : Local APIC\n"}).physmap
    assert of_type(made, "mmio") == [(0xFEE00000, 0xFEE01000)]


def test_a_type_without_a_name_does_not_end_xens_map() -> None:
    assert x86.xen_ram_map("""\
Xen-e820 RAM map:
 [0000000000000000, 000000000009ffff] (usable)
 [00000000fed1c000, 00000000fed1ffff] type 20
stray line of another console
 [0000000100000000, 000000011fffffff] (usable)
System RAM: 513MB (525308kB)
 [0000000200000000, 000000021fffffff] (usable)
""") == [(0, 0xA0000, "usable"), (0xFED1C000, 0xFED20000, "type 20"),
         (0x100000000, 0x120000000, "usable")]


def test_linuxs_own_map_in_a_capture_does_not_end_xens(tmp_path: Path) -> None:
    log = ("(XEN) Xen-e820 RAM map:\n(XEN)  [0000000000000000, 000000003fffffff] (usable)\n"
           "(XEN) System RAM: 1024MB (1048576kB)\n"
           "[    0.0] BIOS-provided physical RAM map:\n")
    made = machine(tmp_path, {"xl-dmesg": log}).physmap
    assert of_type(made, "ram_other") == [(0, 0x40000000)]


@pytest.mark.parametrize(("line", "used"), [
    ("PCI: Ignoring E820 reservations for host bridge windows", False),
    ("PCI: Using E820 reservations for host bridge windows", True), ("", True)])
def test_whether_e820_entries_are_cut(tmp_path: Path, line: str, used: bool) -> None:
    dmesg = ("Linux version 6.12.0-rc1 (b@h) (gcc) #1\n"
             f"BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff] usable\n{line}\n")
    made = machine(tmp_path, {"dmesg": dmesg}).physmap
    assert ((0, 0xA0000) in made.clip) == used
    assert ("clip yes" in made.assumed) == (not line)


# -- a PVH dom0 on Linux 6.9 and later -----------------------------------------------------------
RYZEN = """\
00001000-0009ffff : System RAM
00100000-bfffffff : System RAM
c0000000-fcffffff : PCI Bus 0000:00
fee00000-fee00fff : Local APIC
100000000-c3fffffff : System RAM
"""
ALL_PAGES = 0x9F + 0xBFF00 + 0xB40000
OWN_PAGES = 36 << 18
PVH = "[    0.1] Booting kernel on Xen PVH\n"
BALLOON = "/sys/devices/system/xen_memory/xen_memory0/info/current_kb:{}\n"


def ryzen(folder: Path, kernel: str = "6.19.10-200.fc43.x86_64", dmesg: str = "", **files: str
          ) -> Physmap:
    folder.mkdir(exist_ok=True)
    return machine(folder, {
        "iomem": RYZEN, "dmesg": f"Linux version {kernel} (b@h) (gcc) #1\n{PVH}{dmesg}",
        **{name.replace("_", "-") if name.startswith("xl") else name: text
           for name, text in files.items()}}).physmap


def unusable(made: Physmap) -> list[tuple[int, int]]:
    return [(r.start, r.end) for r in made.iomem if r.name == "Unusable memory"]


BEYOND = [(0x100000000 + (OWN_PAGES - 0x9F - 0xBFF00) * 4096, 0xC40000000)]


@pytest.mark.parametrize("files", [
    {"xl_dmesg": "(XEN) Command line: placeholder dom0=pvh dom0_mem=36G com1=115200,8n1\n"},
    {"xl_dmesg": "(XEN) Command line: dom0_mem=min:1G,max:40G,36864M dom0=pvh\n"},
    {"xl_dmesg": "(XEN) Command line: dom0_mem=max:36G dom0=pvh\n"},
    {"xl_info": "machine : x86_64\nxen_commandline : dom0_mem=37748736\n"},
    {"balloon": BALLOON.format(36 << 20)},
    {"xl_list": "Name      ID   Mem VCPUs\tState\tTime(s)\nDomain-0   0 36864    16     r-----   9.1\n"},
    {"xl_dmesg": "(XEN) Dom0 memory map:\n(XEN)  [0000000000001000, 000000000009ffff] (usable)\n"
     "(XEN)  [0000000000100000, 00000000bfffffff] (usable)\n"
     f"(XEN)  [0000000100000000, {BEYOND[0][0] - 1:016x}] (usable)\n"
     f"(XEN)  [{BEYOND[0][0]:016x}, 0000000c3fffffff] (unusable)\n"},
])
def test_scratch_memory_is_told_from_dom0s_own(tmp_path: Path, files: dict[str, str]) -> None:
    made = ryzen(tmp_path / "m", **files)
    assert unusable(made) == BEYOND
    assert made.unusable_known
    assert iomem.SYSTEM_RAM in {r.name for r in made.iomem}
    assert made.memory.current == OWN_PAGES
    assert from_json(made.to_json()) == made


def test_scratch_memory_by_what_was_available_is_an_estimate(tmp_path: Path) -> None:
    made = ryzen(tmp_path / "m", dmesg="Memory: 36627636K/50253484K available (22589K kernel code, "
                 "13585756K reserved, 0K cma-reserved)\n")
    [(start, end)] = unusable(made)
    assert end == BEYOND[0][1]
    assert abs(start - BEYOND[0][0]) < GIB // 2
    assert any("beyond the about" in note for note in made.notes)


def test_linux_6_9_to_6_14_counts_all_of_it_so_that_the_balloon_tells_nothing(tmp_path: Path
                                                                              ) -> None:
    told = ryzen(tmp_path / "m", "6.12.95+deb13-amd64", balloon=BALLOON.format(ALL_PAGES * 4),
                 xl_list="Domain-0   0 36864    16     r-----   9.1\n")
    assert unusable(told) == BEYOND
    assert told.memory.current == ALL_PAGES
    untold = ryzen(tmp_path / "n", "6.12.95+deb13-amd64", balloon=BALLOON.format(ALL_PAGES * 4))
    assert unusable(untold) == [] and not untold.unusable_known
    none = ryzen(tmp_path / "o", "6.15.1", balloon=BALLOON.format(ALL_PAGES * 4))
    assert unusable(none) == [] and none.unusable_known


def test_where_it_cannot_be_told_nothing_says_that_there_is_none(tmp_path: Path) -> None:
    made = ryzen(tmp_path / "m")
    assert not made.unusable_known
    assert any(note.startswith("scratch memory:") for note in made.notes)
    path = tmp_path / "machine.toml"
    path.write_text(presets.to_toml(made))
    assert presets.load(path) == made
    assert seeding(made).startswith("NOT seeded, although this kernel may")
    stated = read_machine(tmp_path / "m", {"memory.boot": str(OWN_PAGES)}).physmap
    assert unusable(stated) == BEYOND
    pages = (BEYOND[0][1] - BEYOND[0][0]) // 4096
    assert f"list seeded at boot with {pages} pages" in seeding(stated)


def test_an_earlier_kernel_or_another_mode_is_taken_as_it_is(tmp_path: Path) -> None:
    xen = "(XEN) Command line: dom0_mem=36G\n"
    made = ryzen(tmp_path / "m", "6.1.0-54-amd64", xl_dmesg=xen)
    assert unusable(made) == [] and made.unusable_known
    made = machine(tmp_path / "m", {"dmesg": "Linux version 6.19 (b)\nBooting kernel on Xen\n"}
                   ).physmap
    assert unusable(made) == [] and made.mode == "pv"


def test_a_tree_that_shows_unusable_memory_is_of_an_earlier_kernel(tmp_path: Path) -> None:
    tree = RYZEN + "c40000000-cffffffff : Unusable memory\n"
    made = machine(tmp_path, {"iomem": tree, "guest_type": "PVH\n"}).physmap
    assert unusable(made) == [(0xC40000000, 0xD00000000)]
    assert made.unusable_known
    assert not any(note.startswith("scratch memory") for note in made.notes)


def seeding(made: Physmap) -> str:
    """What the strategy that is seeded says of its list."""
    strategy = allocators.load("hypervisor")
    [note] = strategy.init(made, 64, strategy.values({})).notes
    return note


# -- what is assumed, and what is passed over ----------------------------------------------------
def test_what_is_assumed_stands_in_the_header_of_a_report(tmp_path: Path) -> None:
    ran = cli("run", ROOT / "traces/pvh-dom0.arrow", "--out", tmp_path / "out")
    said = "ASSUMED FACTS  no file tells, so these stand for it: phys_bits 40"
    assert said in ran.out
    assert said in cli("verify", ROOT / "traces/pvh-dom0.arrow").out


def test_only_facts_are_listed_as_assumed() -> None:
    assert presets.load("rcar-h3").assumed == ()
    assert presets.load("qemu-virt-arm64").assumed == ("va_bits 48", "phys_bits 48")


def test_every_default_is_named(tmp_path: Path) -> None:
    for arch in ("x86", "arm64"):
        made = machine(tmp_path, {}, arch=arch)
        named = {fact.split()[0] for fact in made.physmap.assumed}
        assert named >= {"iommu", "phys_bits"} | {
            f"memory.{name}" for name in ("available", "current", "target", "total",
                                          "total_reserve", "unpopulated", "low")}
        assert named >= ({"page_bytes", "kaslr", "va_bits", "direct_mapped", "section_bytes",
                          "regions"} if arch == "arm64" else {"mode"})
        assert "page_bytes" in made.provenance["files"]
    quiet = machine(tmp_path, {"dmesg": "KASLR disabled on command line\n"}, arch="arm64").physmap
    assert "kaslr no" not in quiet.assumed
    fixed = machine(tmp_path, {"dmesg": "Linux version 6.16.0 (b)\n"}, arch="arm64").physmap
    assert "kaslr no" not in fixed.assumed


def test_other_values_of_the_balloon_are_passed_over_by_name(tmp_path: Path) -> None:
    made = machine(tmp_path, {"balloon": BALLOON.format(131072) + "/sys/x/retry_count:1\n"
                              "/sys/x/schedule_delay 1\n/sys/x/target:536870912\n"}).physmap
    assert made.memory.current == 32768
    assert any("retry_count, schedule_delay" in note for note in made.notes)


def test_the_balloons_values_as_tail_shows_several_files(tmp_path: Path) -> None:
    sysfs = "/sys/devices/system/xen_memory/xen_memory0"
    made = machine(tmp_path, {"xen_balloon": f"==> {sysfs}/info/current_kb <==\n524288\n\n"
                              f"==> {sysfs}/info/low_kb <==\n4096\n\n==> {sysfs}/target_kb <==\n"
                              f"520192\n\n==> {sysfs}/retry_count <==\n1\n"}).physmap
    assert (made.memory.current, made.memory.low, made.memory.target) == (131072, 1024, 130048)
    with pytest.raises(InputError, match="line 1: expected '.../NAME_kb N'"):
        machine(tmp_path, {"xen_balloon": "==> a/current_kb <==\nmany\n"})


def test_a_zone_whose_pages_are_missing_is_a_sentence(tmp_path: Path) -> None:
    zones = "Node 0, zone DMA\n  high 19\n  managed\n  protection: (0, 9)\n"
    with pytest.raises(InputError, match=r"line 3.*managed N"):
        machine(tmp_path, {"zoneinfo": zones, "meminfo": "MemTotal: 8 kB\nMemAvailable: 8 kB\n"})


@pytest.mark.parametrize(("text", "kb"), [
    ("36G", 36 << 20), ("512", 512), ("512m", 512 << 10), ("1t", 1 << 30), ("4096b", 4),
    ("25%", None), ("-1G", None), ("1G+25%", None)])
def test_sizes_of_xens_command_line(text: str, kb: int | None) -> None:
    assert proc.size_kb(text) == kb


def test_copies_by_hand_may_have_a_suffix(tmp_path: Path) -> None:
    made = machine(tmp_path, {"xl-info.txt": "machine : aarch64\ncpu_mhz : 24.000\n",
                              "xl-dmesg.log": PI_5})
    assert made.provenance["files"]["arch"] == "xl-info.txt"
    assert made.provenance["files"]["cpu_hz"] == "xl-dmesg.log"


def test_stated_facts_win_over_files(tmp_path: Path) -> None:
    made = machine(tmp_path, {"xl-dmesg": PI_5}, cpu_hz="1000", direct_mapped="no", kernel="5.4")
    assert made.provenance["cpu_hz"] == 1000
    assert not made.physmap.direct_mapped
    assert made.physmap.section_bytes == 1 << 30
    with pytest.raises(ReplayError, match="whole number"):
        machine(tmp_path, {}, cpu_hz="fast")
