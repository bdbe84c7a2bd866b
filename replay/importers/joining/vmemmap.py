"""Chooses where the array of struct page begins: from the kernel, and from the addresses recorded.

Frames are recorded as addresses of struct pages. A base that is wrong makes every frame wrong, so
one is used only where the addresses fit it: nearly all of them must be of memory that the machine
can have. Where the kernel's version or its address bits are in no file, the addresses tell them if
exactly one base fits; else the import is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from replay.base.errors import ReplayError
from replay.base.since import has, version_of
from replay.base.units import GIB, KIB
from replay.importers.joining.tape import Matched
from replay.importers.joining.views import View, page_to_pfn
from replay.importers.source.probes import Decoded, Ints
from replay.physmap.architecture import MACHINE_WORDS
from replay.physmap.iomem import LINUX_RAM, SCRATCH
from replay.physmap.readers import Machine
from replay.physmap.vmemmap import (
    ARM64_VA_BITS,
    BELOW_A_GIB,
    BELOW_TWO_MIB,
    LAYOUTS,
    X86_BASES,
    Layout,
    arm64_base,
    arm64_start,
    layout_of,
)

ENOUGH: Final = 10_000
"""Addresses to look at; those of a machine lie together, so that more of them tell no more."""
NEARLY_ALL: Final = 0.99
"""Share of the addresses that must fit: an array may hold a word that is none."""
SLACK_BYTES: Final = 16 * GIB
"""Beyond twice the top of all memory that is known: sections are added at the lowest free place,
so the lists grow by no more than a caller takes."""
X86_BYTES: Final = 1 << 46
"""MAX_PHYSMEM_BITS with 4 levels of page tables, for an x86 machine that is not known."""
HOW: Final = ("State where it begins, --set vmemmap_base=ADDRESS (on arm64 VMEMMAP_START of "
              "asm/memory.h less 64 bytes for each page below memstart_addr), or let a probe fetch "
              "@vmemmap_base, on arm64 @memstart_addr, under that name")


class Place(NamedTuple):
    """A base, the address of frame 0's struct page. said: whose it is. page: bytes. va_bits: None
    on x86."""

    base: int
    said: str
    page: int = 4 * KIB
    va_bits: int | None = None


class Seen(NamedTuple):
    """Addresses of struct pages. frames: whether they are pages that were handed out or given
    back, and not the heads of lists, which may be empty."""

    addresses: Ints
    frames: bool


class Chosen(NamedTuple):
    """The base. facts: what it tells, for the trace's provenance."""

    base: int
    facts: dict[str, str]


def choose(decoded: Decoded, matched: list[Matched], machine: Machine | None, kernel: str,
           memstart: int | None = None) -> Chosen:
    """The base that the recorded addresses fit; ReplayError where none or several do.

    machine: of the recording, None if its files were not given. kernel: its release, "" if unknown.
    memstart: memstart_addr of arm64, where a probe has fetched it.
    """
    seen = _seen(decoded, matched)
    arch = MACHINE_WORDS.get(decoded.arch) or (machine.physmap.arch if machine else "")
    if machine and machine.physmap.arch == arch == "arm64":
        return _arm64(decoded.path, seen, machine, kernel, memstart)
    return _x86(decoded.path, seen, machine, arch)


def _x86(path: str, seen: Seen, machine: Machine | None, arch: str) -> Chosen:
    """Of x86, or of an unknown machine of which there are addresses of x86 or none."""
    places = [Place(base, f"x86 with {said}") for said, base in X86_BASES.items()]
    if not seen.frames or not len(seen.addresses):
        return Chosen(places[0].base, {})
    own = machine if machine and machine.physmap.arch == arch else None
    limit = _limit(own) if own else X86_BYTES
    fitting = [place for place in places if _fits(seen, place, limit)]
    if fitting:
        facts = {} if fitting[0] is places[0] else _facts(fitting[0], seen)
        return Chosen(fitting[0].base, facts)
    problem = f"{path}: frames are recorded as struct page addresses, such as {_example(seen)}"
    if arch == "x86":
        raise ReplayError(f"{problem}, and these fit no x86 kernel without KASLR, which places "
                          f"the array of struct page at random. {HOW}, or record with `nokaslr`")
    given = f"; those given are of {machine.physmap.arch}" if machine else ""
    raise ReplayError(f"{problem}; where their array begins follows on arm64 from the machine's "
                      f"files (--machine DIR{given}). {HOW}")


def _example(seen: Seen) -> str:
    return f"{int(seen.addresses[0]) % (1 << 64):#x}"


