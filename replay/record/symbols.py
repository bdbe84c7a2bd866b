"""Kernel symbols of the running machine, from /proc/kallsyms: addresses, sizes, twins.

A name of two symbols may mean either of them to a probe. The allocator's variables are static and
have plain names, so that another file of the kernel or a module may have the same: those that lie
beside each other in the kernel itself are the ones of one source file, and are read by address.
"""

from __future__ import annotations

from bisect import bisect_right
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


class Symbols:
    """What /proc/kallsyms says. known: whether it shows addresses (to root alone it does)."""

    def __init__(self, text: str = "") -> None:
        self._of_name: dict[str, list[tuple[int, bool]]] = {}
        code: list[tuple[int, str]] = []
        every = set()
        for line in text.splitlines():
            words = line.split()
            if len(words) < 3:
                continue
            address, builtin = int(words[0], 16), len(words) == 3
            self._of_name.setdefault(words[2], []).append((address, builtin))
            if builtin:
                every.add(address)
                if words[1] in "tTwW":
                    code.append((address, words[2]))
        self._ends = sorted(every)
        self._code = sorted(code)
        self.known = any(self._ends)

    def __bool__(self) -> bool:
        return bool(self._of_name)

    @property
    def single(self) -> frozenset[str]:
        """Names that stand there exactly once."""
        return frozenset(name for name, found in self._of_name.items() if len(found) == 1)

    def address(self, name: str) -> int | None:
        """The address of the kernel's own symbol of that name, None if there is not just one."""
        found = [address for address, builtin in self._of_name.get(name, []) if builtin]
        return found[0] if len(found) == 1 and found[0] else None

    def addresses(self) -> dict[str, int]:
        """Variables that a name alone does not tell, by address: the one pair of neighbours."""
        found = {}
        for pair in NEIGHBOURS:
            first, second = ([a for a, builtin in self._of_name.get(name, []) if builtin and a]
                             for name in pair)
            near = [(a, b) for a in first for b in second if abs(a - b) < _NEAR]
            if len(near) == 1:
                found.update({name: a for name, a in zip(pair, near[0])  # noqa: B905
                              if len(self._of_name[name]) > 1})
        return found

    def spans(self, function: str) -> list[Span]:
        """The code of a function, with the parts that a compiler split off (NAME.cold)."""
        spans = []
        for address, name in self._code:
            if address and name.partition(".")[0] == function:
                after = bisect_right(self._ends, address)
                end = self._ends[after] if after < len(self._ends) else address
                spans.append(Span(name, address, min(end - address, MAX_FUNCTION)))
        names = [span.symbol for span in spans]
        return [span for span in spans if names.count(span.symbol) == 1]


def read(root: Path = Path("/")) -> Symbols:
    """The running kernel's; none where they cannot be read."""
    try:
        return Symbols((root / "proc/kallsyms").read_text("utf-8", "replace"))
    except OSError:
        return Symbols()
