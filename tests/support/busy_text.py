"""Made ftrace text of a busy allocator: tasks on two CPUs whose calls wait for one lock.

The pool, or the balloon driver with its thread, follows the kernel's order exactly; probes are
those at entry and return, or those inside the lock too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from holes import BALLOON, POOL

BASE: Final = 0xFFFFEA0000000000
THREAD: Final = 99


@dataclass
class Busy:
    """A simulation; `text` is what the tracer shows of it.

    locks: with probes inside the lock. words: frames that a free's probe reads of its page array.
    """

    rng: random.Random
    balloon: bool = False
    locks: bool = False
    words: int = 1
    now: int = 1000
    stack: list[int] = field(default_factory=lambda: list(range(0x40000, 0x40080)))
    held: list[tuple[int, list[int]]] = field(default_factory=list)
    lines: list[str] = field(default_factory=lambda: ["# tracer: nop\n"])
    used: set[int] = field(default_factory=set)
    lock: int = 0

    def say(self, pid: int, event: str, place: str, **values: int) -> None:
        """One event; what has no number is left out."""
        name = "xen-balloon" if pid == THREAD else "load"
        shown = " ".join(f"{k}={hex(v)}" for k, v in values.items())
        self.lines.append(f"{name:>16}-{pid:<7} [{pid % 2:03d}] ..... {self.now}: {event}: "
                          f"({place}) {shown}\n")

    def enter(self, pid: int, function: str, **values: int) -> None:
        self.say(pid, function, f"{function}+0x4/0x450", **values)

    def inside(self, pid: int, function: str, where: str) -> None:
        """The list as probes in the lock show it."""
        if not self.locks:
            return
        pool, after = function in POOL, "_after" if where == "unlock" else ""
        chain = [BASE + 64 * f + (0 if pool else 8) for f in self.stack[::-1][:10]]
        names = [("page_list" if pool else "lru") + after,
                 *(f"{'h' if pool else 'r'}{k}" for k in range(1, 10))]
        self.say(pid, f"{function}_{where}",
                 f"{function}+{'0x60' if where == 'locked' else '0x120'}/0x450",
                 **{("list_count" if pool else "low") + after: len(self.stack)},
                 **dict(zip(names, chain, strict=False)))

    def back(self, pid: int, function: str, **values: int) -> None:
        self.say(pid, f"{function}_ret", f"load_it+0x10/0x40 <- {function}", **values)

    def counted(self) -> dict[str, int]:
        return {} if self.balloon or self.locks else {"list_count": len(self.stack)}

    def locked(self, pid: int) -> Iterator[None]:
        """Wait until nobody holds the lock."""
        while self.lock:
            yield
        self.lock = pid

    def place(self) -> int:
        """The address of a page array, the lowest one that is not in use."""
        array = next(a for a in range(0x1000, 1 << 20, 0x1000) if a not in self.used)
        self.used.add(array)
        return array

    def alloc(self, pid: int, function: str) -> Iterator[None]:
        nr, array = self.rng.choice([1, 1, 2, 3, 16]), self.place()
        self.enter(pid, function, nr=nr, pages=array, **self.counted())
        yield
        yield from self.locked(pid)
        self.inside(pid, function, "locked")
        if len(self.stack) < nr and not self.balloon:
            first = 0x50000 + 0x1000 * self.now
            self.enter(pid, "add_pages", start_pfn=first, nr=512)
            self.stack += range(first, first + 512)
        frames: list[int] = []
        for k in range(nr):
            if not self.stack:  # the driver inflates
                first = 0x50000 + 0x1000 * self.now
                self.enter(pid, "xenmem_reservation_decrease", nr=nr - k, frame0=first)
                self.back(pid, "xenmem_reservation_decrease", ret=nr - k)
                self.stack += range(first, first + nr - k)
            frames.append(self.stack.pop())
            self.enter(pid, "xen_alloc_p2m_entry", pfn=frames[-1])
            yield
        self.inside(pid, function, "unlock")
        self.lock = 0
        yield
        self.held.append((array, frames))
        self.back(pid, function, ret=0, p=BASE + 64 * frames[0], **self.counted())

    def free(self, pid: int, function: str) -> Iterator[None]:
        array, frames = self.held.pop(self.rng.randrange(len(self.held)))
        read = {"p" if k == 0 else f"p{k}": BASE + 64 * f
                for k, f in enumerate(frames[: self.words])}
        self.enter(pid, function, nr=len(frames), pages=array, **read, **self.counted())
        yield
        yield from self.locked(pid)
        self.inside(pid, function, "locked")
        yield
        self.stack += frames
        self.inside(pid, function, "unlock")
        self.lock = 0
        yield
        self.used.discard(array)
        self.back(pid, function)

    def balance(self, pid: int) -> Iterator[None]:
        """A pass of the balloon thread, either way."""
        yield from self.locked(pid)
        nr = self.rng.randint(1, 20)
        if self.rng.random() < 0.5:
            nr = min(nr, len(self.stack))
            del self.stack[len(self.stack) - nr:]
            name = "xenmem_reservation_increase"
        else:
            first = 0x50000 + 0x1000 * self.now
            self.stack += range(first, first + nr)
            name = "xenmem_reservation_decrease"
        if nr:
            self.enter(pid, name, nr=nr, frame0=0x1000)
            yield
            self.back(pid, name, ret=nr)
        self.lock = 0

    def run(self, calls: int, tasks: int = 6) -> str:
        """The text of so many calls."""
        names = BALLOON if self.balloon else POOL
        under_way: dict[int, Iterator[None]] = {}
        started = 0
        while started < calls or under_way:
            self.now += self.rng.randint(1, 50)
            pid = self.rng.randint(1, tasks)
            if self.balloon and self.rng.random() < 0.02:
                pid = THREAD
            if pid in under_way:
                if next(under_way[pid], self) is self:
                    del under_way[pid]
                continue
            if started >= calls:
                continue
            started += 1
            free = self.held and self.rng.random() < 0.45 + 0.01 * len(self.held)
            under_way[pid] = (self.balance(pid) if pid == THREAD else
                              self.free(pid, names[1]) if free else self.alloc(pid, names[0]))
            next(under_way[pid], None)
        return "".join(self.lines)
