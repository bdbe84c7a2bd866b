"""Probes inside the locks: found in a kernel's code, safe, and joined to exact rows."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from fake_tracefs import TARGET, FakeTracefs, build, recorder
from replay.importers.session import import_recording
from replay.importers.source.probes import load_table
from replay.record import code, inside, probes
from replay.record.code import Place
from replay.record.explain import explain
from replay.record.symbols import Symbols, read

BASE = 0xFFFFFFFF81000000
ALLOC, FREE = inside.POOL_CALLS
BALLOON, GIVEN_BACK = "xen_alloc_ballooned_pages", "xen_free_ballooned_pages"
LOCK_AT, UNLOCK_AT = BASE + 0x9000, BASE + 0x9100


def x86(at: int, target: int, opcode: bytes) -> bytes:
    return opcode + struct.pack("<i", target - (at + len(opcode) + 4))


def arm(at: int, target: int, opcode: int) -> bytes:
    return struct.pack("<I", opcode | (target - at) >> 2 & 0x3FFFFFF)


def machine(root: Path, functions: dict[str, bytes], extra: str = "",
            arch: str = "x86_64") -> Symbols:
    """A /proc of a kernel with these functions' code, each 0x100 bytes behind the one before."""
    (root / "proc").mkdir(exist_ok=True)
    text = bytearray(b"\xcc" * 0xA000)
    lines = []
    for k, (name, body) in enumerate(functions.items()):
        text[k * 0x100:k * 0x100 + len(body)] = body
        lines.append(f"{BASE + k * 0x100:016x} {'T' if k % 2 else 't'} {name}")
        lines.append(f"{BASE + k * 0x100 + len(body):016x} t behind_{k}")
    lines += [f"{LOCK_AT:016x} T mutex_lock", f"{UNLOCK_AT:016x} T mutex_unlock"]
    (root / "proc/kallsyms").write_text("\n".join(lines) + "\n" + extra)
    phdr = struct.pack("<IIQQQQQQ", 4, 0, 0, 0, 0, 0, 0, 0) + struct.pack(
        "<IIQQQQQQ", 1, 7, 0x1000, BASE, 0, len(text), len(text), 0x1000)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56,
                       2, 0, 0, 0)
    (root / "proc/kcore").write_bytes((head + phdr).ljust(0x1000, b"\0") + text)
    return read(root)


def pool_code(at: int) -> bytes:
    """Fallback, mutex_lock(), two releases: one of an error exit behind a call of another kind."""
    body = x86(at, BASE + 0x5000, b"\x0f\x85")                 # jne elsewhere
    body += x86(at + 6, LOCK_AT, b"\xe8") + b"\x90"            # locked at 11
    body += x86(at + 12, UNLOCK_AT, b"\xe8") + b"\xe8\x90"     # unlock at 12; half a call
    return body + x86(at + 19, UNLOCK_AT, b"\xe9")             # tail call at 19


def test_the_places_are_behind_lock_and_at_unlock(tmp_path: Path) -> None:
    symbols = machine(tmp_path, {ALLOC: pool_code(BASE), "vfs_read": b"\xc3"})
    found, reason = code.find((ALLOC, FREE), "x86_64", symbols, tmp_path)
    assert reason == ""
    assert [(p.event, p.symbol, p.offset) for p in found] == [
        (f"{ALLOC}_locked", ALLOC, 11), (f"{ALLOC}_unlock", ALLOC, 12),
        (f"{ALLOC}_unlock2", ALLOC, 19)]


def test_a_conditional_jump_a_padded_call_and_a_split_off_part_are_found(tmp_path: Path) -> None:
    first = x86(BASE, LOCK_AT - 16, b"\xe8") + x86(BASE + 5, UNLOCK_AT, b"\x0f\x84")
    cold = x86(BASE + 0x100, UNLOCK_AT - 10, b"\xe8")
    symbols = machine(tmp_path, {FREE: first, f"{FREE}.cold": cold})
    found, _ = code.find((FREE,), "x86_64", symbols, tmp_path)
    assert [(p.symbol, p.offset, p.locked) for p in found] == [
        (FREE, 5, True), (FREE, 5, False), (f"{FREE}.cold", 0, False)]


