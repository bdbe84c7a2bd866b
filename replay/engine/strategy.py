"""What a strategy is: the kernel's own two calls, plus background work and an invariant check.

alloc(m, now_ns, nr_pages, frames, at) -> 0 or -errno
    Write nr_pages frame numbers to frames[at:], in the order the kernel would return them.
free(m, now_ns, nr_pages, frames, at) -> 0
    Take back frames[at : at + nr_pages], in that order.
wake(m, now_ns) -> 0
    Background work (the balloon thread): one pass under the lock, then set words(m).wake_at.
check(m) -> list of broken invariants, in words. Tests and `--check` call it.

`m` is the state array of engine/state.py. Strategies know no time and no cost: they report
primitives in words(m).work and set a bit of `dirty`; the list operations of a successful call are
counted by the engine from `page_work`, so that the common path stays a few nanoseconds.

What a strategy keeps for itself is a record in the state, with a word for each of its options:
`OWN, options = own_record(OPTIONS, "handed_out")`, then `OWN.fill(m, values)` in `init`, and
`options(m).handed_out` or `options(m).scrub` in the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from replay.base.compiled import record, seen_as, words_in
from replay.base.errors import ReplayError, unknown_name
from replay.base.since import has
from replay.engine.state import OWN_WORDS, word_of, words
from replay.physmap.model import Physmap



@dataclass(frozen=True)
class Option:
    """One option of a strategy: its default, what it accepts, and one sentence.

    since: a fact of base/since.py without which it is off by default.
    """

    default: Any
    what: str
    choices: tuple[str, ...] = ()
    since: str = ""

    def parse(self, name: str, text: str) -> Any:
        """The typed value of `--set strategy.name=text`."""
        if self.choices:
            if text not in self.choices:
                raise unknown_name(f"value of {name}", text, list(self.choices))
            return text
        if isinstance(self.default, bool):
            if text.lower() in ("1", "true", "yes", "on"):
                return True
            if text.lower() in ("0", "false", "no", "off"):
                return False
            raise ReplayError(f"{name}={text!r}: expected yes or no")
        try:
            value = int(text, 0)
        except ValueError:
            raise ReplayError(f"{name}={text!r}: expected a whole number") from None
        if not 0 <= value < 1 << 40:
            raise ReplayError(f"{name}={text!r}: expected 0 to 2^40")
        return value

    def word(self, value: Any) -> int:
        """A value as a word of the state: of a choice, which one it is; of yes and no, 1 and 0."""
        return self.choices.index(value) if self.choices else int(value)


@dataclass(frozen=True)
class Own:
    """A strategy's part of the state, see own_record()."""

    kind: Any
    """The record: those of the strategy it is based on, a word per option, words of its own."""
    options: Mapping[str, Option]
    seen: Callable[[Any], Any]

    def fill(self, m: np.ndarray, values: Mapping[str, Any]) -> None:
        """Write the options' values into a state; the other words stay what they are."""
        own = self.seen(m)
        for name, option in self.options.items():
            setattr(own, name, option.word(values[name]))

    def place(self, name: str) -> int:
        """The place of a word in a state, for those who see nothing but words."""
        names: tuple[str, ...] = self.kind.names
        return word_of("own") + names.index(name)


def own_record(options: Mapping[str, Option], *fields: str, base: Own | None = None
               ) -> tuple[Own, Callable[[Any], Any]]:
    """(a strategy's part of the state, the function that sees it there).

    A word per option, by its name, and one per field. base: of a strategy whose calls this one
    uses; they find their words in the same places, so this one has its options as well.
    AssertionError where it has not, where two words have one name, and where there are too many.
    """
    before, known = (base.kind.names, base.options) if base else ((), {})
    for name, option in known.items():
        if name not in options or options[name].choices != option.choices:
            raise AssertionError(f"{name}: the calls of the strategy it is based on have that "
                                 "option, with the same choices")
    names = [*before, *(name for name in options if name not in known), *fields]
    if twice := [name for name in names if names.count(name) > 1]:
        raise AssertionError(f"{twice[0]}: two words of a strategy have that name")
    kind = record(*names)
    if words_in(kind) > OWN_WORDS:
        raise AssertionError(f"a strategy has {words_in(kind)} words of its own, there is room for "
                             f"{OWN_WORDS}")
    seen = seen_as(kind, word_of("own"))
    return Own(kind, dict(options), seen), seen


@dataclass(frozen=True)
class Setup:
    """What `init` hands to the engine: the state and the work that each page costs anyway."""

    state: np.ndarray
    page_work: tuple[tuple[str, ...], tuple[str, ...]]
    """Primitives per page of a successful alloc, and of a free."""
    notes: tuple[str, ...] = ()
    """What a reader of the results must know, such as a fallback that was taken."""


def lists_agree(m: np.ndarray) -> list[str]:
    """The invariants of every strategy that keeps the shared free list."""
    s = words(m)
    broken = []
    count = int(s.count)
    frames = m[s.list : s.list + count]
    if len(np.unique(frames)) != count:
        broken.append("the free list holds a frame twice")
    if s.fault:
        broken.append(f"an internal bound was hit (fault {int(s.fault)})")
    if int(s.gauge.held) - int(s.gauge.live) != count:
        broken.append(f"held {int(s.gauge.held)} - live {int(s.gauge.live)} is not the {count} "
                      "listed")
    tracked = int(m[s.table.blocks : s.table.blocks + s.table.nr_blocks].sum())
    if tracked != count:
        broken.append(f"blocks count {tracked} free frames, the list has {count}")
    return broken


@dataclass(frozen=True)
class Strategy:
    """One interchangeable allocator: found by being a file in this folder, or by `--allocator`."""

    name: str
    summary: str
    models: str
    """Kernel file, function and version it models."""
    init: Callable[[Physmap, int, Mapping[str, Any]], Setup]
    """init(physmap, peak pages live at once, option values) -> Setup"""
    run: Callable[..., int]
    """The engine's loop compiled around alloc, free and wake; see loop.py."""
    alloc: Any
    free: Any
    wake: Any
    check: Callable[[np.ndarray], list[str]] = lists_agree
    options: Mapping[str, Option] = field(default_factory=dict)

    def as_of(self, kernel: str, given: Mapping[str, str]) -> dict[str, str]:
        """The option texts given, and "no" for what that version of Linux does not have yet."""
        later = {name: "no" for name, option in self.options.items()
                 if option.since and not has(option.since, kernel)}
        return {**later, **given}

    def values(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Option values by name: defaults, overridden by the text of `--set`."""
        for name in given:
            if name not in self.options:
                raise unknown_name(f"option of {self.name}", name, list(self.options))
        return {name: option.parse(f"{self.name}.{name}", given[name]) if name in given
                else option.default for name, option in self.options.items()}
