"""The binary file of Xen's own trace, xentrace."""

from __future__ import annotations

from typing import Any

from replay.base.errors import InputError
from replay.base.units import XEN_PAGE_BYTES
from replay.importers.source.format import Asked, Format
from replay.importers.source.imported import Imported
from replay.importers.xen.framing import MARKS
from replay.importers.xen.keep import kept
from replay.importers.xen.read import NO_TOP, compile_kernels, open_xentrace, read_xentrace


def _read(asked: Asked) -> tuple[Imported, dict[str, str]]:
    facts: dict[str, Any] = asked.machine.provenance if asked.machine else {}
    if not asked.hz:
        raise InputError(asked.path, "xentrace does not say the frequency of its clock",
                         hint="pass --cpu-hz HZ, or --machine DIR with a copy of xl dmesg, xl info "
                              "or dmesg that states it")
    version = asked.settings.get("xen_version") or facts.get("xen_version") or None
    arch = facts.get("arch", "")
    if asked.streamed:
        its = asked.machine.physmap if asked.machine else None
        top = its.top_pfn * its.page_bytes // XEN_PAGE_BYTES if its else NO_TOP
        keep = kept(asked.settings, its)
        return open_xentrace(asked.path, hz=asked.hz, xen_version=version, arch=arch, top=top,
                             keep=keep), {}
    return read_xentrace(asked.path, hz=asked.hz, xen_version=version, arch=arch,
                         source=asked.source, scratch=asked.scratch), {}


FORMAT = Format("xentrace", "xentrace binary", lambda head: head.startswith(tuple(MARKS)), _read,
                compile_kernels, follows=True)
