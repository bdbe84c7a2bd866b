"""The files of a machine's folder, and what was learnt from which of them."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay.base.texts import cut_lines
from replay.base.errors import InputError, ReplayError

# The state before the recording is wanted: what the recorded allocations met.
MACHINE_FILES = {
    "iomem": ("before/iomem", "snap-0-boot/iomem", "iomem-boot.txt", "iomem", "iomem.early"),
    "dmesg": ("dmesg-boot.txt", "dmesg", "dmesg.txt"),
    "xen_log": ("xl-dmesg-boot.txt", "xl-dmesg-boot", "xl-dmesg", "xl-dmesg.txt"),
    "features": ("xen-features", "features"),
    "capabilities": ("xen-capabilities", "capabilities"),
    "xenstore": ("before/xenstore", "xenstore"),
    "xl_info": ("before/xl-info", "snap-0-boot/xl-info", "xl-info"),
    "xl_list": ("before/xl-list", "snap-0-boot/xl-list", "xl-list"),
    "meminfo": ("before/meminfo", "snap-0-boot/meminfo", "meminfo"),
    "zoneinfo": ("before/zoneinfo", "snap-0-boot/zoneinfo", "zoneinfo"),
    "balloon": ("before/xen_balloon", "snap-0-boot/balloon", "xen_balloon", "balloon"),
    "cpuinfo": ("cpuinfo",),
    "guest_type": ("guest_type",),
    "uname": ("uname",),
    "config": ("xen-config", "config"),
    "cmdline": ("dom0-cmdline", "cmdline"),
    "hypervisor_reg": ("dt/reg", "dt/reg.xxd"),
    "dtb": ("dt/dom0.dtb", "dom0.dtb", "fdt"),
}
SUFFIXES = (".txt", ".log")
"""What a copy by hand may be called beside that."""


@dataclass
class Folder:
    """The files of one folder, and what was learnt from which."""

    path: Path
    overrides: dict[str, str]
    texts: dict[str, str] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def find(self, what: str) -> Path | None:
        """Where the first file there is for `what` lies."""
        return next((path for name in MACHINE_FILES[what] for suffix in ("", *SUFFIXES)
                     if (path := self.path / (name + suffix)).is_file()), None)

    def text(self, what: str) -> str:
        """The first file there is for `what`; empty if none."""
        if what not in self.texts:
            self.texts[what] = ""
            path = self.find(what)
            if path is not None:
                self.texts[what], self.paths[what] = read(path), path
        return self.texts[what]

    def name(self, what: str) -> str:
        """The file that `what` was read from, for a reader; `what` itself if none was."""
        path = self.paths.get(what)
        return what if path is None else str(path.relative_to(self.path))

    def settle(self, name: str, found: tuple[Any, str], default: Any, why: str = "") -> Any:
        """A fact: from `--set`, else as found (value or None, file), else the default."""
        value, what = found
        if name in self.overrides:
            self.origin[name] = "--set"
            return _stated(name, self.overrides[name], default)
        if value is not None:
            self.origin[name] = self.name(what)
            return value
        self.assume(name, default, why)
        return default

    def assume(self, name: str, value: Any, why: str = "") -> None:
        """Note that a fact was in no file, and what stands for it."""
        self.origin[name] = "assumed"
        said = ("no", "yes")[value] if isinstance(value, bool) else value
        self.notes.append(f"{name}: {said} is assumed" + (f", {why}" if why else "")
                          + f" (--set {name}=... states it)")

    def lacks(self, name: str, why: str) -> None:
        """Note that a fact was in no file, and that nothing stands for it."""
        self.origin[name] = "not known"
        self.notes.append(f"{name}: not known, {why} (--set {name}=... states it)")


def read(path: Path) -> str:
    """A text file, whatever bytes are in it; a mark of its encoding counts (as what a shell of
    Windows has written begins with)."""
    try:
        data = path.read_bytes()
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        # a serial line is captured with the carriage returns that go over it
        text = data.decode("utf-16" if utf16 else "utf-8-sig", "replace")
        return cut_lines(re.sub(r"(?<!\r)\r+\n", "\n", text))
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
