"""What a trace's metadata says about its machine besides the physmap: versions, mode, clock."""

from __future__ import annotations

import re
from typing import Any

from replay.base.errors import ReplayError
from replay.base.units import KIB
from replay.physmap import arm64, logs, proc
from replay.physmap.architecture import architecture
from replay.physmap.folder import Folder
from replay.physmap.model import DOM0, DOMAIN_NAMES, DRIVER_DOMAIN
from replay.physmap.vmemmap import ARM64_VA_BITS

VERSION = r"(\d+\.\d+\S*)"
"""Xen's: "4.17.7", "4.17.4-pre", "4.21-unstable", "4.20.0-rc3", "4.21.1"."""
MHZ = r"(\d+(?:\.\d+)?) ?MHz"


def xen_log(files: Folder) -> str:
    """Xen's own lines: of its log, else of a capture of both consoles."""
    text = files.text("xen_log")
    if not text and "(XEN)" in files.text("dmesg"):
        text = files.texts["xen_log"] = files.text("dmesg")
        files.paths["xen_log"] = files.paths["dmesg"]
    return logs.xen_log(text)


def facts_of(files: Folder, xen: str, dmesg: str) -> dict[str, Any]:
    """The facts. xen: Xen's own lines, dmesg: dom0's."""
    info = proc.xl_info(files.text("xl_info"))
    kernel = _kernel(files, info, dmesg)
    arch = architecture(files, xen)
    version = _first(
        (info.get("xen_version"), "xl_info"), (proc.first(rf"\bXen version {VERSION}", xen),
                                               "xen_log"),
        (proc.first(rf"\bXen version: {VERSION}", dmesg), "dmesg"),  # PV, xen_banner()
        (proc.first(r"\bXen version (\d+\.\d+)\.\s*$", dmesg), "dmesg"),  # init_hvm_pv_info()
        (proc.first(r"\bXen (\d+\.\d+) support found", dmesg), "dmesg"))
    if version[0] is None and "xen_version" not in files.overrides:
        files.lacks("xen_version", "xentrace of Xen before 4.18 and later differ")
    else:
        version = files.settle("xen_version", version, ""), ""
    mode = _mode(files, arch, xen, dmesg)
    return {
        "kernel": kernel, "arch": arch, "mode": mode, "domain": _domain(files, mode, xen),
        "xen_version": version[0] or None, "cpu_hz": _cpu_hz(files, arch, info, xen, dmesg),
        "dom0_cmdline": files.text("cmdline").strip() or logs.kernel_command_line(dmesg),
        "xen_cmdline": info.get("xen_commandline")
        or proc.first(r"\bCommand line: (.*)", xen) or "",
    }


def _first(*found: tuple[Any, str]) -> tuple[Any, str]:
    """The first that is there."""
    return next((one for one in found if one[0]), (None, ""))


def _kernel(files: Folder, info: dict[str, str], dmesg: str) -> str:
    words = files.text("uname").split()
    release = next((word for word in (words[2:3] or words[:1]) if re.match(r"\d+\.\d", word)),
                   None)  # of `uname -a`, or of `uname -r`
    found = _first((release, "uname"), (info.get("release"), "xl_info"),
                   (proc.first(r"Linux version (\S+)", dmesg), "dmesg"))
    if found[0] is None and "kernel" not in files.overrides:
        files.lacks("kernel", "taken for a current one")
        return ""
    return str(files.settle("kernel", found, ""))


_BOOTING = re.compile(r"Booting (?:paravirtualized )?kernel (with PVH extensions )?on "
                      r"Xen( PVH| HVM| PV)?\b")
"""xen_banner(), arch/x86/xen; default_banner(), arch/x86/kernel/paravirt.c."""


