"""Which functions to probe on which kernel, and how a probe is written; all of it data.

Exported functions are preferred: a static one may be inlined, and then has no symbol. Signatures
are those of Linux 5.10, 6.1 and 6.12; a probe that a kernel refuses is left out.

**What a probe may read.** Arguments are read before any filter, whatever `nr` is, and a read past
the end of a caller's page array may land in a page that was ballooned out: the kernel's own
fault-tolerant copy does not catch that where the page is still in the direct map but no longer in
Xen's second-stage tables (arm64 has died of it; PVH has the same two stages). One aligned word at
the start of an array that has at least one element never leaves it, so that is all that is read
unless `frames` asks for more. On x86 PV the balloon takes each page out of the direct map
(__xenmem_reservation_va_mapping_reset()), so that the copy fails softly. The fetch type that
prints a symbol into the event is never used: it corrupts memory on Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from replay.base.errors import ReplayError, unknown_name
from replay.base.since import SINCE
from replay.record import inside
from replay.record.code import Place

Version = tuple[int, int]
Arch = Literal["x86_64", "arm64"]
ARCHES: Final[tuple[Arch, ...]] = ("x86_64", "arm64")
GROUP: Final = "replay"
ARGUMENTS: Final = (4, 20)
"""`$argN` in kprobe events ("tracing: probeevent: Add $argN", Linux 4.20)."""
FPROBES: Final = (6, 5)
"""Function events with arguments named by BTF, `f:` (Documentation/trace/fprobetrace.rst)."""
RETURN_ARGUMENTS: Final = (6, 9)
"""An entry's arguments in its return event (commit 25f00e40ce79)."""
MAX_FRAMES: Final = 63
"""An array of a probe has fewer than 64 elements."""
MAXACTIVE: Final = 128
"""Calls that may be open at once in a return probe: they sleep on the allocator's mutex."""


class Arg(NamedTuple):
    """One fetched argument: `number` and `c_name` say which, `at` where behind it to read."""

    name: str
    number: int
    c_name: str
    type: str
    at: tuple[int, ...] = ()
    array: bool = False
    """Whether more than the first element may be asked for."""
    arches: tuple[Arch, ...] = ARCHES


class Symbol(NamedTuple):
    """A kernel variable read beside an argument, where its name is in kallsyms exactly once."""

    name: str
    type: str
    arches: tuple[Arch, ...] = ARCHES


@dataclass(frozen=True)
class Function:
    """One probed function. since (first) and until (first without): kernels that have it."""

    name: str
    args: tuple[Arg, ...] = ()
    symbols: tuple[Symbol, ...] = ()
    caller: bool = False
    returns: bool = False
    void: bool = False
    """Whether it returns nothing: the return event then tells its time alone."""
    returned: tuple[Arg, ...] = ()
    """Arguments whose target is read at return, where the kernel can."""
    since: dict[Arch, Version] | None = None
    until: Version | None = None
    arches: tuple[Arch, ...] = ARCHES
    static: bool = False

    def on(self, kernel: Version, arch: Arch) -> bool:
        """Whether that kernel has the function."""
        first = (self.since or {}).get(arch, (0, 0))
        return (arch in self.arches and first <= kernel
                and (self.until is None or kernel < self.until))


_PAGES: Final = Arg("pages", 2, "pages", "x64")
_FIRST: Final = Arg("p", 2, "pages", "x64", (0,), array=True)
_LIST: Final = (Symbol("list_count", "u32"), Symbol("page_list", "x64"))
_VMEMMAP: Final = (Symbol("vmemmap_base", "x64", ("x86_64",)),
                   Symbol("memstart_addr", "x64", ("arm64",)))
