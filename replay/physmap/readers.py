"""Reads a machine from the files one can copy off its dom0, or off a recording's folder.

Missing files are permitted: the fact then comes from `--set NAME=VALUE`, or from a default that
the notes name. Malformed files are not: InputError says which line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay.base.errors import InputError, ReplayError
from replay.base.since import version_of
from replay.physmap import arm64, fdt, iomem, proc, x86
from replay.physmap.model import HostRange, Memory, Physmap, validated

OVERRIDES = {
    "name": "name of the machine",
    "arch": "x86 or arm64",
    "mode": "pv, pvh, hvm or arm",
    "page_bytes": "page size of the dom0 kernel",
    "section_bytes": "memory section of the dom0 kernel",
    "direct_mapped": "yes or no: dom0's guest frames are its machine frames",
    "iommu": "yes or no: Xen uses the IOMMU",
    "phys_bits": "physical address bits of the CPU",
    "va_bits": "virtual address bits of an arm64 kernel",
    "cpu_hz": "frequency of the time stamps in xentrace, in Hz",
    "kernel": "release of the dom0 kernel",
    "xen_version": "version of the hypervisor, such as 4.17.7",
    "memory.available": "si_mem_available() in pages",
    "memory.current": "balloon_stats.current_pages",
    "memory.target": "balloon_stats.target_pages",
    "memory.total": "balloon_stats.total_pages",
    "memory.total_reserve": "totalreserve_pages",
    "memory.unpopulated": "balloon_stats.target_unpopulated",
    "memory.low": "pages on the balloon's list (balloon_low + balloon_high)",
}
"""What `--set` can state about a machine."""

# The state before the recording is wanted: what the recorded allocations met.
MACHINE_FILES = {
    "iomem": ("before/iomem", "snap-0-boot/iomem", "iomem-boot.txt", "iomem", "iomem.early"),
    "dmesg": ("dmesg-boot.txt", "dmesg", "dmesg.txt"),
    "xen_log": ("xl-dmesg-boot.txt", "xl-dmesg-boot", "xl-dmesg", "xl-dmesg.txt"),
    "xl_info": ("before/xl-info", "snap-0-boot/xl-info", "xl-info"),
    "meminfo": ("before/meminfo", "snap-0-boot/meminfo", "meminfo"),
    "zoneinfo": ("before/zoneinfo", "snap-0-boot/zoneinfo", "zoneinfo"),
    "balloon": ("before/xen_balloon", "snap-0-boot/balloon", "xen_balloon", "balloon"),
    "cpuinfo": ("cpuinfo",),
    "guest_type": ("guest_type",),
    "uname": ("uname",),
    "cmdline": ("dom0-cmdline", "cmdline"),
    "hypervisor_reg": ("dt/reg", "dt/reg.xxd"),
    "dtb": ("dt/dom0.dtb", "dom0.dtb", "fdt"),
}


@dataclass(frozen=True)
class Machine:
    """A physmap and where its facts come from."""

    physmap: Physmap
    provenance: dict[str, Any]


@dataclass
class _Folder:
    """The files of one folder, and what was learnt from which."""

    path: Path
    overrides: dict[str, str]
    texts: dict[str, str] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def text(self, what: str) -> str:
        """The first file there is for `what`; empty if none."""
        if what not in self.texts:
            self.texts[what] = ""
            for name in MACHINE_FILES[what]:
                path = self.path / name
                if path.is_file():
                    self.texts[what], self.paths[what] = _read(path), path
                    break
        return self.texts[what]

    def settle(self, name: str, found: tuple[Any, str], default: Any, why: str = "") -> Any:
        """A fact: from `--set`, else as found (value or None, file), else the default."""
        value, what = found
        if name in self.overrides:
            self.origin[name] = "--set"
            return _stated(name, self.overrides[name], default)
        if value is not None:
            self.origin[name] = str(self.paths[what].relative_to(self.path)) \
                if what in self.paths else what
            return value
        self.origin[name] = "assumed"
        self.notes.append(f"{name}: {default} is assumed" + (f", {why}" if why else "")
                          + f" (--set {name}=... states it)")
        return default


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise InputError(path, error.strerror or "cannot be read") from None


def _stated(name: str, text: str, like: Any) -> Any:
    if isinstance(like, bool):
        if text.lower() not in ("yes", "no", "1", "0", "true", "false", "on", "off"):
            raise ReplayError(f"--set {name}={text}: expected yes or no")
        return text.lower() in ("yes", "1", "true", "on")
    if isinstance(like, int):
        try:
            return int(text, 0)
        except ValueError:
            raise ReplayError(f"--set {name}={text}: expected a whole number") from None
    return text


def read_machine(directory: Path, overrides: dict[str, str] | None = None) -> Machine:
    """The machine described by the files in `directory`; see MACHINE_FILES for their names."""
    if not directory.is_dir():
        raise InputError(directory, "is not a folder",
                         hint="It should hold a copy of /proc/iomem, dmesg and the like")
    files = _Folder(directory, dict(overrides or {}))
    if not files.text("iomem"):
        raise InputError(directory, "holds no copy of /proc/iomem",
                         hint="looked for " + ", ".join(MACHINE_FILES["iomem"]))
    top = iomem.parse(files.paths["iomem"], files.text("iomem"))
    facts = _facts(files)
    page = _page_bytes(files)
    if facts["arch"] == "arm64":
        physmap = _arm64(files, top, facts, page)
    else:
        physmap = _x86(files, top, facts, page)
    machine = validated(physmap)
    facts |= {"page_bytes": page, "scratch": [list(s) for s in iomem.scratch_sections(machine)],
              "files": dict(files.origin)}
    return Machine(machine, facts)


def _facts(files: _Folder) -> dict[str, Any]:
    """What the trace's metadata says about the machine besides the physmap."""
    dmesg, log = files.text("dmesg"), files.text("xen_log")
    info = proc.xl_info(files.text("xl_info"))
    uname = files.text("uname").split()
    release = uname[2] if len(uname) > 2 else None
    kernel = files.settle("kernel", (release, "uname") if release else (
        (info["release"], "xl_info") if "release" in info
        else (proc.first(r"Linux version (\S+)", dmesg), "dmesg")), "")
    machine = info.get("machine", "")
    arm = machine.startswith("aarch64") or "aarch64" in files.text("uname") + log[:4000]
    seen = "arm64" if arm else "x86" if machine or dmesg or uname else None
    arch = files.settle("arch", (seen, "xl_info"), "x86")
    if arch not in ("x86", "arm64"):
        raise ReplayError(f"--set arch={arch}: expected x86 or arm64")
    xen = (info.get("xen_version"), "xl_info") if "xen_version" in info else (
        proc.first(r"Xen version (\d+\.\d+\.\d+)", log), "xen_log")
    return {
        "kernel": kernel, "arch": arch, "mode": _mode(files, arch),
        "xen_version": files.settle("xen_version", xen, "") or None,
        "cpu_hz": _cpu_hz(files, arch, info),
        "dom0_cmdline": files.text("cmdline").strip()
        or proc.first(r"Kernel command line: (.*)", dmesg) or "",
        "xen_cmdline": info.get("xen_commandline") or proc.first(r"Command line: (.*)", log) or "",
    }


