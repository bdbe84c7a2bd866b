"""Calls of the kernel that fail by option: `--set fault.alloc_page=1/1000`, `--set fault.seed=7`.

Each kind of call has a stream of numbers of its own, from the seed: its k-th call fails or not
whatever is called beside it. So the models and the kernel's own C, which make the same calls in the
same order, meet the same failures, however a trace is cut into batches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from replay.base.compiled import record
from replay.base.errors import ReplayError, unknown_name
from replay.base.hashes import splitmix64

FAULT_PREFIX: Final = "fault"
"""Of the settings, in the place of a strategy's name."""

FAULT_KINDS: Final = {
    "alloc_page": "alloc_page() in decrease_reservation(): the batch ends before that page",
    "kzalloc": "kzalloc() of a resource or of a dev_pagemap, in fill_list() and "
               "additional_memory_resource()",
    "xen_alloc_p2m_entry": "PV: the p2m entry of a page that is handed out",
    "set_phys_to_machine": "PV: the p2m entry of a page of new memory",
    "add_memory_resource": "the hot-add of memory, at once and before anything is made for it",
    "memremap_pages": "the struct pages of a new region, with -ENOMEM",
    "populate": "Xen has no page for an extent of XENMEM_populate_physmap (not of a direct-mapped "
                "domain, which gets its own pages back)",
    "signal": "a signal as a caller goes to sleep until memory is onlined",
}
"""What can be made to fail, each with where it stands; the order is that of enum replay_fault."""
(ALLOC_PAGE, KZALLOC, P2M_ENTRY, SET_PHYS_TO_MACHINE, ADD_MEMORY, MEMREMAP, POPULATE,
 SIGNAL) = range(len(FAULT_KINDS))

MAX_PAGES_OPTION: Final = "max_pages"
"""d->max_pages: what Xen populates for the domain ends there. A number of pages, no ratio."""
SEED_OPTION: Final = "seed"

FAILING = record("times", "of", "state", "calls", "failed")
"""Of `of` calls `times` fail, none if that is 0; the state of the stream; calls and failures."""
FAULT_WORDS = record(
    *((name, FAILING) for name in FAULT_KINDS),
    "entries",  # whether xen_alloc_p2m_entry() may fail: on the path of every call
    "max_pages",  # 0: no limit
    "reason",  # of the current call: the fault met last plus one, 0 for none
)
"""A state's part of it; struct replay_faults of replay_allocator.h."""

RATIO = re.compile(r"([0-9]{1,10})/([0-9]{1,10})")
LARGEST_RATIO = 1 << 32
"""The largest denominator."""


@dataclass(frozen=True)
class Faults:
    """What is to fail: by name, so many times of so many calls; d->max_pages, 0 for no limit."""

    ratios: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    max_pages: int = 0
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.ratios or self.max_pages)

    def settings(self) -> dict[str, str]:
        """As they are written, without the prefix."""
        found = {name: "{}/{}".format(*self.ratios[name])
                 for name in FAULT_KINDS if name in self.ratios}
        if self.max_pages:
            found[MAX_PAGES_OPTION] = str(self.max_pages)
        return {**found, SEED_OPTION: str(self.seed)} if found or self.seed else found

    def said(self) -> str:
        """For the line of a report that says how it was replayed; nothing if nothing fails."""
        made = ", ".join(f"{FAULT_PREFIX}.{name}={text}" for name, text in self.settings().items())
        return f"; calls fail: {made}" if self else ""

    def states(self) -> np.ndarray:
        """(kinds,) of int64: where each kind's stream begins."""
        kinds = np.arange(len(FAULT_KINDS), dtype=np.uint64)
        return splitmix64(splitmix64(np.full(1, self.seed, np.uint64)) + kinds).view(np.int64)


NO_FAULTS: Final = Faults()


def parse_faults(given: Mapping[str, str]) -> Faults:
    """Of settings without the prefix; ReplayError for a name or value that cannot be."""
    ratios: dict[str, tuple[int, int]] = {}
    numbers = {MAX_PAGES_OPTION: 0, SEED_OPTION: 0}
    for name, text in given.items():
        if name in numbers:
            numbers[name] = _number(name, text)
        elif name in FAULT_KINDS:
            ratios[name] = _ratio(name, text)
        else:
            raise unknown_name("fault", name, [*FAULT_KINDS, *numbers])
    return Faults(ratios, numbers[MAX_PAGES_OPTION], numbers[SEED_OPTION])


def faults_of(settings: Mapping[str, str]) -> Faults:
    """Of settings with the prefix, where there can be no others."""
    for key in settings:
        if not key.startswith(f"{FAULT_PREFIX}."):
            raise unknown_name("setting", key, [f"{FAULT_PREFIX}.{name}" for name in (
                *FAULT_KINDS, MAX_PAGES_OPTION, SEED_OPTION)])
    return parse_faults({key.removeprefix(f"{FAULT_PREFIX}."): text
                         for key, text in settings.items()})


def _ratio(name: str, text: str) -> tuple[int, int]:
    found = RATIO.fullmatch(text)
    times, of = (int(found[1]), int(found[2])) if found else (1, 0)
    if not times <= of or not 1 <= of <= LARGEST_RATIO:
        raise ReplayError(f"--set {FAULT_PREFIX}.{name}={text}: expected a ratio from 0/1 to "
                          "1/1 such as 1/1000, the second number at most 2^32")
    return times, of


def _number(name: str, text: str) -> int:
    least = 1 if name == MAX_PAGES_OPTION else 0
    value = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1
    if not least <= value < 1 << 52:
        raise ReplayError(f"--set {FAULT_PREFIX}.{name}={text}: expected a whole number from "
                          f"{least} to below 2^52")
    return value
