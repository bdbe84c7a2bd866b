"""A terminal sketch of the physmap, and a curve of live pages over time."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from replay.physmap.model import Physmap
from replay.report.tables import fitted, table
from replay.units import human_bytes

BLOCKS = " ▁▂▃▄▅▆▇█"


def curve(times: np.ndarray, values: np.ndarray, *, width: int = 90, height: int = 6) -> str:
    """The greatest value in each of `width` equal time steps, as block characters."""
    if len(times) == 0 or values.max(initial=0) <= 0:
        return "(no live pages)\n"
    edges = np.linspace(0, int(times[-1]) + 1, width + 1)
    before = np.searchsorted(times, edges, side="right")
    tops = []
    for low, high in zip(before[:-1], before[1:], strict=True):
        held = values[low - 1] if low else 0
        tops.append(max(int(held), int(values[low:high].max(initial=0))))
    scaled = np.array(tops) / max(tops) * height * 8
    lines = []
    for level in range(height - 1, -1, -1):
        cells = np.clip(np.round(scaled - level * 8), 0, 8).astype(int)
        lines.append("".join(BLOCKS[c] for c in cells))
    return "\n".join(f"│{line}" for line in lines) + "\n└" + "─" * width + "\n"


def physmap_table(machine: Physmap, sections: list[tuple[int, int, str]]) -> Table:
    """The address space line by line: Linux's tree, the hypervisor's regions, added sections."""
    rows = [(c.start, c.end, "iomem", c.name) for c in machine.iomem]
    rows += [(start, end, "region", "extended region (hypervisor)") for start, end in machine.regions]
    rows += [(start * machine.page_bytes, (start + nr) * machine.page_bytes, "added", name)
             for start, nr, name in sections]
    kinds = ("ram_other", "ram_xen", "mmio")
    rows += [(h.start, h.end, "host", f"{h.type.replace('_', ' ')} {h.name}".strip())
             for h in machine.host if h.type in kinds]
    largest = max((end - start for start, end, _, _ in rows), default=1)
    cells = []
    for start, end, kind, name in sorted(rows)[:80]:
        bar = "█" * max(1, round(16 * np.log2(end - start + 1) / np.log2(largest + 1)))
        cells.append([f"{start:#014x}", f"{end - 1:#014x}", kind, human_bytes(end - start),
                      bar, fitted(name, 28)])
    title = f"Physmap {fitted(machine.name, 40)} (bars: logarithm of the size)"
    return table(title, ["first", "last", "view", "size", "", "what"], cells, left=6)