def test_arm64_branches_forward_and_back(tmp_path: Path) -> None:
    at = BASE
    body = struct.pack("<I", 0xD503233F) + arm(at + 4, LOCK_AT, 0x94000000)
    body += struct.pack("<I", 0x97FFFFFF) + arm(at + 12, UNLOCK_AT, 0x14000000)
    symbols = machine(tmp_path, {ALLOC: body})
    found, _ = code.find((ALLOC,), "arm64", symbols, tmp_path)
    assert [(p.offset, p.locked) for p in found] == [(8, True), (12, False)]
    back = list(code.calls(arm(0x8000, 0x4000, 0x94000000), 0x8000, "arm64"))
    assert back == [(0, 4, 0x4000, True)]


@pytest.mark.parametrize(("damage", "says"), [
    (lambda p: (p / "proc/kcore").unlink(), "No such file"),
    (lambda p: (p / "proc/kcore").write_bytes(b""), "is cut"),
    (lambda p: (p / "proc/kcore").write_bytes(b"\x7fELF\x01" + bytes(100)), "no ELF core"),
    (lambda p: (p / "proc/kcore").write_bytes((p / "proc/kcore").read_bytes()[:0x1004]), "is cut"),
    (lambda p: (p / "proc/kallsyms").write_text(""), "shows no addresses"),
    (lambda p: (p / "proc/kallsyms").write_text(re.sub(
        r"(?m)^\w{16}", "0" * 16, (p / "proc/kallsyms").read_text())), "shows no addresses"),
    (lambda p: (p / "proc/kallsyms").write_text((p / "proc/kallsyms").read_text().replace(
        "mutex_unlock", "other")), "does not tell mutex_lock"),
    (lambda p: machine(p, {ALLOC: b"\xc3" * 50}), "no call of mutex_lock"),
    (lambda p: machine(p, {ALLOC: x86(BASE, LOCK_AT, b"\xe8")}), "no call of mutex_lock"),
])
def test_where_no_places_can_be_had_it_says_why(damage: object, says: str, tmp_path: Path) -> None:
    machine(tmp_path, {ALLOC: pool_code(BASE)})
    damage(tmp_path)  # type: ignore[operator]
    found, reason = code.find((ALLOC,), "x86_64", read(tmp_path), tmp_path)
    assert found == []
    assert says in reason


def test_a_variable_with_a_twin_is_read_by_address_beside_its_neighbour() -> None:
    symbols = Symbols(b"ffffffff80000000 b list_count\nffffffff81000040 b list_count\n"
                      b"ffffffff81000048 b page_list\nffffffffc0000048 b page_list\t[other]\n")
    assert symbols.addresses() == {"list_count": 0xffffffff81000040,
                                   "page_list": 0xffffffff81000048}
    to = places(probes.target("6.12", "x86_64", symbols=symbols.single(probes.VARIABLES),
                              addresses=symbols.addresses()))
    texts = [d.text for d in probes.definitions(to) if d.place]
    assert any("list_count=@0xffffffff81000040:u32" in text for text in texts)
    assert any("h8=" in text for text in texts)
    assert not any("h9=" in text or "@balloon_stats" in text for text in texts)


def places(to: probes.Target) -> probes.Target:
    return probes.within(to, [Place(name, name, offset, locked, 1) for name in inside.LOCK_TAKERS
                              if probes.has(name, to) for offset, locked in ((60, True),
                                                                             (120, False))])