def _mode(files: Folder, arch: str, xen: str, dmesg: str) -> str:
    if arch == "arm64":
        return "arm"
    kind = files.text("guest_type").strip().lower()
    booting = _BOOTING.search(dmesg)
    said = ("pvh" if booting[1] else (booting[2] or "pv").strip().lower()) if booting else None
    detected = proc.first(r"Hypervisor detected: Xen (PV|HVM)\b", dmesg)
    built = proc.first(r"Building a (PVH?) Dom\d", xen)
    mode = str(files.settle("mode", _first(
        (kind if kind in ("pv", "pvh", "hvm") else None, "guest_type"), (said, "dmesg"),
        (built and built.lower(), "xen_log"), (detected and detected.lower(), "dmesg")), "pv"))
    if mode not in ("pv", "pvh", "hvm"):
        raise ReplayError(f"--set mode={mode}: expected pv, pvh or hvm")
    return mode


FEATURE_DOM0, FEATURE_NOT_DIRECT_MAPPED, FEATURE_DIRECT_MAPPED = 11, 16, 17
"""xen/include/public/features.h: XENFEAT_dom0, and since Xen 4.15 the two others."""


def feature(files: Folder, bit: int) -> bool | None:
    """Whether Xen gives the domain a feature: /sys/hypervisor/properties/features, in hex."""
    word = files.text("features").strip()
    try:
        return bool(int(word, 16) >> bit & 1) if word else None
    except ValueError:
        return None


def _domain(files: Folder, mode: str, xen: str) -> str:
    """Whether it is dom0: its features and /proc/xen/capabilities ("control_d") say so, only dom0
    is shown Xen's log and its list of domains, and no dom0 is an HVM domain."""
    said = files.text("capabilities").split(",") if files.find("capabilities") else None
    stated = None if said is None else DOM0 if "control_d" in map(str.strip, said) \
        else DRIVER_DOMAIN
    has_it = feature(files, FEATURE_DOM0)
    shown = DOM0 if xen or files.text("xl_info") or files.text("xl_list") else None
    domain = str(files.settle("domain", _first(
        (None if has_it is None else DOM0 if has_it else DRIVER_DOMAIN, "features"),
        (stated, "capabilities"), (DRIVER_DOMAIN if mode == "hvm" else None, "mode hvm"),
        (shown, "xen_log" if xen else "xl_info" if files.text("xl_info") else "xl_list")), DOM0))
    if domain not in DOMAIN_NAMES:
        raise ReplayError(f"--set domain={domain}: expected {' or '.join(DOMAIN_NAMES)}")
    return domain


def _cpu_hz(files: Folder, arch: str, info: dict[str, str], xen: str, dmesg: str) -> int:
    """Frequency of xentrace's time stamps: TSC on x86, generic counter on arm64; 0 if unknown.

    Xen's own measurement, from its log or as `xl info` repeats it to the kHz, before dom0's: a PV
    dom0 works its figure out from Xen's clock, and of one machine's recordings it says 2596.136 to
    2596.750 MHz where Xen says 2596.140 and 2596.141. Of x86 dom0 says two where the processor's
    differs from the TSC's.
    """
    listed = proc.first(r"^(\d+\.\d+)$", info.get("cpu_mhz", ""))
    whole = proc.first(r"^(\d+)$", info.get("cpu_mhz", ""))  # of old Xen, and so not exact
    if arch == "arm64":
        khz = proc.first(r"Generic Timer IRQ:.*Freq: (\d+) KHz", xen)
        own = int(khz) * 1000 if khz else None
        kernels = proc.first(rf"\bcp15 (?:and mmio )?timer(?:\(s\))? running at {MHZ}", dmesg)
    else:
        mhz = proc.first(rf"\bDetected {MHZ} processor", xen)
        own = proc.mhz_to_hz(mhz) if mhz else None
        kernels = proc.first(rf"\bDetected {MHZ} TSC", dmesg) or proc.first(
            rf"\bDetected {MHZ} processor", dmesg)
    found = _first((own, "xen_log"), (listed and proc.mhz_to_hz(listed), "xl_info"),
                   (kernels and proc.mhz_to_hz(kernels), "dmesg"),
                   (whole and proc.mhz_to_hz(whole), "xl_info"))
    if found[0] is None and "cpu_hz" not in files.overrides:
        files.lacks("cpu_hz", "an xentrace file needs it")
        return 0
    return int(files.settle("cpu_hz", found, 0))


