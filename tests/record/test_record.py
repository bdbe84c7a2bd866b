"""Recording a dom0: what is planned, that tracefs is left as it was found, what an archive may do."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import dat_files
import fake_tracefs
from driving import ROOT, cli, refused
from fake_tracefs import TARGET, FakeTracefs, build, program, recorder, snapshot
from recordings import RECORDINGS, recordings

from replay.base.errors import InputError, ReplayError
from replay.importers import archive
from replay.importers.dat.read import read_trace_dat
from replay.importers.joining.normalise import MEMSTART, VMEMMAP
from replay.importers.joining.parts import PART_OF
from replay.importers.session import import_recording
from replay.importers.source.probes import load_table
from replay.record import dat, machine, tracefs
from replay.record.archive import members, pack
from replay.record.plan import plan
from replay.record.probes import VARIABLES, Definition, Target, definitions, target
from replay.record.symbols import read as read_symbols
from replay.record.xentrace import _running
from replay.trace.store import load

KERNELS = ("5.4", "5.10", "5.16", "6.1", "6.6", "6.9", "6.12")
PLANS = [(kernel, arch, btf, frames) for kernel in KERNELS for arch in ("x86_64", "arm64")
         for btf in (False, True) if not btf or kernel in KERNELS[4:] for frames in (1, 63)]
POOL, OLD, NEW = ("xen_alloc_unpopulated_pages", "alloc_xenballooned_pages",
                  "xen_alloc_ballooned_pages")
FETCH = re.compile(r"(?P<name>\w+)=(?P<place>[^:]+):(?P<type>\w+)(\[(?P<many>\d+)\])?")


def parts(one: Definition) -> tuple[str, str, list[re.Match[str]]]:
    """(kind, place, fetched arguments) of a definition."""
    head, place, *fetched = one.text.split(" ")
    matches = [FETCH.fullmatch(f) for f in fetched]
    assert all(matches), one.text
    return head.partition(":")[0], place, [m for m in matches if m]


# -- what is planned
@pytest.mark.parametrize(("kernel", "arch", "btf", "frames"), PLANS)
def test_every_planned_probe_is_understood_by_the_import_and_safe(
        kernel: str, arch: str, btf: bool, frames: int) -> None:
    table, to = load_table(), target(kernel, arch, btf=btf, frames=frames)
    planned = definitions(to)
    assert len({d.event for d in planned}) == len(planned)
    for one in planned:
        kind, place, fetched = parts(one)
        returns = one.event.endswith("_ret")
        assert (kind[0], one.file) == (
            ("f", "dynamic_events") if btf else ("r" if returns else "p", "kprobe_events"))
        assert one.text.startswith(f"{kind}:replay/{one.event} {one.function.name}")
        assert place == one.function.name + ("%return" if btf and returns else "")
        probe = table.find(one.function.name)
        assert probe is not None
        assert (probe.role, "return" if returns else "entry") in PART_OF
        known = {name for names in probe.args.values() for name in names} | {
            VMEMMAP, MEMSTART}
        for fetch in fetched:
            assert fetch["name"] in known, one.text
            assert fetch["type"] != "symstr"
            assert int(fetch["many"] or 1) == (frames if fetch["many"] else 1) < 64
            assert re.fullmatch(r"(\+\d+\()*(\$arg[1-8]|\$stack0|\$retval|%lr|@\w+|[a-z_]+)\)*",
                                fetch["place"]), one.text
            if returns and to.kernel < (6, 9):
                assert fetch["place"].startswith(("@", "$retval")), one.text
            if btf:
                assert not fetch["place"].startswith(("%", "$arg", "$stack"))
            if frames == 1:
                assert not fetch["many"]


@pytest.mark.parametrize(("kernel", "arch", "serves"), [
    ("5.4", "x86_64", {OLD}), ("5.4", "arm64", {OLD}), ("5.10", "x86_64", {POOL, OLD}),
    ("5.10", "arm64", {OLD}), ("5.16", "x86_64", {POOL, NEW}), ("5.16", "arm64", {NEW}),
    ("6.1", "x86_64", {POOL, NEW}), ("6.6", "arm64", {POOL, NEW}), ("6.12", "arm64", {POOL, NEW}),
])
def test_the_allocators_functions_of_a_kernel(kernel: str, arch: str, serves: set[str]) -> None:
    planned = {d.event for d in definitions(target(kernel, arch))}
    assert planned & {POOL, OLD, NEW} == serves
    assert {f"{name}_ret" for name in serves} <= planned
    assert ("xen_alloc_p2m_entry" in planned) == (arch == "x86_64")
    assert ("request_resource" in planned) == (arch == "arm64" and POOL in serves)


def test_variables_are_read_only_where_kallsyms_has_them_once(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/kallsyms").write_text(
        "0 b list_count\n0 b page_list\n0 b page_list\t[other]\n0 D vmemmap_base\n")
    symbols = read_symbols(tmp_path).single(VARIABLES)
    assert symbols == {"list_count", "vmemmap_base"}
    text = "".join(d.text for d in definitions(target("6.1", "x86_64", symbols=symbols)))
    assert "@list_count" in text
    assert "@vmemmap_base" in text
    assert "@page_list" not in text


def test_what_tells_frames_from_struct_pages_is_read_with_each_allocation() -> None:
    """vmemmap_base on x86; memstart_addr on arm64, where the kernel shows it, and never both."""
    for arch, own, other in (("x86_64", "vmemmap_base", "memstart_addr"),
                             ("arm64", "memstart_addr", "vmemmap_base")):
        for kernel in ("5.10", "6.1", "6.12", "7.3"):
            known = frozenset(VARIABLES)
            texts = {d.event: d.text for d in definitions(target(kernel, arch, symbols=known))}
            allocs = {POOL, OLD, NEW} & texts.keys()
            assert allocs
            for event in allocs:
                assert f" {own}=@{own}:x64" in texts[event]
            assert not [text for text in texts.values() if other in text]
            without = definitions(target(kernel, arch, symbols=known - {own}))
            assert not [d for d in without if own in d.text]


def test_entry_probes_are_registered_behind_the_return_probes() -> None:
    kinds = [d.text[0] for d in definitions(target("6.1", "x86_64"))]
    assert "".join(kinds).strip("p") == "r" * kinds.count("r")
    assert kinds[-1] == "p"


@pytest.mark.parametrize(("arguments", "says"), [
    (("--kernel", "6.1", "--arch", "x86_64"),
     ("> instances/replay/trace_clock", "echo x86-tsc >", "xentrace -D -e 0x0010f000 -S 512",
      "trace-cmd start -C x86-tsc", "clock_offset_ns", "head of the pool's list", "xl dmesg >")),
    (("--kernel", "6.12.95-arm64", "--arch", "aarch64"),
     ("echo mono >", "dt/reg", "the first of an allocation and of a free", "nokaslr", "%lr")),
    (("--kernel", "5.4", "--arch", "arm64"), (
        "alloc_xenballooned_pages() serves all", "6.9, none.")),
    (("--kernel", "6.6", "--arch", "x86_64", "--btf"), (">> dynamic_events", "nr=nr_pages:u32")),
    (("--kernel", "6.1", "--arch", "x86_64", "--frames", "8"), (
        "WARNING", "takes the kernel down", "x64[8]")),
])
def test_the_text_of_a_plan(arguments: tuple[str, ...], says: tuple[str, ...]) -> None:
    result = cli("record", "plan", *arguments)
    assert result.code == 0, result.err
    for part in says:
        assert part in result.out or part in " ".join(result.out.replace("\n# ", " ").split()), part
    comments = [line for line in result.out.splitlines() if line.startswith("#")]
    assert max(map(len, comments)) <= 98
    assert subprocess.run(["sh", "-n"], input=result.out, text=True, check=False).returncode == 0


def test_a_plan_warns_of_more_than_one_frame_alone() -> None:
    assert "WARNING" not in plan(target("6.12", "arm64"))


@pytest.mark.parametrize(("arguments", "says"), [
    (("--kernel", "4.19"), "4.20"), (("--kernel", "six"), "expected a version"),
    (("--kernel", "6.1", "--btf"), "6.5"), (("--kernel", "6.1", "--frames", "64"), "1 to 63"),
    (("--kernel", "6.1", "--frames", "0"), "1 to 63"),
    (("--kernel", "6.1", "--arch", "mips"), "unknown architecture 'mips'"),
])
def test_what_cannot_be_planned(arguments: tuple[str, ...], says: str) -> None:
    rest = () if "--arch" in arguments else ("--arch", "x86_64")
    refused("record", "plan", *arguments, *rest, naming=(says,))


# -- what the planned probes record, and the import makes of it
def page(pfn: int) -> int:
    """The address of a frame's struct page."""
    return 0xFFFFEA0000000000 + 64 * pfn