"""What tells frames from addresses of struct pages: on arm64, where KASLR moves memstart_addr
before 6.16, together with the layout of the release. Both are exported and lie in the kernel's own
data; a kernel without CONFIG_KALLSYMS_ALL does not show variables, and the probe leaves them out.
"""
_POOL: Final[dict[Arch, Version]] = {"x86_64": SINCE["pool"].version,
                                     "arm64": SINCE["extended_regions"].version}
"""CONFIG_XEN_UNPOPULATED_ALLOC: x86 since 5.9; arm64 since its extended regions, 5.17."""
VARIABLES: Final = ("list_count", "page_list", *(one.name for one in _VMEMMAP), "balloon_stats",
                    "ballooned_pages")
"""All variables of the kernel that a probe may read."""
_RENAMED: Final = SINCE["balloon_names"].version
"""alloc_xenballooned_pages() became xen_alloc_ballooned_pages() in Linux 5.16."""


def _nr(number: int = 1, c_name: str = "nr_pages", kind: str = "u32", name: str = "nr") -> Arg:
    return Arg(name, number, c_name, kind)


def _balloon(alloc: str, free: str, since: Version | None, until: Version | None
             ) -> tuple[Function, Function]:
    first: dict[Arch, Version] | None = dict.fromkeys(ARCHES, since) if since else None
    return (
        Function(alloc, (_nr(), _PAGES), _VMEMMAP, caller=True, returns=True,
                 returned=(_FIRST,), since=first, until=until),
        Function(free, (_nr(), _PAGES, _FIRST), (), caller=True, returns=True, void=True,
                 since=first, until=until))


FUNCTIONS: Final = (
    Function("xen_alloc_unpopulated_pages", (_nr(), _PAGES), (*_LIST, *_VMEMMAP), caller=True,
             returns=True, returned=(_FIRST,), since=_POOL),
    Function("xen_free_unpopulated_pages", (_nr(), _PAGES, _FIRST), _LIST[:1], caller=True,
             returns=True, void=True, since=_POOL),
    *_balloon("alloc_xenballooned_pages", "free_xenballooned_pages", None, _RENAMED),
    *_balloon("xen_alloc_ballooned_pages", "xen_free_ballooned_pages", _RENAMED, None),
    # one call per returned page, PV alone: pfn by value, nothing is read
    Function("xen_alloc_p2m_entry", (Arg("pfn", 1, "pfn", "x64"),), arches=("x86_64",)),
    Function("allocate_resource", caller=True, arches=("x86_64",)),
    Function("add_pages", (Arg("start_pfn", 2, "start_pfn", "x64"), _nr(3, kind="u64")),
             arches=("x86_64",)),
    # struct resource: start, end, name (include/linux/ioport.h)
    Function("request_resource", (
        Arg("start", 2, "new", "x64", (0,)), Arg("end", 2, "new", "x64", (8,)),
        Arg("name", 2, "new", "string", (16, 0))), arches=("arm64",), since=_POOL),
    Function("add_memory_resource", (
        Arg("start", 2, "res", "x64", (0,)), Arg("end", 2, "res", "x64", (8,)))),
    *(Function(f"xenmem_reservation_{way}", (
        _nr(1, "count", "s32"), Arg("frame0", 2, "frames", "x64", (0,), array=True)), returns=True)
      for way in ("decrease", "increase")),
    Function("decrease_reservation", static=True),
    Function("reserve_additional_memory", static=True),
    Function("balloon_set_new_target", (Arg("target", 1, "target", "u64"),)),
    # struct gnttab_map_grant_ref: host_addr, flags, ref, dom (xen/interface/grant_table.h)
    Function("gnttab_map_refs", (
        _nr(4, "count", name="count"), Arg("pages", 3, "pages", "x64"),
        Arg("dom", 1, "map_ops", "u16", (16,)), Arg("p", 3, "pages", "x64", (0,), array=True))),
    Function("gnttab_unmap_refs", (
        _nr(4, "count", name="count"), Arg("pages", 3, "pages", "x64"),
        Arg("p", 3, "pages", "x64", (0,), array=True))),
    # arguments beyond the sixth lie on x86's stack, where a recorded domid was garbage
    Function("xen_xlate_remap_gfn_array", (
        _nr(4, "nr", "s32"), Arg("gfn0", 3, "gfn", "x64", (0,), array=True),
        Arg("dom", 7, "domid", "u16", (), False, ("arm64",)),
        Arg("p", 8, "pages", "x64", (0,), True, ("arm64",)))),
    Function("xen_xlate_unmap_gfn_range", (
        _nr(2, "nr", "s32"), Arg("p", 3, "pages", "x64", (0,), array=True))),
    Function("xen_remap_pfn", (
        _nr(4, "nr", "s32"), Arg("mfn", 3, "pfn", "x64", (0,), array=True)), arches=("x86_64",)),
)


