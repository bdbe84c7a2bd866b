"""Opens a shared object in the form of replay_allocator.h and builds the state for its calls.

Only the worker process does this: opening runs the object's own code.
"""

from __future__ import annotations

import _ctypes
import ctypes
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from replay.allocators.balloon import page_work
from replay.base.errors import InputError, ReplayError
from replay.base.leftovers import temporary_folder
from replay.base.compiled import words_in
from replay.c import calls
from replay.c.calls import CALLS_OF_C, C_EVENT, FAULTS, IN_INIT, REPORT_WORDS, options, report_at
from replay.engine.failing import FIRST_FAULT
from replay.engine.state import new_state, ram_frames, span, words
from replay.engine.strategy import Setup, Strategy
from replay.physmap.model import Physmap

REQUIRED = ("replay_init", "replay_alloc", "replay_free")
OPTIONAL = ("replay_resume", "replay_wake", "replay_target", "replay_list", "replay_name")
C_HEADER = Path(__file__).with_name("replay_allocator.h")
C_VERSION = 4
"""REPLAY_VERSION of the header beside this file."""
NEVER = 1 << 62
MODES = {"pv": 0, "pvh": 1, "arm": 2, "hvm": 3}


class Range(ctypes.Structure):
    """struct replay_range."""

    _fields_ = [("start", ctypes.c_int64), ("last", ctypes.c_int64)]


_WORD = ctypes.c_int64
_RANGES = ctypes.POINTER(Range)
_TEXTS = ctypes.POINTER(ctypes.c_char_p)


class Machine(ctypes.Structure):
    """struct replay_machine."""

    _fields_ = [
        *((name, _WORD) for name in (
            "arch", "mode", "direct_mapped", "page_bytes", "section_pages", "frames", "iomem_last",
            "pluggable_first", "pluggable_last", "current_pages", "target_pages", "total_pages",
            "unpopulated_pages", "available_pages", "reserve_pages", "peak_pages", "nr_iomem")),
        ("iomem", _RANGES), ("iomem_names", _TEXTS), ("nr_clip", _WORD), ("clip", _RANGES),
        ("nr_regions", _WORD), ("regions", _RANGES), ("nr_ram", _WORD),
        ("ram", ctypes.POINTER(_WORD)), ("nr_options", _WORD), ("options", _TEXTS)]


Allocate = Callable[[int], np.ndarray]


def _zeros(words: int) -> np.ndarray:
    return np.zeros(words, np.int64)


@dataclass(frozen=True)
class Library:
    """An opened shared object: the addresses of its functions, 0 for those it has not."""

    path: Path
    name: str
    handle: ctypes.CDLL
    address: Mapping[str, int]

    def close(self) -> None:
        """Unload it; nothing of it may be called any more."""
        _ctypes.dlclose(self.handle._handle)


def _is_code(address: int) -> bool:
    """Whether an address is executable: a symbol of data would crash when called."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        extent, rights = line.split()[:2]
        low, high = (int(word, 16) for word in extent.split("-"))
        if low <= address < high:
            return "x" in rights
    return False


def _check_version(path: Path, handle: ctypes.CDLL) -> None:
    """InputError for an object built with another version of the header, whose structs differ."""
    try:
        version = ctypes.c_int64.in_dll(handle, "replay_version").value
    except ValueError:
        raise InputError(path, "does not export replay_version", hint=(
            f"build it with {C_HEADER.name} as `replay c-header` finds it")) from None
    if version != C_VERSION:
        raise InputError(path, f"was built for version {version} of {C_HEADER.name}; this is "
                         f"version {C_VERSION}", hint="build it again")


def open_library(path: Path) -> Library:
    """Open a shared object; InputError names what is missing or no function."""
    if not path.is_file():
        raise InputError(path, "no such shared object", hint="build one with gcc -shared -fPIC")
    try:
        handle = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise InputError(path, f"cannot be loaded: {error}",
                         hint="expected a shared object for this machine") from None
    address = {}
    for name in (*REQUIRED, *OPTIONAL):
        try:
            found = ctypes.cast(getattr(handle, name), ctypes.c_void_p).value or 0
        except AttributeError:
            found = 0
        if not found and name in REQUIRED:
            raise InputError(path, f"does not export {name}()", hint=f"see {C_HEADER.name}")
        if found and not _is_code(found):
            raise InputError(path, f"exports {name}, but not as a function",
                             hint=f"see {C_HEADER.name}")
        address[name] = found
    _check_version(path, handle)
    called = path.stem
    if address["replay_name"]:
        handle.replay_name.restype = ctypes.c_char_p
        called = (handle.replay_name() or b"").decode("utf-8", "replace")[:100] or called
    return Library(path, called, handle, address)


def _ranges(rows: list[tuple[int, int]]) -> Any:
    """struct replay_range[]: half-open extents become inclusive ones."""
    return (Range * max(1, len(rows)))(*(Range(start, end - 1) for start, end in rows))


def _texts(texts: list[str]) -> Any:
    return (ctypes.c_char_p * max(1, len(texts)))(*(t.encode() for t in texts))


def machine_struct(machine: Physmap, m: np.ndarray, peak_pages: int, options: Mapping[str, Any],
                   keep: list[Any]) -> Machine:
    """struct replay_machine; `keep` gets what must live as long as the allocator."""
    s = words(m)
    ram = ram_frames(machine)
    iomem = _ranges([(c.start, c.end) for c in machine.iomem])
    names = _texts([c.name for c in machine.iomem])
    clip, regions = _ranges(list(machine.clip)), _ranges(list(machine.regions))
    texts = _texts([f"{k}={int(v) if isinstance(v, bool) else v}" for k, v in options.items()])
    keep += [ram, iomem, names, clip, regions, texts]
    memory = machine.memory
    return Machine(
        int(machine.arch == "arm64"), MODES[machine.mode], int(machine.direct_mapped),
        machine.page_bytes, int(s.section_pages), int(calls.options(m).limit),
        machine.iomem_end - 1,
        machine.pluggable[0], machine.pluggable[1] - 1, memory.current, memory.target,
        memory.total, memory.unpopulated, memory.available, memory.total_reserve, peak_pages,
        len(machine.iomem), iomem, names, len(machine.clip), clip, len(machine.regions), regions,
        len(ram), ram.ctypes.data_as(ctypes.POINTER(_WORD)), len(options), texts)


def _with_segments(m: np.ndarray, events: int, allocate: Allocate) -> np.ndarray:
    """The state with room for the report, its events and a word per frame."""
    s = words(m)
    frames = int(s.table.nr_blocks * s.block_pages)
    report = len(m)
    first_event = report + REPORT_WORDS
    live = first_event + words_in(C_EVENT) * events
    grown = allocate(live + frames)
    grown[:report] = m
    own = options(grown)
    own.report, own.limit, own.live = report, frames, live
    told = report_at(grown, report)
    told.max_events = events
    told.events = grown.ctypes.data + 8 * first_event
    told.faults = grown.ctypes.data + 8 * FIRST_FAULT
    return grown


def _fresh(path: Path) -> Library:
    """A copy of its own, so that a second replay does not find the first one's static data."""
    with temporary_folder() as folder:
        return open_library(Path(shutil.copy(path, folder)))