@pytest.mark.parametrize("kernel", ["4.20", "5.10", "6.1", "6.12"])
@pytest.mark.parametrize("arch", probes.ARCHES)
@pytest.mark.parametrize("btf", [False, True])
def test_what_they_fetch_is_safe_and_understood(kernel: str, arch: str, btf: bool) -> None:
    to = places(probes.Target(tuple(map(int, kernel.split("."))), arch, btf=btf))  # type: ignore[arg-type]
    planned = [d for d in probes.definitions(to) if d.place]
    assert len({d.event for d in planned}) == len(planned) >= 4
    for one in planned:
        probe = load_table().find(one.function.name)
        assert probe is not None
        known = {name for names in probe.args.values() for name in names}
        _, place, *fetched = one.text.split(" ")
        assert place == f"{one.function.name}+{60 if one.place and one.place.locked else 120}"
        assert fetched
        for fetch in fetched:
            name, _, rest = fetch.partition("=")
            assert name in known
            assert len(rest) <= 63
            # nothing but the kernel's own variables and struct pages: no register, no page array
            assert re.fullmatch(r"(\+(0|16)\()*@[a-z_]+(\+\d+)?\)*:(u32|u64|x64)", rest)
            if kernel == "4.20":
                assert "16(" not in rest
        assert "reads" in explain(one)
    texts = {d.event: d.text for d in probes.definitions(to)}
    if ALLOC in texts:  # read in the lock, and so no more outside of it
        assert "list_count" not in texts[ALLOC] + texts[f"{ALLOC}_ret"] + texts[FREE]


def test_in_a_pv_dom0_allocations_do_not_follow_the_chain() -> None:
    to = places(probes.Target((6, 12), "x86_64"))
    for pv in (False, True):
        texts = {d.event: d.text for d in probes.definitions(probes.within(to, to.places, pv=pv))}
        assert ("h9=" in texts[f"{ALLOC}_locked"]) == (not pv)
        assert "page_list=@page_list:x64" in texts[f"{ALLOC}_locked"]
        assert "h9=" in texts[f"{FREE}_unlock"]
        assert "r9=" in texts[f"{GIVEN_BACK}_unlock"]


def test_one_refused_place_brings_the_reads_at_entry_and_return_back(tmp_path: Path) -> None:
    build(tmp_path)
    tracefs = FakeTracefs(tmp_path / "tracing", rejected=(f"{ALLOC}_unlock",))
    recorder(tmp_path, tracefs).start(places(TARGET), buffer_kb=64, with_xentrace=False)
    defined = (tmp_path / "tracing/kprobe_events").read_text().splitlines()
    assert any(line.startswith(f"p:replay/{ALLOC} ") and "@list_count" in line for line in defined)
    assert any(line.startswith(f"p:replay/{FREE} ") and "@list_count" not in line
               for line in defined)
    recorder(tmp_path, tracefs).stop(discard=True)


def test_the_top_level_buffer_gets_its_usual_size_and_that_is_said(tmp_path: Path) -> None:
    build(tmp_path)
    top, told, notes = tmp_path / "tracing/buffer_size_kb", [], []
    top.write_text("7 (expanded: 1408)\n")
    tracefs = FakeTracefs(tmp_path / "tracing", told=told.append)
    recorder(tmp_path, tracefs).start(TARGET, buffer_kb=64, with_xentrace=False)
    enabled, sized = ([k for k, line in enumerate(told) if line.endswith(name)]
                      for name in ("replay/enable", "replay/buffer_size_kb"))
    assert len(enabled) == len(sized) == 1
    assert enabled < sized
    top.write_text("1408\n")  # as Linux 6.1 does when the events are switched on
    one = recorder(tmp_path, tracefs)
    one.noted = notes.append
    one.stop(discard=True)
    assert any("from 7 (expanded: 1408) to 1408 KiB" in note for note in notes)


# -- what import makes of them
def page(pfn: int) -> int:
    return 0xFFFFEA0000000000 + 64 * pfn


