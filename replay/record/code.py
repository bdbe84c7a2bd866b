"""Where functions of the running kernel take and release a mutex, found in their own code.

The code is read from /proc/kcore, an ELF core file of the running kernel's memory: the bytes of
the asked functions alone, which are ordinary kernel text. A call is told by its target, which must
be mutex_lock() or mutex_unlock() to the byte; that other bytes of an x86 instruction look like one
has odds of one in two billion per byte, and a probe that is not on an instruction boundary is
refused by the kernel (arch/x86/kernel/kprobes/core.c, can_probe()).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

from replay.record.symbols import Span, Symbols

MUTEX_LOCK: Final = ("mutex_lock", "mutex_lock_nested")
MUTEX_UNLOCK: Final = ("mutex_unlock",)
_PADDING: Final = 16
"""Bytes before a function that a call may enter: call-depth tracking of x86 patches calls so
(CONFIG_CALL_PADDING, arch/x86/kernel/callthunks.c)."""
_ELF: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_LOAD: Final = 1
_MAX_SEGMENTS: Final = 4096


class Place(NamedTuple):
    """Where to probe: `offset` bytes behind `symbol`, in `function`. locked: the lock has just been
    taken; else it is about to be released. number: 1, 2, ... of the places of its kind."""

    function: str
    symbol: str
    offset: int
    locked: bool
    number: int

    @property
    def event(self) -> str:
        """The event's name."""
        return (f"{self.function}_{'locked' if self.locked else 'unlock'}"
                f"{self.number if self.number > 1 else ''}")


def find(functions: tuple[str, ...], arch: str, symbols: Symbols,
         root: Path = Path("/")) -> tuple[list[Place], str]:
    """The places of functions that both take and release a mutex, and why there are none."""
    if not symbols.known:
        return [], "/proc/kallsyms shows no addresses"
    targets = {address: locked for names, locked in ((MUTEX_LOCK, True), (MUTEX_UNLOCK, False))
               for address in map(symbols.address, names) if address is not None}
    if len(set(targets.values())) < 2:
        return [], "/proc/kallsyms does not tell mutex_lock() and mutex_unlock()"
    found: list[Place] = []
    try:
        for function in functions:
            places = list(_places(function, arch, symbols, targets, root))
            if {place.locked for place in places} == {True, False}:
                found += places
    except (OSError, ValueError, struct.error) as error:
        return [], f"/proc/kcore cannot be read ({getattr(error, 'strerror', None) or error})"
    return found, "" if found else "no call of mutex_lock() is in their code"


def _places(function: str, arch: str, symbols: Symbols, targets: dict[int, bool],
            root: Path) -> Iterator[Place]:
    count = {True: 0, False: 0}
    for span in symbols.spans(function):
        code = read(root / "proc/kcore", span)
        for at, size, target, returns in calls(code, span.address, arch):
            locked = _which(target, targets, arch)
            if locked is None or (locked and not returns):
                continue
            count[locked] += 1
            yield Place(function, span.symbol, at + size if locked else at, locked, count[locked])


def _which(target: int, targets: dict[int, bool], arch: str) -> bool | None:
    for address, locked in targets.items():
        before = _PADDING if arch == "x86_64" else 0
        if address - before <= target <= address:
            return locked
    return None


def calls(code: bytes, address: int, arch: str) -> Iterator[tuple[int, int, int, bool]]:
    """(offset, bytes, target, whether it comes back) of what may be a direct call or jump."""
    if arch == "arm64":  # bl and b: 26 bits, in instructions of four bytes
        for at in range(0, len(code) - 3, 4):
            word, = struct.unpack_from("<I", code, at)
            if word & 0x7C000000 == 0x14000000:
                distance = ((word & 0x3FFFFFF) ^ 0x2000000) - 0x2000000
                yield at, 4, address + at + 4 * distance, bool(word & 0x80000000)
        return
    for at in range(len(code) - 4):  # call, jmp, and jcc, whose own byte is one further
        jcc = code[at] == 0x0F and code[at + 1] & 0xF0 == 0x80 and at + 6 <= len(code)
        if code[at] in (0xE8, 0xE9) or jcc:
            size = 6 if jcc else 5
            distance, = struct.unpack_from("<i", code, at + size - 4)
            yield at, size, address + at + size + distance, code[at] == 0xE8


def read(core: Path, span: Span) -> bytes:
    """The bytes of a function; ValueError if the core does not hold them."""
    with core.open("rb", buffering=0) as file:  # nothing beyond what is asked for is read
        head = _ELF.unpack(_exactly(file, _ELF.size))
        if head[0][:6] != b"\x7fELF\x02\x01" or head[9] != _SEGMENT.size:
            raise ValueError("it is no ELF core of 64 bits")
        file.seek(head[5])
        table = _exactly(file, _SEGMENT.size * min(head[10], _MAX_SEGMENTS))
        for kind, _, offset, start, _, size, _, _ in _SEGMENT.iter_unpack(table):
            if kind == _LOAD and start <= span.address and span.address + span.size <= start + size:
                file.seek(offset + span.address - start)
                return _exactly(file, span.size)
    raise ValueError(f"it does not hold the code of {span.symbol}()")


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            raise ValueError("it is cut")
        data += more
    return data
