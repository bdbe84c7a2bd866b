"""The machine that a trace is replayed on: its own, a preset, or either under other assumptions."""

from __future__ import annotations

from dataclasses import dataclass

from replay.base.errors import ReplayError
from replay.physmap import presets
from replay.physmap.iomem import without_scratch
from replay.physmap.model import Physmap
from replay.physmap.variants import subtract_ram, with_iommu, with_pages
from replay.trace.meta import Meta


@dataclass(frozen=True)
class MachineChoice:
    """physmap: a preset or file instead of the trace's own. iommu: one of variants.SWITCH.
    subtract_ram: one of variants.SUBTRACT. page_bytes: one of variants.PAGE_SIZES. None leaves
    things as they are."""

    physmap: str | None = None
    iommu: str | None = None
    subtract_ram: str | None = None
    page_bytes: str | None = None

    @property
    def another(self) -> bool:
        """Whether frames of the recording are not those of this machine."""
        return bool(self.physmap or self.page_bytes)


def machine_for(meta: Meta, choice: MachineChoice) -> Physmap:
    """The machine; a ReplayError where the trace has none and none is named."""
    if choice.physmap:
        machine = presets.load(choice.physmap)
    elif meta.physmap is None:
        raise ReplayError(f"trace {meta.name!r} has no physmap: pass --physmap PRESET|FILE, "
                          "or import the recording with --machine DIR")
    else:
        # Of the boot: what the recorded pool had added by then, engine/start.py puts back.
        machine = without_scratch(meta.physmap)
    if choice.iommu:
        machine = with_iommu(machine, choice.iommu)
    if choice.subtract_ram:
        machine = subtract_ram(machine, choice.subtract_ram)
    if choice.page_bytes:
        machine = with_pages(machine, choice.page_bytes)
    return machine