class Events:
    """Text as a kernel with the planned probes would print it."""

    def __init__(self, to: Target) -> None:
        self.defined = {d.event: d for d in definitions(to)}
        self.offset = "0x4" if to.btf else "0x0"
        self.now = 1000
        self.lines: list[str] = []

    def add(self, event: str, pid: int = 7, **values: int | str) -> None:
        """One event with these values, others 0; nothing if the probe is not planned."""
        if event not in self.defined:
            return
        self.now += 10
        function = self.defined[event].function.name
        place = (f"(gnttab_alloc_pages+0x10/0x40 <- {function})" if event.endswith("_ret")
                 else f"({function}+{self.offset}/0x450)")
        fields = []
        for fetch in parts(self.defined[event])[2]:
            value = values.get(fetch["name"], 0)
            shown = value if isinstance(value, str) else hex(value) if "x" in fetch["type"] \
                else str(value)
            if fetch["type"] == "symbol":
                shown = "gnttab_alloc_pages+0x10/0x40"
            fields.append(f"{fetch['name']}={{{shown}}}" if fetch["many"]
                          else f"{fetch['name']}={shown}")
        self.lines.append(f"{'task':>16}-{pid:<7} [000] ..... {self.now}: {event}: {place} "
                          f"{' '.join(fields)}\n")

    def load(self) -> None:
        """Two allocations, the second with a refill, and two frees."""
        for serves in (POOL, NEW, OLD):
            if serves not in self.defined:
                continue
            free = {POOL: "xen_free_unpopulated_pages", NEW: "xen_free_ballooned_pages",
                    OLD: "free_xenballooned_pages"}[serves]
            known = {"vmemmap_base": page(0)}
            self.add(serves, nr=1, pages=0x10, list_count=1, page_list=page(9), **known)
            self.add("xen_alloc_p2m_entry", pfn=9)
            self.add(f"{serves}_ret", p=page(9), list_count=0)
            self.add(serves, nr=3, pages=0x20, list_count=0, **known)
            self.add("allocate_resource")
            self.add("xen_alloc_p2m_entry", pfn=0x8000)
            self.add("add_pages", start_pfn=0x8000, nr=0x8000)
            self.add("request_resource", start=0x8000000, end=0xFFFFFFF, name='"Xen scratch"')
            for pfn in (0xFFFF, 0xFFFE, 0xFFFD):
                self.add("xen_alloc_p2m_entry", pfn=pfn)
            self.add(f"{serves}_ret", p=page(0xFFFF), list_count=0x7FFD, page_list=page(0xFFFC))
            self.add("gnttab_map_refs", count=3, pages=0x20, dom=5, p=page(0xFFFF))
            for nr, pages, first, listed in ((3, 0x20, 0xFFFF, 0x7FFD), (1, 0x10, 9, 0x8000)):
                self.add(free, nr=nr, pages=pages, p=page(first), list_count=listed)
                self.add(f"{free}_ret")
            return


