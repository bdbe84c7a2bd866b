"""One workload written in every format imports to the same table.

The latency format cuts command names to eight characters, as lat_print_generic() does.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
from dat_files import ALLOC, BASE, FREE, PRINT, RETURN, SHAPES, VERSIONS, File, Shape

from replay.importers.session import import_recording

VMEMMAP = 0xFFFFEA0000000000
KALLSYMS = (f"{BASE:x} T xen_alloc_unpopulated_pages\n{BASE + 0x400:x} T xen_free_unpopulated_pages\n"
            f"{BASE + 0x800:x} t gnttab_alloc_pages\t[gnt]\n")
TASKS = {7: "my task", 8: "a-1 [002]", 9: "other"}
ALLOC_AT = "(xen_alloc_unpopulated_pages+0x0/0x400)"
FREE_AT = "(xen_free_unpopulated_pages+0x0/0x400)"
RETURN_AT = "(gnttab_alloc_pages+0x10/0x20 [gnt] <- xen_alloc_unpopulated_pages)"


class Event(NamedTuple):
    """time: whole microseconds, as nanoseconds, so that every form can hold it."""

    time: int
    cpu: int
    pid: int
    name: str
    values: tuple[int, ...]
    text: str = ""


def workload(seed: int) -> list[Event]:
    """Three tasks on two CPUs allocate, fail, free one or two pages, and leave marks."""
    rng, now, events, live = random.Random(seed), 5_000_000, [], list[int]()
    for _ in range(120):
        pid = rng.choice([*TASKS])
        cpu, roll = pid % 2, rng.random()

        def add(name: str, *values: int, text: str = "") -> None:
            nonlocal now
            now += 1000 * rng.randint(1, 900)
            events.append(Event(now, cpu, pid, name, values, text))  # noqa: B023

        if roll < 0.5:
            nr = rng.randint(1, 2)
            add("ua", nr, 0xFFFF888000000000 + 16 * rng.randint(1, 5))
            add("ua_ret", rng.choice([0, 0, 0, -12]))
            live += [rng.randint(0, 1 << 20) for _ in range(nr)]
        elif roll < 0.9 and len(live) > 1:
            nr = rng.randint(1, 2)
            add("uf", nr, *(VMEMMAP + 64 * live.pop() for _ in range(2)))
        else:
            add("print", text=f"PHASE {len(events)} go")
    return events


def record(shape: Shape, event: Event, delta: int) -> bytes:
    """The event in a ring buffer."""
    v = event.values
    if event.name == "ua":
        body = shape.pack("QIQQ", BASE, v[0], v[1], BASE + 0x810)
    elif event.name == "ua_ret":
        body = shape.pack("QQi", BASE, BASE + 0x810, v[0])
    elif event.name == "uf":
        body = shape.pack("QiQQI", BASE + 0x400, v[0], v[1], v[2], 4 << 16 | 40) + b"abc\0"
    else:
        body = shape.pack("Q", BASE) + event.text.encode() + b"\n\0"
    number = {"ua": ALLOC, "ua_ret": RETURN, "uf": FREE, "print": PRINT}[event.name]
    return shape.event(number, event.pid, body, delta=delta)


def dat(events: list[Event], version: int, shape: Shape, kind: str) -> bytes:
    """As a trace.dat, seven events in a sub-buffer."""
    cpus: dict[int, list[bytes]] = {}
    for cpu in (0, 1):
        mine = [e for e in events if e.cpu == cpu]
        cpus[cpu] = []
        for at in range(0, len(mine), 7):
            first, last, entries = mine[at].time, mine[at].time, []
            for event in mine[at:at + 7]:
                entries.append(record(shape, event, event.time - last))
                last = event.time
            cpus[cpu].append(shape.page(first, *entries))
    names = "".join(f"{pid} {name}\n" for pid, name in TASKS.items())
    return VERSIONS[version](File(cpus, shape, kind, kallsyms=KALLSYMS, cmdlines=names))


def rest(event: Event) -> str:
    """What follows the time in every text form."""
    v = event.values
    if event.name == "ua":
        return f"{ALLOC_AT} nr={v[0]} pages={v[1]:#x} caller=gnttab_alloc_pages+0x10/0x20 [gnt]"
    if event.name == "ua_ret":
        return f"{RETURN_AT} ret={v[0]}"
    if event.name == "uf":
        return f'{FREE_AT} n={v[0]} p={{{v[1]:#x},{v[2]:#x}}} name="abc"'
    return event.text


def _task(e: Event) -> str:
    return f"{TASKS[e.pid]:>16}-{e.pid:<7}"


def _name(e: Event) -> str:
    return "tracing_mark_write" if e.name == "print" else e.name


def _seconds(e: Event, digits: int) -> str:
    return f"{e.time // 10**9}.{e.time % 10**9 // 10**(9 - digits):0{digits}d}"


FORMS: dict[str, Callable[[Event], str]] = {
    "trace": lambda e: f"{_task(e)} [{e.cpu:03d}] ..... {_seconds(e, 6)}: {_name(e)}: {rest(e)}",
    "no irq-info": lambda e: f"{_task(e)} [{e.cpu:03d}] {_seconds(e, 6)}: {_name(e)}: {rest(e)}",
    "tgid": lambda e: (f"{_task(e)} ({e.pid:7d}) [{e.cpu:03d}] d..2. {_seconds(e, 6)}: "
                       f"{_name(e)}: {rest(e)}"),
    "counter": lambda e: f"{_task(e)} [{e.cpu:03d}] ..... {e.time}: {_name(e)}: {rest(e)}",
    "report": lambda e: (f"{TASKS[e.pid]:>16}-{e.pid:<5} [{e.cpu:03d}] {_seconds(e, 9)}: "
                         f"{e.name + ':':<20} {rest(e)}"),
    "perf": lambda e: (f"{TASKS[e.pid]:>16} {e.pid:5d} [{e.cpu:03d}] {_seconds(e, 9)}: "
                       f"{'ftrace' if e.name == 'print' else 'xr'}:{e.name}: {rest(e)}"),
}


def latency_form(e: Event) -> str:
    """trace_print_lat_context(): microseconds since the trace began."""
    return (f"{TASKS[e.pid][:8]:>8}-{e.pid:<7} {e.cpu:3d}..... {e.time // 1000:4d}us : "
            f"{_name(e)}: {rest(e)}")


def table(path: Path, data: bytes, **settings: str) -> pa.Table:
    """Imported, but for the place in the source."""
    path.write_bytes(data)
    trace = import_recording([path], "same", machine_dir=None, probes=None,
                             settings={"vmemmap_base": hex(VMEMMAP), **settings})
    assert trace.meta.accounting["skipped"] == {}
    return trace.table.drop_columns(["source_offset"])


@pytest.mark.parametrize("seed", range(3))
def test_every_format_gives_the_same_table(seed: int, tmp_path: Path) -> None:
    events = workload(seed)
    wanted = table(tmp_path / "t.dat", dat(events, 6, SHAPES["little-64"], "none"))
    assert wanted.num_rows > 80 and wanted["frames"].drop_null().to_pylist()
    for shape_name, shape in SHAPES.items():
        for version, kind in ((6, "none"), (7, "none"), (7, "zlib"), (7, "zstd")):
            got = table(tmp_path / "t.dat", dat(events, version, shape, kind))
            assert got.to_pylist() == wanted.to_pylist(), (shape_name, version, kind)
    for form, line in FORMS.items():
        body = "".join(line(event) + "\n" for event in events).encode()
        plain = b"# tracer: nop\n#\n" + body
        for packed in (plain, gzip.compress(plain),
                       pa.Codec("zstd").compress(plain, asbytes=True)):
            got = table(tmp_path / "t.txt", packed, cpu_hz="1000000000")
            assert got.to_pylist() == wanted.to_pylist(), form
    cut = {name: name[:8] for name in TASKS.values()}
    rows = [row | {"task": cut.get(row["task"], row["task"])} for row in wanted.to_pylist()]
    body = "".join(latency_form(event) + "\n" for event in events).encode()
    assert table(tmp_path / "t.txt", b"# tracer: nop\n#\n" + body).to_pylist() == rows
