"""Which files and commands describe a machine, under the names that an import looks for.

The names are those of physmap.folder.MACHINE_FILES. What is not there is left out and named.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from replay.base.errors import ReplayError

TIMEOUT_S: Final = 60


class Saved(NamedTuple):
    """One file of a recording: a copy of `source`, or what a command prints."""

    name: str
    source: str = ""
    command: tuple[str, ...] = ()
    only: str = ""
    """Keep the lines in which this expression is found."""

    @property
    def shell(self) -> str:
        """As one would type it."""
        if not self.only:
            return f"cp {self.source}" if self.source else " ".join(self.command)
        return f"grep -E '{self.only}' {self.source}"


MACHINE_STATE: Final = (
    *(Saved(n, f"/proc/{n}") for n in ("iomem", "zoneinfo", "meminfo", "buddyinfo", "vmstat",
                                       "uptime")),
    Saved("xl-info", command=("xl", "info")), Saved("xl-list", command=("xl", "list")),
)
"""Saved before and after, with the balloon's sysfs values as `xen_balloon`."""

MACHINE: Final = (
    Saved("dmesg", command=("dmesg",)), Saved("xl-dmesg", command=("xl", "dmesg")),
    Saved("uname", command=("uname", "-a")), Saved("dom0-cmdline", "/proc/cmdline"),
    Saved("cpuinfo", "/proc/cpuinfo"), Saved("guest_type", "/sys/hypervisor/guest_type"),
    Saved("kallsyms-xen", "/proc/kallsyms", only=r"xen|gnttab|balloon|privcmd|list_count|"
          r"page_list|vmemmap_base|memstart_addr|decrease_reservation"),
    Saved("dt/reg", "/proc/device-tree/hypervisor/reg"),
    Saved("dt/dom0.dtb", "/sys/firmware/fdt"),
)
BALLOON_SYSFS: Final = "/sys/devices/system/xen_memory/xen_memory0"
KERNEL_CONFIG: Final = ("XEN|ZONE_DEVICE|MEMORY_HOTPLUG|KPROBE|FPROBE|KALLSYMS|BTF|PAGES?_|"
                        "ARM64_(VA|PA)_BITS|ARM64_[0-9]+K_")


def kernel_config(release: str) -> Saved:
    """The lines of the kernel's configuration that matter here."""
    return Saved("xen-config", f"/boot/config-{release}", only=KERNEL_CONFIG)


def check_iomem(root: Path = Path("/")) -> None:
    """Refuse a machine whose /proc/iomem shows no addresses."""
    path = root / "proc/iomem"
    text = path.read_text() if path.is_file() else ""
    if not re.search(r"[1-9a-f][0-9a-f]*-[0-9a-f]+ :", text):
        raise ReplayError(f"{path}: shows no addresses; it does to root alone: run as root")


def check_xen(root: Path = Path("/")) -> None:
    """Refuse a machine that does not run on Xen: a distribution's kernel has the functions there
    too, and nothing ever calls them.
    """
    kind = root / "sys/hypervisor/type"
    if kind.is_file() and kind.read_text().strip() == "xen":
        return
    if not (root / BALLOON_SYSFS.lstrip("/")).is_dir():  # of a kernel without the file above
        raise ReplayError("this kernel does not run on Xen (/sys/hypervisor/type does not say so): "
                          "there is nothing to record; start it as a dom0")


def guest_type(root: Path = Path("/")) -> str:
    """PV, PVH or HVM; "" where the kernel does not say."""
    try:
        return (root / "sys/hypervisor/guest_type").read_text().strip()
    except OSError:
        return ""


def save(folder: Path, files: tuple[Saved, ...], *, told: Callable[[str], None], dry: bool = False,
         root: Path = Path("/")) -> list[str]:
    """Save files below `folder`; the names of what could not be had."""
    missing = []
    for file in files:
        told(f"{file.shell} > {folder / file.name}" if not file.shell.startswith("cp ")
             else f"{file.shell} {folder / file.name}")
        if dry:
            continue
        data = _read(root, file) if file.source else _run(file.command)
        if data is None:
            missing.append(file.name)
            continue
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return missing


def save_state(folder: Path, *, told: Callable[[str], None], dry: bool = False,
               root: Path = Path("/")) -> list[str]:
    """Save what changes with a load, and the balloon's values."""
    missing = save(folder, MACHINE_STATE, told=told, dry=dry, root=root)
    told(f"grep . {BALLOON_SYSFS}/*_kb {BALLOON_SYSFS}/info/*_kb > {folder / 'xen_balloon'}")
    if not dry:
        text = "".join(_balloon(root))
        if not text:
            return [*missing, "xen_balloon"]
        (folder / "xen_balloon").write_text(text)
    return missing


def _balloon(root: Path) -> Iterator[str]:
    base = root / BALLOON_SYSFS.lstrip("/")
    for path in sorted([*base.glob("*_kb"), *base.glob("info/*_kb")]):
        yield f"/{path.relative_to(root)}:{path.read_text().strip()}\n"


def _read(root: Path, file: Saved) -> bytes | None:
    try:
        data = (root / file.source.lstrip("/")).read_bytes()
    except OSError:
        return None
    if file.only:
        data = b"".join(_lines_with(file.only, data))
    return data


def _lines_with(expression: str, data: bytes) -> Iterator[bytes]:
    """The lines in which it is found; of plain words each is looked up in the whole at once:
    under an emulator the loop over the lines of /proc/kallsyms takes long."""
    words = expression.split("|")
    if not all(re.fullmatch(r"\w+", word, re.ASCII) for word in words):
        keep = re.compile(expression.encode())
        yield from (line for line in data.splitlines(True) if keep.search(line))
        return
    found = {}
    for word in words:
        end = 0
        while (at := data.find(word.encode(), end)) >= 0:
            start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at) + 1 or len(data)
            found[start] = end
    yield from (data[start:found[start]] for start in sorted(found))


def _run(command: tuple[str, ...]) -> bytes | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        ended = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False,
                               stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout if ended.returncode == 0 and ended.stdout else None