@pytest.mark.parametrize(("kernel", "arch", "btf", "frames"), [p for p in PLANS if p[3] == 1])
def test_planned_probes_make_paired_requests(kernel: str, arch: str, btf: bool, frames: int,
                                             tmp_path: Path) -> None:
    to = target(kernel, arch, btf=btf, frames=frames)
    events = Events(to)
    events.load()
    (tmp_path / "trace.txt").write_text("".join(events.lines))
    trace = import_recording([tmp_path / "trace.txt"], "t", machine_dir=None, probes=None,
                             settings={"cpu_hz": "1000000000", "vmemmap_base": str(page(0))})
    rows = [r for r in trace.table.to_pylist() if r["kind"] in ("alloc", "free")]
    assert [(r["kind"], r["nr_pages"], r["slots"], r["errno"]) for r in rows] == [
        ("alloc", 1, None, 0), ("alloc", 3, None, 0), ("free", 3, [1, 2, 3], None),
        ("free", 1, [0], None)]
    assert rows[0]["caller"] == "gnttab_alloc_pages"
    assert [r["latency_ns"] for r in rows[::2]] == [10 if arch == "arm64" else 20, 10]
    assert rows[3]["latency_ns"] == 10
    pool = POOL in {d.event for d in definitions(to)}
    if arch == "x86_64":  # as a PV dom0 records it
        assert [r["frames"] for r in rows[:2]] == [[9], [0xFFFF, 0xFFFE, 0xFFFD]]
    elif to.kernel >= (6, 9):
        assert [r["frames"] for r in rows[:2]] == [[9], [0xFFFF]]
    elif pool:
        assert rows[0]["frames"] == [9]  # the head of the list
    assert trace.meta.recorded_strategy == ("pool" if pool else "balloon")
    if pool:
        assert {"section"} <= set(trace.table["kind"].to_pylist())


# -- on a machine
@pytest.fixture
def dom0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake dom0, whose programs alone are found."""
    build(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def fake(base: Path, **more: object) -> FakeTracefs:
    return FakeTracefs(base / "tracing", **more)  # type: ignore[arg-type]


def appears(path: Path, empty: bool = False) -> None:
    """Wait for a file."""
    deadline = time.monotonic() + 30
    while not path.exists() or not (empty or path.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def text_recording() -> str:
    """What the instance's buffer holds at the end."""
    events = Events(TARGET)
    events.load()
    return "# tracer: nop\n" + "".join(events.lines)


def test_start_stop_collect_and_import(dom0: Path) -> None:
    before = snapshot(dom0)
    tracefs = fake(dom0, recorded=text_recording())
    recorder(dom0, tracefs).start(TARGET, buffer_kb=512)
    appears(dom0 / "rec/xentrace.bin")
    during = snapshot(dom0)
    assert {k: v for k, v in during.items() if "replay" not in k and k != "kprobe_events"} == {
        k: v for k, v in before.items() if k != "kprobe_events"}
    assert during["instances/replay/trace_clock"] == "x86-tsc\n"
    assert during["instances/replay/buffer_size_kb"] == "512\n"
    assert during["instances/replay/tracing_on"] == "1\n"
    assert during["instances/replay/events/replay/enable"] == "1\n"
    assert recorder(dom0, tracefs).stop()
    assert snapshot(dom0) == before
    assert recorder(dom0, tracefs).collect(dom0 / "mine.tar.zst") > 0

    names = members(dom0 / "rec")
    assert "state.json" not in names
    assert {"before/iomem", "after/iomem", "before/xen_balloon", "dmesg", "xl-dmesg", "uname",
            "trace.txt.gz", "xentrace.bin", "ftrace-stats", "kprobe_profile", "kprobes.txt",
            "recording.json", "before/xl-info", "dom0-cmdline"} <= set(names)
    result = cli("import", dom0 / "mine.tar.zst", "-o", dom0 / "mine.arrow")
    assert result.code == 0, result.err
    trace = load(dom0 / "mine.arrow")
    assert trace.meta.physmap is not None
    assert (trace.meta.physmap.name, trace.meta.clock["name"], trace.meta.clock["hz"]) == (
        "mine", "x86-tsc", 10**9)
    assert trace.meta.provenance["archive"] == "mine.tar.zst"
    assert len(trace.meta.provenance["archive_sha256"]) == 64
    assert [s["file"] for s in trace.meta.sources] == ["trace.txt.gz", "xentrace.bin"]
    assert trace.meta.options == {}
    assert trace.table["kind"].to_pylist().count("alloc") == 2


def test_a_pvh_archive_leaves_a_xen_trace_that_shows_no_clock_out_by_name(dom0: Path) -> None:
    program(dom0, "dmesg", "#!/bin/sh\necho 'Booting kernel on Xen PVH'\n")
    one = struct.pack("<IiIIQI", 0x2001F003, 0, 16, 0x9010F001, 10**9, 1)  # a grant map
    program(dom0, "xentrace", f"#!{sys.executable}\nimport signal, sys\n"
            "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
            f"open(sys.argv[-1], 'wb').write({one!r})\nsignal.pause()\n")
    tracefs = fake(dom0, recorded=text_recording())
    recorder(dom0, tracefs).start(TARGET, buffer_kb=512)
    appears(dom0 / "rec/xentrace.bin")
    recorder(dom0, tracefs).stop()
    recorder(dom0, tracefs).collect(dom0 / "x.tar.zst")
    result = cli("import", dom0 / "x.tar.zst", "-o", dom0 / "x.arrow")
    assert "Left out: xentrace.bin: the recording does not show" in result.out, result.err
    result = cli("import", dom0 / "x.tar.zst", "-o", dom0 / "x.arrow", "--set",
                 "clock_offset_ns=0", "--set", "name=elsewhere")
    assert "Left out" not in result.out
    physmap = load(dom0 / "x.arrow").meta.physmap
    assert physmap is not None and physmap.name == "elsewhere"


