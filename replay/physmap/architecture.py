"""Which architecture a machine has, from what only one of the two prints."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from replay.base.errors import InputError, ReplayError
from replay.physmap.folder import Folder
from replay.physmap.proc import xl_info

MODELLED: Final = ("x86", "arm64")
MACHINE_WORDS: Final = {"aarch64": "arm64", "arm64": "arm64", "x86_64": "x86", "amd64": "x86"}
"""`uname -m` of a 64-bit kernel."""
OTHER_MACHINES: Final = re.compile(
    r"armv\d\w*|i[3-6]86|riscv\d*|ppc\w*|s390x?|aarch64_be|loongarch\d*")
"""What it says of machines that are not modelled."""


class Found(NamedTuple):
    """A line that only one architecture prints. what: the file's part in the machine."""

    arch: str
    what: str
    line: str


_OTHER_COMPILER = (r"[Vv]ersion \S+ \(.*\((?:arm|armv7\w*|riscv\d+|powerpc\w*|ppc\w*|s390x?|"
                   r"i[3-6]86)-[\w.-]*(?:gcc|clang)")
_TREE_DEVICE = r"^ *[0-9a-f]+-[0-9a-f]+ : [0-9a-f]+\.[\w,.+-]+ [\w,.+-]+@[0-9a-f]+"

PRINTED: Final = {
    ("xen_log", "arm64"):  # xen/arch/arm and xen/common/device-tree
        r"Generic Timer IRQ:|\bRAM: [0-9a-f]{8,16} - [0-9a-f]{8,16}|MODULE\[\d+\]: |"
        r"BANK\[\d+\] 0x|Allocating (?:1:1 )?mappings |Grant table range: |\bGICv[23]\b|"
        r"64-bit Execution:|Booting using (?:Device Tree|ACPI)|Using PSCI|"
        r"\(aarch64-[\w.-]*(?:gcc|clang)",
    ("xen_log", "x86"):  # xen/arch/x86
        r"(?:e820|e801|EFI) RAM map:|Detected [\d.]+ MHz processor|Building a PVH? Dom|"
        r"Video information:|\bVMX: |\bSVM: |AMD-Vi: |\[VT-D\]|\(x86_64-[\w.-]*(?:gcc|clang)",
    ("dmesg", "arm64"):  # arch/arm64, drivers/clocksource, drivers/firmware/psci
        r"Booting Linux on physical CPU 0x|Machine model: |\bpsci: |\barch_timer: |"
        r"Detected (?:VIPT|PIPT) I-cache|\bGICv[23]: |All CPU\(s\) started at EL|"
        r"Linux version \S*(?:aarch64|arm64)|\(aarch64-[\w.-]*(?:gcc|clang)|"
        r"CPU features: detected: ",
    ("dmesg", "x86"):  # arch/x86
        r"BIOS-provided physical RAM map|\be820: |Hypervisor detected: |"
        r"Booting (?:paravirtualized )?kernel .*on Xen|\bx86/\w+: |\bsmpboot: |\btsc: |"
        r"Linux version \S*(?:x86_64|amd64)|\(x86_64-[\w.-]*(?:gcc|clang)",
    ("dmesg", ""): r"\bCPU: ARMv[67] Processor|" + _OTHER_COMPILER,  # arch/arm/kernel/setup.c
    ("xen_log", ""): _OTHER_COMPILER,
    ("cpuinfo", "arm64"): r"^CPU implementer\s*:",
    ("cpuinfo", "x86"): r"^(?:vendor_id|flags|cpuid level|address sizes)\s*:",
    ("config", "arm64"): r"^CONFIG_ARM64=y",
    ("config", "x86"): r"^CONFIG_X86_64=y",
    ("guest_type", "x86"): r"^PVH?$",  # on Arm a domain is HVM to Linux
    ("iomem", "arm64"): _TREE_DEVICE + r"|: GIC[DRCVH]$",
    ("iomem", "x86"):  # arch/x86/kernel/{e820,setup}.c, arch/x86/kernel/apic
        r": (?:Local APIC|IOAPIC \d+|RAM buffer|Unusable memory|Video ROM|System ROM|"
        r"Video RAM area|ACPI Tables|ACPI Non-volatile Storage|Reserved)$",
}
"""By part of a machine and architecture ("": none that is modelled), what stands in that file and
in none of the other's."""


def evidence(files: Folder, xen_log: str) -> list[Found]:
    """What the files say; of each file and architecture the first line."""
    found = [*_stated(files)]
    for (what, arch), pattern in PRINTED.items():
        text = xen_log if what == "xen_log" else files.text(what)
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            found.append(Found(arch, what, _line(text, match)))
    found += [Found("arm64", what, "a device tree") for what in ("dtb", "hypervisor_reg")
              if files.find(what)]
    return found


def architecture(files: Folder, xen_log: str) -> str:
    """x86 or arm64; a note where no file tells, a ReplayError where they contradict."""
    found = evidence(files, xen_log)
    if "arch" not in files.overrides:
        _check(files, found)
    first = found[0] if found else None
    arch = str(files.settle("arch", (first.arch, first.what) if first else (None, ""), "x86",
                            "no file holds what only one architecture prints"))
    if arch not in MODELLED:
        raise ReplayError(f"--set arch={arch}: expected {' or '.join(MODELLED)}")
    return arch


def _stated(files: Folder) -> list[Found]:
    """What uname and `xl info` call the machine."""
    words = files.text("uname").split()
    # kernel name, host, release, version..., machine: a host may be called anything
    machines = [("uname", word) for word in words[2:] or words]
    # of `uname -r` alone a distribution's name for the release may tell
    machines += [("uname", found[1]) for word in (words[2:3] or words[:1])
                 if (found := re.search(r"[-.](aarch64|arm64|x86_64|amd64)$", word))]
    info = xl_info(files.text("xl_info"))
    machines += [("xl_info", info.get("machine", ""))]
    machines += [("xl_info", arch) for arch in re.findall(
        r"(?:xen|hvm)-3\.0-(aarch64|x86_64)", info.get("xen_caps", ""))]
    named = [Found(MACHINE_WORDS[word], what, word)
             for what, word in machines if word in MACHINE_WORDS]
    return named or [Found("", what, word)
                     for what, word in machines if OTHER_MACHINES.fullmatch(word)]


def _line(text: str, match: re.Match[str]) -> str:
    start = text.rfind("\n", 0, match.start()) + 1
    end = text.find("\n", match.end())
    return text[start:end if end >= 0 else len(text)].strip()[:60]


def _check(files: Folder, found: list[Found]) -> None:
    """Refuse a machine that is not modelled, and files of two machines."""
    other = next((one for one in found if not one.arch), None)
    if other:
        raise InputError(files.path / files.name(other.what),
                         f"says {other.line!r}, and only x86-64 and arm64 are modelled",
                         hint=f"--set arch={' or '.join(MODELLED)} takes it for one of them")
    by_arch = {one.arch: one for one in reversed(found)}
    if len(by_arch) > 1:
        said = ", ".join(f"{files.name(one.what)} is of {arch} ({one.line!r})"
                         for arch, one in sorted(by_arch.items()))
        raise InputError(files.path, f"holds files of two machines: {said}",
                         hint="Take out those of the other one, or state --set arch=...")
