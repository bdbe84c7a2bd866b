"""A decoded ftrace recording, in whatever form it was, as imported rows."""

from __future__ import annotations

from replay.importers.joining.normalise import normalise
from replay.importers.source.format import Asked, whole
from replay.importers.source.imported import Imported
from replay.importers.source.probes import Decoded
from replay.physmap.host import hot_added
from replay.physmap.readers import Machine

ARM64_VMEMMAP_START = 0xFFFFFDFFC0000000
"""VMEMMAP_START of Linux 6.12 on arm64, 48-bit addresses, 4 KiB pages (asm/memory.h)."""


def _vmemmap(machine: Machine | None) -> int | None:
    """The default for a kernel without address randomisation, from the machine's RAM start."""
    if machine is None or machine.physmap.arch != "arm64":
        return None
    added = hot_added(machine.physmap)  # memstart_addr is of boot
    ram = min((c.start for c in machine.physmap.iomem if c.name == "System RAM"
               and c not in added), default=0)
    memstart = ram >> 30 << 30  # ARM64_MEMSTART_ALIGN is 1 GiB
    return ARM64_VMEMMAP_START - memstart // machine.physmap.page_bytes * 64


def rows_of(decoded: Decoded, asked: Asked) -> tuple[Imported, dict[str, str]]:
    """Its rows, and what it says of the kernel it was recorded on."""
    base = whole(asked.settings, "vmemmap_base", _vmemmap(asked.machine))
    imported = normalise(decoded, hz=asked.hz, vmemmap_base=base, table=asked.probes,
                         source=asked.source, scratch=asked.scratch)
    facts = (("kernel", decoded.kernel), ("arch", decoded.arch))
    return imported, {key: value for key, value in facts if value}