def test_an_xentrace_that_had_nothing_to_write_is_left_out_by_name(dom0: Path) -> None:
    program(dom0, "xentrace", "#!/bin/sh\nfor out; do :; done\n: > \"$out\"\n"
            "trap 'exit 0' INT\nsleep 60 & wait\n")
    (dom0 / "bin/sleep").symlink_to(shutil.which("sleep", path="/usr/bin:/bin") or "")
    tracefs = fake(dom0, recorded=text_recording())
    recorder(dom0, tracefs).start(TARGET, buffer_kb=64)
    appears(dom0 / "rec/xentrace.bin", empty=True)
    notes: list[str] = []
    one = recorder(dom0, tracefs)
    one.noted = notes.append
    one.stop()
    one.collect(dom0 / "x.tar.zst")
    assert not any("xentrace" in note for note in notes)
    assert (dom0 / "rec/xentrace.bin").read_bytes() == b""
    result = cli("import", dom0 / "x.tar.zst", "-o", dom0 / "x.arrow")
    assert "Left out: xentrace.bin: is empty" in result.out, result.err


def tracefs_of(base: Path, made: dat_files.File) -> Path:
    """The files of a tracefs from which a trace.dat is written; the instance's folder."""
    files = {"events/header_page": made.header_page, "events/header_event": b"# none\n",
             "events/ftrace/print/format": dat_files.PRINT_FORMAT.encode(),
             "saved_cmdlines": made.cmdlines.encode(), "proc/kallsyms": made.kallsyms.encode(),
             "instances/replay/trace_clock": f"local [{made.clock}]\n".encode()}
    files |= {f"events/replay/{name}/format": text.encode() for name, text in made.formats.items()}
    for cpu, pages in made.cpus.items():
        place = f"instances/replay/per_cpu/cpu{cpu}"
        files[f"{place}/trace_pipe_raw"] = b"".join(pages)
        files[f"{place}/stats"] = f"entries: 3\noverrun: {cpu}\n".encode()
    for file, data in files.items():
        (base / file).parent.mkdir(parents=True, exist_ok=True)
        (base / file).write_bytes(data)
    return base / "instances/replay"


def test_a_written_trace_dat_is_read_as_one_of_trace_cmd(tmp_path: Path) -> None:
    shape = dat_files.Shape(page_bytes=4096)
    made = dat_files.File(shape.small(), shape, clock="x86-tsc")
    dat.write(tmp_path / "ours.dat", tmp_path, tracefs_of(tmp_path, made), proc=tmp_path / "proc")
    (tmp_path / "theirs.dat").write_bytes(dat_files.version6(made))
    ours, theirs = (read_trace_dat(tmp_path / f"{n}.dat") for n in ("ours", "theirs"))
    assert [s.event for s in ours.streams] == [s.event for s in theirs.streams]
    for one, other in zip(ours.streams, theirs.streams, strict=True):
        assert one.time.tolist() == other.time.tolist()
        assert (one.function, one.task, one.texts) == (other.function, other.task, other.texts)
        assert {k: v.tolist() for k, v in one.numbers.items()} == {
            k: v.tolist() for k, v in other.numbers.items()}
    assert (ours.clock, ours.unit, ours.records_lost) == ("x86-tsc", "ticks", 1)
    assert ours.kernel == os.uname().release