def _mode(files: _Folder, arch: str) -> str:
    if arch == "arm64":
        return "arm"
    dmesg, kind = files.text("dmesg"), files.text("guest_type").strip().lower()
    if kind not in ("pv", "pvh", "hvm"):
        kind = "pvh" if "Booting kernel on Xen PVH" in dmesg else \
            "pv" if "Hypervisor detected: Xen PV" in dmesg else \
            "hvm" if "Hypervisor detected: Xen HVM" in dmesg else ""
    what = "guest_type" if files.text("guest_type").strip() else "dmesg"
    mode = str(files.settle("mode", (kind or None, what), "pv"))
    if mode not in ("pv", "pvh", "hvm"):
        raise ReplayError(f"--set mode={mode}: expected pv, pvh or hvm")
    return mode


def _cpu_hz(files: _Folder, arch: str, info: dict[str, str]) -> int:
    """Frequency of xentrace's time stamps: TSC on x86, generic counter on arm64.

    Xen's own measurement, from its log or as `xl info` repeats it to the kHz, before dom0's: a PV
    dom0 works its figure out from Xen's clock, and of one machine's recordings it says 2596.136 to
    2596.750 MHz where Xen says 2596.140 and 2596.141.
    """
    found: tuple[int | None, str] = (None, "")
    if arch == "arm64":
        khz = proc.first(r"Generic Timer IRQ:.*Freq: (\d+) KHz", files.text("xen_log"))
        found = (int(khz) * 1000, "xen_log") if khz else found
    else:
        line = r"Detected (\d+\.\d+) MHz processor"
        for mhz, what in ((proc.first(line, files.text("xen_log")), "xen_log"),
                          (proc.first(r"^(\d+\.\d+)$", info.get("cpu_mhz", "")), "xl_info"),
                          (proc.first(line, files.text("dmesg")), "dmesg")):
            if mhz and found[0] is None:
                found = (proc.mhz_to_hz(mhz), what)
    default = arm64.GENERIC_COUNTER_HZ if arch == "arm64" else 0
    return int(files.settle("cpu_hz", found, default))


