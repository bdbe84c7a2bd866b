"""What a trace says of itself, beside its rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from replay.physmap.model import Physmap


@dataclass(frozen=True)
class Meta:
    """What a trace says of itself; all of it plain JSON in the file.

    accounting: every record of the sources, see trace/store.py. anomalies: counters by name of
    anomalies.KNOWN. recorded_strategy: which allocator the recorded kernel used, "" if none. start:
    what the recording began with, see trace/start.py. bounds: of a file, what its rows need at
    most, see trace/stored.py; empty in memory, and where no row is an allocator call.
    """

    name: str
    synthetic: bool
    description: str
    sources: list[dict[str, Any]]
    clock: dict[str, Any]
    provenance: dict[str, str]
    recorded_strategy: str
    accounting: dict[str, Any]
    anomalies: dict[str, int]
    options: dict[str, str] = field(default_factory=dict)
    importer: str = ""
    physmap: Physmap | None = None
    start: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Whether it was recorded, and of what, in words."""
        if self.synthetic:
            return "SYNTHETIC"
        return f"RECORDED, of an emulator ({self.provenance['emulated']})" if self.emulated else (
            "RECORDED")

    @property
    def emulated(self) -> bool:
        """Whether the recorded times are those of an emulator, not of hardware."""
        return "emulated" in self.provenance

    @property
    def lost(self) -> int:
        """Records known to be missing; a loss of unknown number counts as one."""
        return int(self.accounting.get("lost", 0))

    @property
    def losses_unknown(self) -> int:
        """Losses whose number of records the tracer does not say."""
        return int(self.anomalies.get("losses_unknown", 0))

    @property
    def cut(self) -> int:
        """Sources that end too early: how much is missing behind nobody knows."""
        return int(self.anomalies.get("file_truncated", 0) or self.anomalies.get("xentrace_cut", 0))
