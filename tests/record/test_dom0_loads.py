"""The loads and scripts of `make dom0`, as far as they can be held without a dom0."""

from __future__ import annotations

import random
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

DOM0 = Path(__file__).parents[1] / "dom0"
SCRIPTS = sorted(path for path in DOM0.iterdir()
                 if path.suffix == ".sh" or path.name in ("init", "initramfs", "guest", "block"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    """The modules grants and storm, which stand beside each other in a dom0."""
    monkeypatch.syspath_prepend(str(DOM0))
    import grants
    import storm
    yield grants, storm
    for name in ("grants", "storm", "calls"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_are_short(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    shell = "sh" if re.match(r"#!.*\bsh\b", lines[0]) and "bash" not in lines[0] else "bash"
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert len(lines) < 200
    assert [number for number, line in enumerate(lines, 1) if len(line) > 100] == []


def test_each_usual_load_is_a_function() -> None:
    text = (DOM0 / "loads.sh").read_text(encoding="utf-8")
    functions = set(re.findall(r"^([a-z_]+)\(\) \{", text, re.MULTILINE))
    usual = re.findall(r'usual\+?="([^"]*)"', (DOM0 / "run.sh").read_text(encoding="utf-8"))
    named = {load for words in usual for load in words.split()}
    assert {"storm", "low", "block", "frames"} <= named <= functions
    assert {name for name in functions if name.startswith("before_")} == {
        "before_low", "before_block", "before_persistent", "before_regions"}


def test_a_guest_grants_spans_that_the_dom0_reads(
        loads: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    grants, _ = loads
    references = [8, 9, 10, 40, 77, 78]
    assert grants._spans(references) == "8-10,40-40,77-78"
    monkeypatch.setenv("GRANTS", f"3 {grants._spans(references)}")
    assert grants.given() == (3, references)
    assert grants.stock(4) == (3, references[:4])


class Kernel:
    """Counts what is mapped, and which thread gives it back."""

    def __init__(self) -> None:
        self.lock, self.live, self.next = threading.Lock(), dict[int, tuple[int, int]](), 0
        self.sizes, self.others = set[int](), 0

    def place(self, device: int, domain: int, references: list[int]) -> int:
        with self.lock:
            self.next += 1
            self.live[self.next] = (len(references), threading.get_ident())
            self.sizes.add(len(references))
            return self.next

    def release(self, device: int, index: int, pages: int) -> None:
        with self.lock:
            size, owner = self.live.pop(index)  # a second release of an index raises
            assert size == pages
            self.others += owner != threading.get_ident()


@pytest.mark.parametrize(("sizes", "largest"), [("mixed", 300), ("small", 64)])
def test_a_storm_gives_back_what_it_maps_from_other_tasks(
        loads: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str], sizes: str, largest: int) -> None:
    grants, storm = loads
    kernel = Kernel()
    monkeypatch.setattr(grants, "place", kernel.place)
    monkeypatch.setattr(grants, "release", kernel.release)
    monkeypatch.setattr(grants, "stock", lambda pages: (0, list(range(pages))))
    monkeypatch.setattr(grants, "DEVICE", "/dev/null")
    monkeypatch.setattr(storm.os, "close", lambda _: None)  # own files: their maps stay here
    plan = storm.options([f"sizes={sizes}", "bursts=2", "steps=40", "idle=0", "touch=0",
                          "pages=2000"])
    assert (plan.sizes, plan.idle, plan.makers) == (sizes, 0.0, 4)
    storm.process(5, plan, 0)
    made, back, left = map(int, re.findall(r"(\d+) (?:areas|given|left)", capsys.readouterr().out))
    assert made == kernel.next
    assert made - back == left <= storm.LEFT
    assert max(kernel.sizes) <= largest
    assert kernel.others > made // 20
    assert len(kernel.live) < made // 3, "only areas with a file of their own stay"


def test_small_calls_map_and_give_back_in_turn(
        loads: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    grants, _ = loads
    import calls
    live: dict[int, int] = {}
    made = count(1)

    def ioctl(device: int, number: int, data: bytearray) -> None:
        if number == grants.PLACE:
            index = next(made)
            live[index] = struct.unpack_from("=I", data)[0]
            struct.pack_into("=Q", data, 8, index)
        else:
            index, pages, _ = struct.unpack("=QII", data)
            assert live.pop(index) == pages

    monkeypatch.setattr(calls.fcntl, "ioctl", ioctl)
    requests = {size: grants.request(0, list(range(size))) for size in set(calls.SIZES)}
    areas: list[tuple[int, int]] = []
    tasks = [threading.Thread(target=calls.task, args=(random.Random(which), 5000, 3, requests,
                                                       areas)) for which in range(3)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert next(made) == 15_001
    assert sorted(live) == sorted(index for index, _ in areas)
    assert calls.KEEP <= len(areas) <= calls.KEEP + len(tasks)


def test_a_storm_is_told_what_is_no_option(loads: tuple[ModuleType, ModuleType]) -> None:
    _, storm = loads
    with pytest.raises(AttributeError, match="stepps"):
        storm.options(["stepps=3"])