def _page_bytes(files: _Folder) -> int:
    """The kernel's page size: MemTotal is the sum of all zones' managed pages."""
    total = proc.first(r"^MemTotal:\s+(\d+) kB", files.text("meminfo"))
    managed = sum(int(line.split()[1]) for line in files.text("zoneinfo").splitlines()
                  if line.split()[:1] == ["managed"] and line.split()[1:2][0].isdecimal())
    found = None
    if total and managed and int(total) * 1024 // managed in (4096, 16384, 65536):
        found = int(total) * 1024 // managed
    return int(files.settle("page_bytes", (found, "zoneinfo"), 4096))


def _ram_pages(top: list[iomem.Entry], page: int) -> int:
    return sum(e.end // page - -(-e.start // page) for e in top if e.name == "System RAM")


def _hot_added(files: _Folder, ram_pages: int, page: int) -> int:
    """Pages of System RAM that the tree at boot (iomem.early) did not have yet."""
    early = files.path / "iomem.early"
    if not early.is_file():
        return 0
    return max(0, ram_pages - _ram_pages(iomem.parse(early, _read(early)), page))


def _memory(files: _Folder, top: list[iomem.Entry], page: int) -> Memory:
    ram = _ram_pages(top, page)
    read: dict[str, Any] = dict.fromkeys(("available", "current", "target", "total", "low"))
    if files.text("meminfo"):
        read["available"] = proc.meminfo_pages(
            files.paths["meminfo"], files.text("meminfo"), "MemAvailable", page)
    if files.text("balloon"):
        kb, per = proc.balloon_kb(files.paths["balloon"], files.text("balloon")), page // 1024
        read |= {n: kb[f"{n}_kb"] // per for n in ("current", "target") if f"{n}_kb" in kb}
        out = (kb.get("low_kb", 0) + kb.get("high_kb", 0)) // per  # both are on the one list
        read["low"] = out if "low_kb" in kb else None
        if "current_kb" in kb:
            # total_pages is not shown: it is what dom0 began with plus what the balloon hot-added;
            # a hot-added block is in low_kb only once it is online.
            read["total"] = read["current"] + max(out, _hot_added(files, ram, page))
    current = files.settle("memory.current", (read["current"], "balloon"), ram,
                           "the System RAM of /proc/iomem")
    reserve = proc.total_reserve_pages(files.paths["zoneinfo"], files.text("zoneinfo")) \
        if files.text("zoneinfo") else None
    return Memory(
        available=files.settle("memory.available", (read["available"], "meminfo"),
                               current * 3 // 4, "three quarters of dom0's memory"),
        current=current,
        target=files.settle("memory.target", (read["target"], "balloon"), current),
        total=files.settle("memory.total", (read["total"], "balloon"), current),
        total_reserve=files.settle("memory.total_reserve", (reserve, "zoneinfo"), 0),
        unpopulated=files.settle("memory.unpopulated", (0, "not recorded anywhere: 0"), 0),
        low=files.settle("memory.low", (read["low"], "balloon"), 0),
    )


def _iommu(files: _Folder) -> bool:
    word = proc.first(r"I/O virtuali[sz]ation (enabled|disabled)", files.text("xen_log"))
    found = None if word is None else word == "enabled"
    return bool(files.settle("iommu", (found, "xen_log"), False))


def _x86(files: _Folder, top: list[iomem.Entry], facts: dict[str, Any], page: int) -> Physmap:
    dmesg = files.text("dmesg")
    table = x86.e820_table(dmesg)
    use_e820 = "Ignoring E820 reservations for host bridge windows" not in dmesg
    if not table:
        files.notes.append("clip: no e820 lines in dmesg; only the BIOS ROM is cut from candidates")
    elif not use_e820:
        files.notes.append("clip: the kernel ignores e820 entries once PCI is set up (firmware of "
                           "2023 or later); searches before that are not modelled")
    host, notes = x86.host_view(top, files.text("xen_log"))
    bits, read = x86.phys_bits(top, files.text("cpuinfo"))
    bits = int(files.settle("phys_bits", (bits if read else None, "cpuinfo"), bits,
                            "the least that holds the resource tree"))
    children, scratch = iomem.first_level(top)
    if scratch:
        notes.append(_scratch_note(scratch))
    return Physmap(
        name=files.overrides.get("name", files.path.resolve().name), arch="x86",
        mode=facts["mode"], page_bytes=page,
        section_bytes=int(files.settle("section_bytes", (x86.SECTION_BYTES, "x86"), 0)),
        direct_mapped=bool(files.settle("direct_mapped", (False, "x86"), False)),
        iommu=_iommu(files), iomem_end=1 << bits, pluggable=x86.PLUGGABLE, iomem=children,
        clip=x86.clip_list(table, use_e820), regions=(), host=tuple(host),
        memory=_memory(files, top, page), source=_source(files), notes=(*files.notes, *notes),
    )


def _scratch_note(scratch: list[tuple[int, int]]) -> str:
    spans = ", ".join(f"{start:#x}-{end:#x}" for start, end in scratch)
    return f"the pool had sections before the recording began: {spans}"


def _arm64(files: _Folder, top: list[iomem.Entry], facts: dict[str, Any], page: int) -> Physmap:
    log = files.text("xen_log")
    claims, regions, table = _device_tree(files)
    host, notes = arm64.host_view(top, log, claims)
    kernel = version_of(facts["kernel"]) or (0, 0)
    section = int(files.settle("section_bytes", (arm64.section_bytes(page, kernel), "arm64"), 0))
    direct = True if "Allocating 1:1 mappings" in log else None
    children, scratch = iomem.first_level(top)
    if scratch:
        notes.append(_scratch_note(scratch))
    return Physmap(
        name=files.overrides.get("name", files.path.resolve().name), arch="arm64", mode="arm",
        page_bytes=page, section_bytes=section,
        direct_mapped=bool(files.settle("direct_mapped", (direct, "xen_log"), True)),
        iommu=_iommu(files), iomem_end=arm64.IOMEM_END,
        pluggable=arm64.pluggable_range(
            _dram_start(top, host), page, section,
            int(files.settle("va_bits", (None, ""), arm64.VA_BITS_DEFAULT)),
            int(files.settle("phys_bits", (None, ""), arm64.ARM64_PHYS_BITS))),
        iomem=children, clip=(), regions=tuple(regions), host=tuple(host),
        memory=_memory(files, top, page), grant_table=table, source=_source(files),
        notes=(*files.notes, *notes),
    )


def _dram_start(top: list[iomem.Entry], host: list[HostRange]) -> int:
    """Where dom0's RAM began at boot: System RAM outside its banks was hot-added since."""
    banks = [h for h in host if h.type == "ram_dom0"]
    ram = [e for e in top if e.name == "System RAM"]
    own = [e for e in ram if any(b.start < e.end and e.start < b.end for b in banks)]
    starts = [e.start for e in (own or ram or banks)]
    if starts:
        return min(starts)
    raise ReplayError("no System RAM in /proc/iomem and no dom0 bank in the Xen log")


Regions = list[tuple[int, int]]


def _device_tree(files: _Folder) -> tuple[list[fdt.Claim], Regions, tuple[int, int] | None]:
    """(address claims, extended regions, grant table): the device tree, else Xen's own log.

    bindings/arm/xen.txt: reg[0] of the node "xen,xen" is the grant table, reg[1..] unused regions.
    """
    claims: list[fdt.Claim] = []
    raw: bytes | None = None
    where: Path | None = None
    cells = (2, 2)
    for name in MACHINE_FILES["dtb"]:
        if (files.path / name).is_file():
            where = files.path / name
            root = fdt.parse(where)
            claims = list(fdt.claims(root))
            node = fdt.find_compatible(root, "xen,xen")
            raw = node.props.get("reg") if node else None
            cells = root.cells("#address-cells", 2), root.cells("#size-cells", 1)
            break
    for name in MACHINE_FILES["hypervisor_reg"]:
        if raw is None and (files.path / name).is_file():
            where = files.path / name
            raw = where.read_bytes() if not name.endswith(".xxd") else _xxd(where, _read(where))
    if raw is None or where is None:
        regions, table = arm64.log_regions(files.text("xen_log"))
        files.notes.append("regions: from Xen's log; no device tree" if regions or table
                           else "regions: no device tree and none in Xen's log; none assumed")
        return claims, regions, table
    files.origin["regions"] = str(where.relative_to(files.path))
    try:
        spans = [(start, start + size) for start, size in fdt.pairs(raw, *cells)]
    except ValueError as error:
        raise InputError(where, f"hypervisor reg: {error} (address and size cells)") from None
    for number, (start, end) in enumerate(spans):
        if not start < end <= 1 << 62:
            raise InputError(where, f"hypervisor reg[{number}] is [{start:#x}, {end:#x})")
    return claims, spans[1:], spans[0] if spans else None


def _xxd(path: Path, text: str) -> bytes:
    """The bytes of a hex dump: offset, colon, groups of hex digits, two spaces, the text."""
    out = b""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        at, colon, rest = line.partition(": ")
        digits = rest.split("  ")[0].replace(" ", "")
        try:
            if not colon or int(at, 16) != len(out):
                raise ValueError
            out += bytes.fromhex(digits)
        except ValueError:
            raise InputError(path, f"expected 'offset: hex bytes', found {line[:40]!r}",
                             f"line {number}") from None
    return out


def _source(files: _Folder) -> str:
    return f"read from {files.path.resolve().name}/: " + ", ".join(
        sorted(str(p.relative_to(files.path)) for p in files.paths.values()))
