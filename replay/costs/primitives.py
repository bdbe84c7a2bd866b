"""The primitives of work: what strategies report, and what a profile gives a cost each.

The list, with a sentence, a unit and default costs, is primitives.toml; its order is that of the
work counters of a state.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Cost:
    """What one of a primitive takes, and its plausible range, in ns, and where they come from."""

    ns: float
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class Primitive:
    """said: what it is; unit: what one of it is. costs: by architecture, while nothing better is
    known."""

    name: str
    said: str
    unit: str
    costs: Mapping[str, Cost]


LOCK: Final = "lock"
"""Counted once a call, by the loop and not by strategies."""
SIZED: Final = ("scrub", "extent_decrease", "extent_populate")
"""What takes as long as the page is large: a page is cleared byte by byte, and Xen, whose pages are
of 4 KiB, takes an extent of a larger one frame by frame (xen/common/memory.c)."""
WAKE_LATENCY: Final = "wake_latency"
"""No work: how long the balloon thread takes from being woken to running."""
ARCHITECTURES: Final = {"x86": "x86-64 server at about 3 GHz; not calibrated",
                        "arm64": "arm64 embedded board at about 2 GHz; not calibrated"}
"""Of the default costs, each with what they stand for."""


def _read() -> tuple[Primitive, ...]:
    data = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return tuple(Primitive(name, row["said"], row["unit"],
                           {arch: Cost(**row[arch]) for arch in ARCHITECTURES})
                 for name, row in data.items())


ALL: Final = _read()
COSTED: Final = tuple(one.name for one in ALL)
"""What a profile gives a cost each: PRIMITIVES first, then WAKE_LATENCY."""
PRIMITIVES: Final = tuple(name for name in COSTED if name != WAKE_LATENCY)
"""What takes time as often as it is done."""
WORK: Final = tuple(name for name in PRIMITIVES if name != LOCK)
"""Those that a state counts."""