@dataclass(frozen=True)
class Target:
    """The kernel to be recorded, and how.

    btf: write `f:` events with named arguments. frames: elements read of each array.
    symbols: kernel variables that may be read; None for all, which a plan marks as conditional.
    addresses: of those among them that a name does not tell. places: where the allocators' locks
    are taken and released, where that could be found. pv: a PV dom0, in which
    xen_alloc_p2m_entry() is called for each allocated page.
    """

    kernel: Version
    arch: Arch
    btf: bool = False
    frames: int = 1
    symbols: frozenset[str] | None = None
    addresses: dict[str, int] = field(default_factory=dict)
    places: tuple[Place, ...] = ()
    pv: bool = False

    def readable(self, name: str) -> str:
        """How a probe writes a kernel variable; "" if it may not be read."""
        if name in self.addresses:
            return f"@{self.addresses[name]:#x}"
        return f"@{name}" if self.symbols is None or name in self.symbols else ""

    def locks(self, function: str) -> bool:
        """Whether the function is probed inside its lock."""
        return any(place.function == function for place in self.places)


@dataclass(frozen=True)
class Definition:
    """One line for kprobe_events or dynamic_events. place: of a probe inside a lock."""

    event: str
    function: Function
    text: str
    file: str
    place: Place | None = None


def target(kernel: str, arch: str, *, btf: bool = False, frames: int = 1,
           symbols: frozenset[str] | None = None,
           addresses: dict[str, int] | None = None) -> Target:
    """What `--kernel`, `--arch`, `--btf` and `--frames` say; ReplayError if it cannot be."""
    words = kernel.split("-")[0].split(".")
    if len(words) < 2 or not all(w.isascii() and w.isdecimal() and len(w) < 5 for w in words[:2]):
        raise ReplayError(f"--kernel {kernel}: expected a version such as 6.1 or 6.12.95-amd64")
    version = int(words[0]), int(words[1])
    arch = {"aarch64": "arm64", "amd64": "x86_64", "x86": "x86_64"}.get(arch, arch)
    if arch not in ARCHES:
        raise unknown_name("architecture", arch, list(ARCHES))
    if version < ARGUMENTS:
        raise ReplayError(f"--kernel {kernel}: probes cannot name a function's arguments before "
                          "Linux 4.20; a hand-written set with registers can be imported")
    if btf and version < FPROBES:
        raise ReplayError(f"--kernel {kernel}: --btf needs Linux 6.5, which has function events "
                          "with arguments named by BTF; leave the option out")
    if not 1 <= frames <= MAX_FRAMES:
        raise ReplayError(f"--frames {frames}: expected 1 to {MAX_FRAMES}")
    found = next(a for a in ARCHES if a == arch)
    return Target(version, found, btf, frames, symbols, addresses or {})


def has(function: str, to: Target) -> bool:
    """Whether a kernel may have a function."""
    named = [f for f in FUNCTIONS if f.name == function]
    return not named or any(f.on(to.kernel, to.arch) for f in named)


