"""The conformance kit: the built-in strategies pass, and each kind of broken plug-in is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay import allocators
from replay.base.errors import ReplayError
from replay.engine.conformance import Finding, check_strategy
from replay.engine.state import words
from replay.engine.strategy import Strategy

PLUGIN = '''
from replay.allocators import pool
from replay.base.compiled import compiled
from replay.engine.loop import loop
from replay.engine.state import *
from replay.engine.strategy import Setup, Strategy

@compiled
def alloc(m, now, nr_pages, frames, at):
    {alloc}

@compiled
def free(m, now, nr_pages, frames, at):
    {free}

@compiled
def wake(m, now):
    {wake}
    return 0

{run}

STRATEGY = Strategy(name="{name}", summary="", models="", init=pool.STRATEGY.init, run=run,
                    alloc=alloc, free=free, wake=wake, options=pool.STRATEGY.options)
'''
LOOP = """@compiled
def run(m, q, out, cost):
    return loop(alloc, free, wake, m, q, out, cost)"""
SOUND = {"run": "run = pool.run", "name": "mine", "alloc": "return pool.alloc(m, now, nr_pages, frames, at)",
         "free": "return pool.free(m, now, nr_pages, frames, at)", "wake": "words(m).wake_at = NEVER"}


def plugin(folder: Path, **parts: str) -> Strategy:
    """A plug-in made of the pool's calls and of these.

    Unless `run` is LOOP it takes the pool's compiled loop: compiling one costs ten seconds.
    """
    path = folder / "mine.py"
    path.write_text(PLUGIN.format(**SOUND | parts), encoding="utf-8")
    return allocators.from_file(path)


def broken(findings: list[Finding]) -> list[str]:
    return [f"{f.name}: {f.sentence}" for f in findings if not f.ok]


@pytest.mark.parametrize("name", list(allocators.discover()))
def test_every_strategy_that_is_found_conforms(name: str) -> None:
    findings = check_strategy(allocators.load(name))
    assert broken(findings) == []
    assert len(findings) >= 9
    assert all(f.name and f.sentence for f in findings)


def test_a_sound_plug_in_conforms(tmp_path: Path) -> None:
    assert broken(check_strategy(plugin(tmp_path, run=LOOP))) == []


@pytest.mark.parametrize(("parts", "sentence"), [
    ({"alloc": """error = pool.alloc(m, now, nr_pages, frames, at)
    if error == 0 and nr_pages > 1:
        frames[at + 1] = frames[at]
    return error"""}, "twice"),
    ({"alloc": """for k in range(nr_pages):
        frames[at + k] = 5000 + k
    return 0"""}, "live"),
    ({"alloc": """error = pool.alloc(m, now, nr_pages, frames, at)
    if error == 0:
        frames[at] += 1 << 50
    return error"""}, "outside the physmap"),
    ({"alloc": """error = pool.alloc(m, now, nr_pages, frames, at)
    if error == 0:
        frames[at] = -5
    return error"""}, "outside the physmap"),
    ({"alloc": """error = pool.alloc(m, now, nr_pages, frames, at)
    frames[at + nr_pages] = 1
    return error"""}, "wrote beyond"),
    ({"alloc": """error = pool.alloc(m, now, nr_pages, frames, at)
    frames[at - 1] = 1
    return error"""}, "wrote beyond"),
    ({"alloc": "return 7"}, "expected 0 or a negative errno"),
    ({"free": "return -22"}, "free returned -22"),
    ({"free": """pool.free(m, now, nr_pages, frames, at)
    pool.free(m, now, 1, frames, at)
    return 0"""}, "."),
    ({"free": "return 0"}, "."),
    ({"wake": "words(m).wake_at = 0"}, "past"),
])
def test_each_broken_plug_in_is_named_in_a_sentence(tmp_path: Path, parts: dict[str, str],
                                                    sentence: str) -> None:
    found = broken(check_strategy(plugin(tmp_path, **parts)))
    assert any(sentence in text or sentence == "." for text in found), found
    assert found
    assert not any("Traceback" in text for text in found)


def test_a_plug_in_that_is_not_deterministic_is_named(tmp_path: Path) -> None:
    strategy = plugin(tmp_path)
    turns = iter(range(10**6))

    def init(machine, peak, values):
        setup = allocators.load("pool").init(machine, peak, values)
        if next(turns) % 2:
            tree = words(setup.state).tree
            last = setup.state[tree.at + 2 * tree.count - 1]
            tree.start = min(int(last) + 1, int(tree.last) - (1 << 34))
        return setup

    found = broken(check_strategy(Strategy(**{**vars(strategy), "init": init})))
    assert any("differ" in text for text in found), found


@pytest.mark.parametrize(("text", "sentence"), [
    ("import no_such_module_at_all", "no_such_module_at_all"),
    ("def broken(:", "SyntaxError"),
    ("1 / 0", "ZeroDivisionError"),
    ("raise SystemExit(3)", "SystemExit"),
    ("x = 1", "defines no STRATEGY"),
    ("STRATEGY = 7", "defines no STRATEGY"),
])
def test_a_file_that_is_no_plug_in_is_refused_by_name(tmp_path: Path, text: str,
                                                      sentence: str) -> None:
    path = tmp_path / "odd.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ReplayError, match=sentence) as caught:
        allocators.load(str(path))
    assert "odd.py" in str(caught.value)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ReplayError, match="balloon"):
        allocators.load("baloon")


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """Let the strategies' folder be one with these files beside the own ones."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(allocators, "__path__", [*allocators.__path__, str(folder)])
    allocators.discover.cache_clear()


def test_a_strategy_named_unlike_its_file_is_an_error(tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, monkeypatch, zz_other="from replay.allocators.nop import STRATEGY")
    try:
        with pytest.raises(ReplayError, match="nop"):
            allocators.discover()
    finally:
        allocators.discover.cache_clear()


def test_an_import_error_in_the_folder_is_never_swallowed(tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, monkeypatch, zz_broken="import no_such_module_at_all")
    try:
        with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
            allocators.discover()
    finally:
        allocators.discover.cache_clear()
