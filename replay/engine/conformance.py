"""The contract tests that any strategy must pass, so that a plug-in fails with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from replay.costs import profile
from replay.engine.drive import Outcome, Workload, replay
from replay.engine.requests import ALLOC, FREE, Requests
from replay.engine.state import E_WAIT, words
from replay.engine.strategy import Strategy
from replay.engine.tracking import frames_returned, frames_taken
from replay.physmap import presets
from replay.physmap.model import Memory, Physmap, Resource

GUARD = -7777
MACHINES = ("qemu-q35-pvh", "qemu-q35-pv", "qemu-virt-arm64", "qemu-virt-arm64-no-regions")
PEAK_PAGES = 8192
LONG_LIST = 1 << 16


@dataclass(frozen=True)
class Finding:
    """One contract test: whether it holds, and a sentence."""

    name: str
    ok: bool
    sentence: str


class _Broken(Exception):
    """A contract is broken; the text says which."""


class _Driver:
    """Calls a strategy directly and watches what it does."""

    def __init__(self, strategy: Strategy, machine: Physmap) -> None:
        self.strategy, self.machine = strategy, machine
        setup = strategy.init(machine, PEAK_PAGES, strategy.values({}))
        self.m, self.keeps_pages = setup.state, any(setup.page_work)
        self.live: set[int] = set()
        self.checks = 0
        self.now = 0
        self.room, self.at = np.full(1 << 17, GUARD, np.int64), 1

    def alloc(self, nr: int) -> list[int] | int:
        """Frames, or the negative errno."""
        self.now += 1_000_000
        words(self.m).now = self.now
        room, at = self.room, self.at
        room[at : at + nr] = GUARD
        error = int(self.strategy.alloc(self.m, self.now, nr, room, at))
        self.at += nr
        if room[at - 1] != GUARD or (room[at + nr : at + nr + 64] != GUARD).any():
            raise _Broken(f"alloc of {nr} pages wrote beyond frames[at : at + {nr}]")
        if error > 0:
            raise _Broken(f"alloc returned {error}; expected 0 or a negative errno")
        if error < 0:
            return error
        frames = room[at : at + nr].tolist()
        room[at : at + nr] = GUARD
        self._check_frames(frames)
        frames_taken(self.m, np.array(frames, np.int64), 0, nr)
        self.live |= set(frames)
        return frames

    def _check_frames(self, frames: list[int]) -> None:
        top = self.machine.iomem_end // self.machine.page_bytes
        for frame in frames:
            if not 0 <= frame < top:
                raise _Broken(f"frame {frame:#x} lies outside the physmap (end {top:#x})")
        if len(set(frames)) != len(frames):
            raise _Broken("one allocation holds a frame twice")
        again = self.live & set(frames)
        if again:
            raise _Broken(f"frame {min(again):#x} was handed out while it was live")

    def free(self, frames: list[int]) -> None:
        """Give frames back."""
        self.now += 1_000_000
        words(self.m).now = self.now
        given = np.array(frames, np.int64)
        frames_returned(self.m, given, 0, len(given))
        self.live -= set(frames)
        error = int(self.strategy.free(self.m, self.now, len(given), given, 0))
        if error:
            raise _Broken(f"free returned {error}, expected 0")

    def invariants(self) -> None:
        """check() must be content; asked less often where the free list is long."""
        self.checks += 1
        if words(self.m).count > LONG_LIST and self.checks % 16:
            return
        for broken in self.strategy.check(self.m):
            raise _Broken(f"check() says: {broken}")


def _distinct(d: _Driver) -> str:
    rng = np.random.default_rng(1)
    held: list[list[int]] = []
    for _ in range(200):
        if held and rng.random() < 0.45:
            d.free(held.pop(int(rng.integers(0, len(held)))))
        elif len(d.live) < PEAK_PAGES - 512:
            got = d.alloc(int(rng.integers(1, 300)))
            if isinstance(got, list):
                held.append(got)
        d.invariants()
    return "frames are distinct, within the physmap, and never handed out twice"


def _any_batch(d: _Driver) -> str:
    got = d.alloc(64)
    if not isinstance(got, list):
        return "the machine has no room for 64 pages; nothing to free"
    order = np.random.default_rng(2).permutation(64)
    for k in range(0, 64, 10):
        d.free([got[j] for j in order[k : k + 10]])
        d.invariants()
    again = d.alloc(64)
    if not isinstance(again, list):
        raise _Broken("64 pages were freed, and then 64 could not be had")
    return "pages are taken back in other batches and orders, and can be had again"


def _small() -> Physmap:
    """A machine that is soon full: 4 MiB of RAM, 8 MiB of holes, sections of 1 MiB."""
    mib = 1 << 20
    machine = presets.load("qemu-virt-arm64")
    ram = Resource(0, 4 * mib, "System RAM")
    return machine.with_changes(
        name="small", section_bytes=mib, iomem_end=16 * mib, pluggable=(0, 12 * mib),
        iomem=(ram, Resource(12 * mib, 16 * mib, "Reserved")), host=(), grant_table=None,
        regions=((4 * mib, 12 * mib),), direct_mapped=False,
        memory=Memory(available=512, current=1024, target=1024, total=1024))


def _exhaustion(d: _Driver) -> str:
    if not d.keeps_pages:
        return "keeps no pages, so there is nothing to exhaust"
    refused = 0
    while len(d.live) < PEAK_PAGES - 512:
        got = d.alloc(512)
        if got == -E_WAIT:
            return "a full machine makes its caller sleep, as the kernel's would"
        if isinstance(got, int):
            refused = got
            break
    d.invariants()
    if not refused:
        return "nothing is ever refused"
    live = sorted(d.live)
    d.free(live[:64])
    d.invariants()
    if live and not isinstance(d.alloc(min(64, len(live))), list):
        raise _Broken(f"after errno {refused}, freed pages cannot be had again")
    return f"a full machine refuses (errno {refused}), and freed pages can be had again"


def _wake(d: _Driver) -> str:
    d.alloc(8)
    d.now += 1_000_000
    words(d.m).now = d.now
    d.strategy.wake(d.m, d.now)
    if words(d.m).wake_at < d.now:
        raise _Broken("wake left the next wake-up in the past: the replay would never go on")
    d.invariants()
    return "a background pass leaves the state sound and names its next time"


def _workload() -> Workload:
    rng = np.random.default_rng(3)
    kind: list[int] = []
    pages: list[int] = []
    first: list[int] = []
    slots: list[int] = []
    live: list[tuple[int, int]] = []
    slot = 0
    for _ in range(300):
        if live and rng.random() < 0.45:
            base, nr = live.pop(int(rng.integers(0, len(live))))
            kind.append(FREE)
            first.append(len(slots))
            slots += range(base, base + nr)
        else:
            nr = int(rng.integers(1, 40))
            kind.append(ALLOC)
            first.append(slot)
            live.append((slot, nr))
            slot += nr
        pages.append(nr)
    columns = (np.arange(300) * 1_000_000, kind, pages, first, slots)
    return Workload(Requests(*(np.array(c, np.int64) for c in columns)), slot, slot, np.arange(300))


def _same_twice(strategy: Strategy, machine: Physmap) -> str:
    runs: list[Outcome] = [replay(strategy, {}, machine, _workload(), profile.load(machine.arch),
                                  check=True) for _ in range(2)]
    if runs[0].frames_digest() != runs[1].frames_digest() or (runs[0].rows != runs[1].rows).any():
        raise _Broken("two replays of one stream differ")
    if runs[0].broken:
        raise _Broken(f"check() says after a replay: {runs[0].broken[0]}")
    return "two replays of one stream give the same frames and times"


TESTS: tuple[tuple[str, Callable[[_Driver], str]], ...] = (
    ("distinct frames", _distinct), ("frees in any batch", _any_batch),
    ("background work", _wake))


def _attempt(name: str, test: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, test())
    except _Broken as broken:
        return Finding(name, False, str(broken))
    except Exception as error:  # a plug-in may raise anything; the kit must name it
        return Finding(name, False, f"{type(error).__name__}: {error}")


def findings(strategy: Strategy) -> Iterator[Finding]:
    """The contract tests one by one, each as soon as it is done."""
    yield _attempt("exhaustion on a small machine",
                   lambda: _exhaustion(_Driver(strategy, _small())))
    for preset in MACHINES:
        machine = presets.load(preset)
        found = [_attempt(f"{name} on {preset}",
                             lambda t=test: t(_Driver(strategy, machine)))  # type: ignore[misc]
                    for name, test in TESTS]
        yield from found
        if all(finding.ok for finding in found):
            yield _attempt(f"determinism on {preset}", lambda: _same_twice(strategy, machine))
        else:
            # In the compiled loop a write beyond the frames would take the whole program down.
            yield Finding(f"determinism on {preset}", False, "not tried, as a call broke its "
                          "contract on this machine")


def check_strategy(strategy: Strategy) -> list[Finding]:
    """Run all contract tests on machines of each kind."""
    return list(findings(strategy))