def _arm64(path: str, seen: Seen, machine: Machine, kernel: str, memstart: int | None) -> Chosen:
    page = machine.physmap.page_bytes
    read = {} if memstart is None else {"memstart_addr": f"{memstart:#x}"}
    if memstart is None:
        memstart = machine.physmap.pluggable[0]  # without KASLR
    known = layout_of(kernel)
    bits = None if machine.provenance["files"].get("va_bits") == "assumed" \
        else int(machine.provenance["va_bits"])
    places = list(_places([known] if known else LAYOUTS, [page], memstart, bits))
    if not len(seen.addresses):
        return Chosen(places[-1].base, {})
    limit = _limit(machine)
    fitting = [place for place in places if _fits(seen, place, limit)]
    if len(fitting) == 1:
        return Chosen(fitting[0].base, _facts(fitting[0], seen) | read)
    if not seen.frames:
        return Chosen((fitting or places)[-1].base, {})
    problem = f"{path}: frames are recorded as struct page addresses, such as {_example(seen)}; "
    if fitting:
        lacking = [f"the {what} (--set {name}=...)" for what, name, is_known in (
            ("kernel's release", "kernel", known),
            ("kernel's bits of virtual address", "va_bits", bits)) if not is_known]
        raise ReplayError(f"{problem}the array may begin where it does in "
                          f"{' or in '.join(place.said for place in fitting)}: state "
                          f"{' or '.join(lacking)}, or give --set vmemmap_base=ADDRESS")
    raise ReplayError(problem + _misfit(seen, machine, kernel, known, memstart, limit))


def _misfit(seen: Seen, machine: Machine, kernel: str, known: Layout | None, memstart: int,
            limit: int) -> str:
    """What is wrong where no base fits, and what would fit if the files said otherwise."""
    whose = f"{known.said} ({kernel})" if known else "any Linux"
    text = (f"on {whose} with {machine.physmap.page_bytes // KIB} KiB pages these are no memory of "
            "this machine")
    others = [place.said for place in _places(LAYOUTS, ARM64_VA_BITS, memstart, None)
              if _fits(seen, place, limit)]
    if others:
        text += f". They would fit {' or '.join(others)} (--set kernel, page_bytes, va_bits)"
    elif not (version_of(kernel) and has("fixed_linear_map", kernel)):
        text += ". Before Linux 6.16 KASLR moves them: record with `nokaslr`"
    return f"{text}. {HOW}"


def _places(layouts: Iterable[Layout], pages: Iterable[int], memstart: int, bits: int | None
            ) -> Iterator[Place]:
    """What there is, of several with one base the first; the likeliest is the last."""
    found: dict[int, Place] = {}
    for layout in layouts:
        for page in pages:
            for va_bits in reversed(ARM64_VA_BITS[page]) if bits is None else (bits,):
                least = BELOW_TWO_MIB if page == 64 * KIB else BELOW_A_GIB
                if bits is None and va_bits == 52 and layout < least:
                    continue
                base = arm64_base(arm64_start(layout, page, va_bits), memstart, page)
                said = f"{layout.said} with {page // KIB} KiB pages and {va_bits} bits"
                found.setdefault(base, Place(
                    base, f"{said} of virtual address", page, va_bits))
    yield from found.values()


def _limit(machine: Machine) -> int:
    """The address beyond all that such a machine's lists can hold."""
    its = machine.physmap
    tops = [r.end for r in its.iomem if r.name in (*LINUX_RAM, SCRATCH)]
    tops += [end for _, end in its.regions]
    tops += [h.end for h in its.host if h.type.startswith("ram")]
    return 2 * max(tops, default=0) + SLACK_BYTES


def _fits(seen: Seen, place: Place, limit: int) -> bool:
    pfns = page_to_pfn(seen.addresses, place.base)
    share = np.count_nonzero((pfns >= 0) & (pfns < limit // place.page)) / len(pfns)
    return bool(share >= NEARLY_ALL) if seen.frames else bool(share > 0)


def _facts(place: Place, seen: Seen) -> dict[str, str]:
    pfns = np.count_nonzero(page_to_pfn(seen.addresses, place.base) >= 0)
    facts = {"struct_pages": f"frame 0's at {place.base:#x}, as in {place.said}; of "
                             f"{len(seen.addresses)} addresses looked at {pfns} fit"}
    return facts if place.va_bits is None else facts | {"va_bits": str(place.va_bits)}


def _seen(decoded: Decoded, matched: list[Matched]) -> Seen:
    """The first addresses of pages handed out or given back; where there are none, heads of lists.
    """
    direct: list[Ints] = []
    heads: list[Ints] = []
    count = 0
    for streams in decoded.parts():
        for one in matched:
            view = View(streams[one.at], one.probe, 0)
            pages = [_kernel_addresses(p) for p in _pages(view, one.place)]
            direct += pages
            count += sum(map(len, pages))
            if (chain := view.chain()) is not None and chain.values.shape[1]:
                heads.append(_kernel_addresses(chain.values.T[0][chain.whole > 0]))
        if count >= ENOUGH:
            break
    found = np.concatenate(direct if count else [*heads, np.zeros(0, np.int64)])
    return Seen(found[:ENOUGH], bool(count))


def _kernel_addresses(values: Ints) -> Ints:
    """Those that can be a struct page's: of the kernel's half, and aligned as all of them are."""
    return values[(values < 0) & (values & 63 == 0)]


def _pages(view: View, place: str) -> Iterator[Ints]:
    """The first addresses of a stream's arrays; not of calls that have filled none."""
    if view.probe.role == "alloc" and place == "entry":
        return
    errno = view.number("errno")
    for meaning in ("frames", "page", "first", "last"):
        found = view.elements(meaning)
        if found is not None:
            good = found.whole > 0 if errno is None else (found.whole > 0) & (errno >= 0)
            yield found.values.T[0][good]
