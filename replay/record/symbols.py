"""Kernel symbols of the running machine, from /proc/kallsyms: addresses, sizes, twins.

A name of two symbols may mean either of them to a probe. The allocator's variables are static and
have plain names, so that another file of the kernel or a module may have the same: those that lie
beside each other in the kernel itself are the ones of one source file, and are read by address.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

NEIGHBOURS: Final = (("list_count", "page_list"),)
"""Variables of one source file (drivers/xen/unpopulated-alloc.c), each known by the other."""
_NEAR: Final = 64
"""Bytes between variables of a source file with four small ones."""
MAX_FUNCTION: Final = 1 << 14
"""Bytes of a function that are looked at: a symbol before a gap seems to reach to its end."""


class Span(NamedTuple):
    """A function's code: its symbol, first address and bytes."""

    symbol: str
    address: int
    size: int


class _Line(NamedTuple):
    """One symbol; end: the next address of the kernel's own symbols, which are in their order."""

    name: str
    address: int
    kind: str
    builtin: bool
    end: int


class Symbols:
    """What /proc/kallsyms says: some ten megabytes, in which single names are looked up."""

    def __init__(self, text: bytes = b"") -> None:
        self._text = b"\n" + text

    @property
    def known(self) -> bool:
        """Whether addresses are shown: to root alone they are."""
        return any(line.address for line in self._lines("mutex_lock"))

    def single(self, names: Iterable[str]) -> frozenset[str]:
        """Those names that stand there exactly once."""
        return frozenset(name for name in names if len(self._lines(name)) == 1)

    def address(self, name: str) -> int | None:
        """The address of the kernel's own symbol of that name, None if there is not just one."""
        found = self._own(name)
        return found[0] if len(found) == 1 else None

    def addresses(self) -> dict[str, int]:
        """Variables that a name alone does not tell, by address: the one pair of neighbours."""
        found = {}
        for pair in NEIGHBOURS:
            first, second = map(self._own, pair)
            near = [(a, b) for a in first for b in second if abs(a - b) < _NEAR]
            if len(near) == 1:
                found.update({name: address for name, address in zip(pair, near[0])  # noqa: B905
                              if len(self._lines(name)) > 1})
        return found

    def spans(self, function: str) -> list[Span]:
        """The code of a function, with the parts that a compiler split off (NAME.cold)."""
        spans = [Span(line.name, line.address, min(line.end - line.address, MAX_FUNCTION))
                 for line in self._lines(function, parts=True)
                 if line.builtin and line.address and line.kind in "tTwW"]
        names = [span.symbol for span in spans]
        return [span for span in spans if names.count(span.symbol) == 1]

    def _own(self, name: str) -> list[int]:
        return [line.address for line in self._lines(name) if line.builtin and line.address]

    def _lines(self, name: str, parts: bool = False) -> list[_Line]:
        found, wanted, at = [], b" " + name.encode(), 0
        while (at := self._text.find(wanted, at)) >= 0:
            start, end = self._text.rfind(b"\n", 0, at) + 1, self._text.find(b"\n", at)
            at += 1
            words = self._text[start:end if end >= 0 else None].decode("utf-8", "replace").split()
            if len(words) < 3 or not (words[2] == name or parts and
                                      words[2].startswith(name + ".")):
                continue
            address = int(words[0], 16)
            found.append(_Line(words[2], address, words[1], len(words) == 3,
                               self._next(end, address)))
        return found

    def _next(self, at: int, address: int) -> int:
        """The address in the first of the lines from here on that is another one."""
        while at >= 0:
            word = self._text[at + 1:at + 17].split(b" ")[0]
            at = self._text.find(b"\n", at + 1)
            if word and (other := int(word, 16)) != address:
                return max(other, address)
        return address


def read(root: Path = Path("/")) -> Symbols:
    """The running kernel's; none where they cannot be read."""
    try:
        return Symbols((root / "proc/kallsyms").read_bytes())
    except OSError:
        return Symbols()
