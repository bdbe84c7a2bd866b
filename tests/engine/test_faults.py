"""Calls that fail by option: the same ones at the same calls, whatever else there is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from driving import ROOT, cli, refused
from workloads import costs, workload

from replay import allocators
from replay.engine import faults as module
from replay.engine.drive import Workload, checked, replay
from replay.engine.failing import arm, counted, fails, passed
from replay.engine.faults import ALLOC_PAGE, FAULT_KINDS, KZALLOC, Faults, parse_faults
from replay.engine.requests import ALLOC, FREE, TARGET
from replay.engine.state import E_WAIT, new_state, words
from replay.physmap import presets
from replay.physmap.model import Physmap

PV, PVH = presets.load("qemu-q35-pv"), presets.load("qemu-q35-pvh")
TRACE = ROOT / "traces" / "pv-dom0.arrow"
KINDS = list(FAULT_KINDS)


def armed(**ratios: tuple[int, int]) -> np.ndarray:
    m = new_state(PV, 100)
    arm(m, Faults(ratios, seed=3))
    return m


def test_each_kind_has_a_stream_of_its_own() -> None:
    """What is asked in between, and how many at once, changes nothing."""
    alone, beside = armed(kzalloc=(1, 7)), armed(kzalloc=(1, 7), alloc_page=(1, 3))
    one = [bool(fails(alone, KZALLOC)) for _ in range(500)]
    other = []
    for _ in range(500):
        passed(beside, ALLOC_PAGE, 5)
        other.append(bool(fails(beside, KZALLOC)))
    assert one == other
    assert counted(alone) == {"kzalloc": (sum(one), 500)}
    at_once = armed(kzalloc=(1, 7))
    assert passed(at_once, KZALLOC, 500) == one.index(True)
    assert 40 < sum(one) < 110


@pytest.mark.parametrize(("ratio", "least", "most"), [
    ((0, 1), 0, 0), ((1, 1), 2000, 2000), ((1, 2), 900, 1100), ((2, 3), 1230, 1440),
    ((1, 1 << 32), 0, 2)])
def test_as_many_fail_as_the_ratio_says(ratio: tuple[int, int], least: int, most: int) -> None:
    m = armed(kzalloc=ratio)
    assert least <= sum(bool(fails(m, KZALLOC)) for _ in range(2000)) <= most


def test_another_seed_is_another_stream() -> None:
    states = [Faults({}, seed=seed).states().tolist() for seed in range(50)]
    assert len({word for one in states for word in one}) == 50 * len(FAULT_KINDS)


def test_settings_are_read_as_they_are_written() -> None:
    one = Faults({"populate": (1, 3), "signal": (2, 2)}, 70, 9)
    assert parse_faults(one.settings()) == one
    assert not parse_faults({}) and parse_faults({}).settings() == {}


@pytest.mark.parametrize("text", ["0/0", "2/1", "-1/2", "1/-2", "1", "", "1/2/3", "one in two",
                                  "0.5", "1/4294967297", "1e3/1e4", " 1/2", "٣/٤"])
def test_a_ratio_that_is_none_is_refused_with_a_sentence(text: str) -> None:
    refused("run", TRACE, "--set", f"fault.kzalloc={text}", naming=(
        "--set fault.kzalloc=", "expected a ratio", "1/1000"))


@pytest.mark.parametrize(("setting", "said"), [
    ("fault.kmalloc=1/2", "unknown fault 'kmalloc'. Did you mean 'kzalloc'?"),
    ("fault.=1/2", "unknown fault ''"),
    ("fault=1/2", "expected STRATEGY.OPTION=VALUE"),
    ("fault.max_pages=0", "expected a whole number from 1"),
    ("fault.max_pages=1/2", "expected a whole number from 1"),
    ("fault.seed=-1", "expected a whole number from 0"),
    ("fault.seed=99999999999999999", "expected a whole number from 0"),
])
def test_what_cannot_fail_is_refused_with_a_sentence(setting: str, said: str) -> None:
    refused("run", TRACE, "--set", setting, naming=(said,))


def summary(folder: Path, *args: object) -> dict:
    ended = cli("run", TRACE, "--overwrite", "--out", folder, *args)
    assert ended.code == 0, ended.err
    return json.loads((folder / "summary.json").read_text())


def test_a_report_says_what_failed_and_why_requests_did(tmp_path: Path) -> None:
    sets = ("--allocator", "balloon", "--set", "fault.alloc_page=1/20",
            "--set", "fault.xen_alloc_p2m_entry=1/300", "--set", "fault.add_memory_resource=1/2")
    found = summary(tmp_path, *sets)
    one = found["allocators"]["balloon"]
    failed = one["failed_calls"]
    assert failed["alloc_page"] > 20 and failed["xen_alloc_p2m_entry"] > 20
    assert one["failed"] == failed["alloc_page"] + failed["xen_alloc_p2m_entry"]
    reasons = {row["other"] for row in one["hazard_examples"] if row["kind"] == "out_of_memory"}
    assert reasons and reasons <= {"alloc_page", "xen_alloc_p2m_entry"}
    text = (tmp_path / "report.txt").read_text()
    assert ("calls fail: fault.alloc_page=1/20, fault.xen_alloc_p2m_entry=1/300, "
            "fault.add_memory_resource=1/2, fault.seed=0") in " ".join(text.split())
    assert f"alloc_page: {failed['alloc_page']} of " in text
    never = summary(tmp_path, "--allocator", "pool", "--set", "fault.signal=1/2")
    assert "signal: it may fail by option, but is never called" in never["allocators"]["pool"]["notes"]


def test_without_faults_nothing_tells_of_them(tmp_path: Path) -> None:
    plain = summary(tmp_path / "a", "--allocator", "balloon")
    never = summary(tmp_path / "b", "--allocator", "balloon", "--set", "fault.alloc_page=0/1")
    assert "fail" not in plain["run"]["mode"]
    assert "failed_calls" not in plain["allocators"]["balloon"]
    for key in ("frames_digest", "work", "latency_ns", "failed"):
        assert plain["allocators"]["balloon"][key] == never["allocators"]["balloon"][key]


def driven() -> Workload:
    """Calls of many sizes that come and go, with targets below and above what dom0 has."""
    rng = np.random.default_rng(5)
    rows, live, slots, t = [], [], 0, 0
    for k in range(3000):
        t += int(rng.integers(1, 2_000_000_000 if k % 50 == 0 else 50_000))
        roll = rng.random()
        if roll < 0.04:
            rows.append((t, TARGET, PV.memory.current + int(rng.integers(-3000, 900)), None))
        elif roll < 0.5 and live:
            count = int(rng.integers(1, len(live) + 1)) if rng.random() < 0.5 else 1
            rows.append((t, FREE, count, live[-count:]))
            del live[-count:]
        else:
            pages = int(rng.integers(1, 4)) if rng.random() < 0.8 else int(rng.integers(1, 900))
            rows.append((t, ALLOC, pages, None))
            live += range(slots, slots + pages)
            slots += pages
    return checked(workload(*rows))


ALL = Faults({"alloc_page": (1, 400), "kzalloc": (1, 3), "xen_alloc_p2m_entry": (1, 900),
              "set_phys_to_machine": (1, 60_000), "add_memory_resource": (1, 3),
              "memremap_pages": (1, 3), "populate": (1, 300), "signal": (1, 3)},
             max_pages=PV.memory.current + 500, seed=11)


@pytest.mark.parametrize(("name", "given"), [
    *((name, {}) for name in ("balloon", "hotplug", "pool", "hypervisor", "genpool", "extents")),
    ("hypervisor", {"mode": "query"})])
def test_batches_change_nothing(name: str, given: dict[str, str]) -> None:
    """Where a trace is cut is nothing that the failures hang on, and invariants hold after them."""
    strategy, stream = allocators.load(name), driven()
    whole = replay(strategy, given, PV, stream, costs(lock=10), check=True, faults=ALL)
    parts = replay(strategy, given, PV, stream, costs(lock=10), check=True, faults=ALL, batch=37)
    assert whole.broken == parts.broken == ()
    assert whole.failed == parts.failed
    assert any(failed for failed, _ in whole.failed.values())
    assert whole.frames_digest() == parts.frames_digest()
    assert whole.rows[["errno", "path", "runs", "pages"]].tolist() == (
        parts.rows[["errno", "path", "runs", "pages"]].tolist())
    assert whole.frames_digest() != replay(
        strategy, given, PV, stream, costs(lock=10), faults=replace(ALL, seed=12)).frames_digest()


class Query:
    """The hypervisor that is asked at each refill, with everything of some kinds failing."""

    def __init__(self, machine: Physmap, *kinds: str) -> None:
        self.strategy = allocators.load("hypervisor")
        self.m = self.strategy.init(machine, 4096, self.strategy.values({"mode": "query"})).state
        self.out = np.zeros(4096, np.int64)
        self.begun = self.linux()
        self.fail(*kinds)

    def fail(self, *kinds: str) -> None:
        arm(self.m, Faults(dict.fromkeys(kinds, (1, 1))))

    def linux(self) -> list[int]:
        """iomem_resource."""
        tree = words(self.m).tree
        return self.m[tree.at:tree.at + 2 * int(tree.count)].tolist()

    def alloc(self, pages: int) -> int:
        return int(self.strategy.alloc(self.m, 0, pages, self.out, 0))


@pytest.mark.parametrize(("kind", "asked"), [
    ("kzalloc", 0), ("set_phys_to_machine", 1), ("memremap_pages", 1)])
def test_a_refill_that_asks_the_hypervisor_fails_as_fill_list_does(kind: str, asked: int) -> None:
    """Linux gives the range up; Xen, which has named it, counts it as taken, and names another."""
    query, other = Query(PV, kind), Query(PV)
    assert query.alloc(16) == -12
    assert words(query.m).work.region_query == asked
    assert query.linux() == query.begun
    assert words(query.m).count == 0 == words(query.m).section_count
    query.fail()
    assert (query.alloc(16), other.alloc(16)) == (0, 0)
    first, section = int(other.out[15]), int(words(query.m).section_pages)
    assert (int(query.out[15]) == first) == (not asked)
    assert int(query.out[15]) % section == first % section
    assert query.linux() != query.begun


def test_an_entry_that_fails_gives_all_pages_of_a_query_back() -> None:
    query = Query(PV)
    assert query.alloc(16) == 0
    listed = int(words(query.m).count)
    query.fail("xen_alloc_p2m_entry")
    assert query.alloc(16) == -12
    assert words(query.m).count == listed


def test_reasons_are_those_of_the_failing_call_alone() -> None:
    """A failure that a call got over, or that the thread met, is no reason of a later one."""
    o = replay(allocators.load("balloon"), {}, PV, driven(), costs(lock=10),
               faults=Faults({"populate": (1, 1), "xen_alloc_p2m_entry": (1, 50)}, seed=2))
    rows = o.rows[(o.workload.requests.kind == ALLOC) & (o.rows["errno"] < 0)]
    assert o.failed["populate"][0] > 0
    kinds = {0, 1 + KINDS.index("xen_alloc_p2m_entry")}
    assert set(rows["runs"].tolist()) <= kinds
    assert (rows["runs"] > 0).sum() == o.failed["xen_alloc_p2m_entry"][0]


def test_the_domain_does_not_grow_beyond_its_most_pages() -> None:
    """The thread tries, pauses and gives up, as at any other shortage of Xen's."""
    had = PV.memory.current
    stream = checked(workload((0, TARGET, had - 1000, None), (10**12, TARGET, had, None),
                              (4 * 10**12, TARGET, had, None)))
    free = replay(allocators.load("balloon"), {}, PV, stream, costs())
    limited = replay(allocators.load("balloon"), {}, PV, stream, costs(),
                     faults=Faults(max_pages=had - 300))
    assert free.ends["given_pages"] == 0
    assert limited.ends["given_pages"] == 300
    assert limited.background["extent_populate"] == 700
    assert limited.background["hypercall"] == free.background["hypercall"] + 4