class Tape:
    """ftrace text of calls with probes inside the lock."""

    def __init__(self) -> None:
        self.now, self.lines = 1000, [""]

    def add(self, pid: int, event: str, function: str, offset: int, **values: int) -> None:
        self.now += 10
        shown = " ".join(f"{k}={hex(v)}" for k, v in values.items())
        self.lines.append(f"{'task':>16}-{pid:<7} [000] ..... {self.now}: {event}: "
                          f"({function}+{offset:#x}/0x450) {shown}\n")

    def back(self, pid: int, function: str, **values: int) -> None:
        self.now += 10
        shown = " ".join(f"{k}={hex(v)}" for k, v in values.items())
        self.lines.append(f"{'task':>16}-{pid:<7} [000] ..... {self.now}: {function}_ret: "
                          f"(gnttab_alloc_pages+0x10/0x40 <- {function}) {shown}\n")

    def locked(self, pid: int, function: str, frames: list[int], **more: int) -> None:
        self.add(pid, f"{function}_locked", function, 60, **listed(function, frames, ""), **more)

    def unlock(self, pid: int, function: str, frames: list[int], **more: int) -> None:
        self.add(pid, f"{function}_unlock", function, 120, **listed(function, frames, "_after"),
                 **more)

    def rows(self, tmp_path: Path) -> list[dict[str, object]]:
        (tmp_path / "t.txt").write_text("".join(self.lines))
        trace = import_recording([tmp_path / "t.txt"], "t", machine_dir=None, probes=None,
                                 settings={"cpu_hz": "1000000000", "vmemmap_base": str(page(0))})
        return trace.table.to_pylist()


def listed(function: str, frames: list[int], after: str) -> dict[str, int]:
    """The list as a probe tells it: behind its end there is what an older event left."""
    pool, chain = function in inside.POOL_CALLS, [page(f) for f in frames[:10]]
    if not pool:
        chain = [address + 8 for address in chain]
    chain += [0 if pool else 0xFFFFFFFF82DCB380] * (len(frames) < 10)
    chain += [page(0x7777)] * (10 - len(chain))
    names = [("page_list" if pool else "lru") + after,
             *(f"{'h' if pool else 'r'}{k}" for k in range(1, 10))]
    return {("list_count" if pool else "low") + after: len(frames),
            **dict(zip(names, chain, strict=True))}


def test_the_order_is_that_of_the_lock_and_frames_are_exact(tmp_path: Path) -> None:
    tape, stack = Tape(), list(range(100, 140))
    tape.add(1, ALLOC, ALLOC, 4, nr=3, pages=0xAA00)
    tape.add(2, FREE, FREE, 4, nr=2, pages=0xBB00, p=page(7))    # entered second, locked first
    tape.locked(2, FREE, stack)
    stack = [8, 7, *stack]
    tape.unlock(2, FREE, stack)
    tape.locked(1, ALLOC, stack)
    tape.unlock(1, ALLOC, stack[3:])
    tape.back(1, ALLOC, ret=0, p=page(8))
    tape.back(2, FREE)
    alloc, free = tape.rows(tmp_path)
    assert alloc["frames"] == [8, 7, 100]
    assert free["frames"] == [7, 8]
    assert alloc["lock_ns"] > free["lock_ns"]  # type: ignore[operator]
    assert [(r["list_count"], r["list_count_after"], r["list_head"], r["list_head_after"])
            for r in (alloc, free)] == [(42, 39, 8, 101), (40, 42, 100, 8)]
    assert (alloc["latency_ns"], free["latency_ns"]) == (60, 60)


def freed(nr: int, stack: list[int], tmp_path: Path) -> dict[str, object]:
    tape = Tape()
    tape.add(2, FREE, FREE, 4, nr=nr, pages=0xBB00, p=page(500))
    tape.locked(2, FREE, stack)
    tape.unlock(2, FREE, [*range(500 + nr - 1, 499, -1), *stack])
    tape.back(2, FREE)
    row, = tape.rows(tmp_path)
    return row


@pytest.mark.parametrize("nr", [1, 9, 10, 11, 12, 300])
@pytest.mark.parametrize("below", [0, 50])
def test_the_last_ten_freed_pages_and_the_first_are_known(nr: int, below: int,
                                                          tmp_path: Path) -> None:
    row = freed(nr, list(range(below)), tmp_path)
    whole = list(range(500, 500 + nr))
    expected = whole if nr <= 11 else [500, *[-1] * (nr - 11), *whole[-10:]]
    assert row["frames"] == expected
    assert bool(int(str(row["flags"])) & 2) == (-1 in expected)