def test_no_trace_cmd_is_run_for_it_resets_what_others_trace(dom0: Path) -> None:
    program(dom0, "trace-cmd", f"#!/bin/sh\necho \"$@\" > {dom0}/ran\n")
    recorder(dom0, fake(dom0)).start(TARGET, buffer_kb=64, with_xentrace=False)
    tracefs_of(dom0 / "tracing", dat_files.File({0: []}, formats={}))
    (dom0 / "root/proc/kallsyms").write_text(dat_files.KALLSYMS)
    notes: list[str] = []
    one = recorder(dom0, fake(dom0))
    one.noted = notes.append
    one.stop()
    assert notes == []
    assert not (dom0 / "ran").exists()
    assert (dom0 / "rec/trace.dat").is_file()
    assert not (dom0 / "rec/trace.txt.gz").exists()
    assert not (dom0 / "rec/trace.dat.part").exists()


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_a_disk_that_fills_up_half_way_costs_no_record(dom0: Path, room: int,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    shape = dat_files.Shape(page_bytes=4096)
    made = dat_files.File({0: shape.small()[0] * 3, 1: shape.small()[1]}, shape, clock="x86-tsc")
    recorder(dom0, fake(dom0)).start(TARGET, buffer_kb=64, with_xentrace=False)
    instance = tracefs_of(dom0 / "tracing", made)
    (dom0 / "root/proc/kallsyms").write_text(dat_files.KALLSYMS)
    pipes = []  # they forget what is read, as the kernel does
    for cpu, pages in made.cpus.items():
        raw = instance / f"per_cpu/cpu{cpu}/trace_pipe_raw"
        raw.unlink()
        os.mkfifo(raw)
        pipes.append(os.open(raw, os.O_RDWR))
        os.write(pipes[-1], b"".join(pages))
    taken = []

    def reserve(descriptor: int, at: int, size: int) -> None:
        taken.append(at)
        if len(taken) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as full:
        full.setattr(dat, "_AHEAD", 1)
        full.setattr(os, "posix_fallocate", reserve)
        with pytest.raises(OSError, match="No space.*trace.dat.part"):
            recorder(dom0, fake(dom0)).stop()
    assert instance.is_dir()
    with (dom0 / "rec/trace.dat.part").open("ab") as part:
        part.write(bytes(3 * 4096 + 7))  # as if it had been killed with room taken
    (instance / "per_cpu/cpu0/stats").write_text("entries: 0\n")
    assert recorder(dom0, fake(dom0)).stop()
    for pipe in pipes:
        os.close(pipe)
    (dom0 / "whole.dat").write_bytes(dat_files.version6(made))
    ours, theirs = (read_trace_dat(dom0 / name) for name in ("rec/trace.dat", "whole.dat"))
    assert [s.time.tolist() for s in ours.streams] == [s.time.tolist() for s in theirs.streams]
    assert "entries: 3" in (dom0 / "rec/ftrace-stats").read_text()


def test_a_trace_dat_that_cannot_be_written_is_said(dom0: Path) -> None:
    notes: list[str] = []
    recorder(dom0, fake(dom0)).start(TARGET, buffer_kb=64, with_xentrace=False)
    one = recorder(dom0, fake(dom0))
    one.noted = notes.append
    assert one.stop()  # the fake tracefs has no header_page
    assert any("trace.dat cannot be written (No such file" in note for note in notes)
    assert not (dom0 / "rec/trace.dat").exists()
    assert (dom0 / "rec/trace.txt.gz").is_file()


def test_a_tracefs_that_one_may_not_look_into_is_a_sentence(monkeypatch: pytest.MonkeyPatch,
                                                            tmp_path: Path) -> None:
    def refuse(path: object, **_: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(tracefs, "TRACEFS_PLACES", (tmp_path / "tracing",))
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(ReplayError, match="run as root"):
        tracefs.find()


def test_a_refused_probe_is_named_and_the_rest_goes_on(dom0: Path) -> None:
    notes: list[str] = []
    one = recorder(dom0, fake(dom0, rejected=("decrease_reservation", "xen_remap_pfn")))
    one.noted = notes.append
    one.start(TARGET, buffer_kb=64, with_xentrace=False)
    assert [n for n in notes if n.startswith("REJECTED")] == [
        "REJECTED decrease_reservation: is not there", "REJECTED xen_remap_pfn: is not there"]
    text = (dom0 / "rec/kprobes.txt").read_text()
    assert text.count("REJECTED") == 2
    assert "p:replay/xen_free_unpopulated_pages " in text
    recorder(dom0, fake(dom0)).stop()
    assert json.loads((dom0 / "rec/recording.json").read_text())["rejected"] == [
        "decrease_reservation", "xen_remap_pfn"]


def test_a_kernel_without_the_allocators_is_refused_and_restored(dom0: Path) -> None:
    before = snapshot(dom0)
    with pytest.raises(ReplayError, match="none of the allocator's functions"):
        recorder(dom0, fake(dom0, rejected=(POOL, NEW))).start(TARGET, buffer_kb=64)
    assert snapshot(dom0) == before
    assert not (dom0 / "rec").exists()


def count_steps(base: Path) -> int:
    """Changes to tracefs from the start to the end of `start`."""
    tracefs = fake(base)
    recorder(base, tracefs, "counted").start(TARGET, buffer_kb=64, with_xentrace=False)
    steps = tracefs.steps
    recorder(base, fake(base), "counted").stop(discard=True)
    return steps


@pytest.mark.parametrize("how", [OSError(errno.EIO, "broken"), KeyboardInterrupt(),
                                 MemoryError(), signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_whatever_happens_at_any_change_tracefs_is_as_it_was(dom0: Path, how: object) -> None:
    before, handler = snapshot(dom0), signal.getsignal(signal.SIGINT)
    steps = count_steps(dom0)
    assert snapshot(dom0) == before
    for at in range(steps):
        def fail(step: int, at: int = at) -> None:
            if step == at and isinstance(how, signal.Signals):
                signal.raise_signal(how)  # to this thread, at once
            elif step == at and isinstance(how, BaseException):
                raise how
        tracefs = fake(dom0, before=fail)
        try:
            recorder(dom0, tracefs).start(TARGET, buffer_kb=64, with_xentrace=False)
        except (ReplayError, KeyboardInterrupt, MemoryError) as error:
            if isinstance(how, signal.Signals):
                assert f"interrupted by {how.name}" in str(error)
            assert snapshot(dom0) == before, at
            assert not (dom0 / "rec").exists()
        else:  # a probe that cannot be defined is left out
            recorder(dom0, fake(dom0)).stop(discard=True)
            assert snapshot(dom0) == before, at
            for path in sorted((dom0 / "rec").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    assert signal.getsignal(signal.SIGINT) is handler  # ignored, in a shell's background


@pytest.mark.parametrize("at", [0, 7, 23, 27])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_start_is_restored_by_itself_or_by_stop(dom0: Path, at: int,
                                                         number: signal.Signals) -> None:
    before = snapshot(dom0)
    started = subprocess.Popen(
        [sys.executable, fake_tracefs.__file__, str(dom0), str(at)], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert started.stdout is not None
    assert started.stdout.readline() == "here\n"
    assert at == 0 or snapshot(dom0) != before
    started.send_signal(number)
    started.wait(30)
    started.stdout.close()
    if number == signal.SIGKILL:
        assert not recorder(dom0, fake(dom0)).stop()
        assert not (dom0 / "rec/state.json").exists()
    else:
        assert not (dom0 / "rec").exists()
    assert snapshot(dom0) == before


def test_xentrace_ends_with_the_recording_however_that_ends(dom0: Path) -> None:
    output = (dom0 / "rec").resolve() / "xentrace.bin"
    for discard in (False, True):
        recorder(dom0, fake(dom0)).start(TARGET, buffer_kb=64)
        assert len(_running(output)) == 1
        recorder(dom0, fake(dom0)).stop(discard=discard)
        assert _running(output) == []
        for path in sorted((dom0 / "rec").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_an_xentrace_that_cannot_run_is_said(dom0: Path) -> None:
    program(dom0, "xentrace", "#!/bin/sh\necho 'no hypervisor'; exit 1\n")
    notes: list[str] = []
    one = recorder(dom0, fake(dom0))
    one.noted = notes.append
    one.start(TARGET, buffer_kb=64)
    assert any("xentrace ended at once (no hypervisor)" in n for n in notes)
    recorder(dom0, fake(dom0)).stop()


FAILS = """#!/bin/sh
for out; do :; done
printf '\\003\\360\\001\\040\\0\\0\\0\\0' > "$out"
trap 'echo "ERROR: Failed to write trace data (28 = No space left on device)"; exit 1' INT
sleep {} & wait
"""


@pytest.mark.parametrize(("seconds", "says"), [
    (1, "it was not running any more"), (60, "Failed to write trace data (28 = No space")])
def test_an_xentrace_that_could_not_write_is_data_loss(dom0: Path, seconds: int,
                                                       says: str) -> None:
    program(dom0, "xentrace", FAILS.format(seconds))
    (dom0 / "bin/sleep").symlink_to(shutil.which("sleep", path="/usr/bin:/bin") or "")
    tracefs = fake(dom0, recorded=text_recording())
    notes: list[str] = []
    one = recorder(dom0, tracefs)
    one.noted = notes.append
    one.start(TARGET, buffer_kb=64)
    deadline = time.monotonic() + 30
    while seconds == 1 and _running((dom0 / "rec").resolve() / "xentrace.bin"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    one.stop()
    assert any("xentrace did not write all there was" in n and says in n for n in notes)
    one.collect(dom0 / "x.tar.zst")
    result = cli("import", dom0 / "x.tar.zst", "-o", dom0 / "x.arrow")
    assert "DATA LOSS: 1 source ends too early" in result.out, result.err
    assert says in load(dom0 / "x.arrow").meta.provenance["xentrace_cut"]


def test_the_second_stop_knows_that_the_first_one_ended_xentrace(
        dom0: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracefs = fake(dom0, recorded=text_recording())
    one = recorder(dom0, tracefs)
    one.start(TARGET, buffer_kb=64)
    appears(dom0 / "rec/xentrace.bin")
    with monkeypatch.context() as full:
        def save_text(self: FakeTracefs, to: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))
        full.setattr(FakeTracefs, "save_text", save_text)
        with pytest.raises(OSError, match="No space"):
            one.stop()
    notes: list[str] = []
    one.noted = notes.append
    assert one.stop() and not any("xentrace" in note for note in notes)
    one.collect(dom0 / "x.tar.zst")
    assert "DATA LOSS" not in cli("import", dom0 / "x.tar.zst", "-o", dom0 / "x.arrow").out


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_lines_are_kept_by_words_as_by_an_expression(end: str) -> None:
    only, = (file.only for file in machine.MACHINE if file.name == "kallsyms-xen")
    lines = ["0 T xen_balloon_xen", "0 t vfs_read", "", "0 b page_list", "0 T mutex_lock",
             "0 t xe", "n_gnttab", "0 b list_count"]
    text = ("\n".join(lines) + end).encode()
    kept = list(machine._lines_with(only, text))
    assert kept == list(machine._lines_with(f"(?:{only})", text))
    assert [line.decode().rstrip("\n") for line in kept] == [lines[k] for k in (0, 3, 6, 7)]


def test_calls_of_xentrace_s_end_are_no_unrecorded_hits(dom0: Path) -> None:
    tracefs = fake(dom0, recorded=text_recording())
    recorder(dom0, tracefs).start(TARGET, buffer_kb=64)
    trace = dom0 / "rec/xentrace.bin"
    appears(trace)
    running: list[int] = []

    class Watched(FakeTracefs):
        def profile(self) -> str:
            running.append(len(_running(trace.resolve())))
            return super().profile()
    recorder(dom0, Watched(tracefs.root)).stop()
    assert running == [1]


def test_a_dry_run_tells_each_write_and_makes_none(dom0: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in dom0.rglob("*")}
    dry: list[str] = []
    one = recorder(dom0, fake(dom0, dry=True, told=dry.append))
    one.told = dry.append
    one.start(TARGET, buffer_kb=64)
    assert {p: p.stat().st_mtime_ns for p in dom0.rglob("*")} == before
    real: list[str] = []
    one = recorder(dom0, fake(dom0, told=real.append))
    one.told = real.append
    one.start(TARGET, buffer_kb=64)
    assert dry == real
    assert len([line for line in real if ">> " in line]) == len(definitions(TARGET))
    held = snapshot(dom0)
    dry.clear()
    one = recorder(dom0, fake(dom0, dry=True, told=dry.append))
    one.told = dry.append
    one.stop()
    assert snapshot(dom0) == held
    assert (dom0 / "rec/state.json").exists()
    assert any(line.startswith("rmdir ") for line in dry)
    assert any(f"-:replay/{POOL}'" in line for line in dry)
    recorder(dom0, fake(dom0)).stop()


def test_the_command_line_dry_runs_without_tracefs(tmp_path: Path) -> None:
    result = cli("record", "start", "--dry-run", "--dir", tmp_path / "rec", "--tracefs",
                 tmp_path / "none")
    assert result.code == 0, result.err
    assert f"mkdir {tmp_path}/none/instances/replay" in result.out
    assert not list(tmp_path.iterdir())


# -- what is refused
def test_what_start_refuses(dom0: Path) -> None:
    def start(says: str, folder: str = "rec") -> None:
        before = snapshot(dom0)
        with pytest.raises(ReplayError, match=says):
            recorder(dom0, fake(dom0), folder).start(TARGET, buffer_kb=64)
        assert snapshot(dom0) == before

    (dom0 / "full").mkdir()
    (dom0 / "full" / "mine").write_text("")
    start("is not empty", "full")
    (dom0 / "tracing/instances/replay").mkdir()
    start("is there already")
    (dom0 / "tracing/instances/replay").rmdir()
    (dom0 / "tracing/events/replay").mkdir()
    start("exist already")
    (dom0 / "tracing/events/replay").rmdir()
    (dom0 / "root/proc/iomem").write_text("00000000-00000000 : System RAM\n" * 3)
    start("shows no addresses.*run as root")
    (dom0 / "root/proc/iomem").write_text("00100000-3fffffff : System RAM\n")
    memory = dom0 / "root/sys/devices/system/xen_memory"
    memory.rename(dom0 / "elsewhere")
    start("does not run on Xen")
    (dom0 / "root/sys/hypervisor").mkdir()
    (dom0 / "root/sys/hypervisor/type").write_text("kvm\n")
    start("does not run on Xen")
    (dom0 / "root/sys/hypervisor/type").write_text("xen\n")
    build_again = dom0 / "tracing/kprobe_events"
    build_again.rename(dom0 / "gone")
    start("kprobe_events: is not there; the kernel needs CONFIG_KPROBE_EVENTS")


def test_a_second_start_and_an_early_collect_are_refused(dom0: Path) -> None:
    recorder(dom0, fake(dom0)).start(TARGET, buffer_kb=64, with_xentrace=False)
    with pytest.raises(ReplayError, match="is there already"):
        recorder(dom0, fake(dom0), "other").start(TARGET, buffer_kb=64)
    with pytest.raises(ReplayError, match="still under way"):
        recorder(dom0, fake(dom0)).collect(dom0 / "x.tar.zst")
    recorder(dom0, fake(dom0)).stop()


def test_a_restarted_machine_has_lost_the_recording(dom0: Path) -> None:
    before = snapshot(dom0)
    recorder(dom0, fake(dom0)).start(TARGET, buffer_kb=64, with_xentrace=False)
    (dom0 / "tracing").rename(dom0 / "before-the-restart")
    (dom0 / "root").rename(dom0 / "old-root")
    (dom0 / "bin").rename(dom0 / "old-bin")
    build(dom0)
    notes: list[str] = []
    one = recorder(dom0, fake(dom0))
    one.noted = notes.append
    assert not one.stop()
    assert any("was the machine restarted" in n for n in notes)
    assert snapshot(dom0) == before


def test_a_full_disk_keeps_the_recording_in_the_kernel(dom0: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(dom0)
    recorder(dom0, fake(dom0)).start(TARGET, buffer_kb=64, with_xentrace=False)
    with monkeypatch.context() as full:
        def save_text(self: FakeTracefs, to: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))
        full.setattr(FakeTracefs, "save_text", save_text)
        with pytest.raises(OSError, match="No space"):
            recorder(dom0, fake(dom0)).stop()
    assert (dom0 / "tracing/instances/replay").is_dir()
    assert recorder(dom0, fake(dom0)).stop()
    assert snapshot(dom0) == before


@pytest.mark.parametrize(("text", "says"), [
    (None, "no recording is under way here"), ("{", "not the state of a recording"),
    ('{"version": 2}', "not the state of a recording"), ("[]", "not the state of a recording"),
    ('{"version": 1, "facts": {"tracefs": "/nowhere"}, "undo": [["rm", "-rf"]]}',
     "unknown change"),
])
def test_stop_without_a_recording(text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "state.json").write_text(text)
    refused("record", "stop", "--dir", tmp_path, naming=(tmp_path, says))


def test_collect_refuses_what_is_no_recording(tmp_path: Path) -> None:
    refused("record", "collect", "-o", tmp_path / "x.tar.zst", "--dir", tmp_path,
            naming=(tmp_path, "holds no ftrace recording"))


def test_an_archive_is_put_into_a_folder_that_is_not_there(dom0: Path) -> None:
    tracefs = fake(dom0, recorded=text_recording())
    recorder(dom0, tracefs).start(TARGET, buffer_kb=512)
    appears(dom0 / "rec/xentrace.bin")
    assert recorder(dom0, tracefs).stop()
    assert recorder(dom0, tracefs).collect(dom0 / "new/folder/mine.tar.gz") > 0
    assert [path.name for path in (dom0 / "new/folder").iterdir()] == ["mine.tar.gz"]
    (dom0 / "file").write_text("")
    with pytest.raises(InputError, match=r"file/mine.tar.gz: cannot be written"):
        recorder(dom0, tracefs).collect(dom0 / "file/mine.tar.gz")


# -- archives
def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "sub").mkdir(parents=True)
        for name in ("z", "sub/y", "x") if place == "a" else ("x", "z", "sub/y"):
            (tmp_path / place / name).write_text(name * 100)
        pack(tmp_path / place, members(tmp_path / place), tmp_path / f"{place}.tar.zst")
    os.symlink("/etc/passwd", tmp_path / "a" / "link")
    assert members(tmp_path / "a") == ["sub/y", "x", "z"]
    assert (tmp_path / "a.tar.zst").read_bytes() == (tmp_path / "b.tar.zst").read_bytes()
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(ReplayError, match=r"ends in \.tar\.zst or \.tar\.gz"):
        pack(tmp_path / "a", ["x"], tmp_path / "x.zip")


def member(name: str, data: bytes = b"x", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar(path: Path, *inside: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, "zstd") as packed, \
            tarfile.open(fileobj=packed, mode="w|", format=form) as out:
        for info, data in inside:
            out.addfile(info, io.BytesIO(data))
    return path


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
HOSTILE = {
    "absolute": ([member("/etc/evil")], "does not write"),
    "parent": ([member("../evil")], "does not write"),
    "parent within": ([member("a/../../evil")], "does not write"),
    "backslash": ([member("a\\b")], "does not write"),
    "control": ([member("a\x1b[2Jb")], "does not write"),
    "deep": ([member("/".join("a" * 20))], "does not write"),
    "link": ([member("a", b"", **LINK)], "neither a regular file"),
    "link, then through it": ([member("a", b"", **LINK), member("a/b")], "neither a regular file"),
    "hard link": ([member("a", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "neither"),
    "fifo": ([member("a", b"", type=tarfile.FIFOTYPE)], "neither a regular file"),
    "device": ([member("a", b"", type=tarfile.CHRTYPE)], "neither a regular file"),
    "twice": ([member("a"), member("a")], "is there twice"),
    "twice by another way": ([member("a"), member("./a")], "is there twice"),
    "file as folder": ([member("a"), member("a/b")], "is there twice"),
    "folder as file": ([member("a/b"), member("a")], "is there twice"),
    "file, then a folder": ([member("a"), member("a", b"", type=tarfile.DIRTYPE)],
                            "is there twice"),
    "many": ([member(f"f{k}", b"") for k in range(archive.MAX_FILES + 1)], "more than 4096 files"),
    "bomb": ([member("trace.txt", bytes(1 << 25))], "expands to more than"),
    "no recording": ([member("iomem")], "holds no ftrace recording"),
    "bad manifest": ([member("trace.txt"), member("recording.json", b"{")], "not JSON"),
    "no machine": ([member("trace.txt")], "holds no copy of /proc/iomem"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused(case: str, tmp_path: Path) -> None:
    inside, says = HOSTILE[case]
    path = tar(tmp_path / "x.tar.zst", *inside)
    sentence = refused("import", path, "-o", tmp_path / "o.arrow", naming=(path, says))
    assert "/replay-" not in sentence  # the temporary folder tells nobody anything
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.tar.zst"]


def test_a_huge_extended_header_is_refused(tmp_path: Path) -> None:
    info, data = member("trace.txt")
    info.pax_headers = {"comment": "y" * (1 << 17)}
    path = tar(tmp_path / "x.tar.zst", (info, data), form=tarfile.PAX_FORMAT)
    refused("import", path, "-o", tmp_path / "o.arrow", naming=(path, "extended header"))


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """An archive that imports."""
    text = text_recording().encode()
    return tar(tmp_path / "whole.tar.zst", member("iomem", b"00100000-3fffffff : System RAM\n"),
               member("recording.json", b'{"clock": "x86-tsc"}'), member("trace.txt", text),
               member("xl-dmesg", b"(XEN) Detected 1000.000 MHz processor\n")).read_bytes()


def test_an_archive_cut_anywhere_is_refused_or_whole(whole: bytes, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar.zst"
    for length in range(4, len(whole), 97):
        cut.write_bytes(whole[:length])
        refused("import", cut, "-o", tmp_path / "o.arrow", naming=(cut,))
    assert not (tmp_path / "o.arrow").exists()


@pytest.fixture
def forms(whole: bytes, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """The same archive in several wrappings."""
    def form(name: str) -> Path:
        plain = pa.input_stream(str(tmp_path / "whole.tar.zst"), compression="zstd").read()
        path = tmp_path / name
        if name.endswith(".gz"):
            import gzip
            path.write_bytes(gzip.compress(plain))
        else:
            path.write_bytes(plain)
        return path
    yield form


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_a_tar_of_another_wrapping_is_the_same(forms: Callable[[str], Path], name: str,
                                               tmp_path: Path) -> None:
    for path, out in ((forms(name), "a.arrow"), (tmp_path / "whole.tar.zst", "b.arrow")):
        assert cli("import", path, "-o", tmp_path / out).code == 0
    assert load(tmp_path / "a.arrow").table.equals(load(tmp_path / "b.arrow").table)


def test_an_archive_stands_alone(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "whole.tar.zst"
    refused("import", path, path, "-o", tmp_path / "o.arrow", "--set", "cpu_hz=1",
            naming=(path, "Import it alone"))


@recordings
@pytest.mark.parametrize("name", ["x86-pvh-guests", "x86-pv-blkback"])
def test_a_packed_recording_imports_as_its_folder_does(name: str, tmp_path: Path) -> None:
    sources = ["trace.dat", "xentrace.bin.gz"]
    folder = RECORDINGS / name
    pack(folder, members(folder), tmp_path / f"{name}.tar.zst")
    packed = import_recording([tmp_path / f"{name}.tar.zst"], name, machine_dir=None, settings={},
                              probes=None)
    plain = import_recording([folder / s for s in sources], name, machine_dir=folder, settings={},
                             probes=None)
    assert packed.table.equals(plain.table)
    assert packed.meta.physmap == plain.meta.physmap
    assert [s["sha256"] for s in packed.meta.sources] == [s["sha256"] for s in plain.meta.sources]
    assert packed.meta.recorded_strategy == plain.meta.recorded_strategy
    assert "left_out" not in packed.meta.provenance
    assert [s.get("relation") for s in packed.meta.sources] == [
        s.get("relation") for s in plain.meta.sources]
