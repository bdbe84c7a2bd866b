"""A decoded ftrace recording, in whatever form it was, as imported rows."""

from __future__ import annotations

from replay.importers.joining.normalise import normalise
from replay.importers.source.settings import whole
from replay.importers.source.format import Asked
from replay.importers.source.imported import Imported
from replay.importers.source.probes import Decoded
from replay.physmap.readers import Machine

def rows_of(decoded: Decoded, asked: Asked) -> tuple[Imported, dict[str, str]]:
    """Its rows, and what it says of the kernel it was recorded on."""
    base = whole(asked.settings, "vmemmap_base", None)
    kernel = asked.settings.get("kernel", "")
    imported = normalise(decoded, hz=asked.hz, vmemmap_base=base, table=asked.probes,
                         source=asked.source, scratch=asked.scratch, machine=asked.machine,
                         kernel=kernel or _kernel(decoded, asked.machine))
    facts = (("kernel", decoded.kernel), ("arch", decoded.arch))
    return imported, {key: value for key, value in facts if value} | imported.facts


def _kernel(decoded: Decoded, machine: Machine | None) -> str:
    """Its release: the recording's word, else that of the machine's files."""
    return decoded.kernel or (str(machine.provenance["kernel"]) if machine else "")