def _init(path: Path, allocate: Allocate, keep: list[Any], machine: Physmap, peak_pages: int,
          values: Mapping[str, Any]) -> Setup:
    """Open the object, build the state and call replay_init()."""
    library = _fresh(path)
    keep.append(library)
    m = _with_segments(new_state(machine, peak_pages),
                       peak_pages + machine.memory.available + 4096, allocate)
    s, own = words(m), options(m)
    for name in CALLS_OF_C:
        setattr(own, name, library.address[f"replay_{name}"])
    report = int(own.report)
    memory = machine.memory
    told = report_at(m, report)
    told.current, told.target, told.total = memory.current, memory.target, memory.total
    told.unpopulated, told.wake_at, told.per_page = memory.unpopulated, NEVER, 1
    own.told = memory.target
    given = machine_struct(machine, m, peak_pages, values, keep)
    keep += [given, m]
    own.calling = IN_INIT
    start = library.handle.replay_init
    start.restype, start.argtypes = _WORD, [ctypes.c_void_p, ctypes.c_void_p]
    error = int(start(ctypes.byref(given), m.ctypes.data + 8 * report))
    if error:
        raise ReplayError(f"replay_init() refused this machine (returned {error})")
    calls.absorb(m)
    s.own_lock = int(told.own_lock != 0)
    m[span("work")] = 0  # work of the boot is nobody's request
    s.dirty = 0
    costs = page_work(machine) if told.per_page else ((), ())
    return Setup(m, costs, (f"the allocator calls itself {library.name!r}",))


def fault(m: np.ndarray) -> str:
    """What the allocator did wrong, or nothing; the request is options(m).bad_request."""
    s = words(m)
    text = FAULTS.get(int(s.fault), f"internal bound (fault {int(s.fault)})")
    return text.format(bad=int(options(m).bad), limit=int(options(m).limit)) if s.fault else ""


def _broken(m: np.ndarray) -> list[str]:
    """Invariants that can be seen from outside the allocator."""
    s = words(m)
    if s.fault:
        return [f"the allocator {fault(m)}"]
    held, live, listed = int(s.gauge.held), int(s.gauge.live), int(s.count)
    return [] if held - live == listed else [
        f"told of {held} frames, callers have {live}, but {listed} are listed"]


@dataclass(frozen=True)
class Foreign(Strategy):
    """A strategy whose calls are a shared object's; its options are the object's to check."""

    def values(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The texts of `--set`, as they are."""
        return dict(given)


def strategy(path: Path, name: str = "", allocate: Allocate = _zeros,
             opened: list[Any] | None = None) -> Foreign:
    """The strategy of a shared object; each init() opens a copy of its own.

    name: of the row in reports; the file's own without one. allocate: gives the state's zeroed
    words, for a caller that wants them where another process can read them. opened: gets each
    opened Library.
    """
    called = name or path.stem
    return Foreign(
        name=called, summary=f"C allocator {path.name}", models=path.name,
        init=partial(_init, path, allocate, [] if opened is None else opened),
        run=calls.run, alloc=calls.alloc, free=calls.free,
        wake=calls.wake, check=_broken)
