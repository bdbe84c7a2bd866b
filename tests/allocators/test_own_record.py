"""A strategy's own record: a word per option, filled from its value, and no two words of a name."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from replay import allocators
from replay.allocators import balloon, pool
from replay.base.compiled import words_in
from replay.engine.state import HEADER, OWN_WORDS, span
from replay.engine.strategy import Option, own_record
from replay.physmap import presets

YES = Option(True, "whether")


def other(option: Option) -> Any:
    """A value that is not the default, and fits everywhere."""
    if option.choices:
        return next(c for c in option.choices if c != option.default)
    return not option.default if isinstance(option.default, bool) else 512


@pytest.mark.parametrize("preset", ["qemu-q35-pv", "qemu-virt-arm64"])
@pytest.mark.parametrize("name", [n for n, s in allocators.discover().items() if s.options])
def test_each_option_is_a_word_that_holds_its_value(name: str, preset: str) -> None:
    strategy = allocators.load(name)
    seen = getattr(importlib.import_module(f"replay.allocators.{name}"), "options", balloon.options)
    for values in ({n: o.default for n, o in strategy.options.items()},
                   {n: other(o) for n, o in strategy.options.items()}):
        own = seen(strategy.init(presets.load(preset), 100, values).state)
        assert {n: int(getattr(own, n)) for n in values} == {
            n: option.choices.index(values[n]) if option.choices else int(values[n])
            for n, option in strategy.options.items()}


def test_a_strategy_finds_the_words_of_the_one_it_is_based_on() -> None:
    own, options = own_record({**pool.OPTIONS, "colour": Option("red", "", ("grey", "red"))}, "coats",
                              base=pool.OWN)
    m = np.zeros(HEADER, np.int64)
    own.fill(m, {name: option.default for name, option in own.options.items()})
    assert (int(options(m).colour), int(options(m).coats)) == (1, 0)
    assert int(pool.options(m).bounded) == int(balloon.options(m).scrub) == 1
    options(m).coats = 7
    assert int(m[own.place("coats")]) == 7
    assert (m[: span("own").start] == 0).all()


@pytest.mark.parametrize(("options", "fields", "base", "why"), [
    ({"pace": YES}, ("pace",), None, "pace: two words"),
    ({}, ("pace", "pace"), None, "pace: two words"),
    (pool.OPTIONS, ("scrub",), pool.OWN, "scrub: two words"),
    (pool.OPTIONS | {"granule": YES}, (), pool.OWN, "granule: two words"),
    ({"pace": YES}, (), balloon.OWN, "memory_hotplug: the calls"),
    (balloon.OPTIONS | {"scrub": Option("no", "", ("no", "yes"))}, (), balloon.OWN, "scrub: the calls"),
    ({"size": YES}, (), None, "size: numpy"),
    ({}, tuple(f"word_{k}" for k in range(OWN_WORDS + 1)), None, "room for"),
])
def test_a_record_that_cannot_be_is_refused(options: Any, fields: Any, base: Any, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        own_record(options, *fields, base=base)


def test_a_record_may_take_all_the_room() -> None:
    own, _ = own_record({}, *(f"word_{k}" for k in range(OWN_WORDS)))
    assert words_in(own.kind) == OWN_WORDS
    assert own.place(f"word_{OWN_WORDS - 1}") == span("own").stop - 1