def test_a_signal_ends_the_wait_with_all_pages_given_back() -> None:
    stream = checked(workload((0, ALLOC, 10, None)))
    hotplug = allocators.load("hotplug")
    asleep = replay(hotplug, {"auto_online": "no"}, PVH, stream, costs())
    killed = replay(hotplug, {"auto_online": "no"}, PVH, stream, costs(),
                    faults=Faults({"signal": (1, 1)}))
    assert asleep.rows["errno"].tolist() == [-E_WAIT]
    assert killed.rows["errno"].tolist() == [-12]
    assert killed.rows["runs"].tolist() == [1 + KINDS.index("signal")]


def test_the_docs_and_the_header_name_every_kind() -> None:
    page = (ROOT / "docs" / "pages" / "running.md").read_text()
    header = (ROOT / "replay" / "c" / "replay_allocator.h").read_text()
    assert [name for name in KINDS if f"`{name}`" not in page] == []
    listed = header[header.index("enum replay_fault {"):header.index("REPLAY_NR_FAULTS")]
    assert listed.count("REPLAY_FAULT_") == len(KINDS) == module.SIGNAL + 1


def test_words_of_the_faults_lie_where_c_finds_them() -> None:
    m = armed(populate=(5, 8))
    s = words(m)
    assert (int(s.faults.populate.times), int(s.faults.populate.of)) == (5, 8)