def page_bytes(files: Folder, arch: str, dmesg: str) -> int:
    """The kernel's page size. MemTotal is the sum of all zones' managed pages; the kernel prints
    bytes and order of its hash tables, ilog2(bytes) - PAGE_SHIFT (mm/mm_init.c, mm/page_alloc.c);
    x86 has but one."""
    total = proc.first(r"^MemTotal:\s+(\d+) kB", files.text("meminfo"))
    managed = sum(map(int, re.findall(r"^\s*managed\s+(\d+)\s*$", files.text("zoneinfo"),
                                      re.MULTILINE)))
    found = int(total) * 1024 // managed if total and managed else 0
    built = proc.first(r"^CONFIG_ARM64_(4|16|64)K_PAGES=y", files.text("config"))
    table = re.search(r"hash table entries: \d+ \(order: (-?\d{1,2}), (\d{1,15}) bytes", dmesg)
    shift = int(table[2]).bit_length() - 1 - int(table[1]) if table else 0
    page = int(files.settle("page_bytes", _first(
        (found in ARM64_VA_BITS and found, "zoneinfo"), (built and int(built) * KIB, "config"),
        (0 < shift < 17 and 1 << shift in ARM64_VA_BITS and 1 << shift, "dmesg"),
        (4 * KIB if arch == "x86" else None, "x86")), 4 * KIB))
    if page not in ARM64_VA_BITS or (arch == "x86" and page != 4 * KIB):
        raise ReplayError(f"page_bytes is {page}, expected 4096" + (
            "" if arch == "x86" else ", 16384 or 65536"))
    return page


def va_bits(files: Folder, dmesg: str, page: int) -> int:
    """Bits of an arm64 kernel's virtual addresses that are in use (vabits_actual). Of one that is
    configured for 52 the processor decides; the kernel names what it has found (cpufeature.c)."""
    built = proc.first(r"^CONFIG_ARM64_VA_BITS=(\d+)$", files.text("config"))
    known = _first((int(built) if built and int(built) < arm64.LARGE_BITS else None, "config"), (
        arm64.LARGE_BITS if re.search(r"detected: 52-bit Virtual Addressing \(", dmesg) else None,
        "dmesg"))
    bits = int(files.settle("va_bits", known, arm64.VA_BITS_DEFAULT))
    if bits not in ARM64_VA_BITS[page]:
        raise ReplayError(f"va_bits is {bits}, expected one of "
                          f"{', '.join(map(str, sorted(ARM64_VA_BITS[page])))} with "
                          f"{page // KIB} KiB pages (--set va_bits=...)")
    return bits


def pa_bits(files: Folder) -> int:
    """Bits of an arm64 kernel's physical addresses, by its configuration. With 52 the processor
    decides, as PHYS_MASK_SHIFT does, so that they are what the default is."""
    built = proc.first(r"^CONFIG_ARM64_PA_BITS=(\d+)$", files.text("config"))
    known = built and int(built) < arm64.LARGE_BITS
    return int(files.settle("phys_bits", (int(built) if built and known else None, "config"),
                            arm64.ARM64_PHYS_BITS))


def iommu(files: Folder, xen: str) -> bool:
    """Whether Xen uses the IOMMU: its log, else what `xl info` lists of its capabilities."""
    word = proc.first(r"I/O virtuali[sz]ation (enabled|disabled)", xen)
    caps = proc.xl_info(files.text("xl_info")).get("virt_caps")
    found = _first((word and ("no", "yes")[word == "enabled"], "xen_log"),
                   (caps and ("no", "yes")["directio" in caps], "xl_info"))
    return bool(files.settle("iommu", (found[0] and found[0] == "yes", found[1]), False))
