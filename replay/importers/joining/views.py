"""A probe stream's columns by what they mean, whatever the probe's arguments were called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from replay.base.units import XEN_PAGE_BYTES
from replay.importers.joining.state import MAX_PFN
from replay.importers.source.probes import (
    MISSING,
    Coded,
    Elements,
    Ints,
    Probe,
    ProbeStream,
    bare,
)

STRUCT_PAGE_BYTES: Final = 64
LRU_BYTES: Final = 8
"""Offset of `lru` in struct page, by which ballooned pages are chained."""
_UNKNOWN_CALLERS: Final = ("", "arch_rethook_trampoline", "[unknown/kretprobe'd]",
                           "kretprobe_trampoline", "__kretprobe_trampoline")
_REFILL_CALLERS: Final = ("xen_alloc_unpopulated_pages", "fill_list", "reserve_additional_memory")


def page_to_pfn(addresses: Ints, base: int) -> Ints:
    """Frame numbers of `struct page` addresses (64 bits as int64); -1 for what is none."""
    with np.errstate(over="ignore"):
        distance = addresses - np.int64(signed(base))
    pfns = distance >> 6
    # kernel addresses are negative as int64; an empty list's NULL is none
    good = (addresses < 0) & (pfns >= 0) & (pfns < MAX_PFN) & (distance % STRUCT_PAGE_BYTES == 0)
    return np.where(good, pfns, -1)


def signed(address: int) -> int:
    """An address as the int64 of the same bits."""
    return address - (1 << 64) if address >= 1 << 63 else address


def known_caller(name: str) -> str:
    """A caller's name as in its source, "" for an address and for return trampolines."""
    return "" if name in _UNKNOWN_CALLERS or name.startswith("0x") else bare(name)


def is_refill_caller(name: str) -> bool:
    """Whether allocate_resource was called for new Xen pages (other drivers call it as well)."""
    return not name or bare(name) in _REFILL_CALLERS


def coded(texts: Sequence[str]) -> Coded:
    """Texts as codes and names."""
    if isinstance(texts, Coded):
        return texts
    found = pa.array(texts, pa.string()).dictionary_encode()
    return Coded(found.indices.to_numpy().astype(np.int64), found.dictionary.to_pylist())


class Names:
    """One numbering of all texts of a recording."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def code(self, text: str) -> int:
        """The number of a text."""
        return self._codes.setdefault(text, len(self._codes))

    def known(self, text: str) -> int:
        """The same, MISSING for an empty text."""
        return self.code(text) if text else MISSING

    def codes(self, texts: Coded, known: Callable[[str], str] = str) -> Ints:
        """The numbers of a column of texts, each of them as `known` puts it."""
        numbers = [self.known(known(name)) for name in texts.names]
        return np.array([*numbers, MISSING], dtype=np.int64)[texts.codes]

    @property
    def texts(self) -> list[str]:
        """All of them, by number."""
        return list(self._codes)


class View:
    """One stream with the columns of its probe's meanings."""

    def __init__(self, stream: ProbeStream, probe: Probe, vmemmap_base: int,
                 page_bytes: int = XEN_PAGE_BYTES) -> None:
        self.stream, self.probe, self.page_bytes = stream, probe, page_bytes
        self._base = vmemmap_base

    def number(self, meaning: str) -> Ints | None:
        """An integer argument per event, None when no accepted name is recorded."""
        names = self.probe.args.get(meaning, ())
        found = next((n for n in names if n in self.stream.numbers), None)
        return None if found is None else self.stream.numbers[found]

    def pages(self) -> Ints | None:
        """The number of pages per event, MISSING where it is none that a machine can have."""
        count = self.number("nr")
        return None if count is None else np.where((count >= 0) & (count < MAX_PFN), count, MISSING)

    def text(self, meaning: str) -> Coded | None:
        """A symbol or string argument per event."""
        names = self.probe.args.get(meaning, ())
        found = next((n for n in names if n in self.stream.texts), None)
        return None if found is None else coded(self.stream.texts[found])

    def elements(self, meaning: str) -> Elements | None:
        """All arrays of a meaning side by side; a scalar is an array of one."""
        tables, wholes, open_rows = [], [], np.ones(len(self.stream), dtype=bool)
        for name in self.probe.args.get(meaning, ()):
            part = self.stream.arrays.get(name)
            if part is None and name in self.stream.numbers:
                values = self.stream.numbers[name]
                part = Elements(values[:, None], (values != MISSING).astype(np.int64))
            if part is None or not part.values.shape[1]:
                continue
            tables.append(part.values)
            # behind an array that was cut nothing is in its place
            wholes.append(np.where(open_rows, part.whole, 0))
            open_rows &= part.whole == part.values.shape[1]
        if not tables:
            return None
        if len(tables) == 1:
            return Elements(tables[0], wholes[0])
        return Elements(np.hstack(tables), np.sum(wholes, axis=0))

    def xen_frames(self, meaning: str) -> Elements | None:
        """Arrays of Xen's frame numbers, as the kernel's: page_to_xen_pfn() gives the first of a
        page."""
        found = self.elements(meaning)
        per_page = self.page_bytes // XEN_PAGE_BYTES
        return found if found is None or per_page == 1 else Elements(
            found.values // per_page, found.whole)

    def frame(self, meaning: str) -> Ints | None:
        """The frame of a `struct page *` argument, or of an array's first; -1 for what is none."""
        found = self.elements(meaning)
        return None if found is None else page_to_pfn(found.values.T[0], self._base)

    def chain(self) -> Elements | None:
        """Addresses of the first pages of the free list, as they are chained."""
        pages = self.elements("chain")
        if pages is not None:
            return pages
        links = self.elements("lru_chain")
        if links is None:
            return None
        with np.errstate(over="ignore"):
            return Elements(links.values - LRU_BYTES, links.whole)

    def list_head(self) -> Ints | None:
        """The frame at the head of the free list, MISSING for an empty list."""
        found = self.chain()
        if found is None:
            return None
        frames = page_to_pfn(found.values.T[0], self._base)
        return np.where(frames >= 0, frames, MISSING)