def within(to: Target, places: Iterable[Place], *, pv: bool = False) -> Target:
    """The same, with probes inside locks."""
    return replace(to, places=tuple(places), pv=pv)


def without(to: Target, function: str) -> Target:
    """The same, where a function cannot be probed inside its lock."""
    return replace(to, places=tuple(p for p in to.places if p.function != function))


def definitions(to: Target) -> list[Definition]:
    """All probes for a kernel. Those inside locks first: which of them the kernel takes decides
    what the others read. Return probes before entry probes: what is registered last fires first,
    and an entry probe behind one would see the return trampoline as its caller."""
    here = [f for f in FUNCTIONS if f.on(to.kernel, to.arch)]
    return [_inside(place, to) for place in to.places] + [
        _return(f, to) for f in here if f.returns] + [_entry(f, to) for f in here]


def _inside(place: Place, to: Target) -> Definition:
    readable = {name: to.readable(name) for name in inside.variables(place.function)}
    text = " ".join([f"p:{GROUP}/{place.event}", f"{place.symbol}+{place.offset}",
                     *inside.arguments(place, to.kernel, readable, told=to.pv)])
    known = {f.name: f for f in FUNCTIONS}
    return Definition(place.event, known.get(place.function, Function(place.function, static=True)),
                      text, "dynamic_events" if to.btf else "kprobe_events", place)


def _entry(function: Function, to: Target) -> Definition:
    fetched = [_fetch(a, to) for a in function.args if to.arch in a.arches]
    fetched += _symbols(function, to)
    # function events have no %lr; their return events tell the caller of an allocation
    if function.caller and not to.btf:
        fetched.append("caller=" + ("%lr" if to.arch == "arm64" else "$stack0") + ":symbol")
    return _definition("f" if to.btf else "p", "", function, fetched, to)


def _return(function: Function, to: Target) -> Definition:
    if function.void:
        return _definition("f" if to.btf else f"r{MAXACTIVE}", "_ret", function, [], to)
    fetched = ["ret=$retval:s32"]
    if to.kernel >= RETURN_ARGUMENTS:
        fetched += [_fetch(a, to) for a in function.returned]
    once = tuple(one.name for one in _VMEMMAP)
    fetched += [f for f in _symbols(function, to) if not f.startswith(once)]
    return _definition("f" if to.btf else f"r{MAXACTIVE}", "_ret", function, fetched, to)


def _definition(kind: str, suffix: str, function: Function, fetched: list[str],
                to: Target) -> Definition:
    event = function.name + suffix
    place = function.name + ("%return" if to.btf and suffix else "")
    return Definition(event, function, " ".join([f"{kind}:{GROUP}/{event}", place, *fetched]),
                      "dynamic_events" if to.btf else "kprobe_events")


def _fetch(arg: Arg, to: Target) -> str:
    place = arg.c_name if to.btf else f"$arg{arg.number}"
    for offset in arg.at:
        place = f"+{offset}({place})"
    many = f"[{to.frames}]" if arg.array and to.frames > 1 else ""
    return f"{arg.name}={place}:{arg.type}{many}"


def _symbols(function: Function, to: Target) -> list[str]:
    """Variables read beside arguments; in the lock they are read better than at entry or return."""
    return [f"{s.name}={to.readable(s.name)}:{s.type}" for s in function.symbols
            if to.arch in s.arches and to.readable(s.name)
            and not (s in _LIST and to.locks(function.name))]


def variables(to: Target) -> list[str]:
    """The kernel variables that the probes would read."""
    asked = {s.name for f in FUNCTIONS if f.on(to.kernel, to.arch) for s in f.symbols
             if to.arch in s.arches}
    return sorted(asked | {name for place in to.places
                           for name in inside.variables(place.function)})


def clock(to: Target) -> str:
    """The trace clock: the TSC, which a PV dom0 shares with Xen; arm64 has no such clock."""
    return "x86-tsc" if to.arch == "x86_64" else "mono"