def test_a_free_of_the_same_array_behind_another_is_a_call_of_its_own(tmp_path: Path) -> None:
    tape, stack = Tape(), [1, 2]
    for _ in range(3):  # by one task, which allocates nothing between
        tape.add(2, FREE, FREE, 4, nr=2, pages=0xBB00, p=page(7))
        tape.locked(2, FREE, stack)
        stack = [8, 7, *stack]
        tape.unlock(2, FREE, stack)
        tape.back(2, FREE)
    assert [row["list_count"] for row in tape.rows(tmp_path)] == [2, 4, 6]


def alloc_of(nr: int, stack: list[int], tmp_path: Path, function: str = ALLOC,
             **result: int) -> dict[str, object]:
    tape = Tape()
    tape.add(2, function, function, 4, nr=nr, pages=0xBB00)
    tape.locked(2, function, stack)
    tape.unlock(2, function, stack[nr:])
    tape.back(2, function, **result)
    row, = tape.rows(tmp_path)
    return row


def test_an_allocation_takes_the_list_s_head_but_not_beyond_a_new_section(tmp_path: Path) -> None:
    assert alloc_of(20, list(range(30)), tmp_path, ret=0)["frames"] == list(range(10))
    assert alloc_of(3, [5, 6], tmp_path, ret=0, p=page(900))["frames"] == [900]
    assert alloc_of(3, [5, 6], tmp_path, BALLOON, ret=0, p=page(5))["frames"] == [5, 6]
    assert alloc_of(2, [5, 6], tmp_path, ret=0xFFFFFFF4)["frames"] == []


def test_passes_of_the_balloon_thread_have_their_place(tmp_path: Path) -> None:
    tape, where = Tape(), "xenmem_reservation_increase"
    state = {"cur": 1000, "tgt": 1200, "unpop": 3}
    tape.locked(9, inside.THREAD_FUNCTION, [40, 41, 42], **state)
    tape.add(9, where, where, 4, nr=2, frame0=40)
    tape.back(9, where, ret=2)
    tape.unlock(9, inside.THREAD_FUNCTION, [42])
    tape.locked(9, inside.THREAD_FUNCTION, [42])       # a pass with nothing to do
    tape.unlock(9, inside.THREAD_FUNCTION, [42])
    row, = (r for r in tape.rows(tmp_path) if r["kind"] == "increase")
    assert [row[name] for name in ("list_count", "list_count_after", "list_head",
                                   "list_head_after", "current_pages", "target_pages",
                                   "target_unpopulated")] == [3, 1, 40, 42, 1000, 1200, 3]
    assert row["lock_ns"] < row["time_ns"]  # type: ignore[operator]


def test_a_release_that_is_told_twice_is_one(tmp_path: Path) -> None:
    tape = Tape()
    tape.add(2, FREE, FREE, 4, nr=300, pages=0xBB00, p=page(500))
    tape.locked(2, FREE, [1])
    for _ in range(50):
        tape.unlock(2, FREE, [*range(799, 499, -1), 1])
    row, = tape.rows(tmp_path)
    assert row["frames"] == [500, *[-1] * 289, *range(790, 800)]


@pytest.mark.parametrize("cut", range(5))
def test_a_recording_that_begins_inside_a_call_loses_that_alone(cut: int, tmp_path: Path) -> None:
    tape = Tape()
    for pages in (0xAA00, 0xBB00):
        tape.add(2, FREE, FREE, 4, nr=1, pages=pages, p=page(5))
        tape.locked(2, FREE, [])
        tape.unlock(2, FREE, [5])
        tape.back(2, FREE)
    del tape.lines[1:1 + cut]
    rows = tape.rows(tmp_path)
    assert len(rows) == (2 if not cut else 1)
    assert rows[-1]["frames"] == [5]
