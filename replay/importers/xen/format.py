"""The binary file of Xen's own trace, xentrace."""

from __future__ import annotations

from typing import Any

from replay.base.errors import InputError
from replay.importers.source.format import Asked, Format
from replay.importers.source.imported import Imported
from replay.importers.xen.read import NO_TOP, compile_kernels, open_xentrace, read_xentrace

CPU_CHANGE = (b"\x03\xf0\x01\x20", b"\x20\x01\xf0\x03")
"""The record that begins each window, in both byte orders."""


def _read(asked: Asked) -> tuple[Imported, dict[str, str]]:
    facts: dict[str, Any] = asked.machine.provenance if asked.machine else {}
    if asked.hz is None:
        raise InputError(asked.path, "xentrace does not say the frequency of its clock",
                         hint="pass --cpu-hz HZ, or --machine DIR with a copy of "
                              "xl dmesg, dmesg or xl info")
    version = asked.settings.get("xen_version") or facts.get("xen_version") or None
    arch = facts.get("arch", "")
    if asked.streamed:
        top = asked.machine.physmap.top_pfn if asked.machine else NO_TOP
        return open_xentrace(asked.path, hz=asked.hz, xen_version=version, arch=arch, top=top), {}
    return read_xentrace(asked.path, hz=asked.hz, xen_version=version, arch=arch,
                         source=asked.source), {}


FORMAT = Format("xentrace", "xentrace binary", lambda head: head.startswith(CPU_CHANGE), _read,
                compile_kernels, follows=True)
