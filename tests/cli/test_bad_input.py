"""Whatever is wrong with an input: one sentence, exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from driving import ROOT, cli, metadata, refused, rewrite, small
from needs import NO_MOUNT, needs_limits
from replay.base.errors import InputError
from replay.trace.schema import SCHEMA_VERSION
from replay.trace.store import Trace, load, save

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(64)
READERS = ("run", "info", "verify")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("good") / "synthetic-small.arrow")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands run in an empty folder, and a refused one leaves no results in it."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("verb", READERS)
@pytest.mark.parametrize(("content", "says"), [
    (b"", "is empty"), (PNG, "ARROW1"), (b"hello, world\n" * 10, "ARROW1"),
    (b"ARROW1", "damaged or truncated"), (b"ARROW1\0\0" + bytes(100), "damaged or truncated"),
    (b"ARROW1\0\0" + b"\xff" * 4096 + b"ARROW1", "damaged or truncated"),
])
def test_a_file_that_is_no_trace(verb: str, content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    path.write_bytes(content)
    refused(verb, path, naming=(path, says))


@pytest.mark.parametrize("verb", READERS)
def test_a_directory_and_a_missing_file(verb: str, tmp_path: Path) -> None:
    refused(verb, tmp_path, naming=(tmp_path, "is a directory"))
    refused(verb, tmp_path / "none.arrow", naming=("none.arrow", "No such file"))


def _shortest(folder: Path) -> bytes:
    """A whole trace of three rows, so that each of its bytes can be tried."""
    trace = load(small(folder / "synthetic-x.arrow", "target"))
    save(Trace(trace.table.slice(0, 3), replace(trace.meta, physmap=None)), folder / "x.arrow")
    return (folder / "x.arrow").read_bytes()


def test_truncation_at_every_byte(tmp_path: Path) -> None:
    whole = _shortest(tmp_path)
    cut = tmp_path / "cut.arrow"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut.arrow"):
            load(cut)
        if length % 499 == 0:
            refused("info", cut, naming=(cut,))


def test_truncation_of_a_shipped_trace(tmp_path: Path) -> None:
    whole = (ROOT / "traces" / "pvh-dom0.arrow").read_bytes()
    cut = tmp_path / "cut.arrow"
    for length in [*range(0, len(whole), 9973), *range(len(whole) - 40, len(whole))]:
        cut.write_bytes(whole[:length])
        refused("run", cut, naming=(cut,))


def test_flipped_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    """Whatever a damaged file says, a command ends with 0, 1 or the sentence."""
    whole = _shortest(tmp_path)
    hurt = tmp_path / "hurt.arrow"
    for at in range(8, len(whole), 23):
        hurt.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            load(hurt)
        except InputError:
            continue
        result = cli("info", hurt)
        assert result.code == 0 or result.err.startswith(f"replay: {hurt}"), (at, result)


def test_a_newer_schema(good: Path, tmp_path: Path) -> None:
    new = rewrite(good, tmp_path / "new.arrow", meta={"schema_version": SCHEMA_VERSION + 1})
    refused("run", new, naming=(new, f"schema version {SCHEMA_VERSION + 1}", "update replay"))


def test_unknown_missing_and_swapped_columns(good: Path, tmp_path: Path) -> None:
    table = load(good).table
    more = rewrite(good, tmp_path / "more.arrow",
                   table=table.append_column("surprise", pa.array([1] * len(table))))
    refused("run", more, naming=(more, "surprise"))
    less = rewrite(good, tmp_path / "less.arrow", table=table.drop_columns(["slots"]))
    refused("run", less, naming=(less, "slots"))
    swapped = rewrite(good, tmp_path / "swapped.arrow",
                      table=table.select([*table.column_names[1:], table.column_names[0]]))
    refused("run", swapped, naming=(swapped, "order"))
    text = table.set_column(0, "time_ns", pa.array(["soon"] * len(table)))
    refused("run", rewrite(good, tmp_path / "text.arrow", table=text), naming=("wrong type",))


def _at(row: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [*values[:row], value, *values[row + 1 :]]


@pytest.mark.parametrize(("column", "change", "says"), [
    ("time_ns", _at(3, -1), "row 3"), ("time_ns", _at(3, 2**53 + 1), "row 3"),
    ("time_ns", _at(3, None), "time_ns"), ("time_ns", lambda v: v[::-1], "backwards"),
    ("nr_pages", _at(0, 2**63 - 1), "nr_pages"), ("nr_pages", _at(0, -1), "nr_pages"),
    ("nr_pages", _at(0, 0), "row 0: a request of 0 pages"),
    ("nr_pages", _at(0, 2**40), "expected 1 to 2147483647"),
    ("kind", _at(0, "explode"), "explode"), ("kind", _at(0, None), "kind"),
    ("kind", _at(0, "free"), "free"),
    ("frames", _at(0, [1 << 60]), "beyond the physmap"), ("frames", _at(0, [-2]), "row 0"),
])
def test_rows_that_cannot_be(column: str, change: Any, says: str, good: Path,
                             tmp_path: Path) -> None:
    bad = rewrite(good, tmp_path / "bad.arrow", columns={column: change})
    refused("run", bad, naming=(says,))


def test_more_pages_than_an_int64_holds(good: Path, tmp_path: Path) -> None:
    table = load(good).table
    at = table.schema.get_field_index("nr_pages")
    values = pa.array([2**63, *table["nr_pages"].to_pylist()[1:]], pa.uint64())
    bad = rewrite(good, tmp_path / "bad.arrow", table=table.set_column(at, "nr_pages", values))
    refused("run", bad, naming=(bad, "wrong type"))


def _first(path: Path, kind: str) -> int:
    return [str(k) for k in load(path).table["kind"].to_pylist()].index(kind)


@pytest.mark.parametrize(("change", "says"), [
    (lambda slots: [10**9, *slots[1:]], "beyond"), (lambda slots: [-5, *slots[1:]], "beyond"),
    (lambda slots: slots[1:], "slots"), (lambda slots: [*slots[:-1], slots[0]], "freed before"),
])
def test_frees_of_what_was_never_allocated_or_twice(change: Any, says: str, good: Path,
                                                    tmp_path: Path) -> None:
    kinds = load(good).table["kind"].to_pylist()
    slots = load(good).table["slots"].to_pylist()
    row = next(r for r, s in enumerate(slots) if kinds[r] == "free" and len(s) > 1)
    bad = rewrite(good, tmp_path / "bad.arrow", columns={"slots": _at(row, change(slots[row]))})
    refused("run", bad, naming=(says,))


def test_a_free_before_its_allocation(good: Path, tmp_path: Path) -> None:
    row = _first(good, "free")
    slots = load(good).table["slots"].to_pylist()
    last = max(max(s) for s in slots if s)
    bad = rewrite(good, tmp_path / "bad.arrow",
                  columns={"slots": _at(row, [last, *slots[row][1:]])})
    refused("run", bad, naming=("before",))


@pytest.mark.parametrize("raw", [
    b"", b"not json", b"[]", b"7", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000,
    b'{"schema_version": 1}', b'{"schema_version": "one"}', b'{"schema_version": null}',
    b'{"schema_version": 1e999}',
])
def test_metadata_that_is_not_ours(raw: bytes, good: Path, tmp_path: Path) -> None:
    bad = rewrite(good, tmp_path / "bad.arrow", raw=raw)
    refused("info", bad, naming=(bad,))


@pytest.mark.parametrize("meta", [
    {"surprise": 1}, {"name": 7}, {"synthetic": "no"}, {"anomalies": {"records_lost": -1}},
    {"anomalies": {"records_lost": 1e300}}, {"anomalies": []}, {"accounting": {"lost": "many"}},
    {"accounting": 3}, {"sources": {}}, {"sources": [1]}, {"clock": []}, {"provenance": 0},
    {"provenance": {"kernel": []}}, {"description": None}, {"importer": 5}, {"options": []},
    {"physmap": 5}, {"physmap": {}}, {"physmap": []}, {"recorded_strategy": ["pool"]},
    {"accounting": {"records": {}, "imported": [], "skipped": 0, "lost": 0}},
    {"accounting": {"records": 5, "imported": 3, "skipped": {"wake": 1}, "lost": 1}},
])
def test_metadata_of_wrong_types(meta: Any, good: Path, tmp_path: Path) -> None:
    bad = rewrite(good, tmp_path / "bad.arrow", meta=meta)
    for verb in ("info", "run"):
        refused(verb, bad, naming=(bad, "metadata"))


@pytest.mark.parametrize(("field", "value"), [
    ("page_bytes", 3), ("page_bytes", 10**400), ("section_bytes", 0), ("iomem_end", -1),
    ("iomem_end", 10**30), ("pluggable", [5]), ("iomem", [{"start": 5, "end": 1, "name": "x"}]),
    ("iomem", None), ("memory", {"available": -1}), ("memory", []), ("arch", "vax"), ("mode", {}),
    ("host", [{"start": 0, "end": 1, "type": "gold"}]), ("regions", [[0, 2**70]]),
    ("page_bytes", "NaN"), ("iomem_end", float("inf")),
])
def test_a_physmap_that_cannot_be(field: str, value: Any, good: Path, tmp_path: Path) -> None:
    machine = {**metadata(good)["physmap"], field: value}
    bad = rewrite(good, tmp_path / "bad.arrow", meta={"physmap": machine})
    refused("run", bad, naming=(bad, "physmap"))


def test_a_trace_without_a_machine_or_without_calls(good: Path, tmp_path: Path) -> None:
    bare = rewrite(good, tmp_path / "bare.arrow", meta={"physmap": None})
    refused("run", bare, naming=("--physmap",))
    empty = rewrite(good, tmp_path / "empty.arrow", table=load(good).table.slice(0, 0))
    refused("run", empty, naming=("no allocator calls",))
    refused("verify", good, naming=("nothing to verify",))


HOSTILE = "\x1b[31m[bold]evil[/bold]\r\n\u202e\x00\x9b2J"


def test_hostile_text_does_not_reach_the_terminal(good: Path, tmp_path: Path) -> None:
    count = len(load(good).table)
    bad = rewrite(good, tmp_path / "bad.arrow", columns={
        "task": [HOSTILE] * count, "caller": [HOSTILE] * count},
        meta={"name": HOSTILE, "description": HOSTILE, "importer": HOSTILE,
              "provenance": {"kernel": HOSTILE, HOSTILE: HOSTILE, "emulated": HOSTILE},
              "sources": [{"file": HOSTILE, "format": HOSTILE, "bytes": 1, "sha256": HOSTILE,
                           "clock": HOSTILE, "hz": 1, "records": 1}]})
    for args in (("info", bad), ("run", bad, "--out", tmp_path / "out")):
        result = cli(*args)
        assert result.code == 0, result.err
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.out)
        assert "[bold]evil" in result.out
    assert "\x1b" not in (tmp_path / "out" / "report.txt").read_text()


@pytest.mark.parametrize(("args", "says"), [
    (("--allocator", "poool"), "'pool'"), (("--physmap", "rcar-h4"), "'rcar-h3'"),
    (("--profile", "x87"), "'x86'"), (("--set", "pool.section_page=1"), "'section_pages'"),
    (("--set", "pol.section_pages=1"), "'pool'"), (("--set", "pool.section_pages"), "KEY=VALUE"),
    (("--set", "section_pages=1"), "STRATEGY.OPTION"),
    (("--set", "pool.section_pages=many"), "whole number"),
    (("--set", "pool.section_pages=-1"), "2^40"), (("--set", "hotplug.auto_online=perhaps"), "yes"),
    (("--set", "hypervisor.mode=qery"), "'query'"), (("--allocator", "none.py"), "none.py"),
    (("--physmap", "none.toml"), "none.toml"), (("--profile", "none.toml"), "none.toml"),
    (("--allocator", "../pool"), "unknown allocator"), (("--allocator", ""), "unknown allocator"),
])
def test_names_that_do_not_exist_suggest_the_nearest(args: Any, says: str, good: Path) -> None:
    refused("run", good, *args, naming=(says,))


def test_a_strategy_file_that_cannot_be_used(good: Path, tmp_path: Path) -> None:
    for name, text, says in (
        ("syntax.py", "def (", "SyntaxError"), ("raises.py", "1 / 0", "ZeroDivisionError"),
        ("empty.py", "", "STRATEGY"), ("exits.py", "raise SystemExit(0)", "SystemExit"),
        ("same.py", "from replay.allocators.pool import STRATEGY", "already chosen"),
    ):
        (tmp_path / name).write_text(text)
        refused("run", good, "--allocator", "pool", "--allocator", tmp_path / name,
                naming=(name, says))


@pytest.mark.parametrize("option", ["--physmap", "--profile"])
@pytest.mark.parametrize("text", ["", "=", "x = 1", "[cost.lock]\nns = nan", "\x00", "a = [", "\xff"])
def test_a_machine_or_profile_file_that_cannot_be(option: str, text: str, good: Path,
                                                  tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="latin-1")
    refused("run", good, option, path, naming=(path,))
    path.unlink()
    path.mkdir()
    refused("run", good, option, path, naming=(path,))


@pytest.mark.parametrize("content", [b"", PNG, b"hello\n", b"\x17\x08\x44tracing",
                                     bytes(4096), b"\xff" * 4096])
def test_sources_that_are_no_recording(content: bytes, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out.arrow"
    source.write_bytes(content)
    refused("import", source, "-o", out, naming=(source,))
    assert not out.exists()


def test_import_settings_and_places(tmp_path: Path) -> None:
    source, out = tmp_path / "trace.txt", tmp_path / "out.arrow"
    source.write_text("# tracer: nop\n")
    refused("import", source, "-o", out, "--set", "cpu_hs=1", naming=("'cpu_hz'",))
    refused("import", source, "-o", out, "--set", "cpu_hz=fast", naming=("whole number",))
    refused("import", source, "-o", tmp_path, naming=("is a directory",))
    refused("import", source, "-o", source, naming=("overwrite",))
    refused("import", tmp_path / "none", "-o", out, naming=("none",))
    refused("import", source, "-o", out, "--machine", tmp_path / "none", naming=("none",))
    refused("import", source, "-o", out, "--probes", tmp_path / "none", naming=("none",))
    assert source.read_text() == "# tracer: nop\n"


def test_synth_refuses_what_it_cannot_make(tmp_path: Path) -> None:
    refused("synth", "-o", tmp_path / "x.arrow", "--model", "netbak", naming=("'netback'",))
    refused("synth", "-o", tmp_path / "x.arrow", "--physmap", "rcar", naming=("'rcar-h3",))
    assert cli("synth", "-o", tmp_path / "x.arrow", "--seconds", "0").code == 2
    assert not (tmp_path / "x.arrow").exists()


def test_no_permission_and_a_file_where_a_folder_should_be(good: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused("run", good, "--out", tmp_path / "file", naming=(tmp_path / "file",))
    refused("run", good, "--out", tmp_path / "file" / "sub", naming=("Not a directory",))
    refused("synth", "-o", tmp_path / "file" / "x.arrow", "--seconds", 1,
            naming=("cannot be written",))
    assert (tmp_path / "file").read_text() == "mine"
    for out in ("/proc/replay-out", "/proc/1/replay-out"):
        refused("run", good, "--out", out, naming=(out,))
        refused("synth", "-o", f"{out}/x.arrow", "--seconds", 1, naming=(out,))


@needs_limits
def test_no_write_permission_as_a_user(good: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    refused("run", good, "--out", tmp_path / "locked" / "out", naming=("Permission denied",))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip(NO_MOUNT)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills(tiny_disk: Path, good: Path, tmp_path: Path) -> None:
    before = tiny_disk / "before"
    before.write_text("mine")
    refused("synth", "-o", tiny_disk / "x.arrow", "--seconds", 5, naming=("No space left",))
    refused("run", good, "--out", tiny_disk / "out", naming=("No space left",))
    assert sorted(tiny_disk.iterdir()) == [before]


@pytest.mark.parametrize("when", [0, 1, 3])
def test_a_write_that_fails_leaves_the_old_results(when: int, good: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert cli("run", good, "--out", out, "--allocator", "pool").code == 0
    old = {p.name: p.read_bytes() for p in out.iterdir()}
    seen: list[Path] = []
    real = Path.write_text

    def fails(self: Path, *args: Any, **named: Any) -> int:
        seen.append(self)
        if len(seen) > when or when == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real(self, *args, **named)

    monkeypatch.setattr(Path, "write_text", fails)
    refused("run", good, "--out", out, "--allocator", "pool", "--profile", "arm64", "--overwrite",
            naming=(out, "No space left"))
    assert {p.name: p.read_bytes() for p in out.iterdir()} == old


def test_a_full_disk_behind_standard_output() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*_program(), "list"], stdout=full, stderr=subprocess.PIPE,
                               text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "replay: standard output cannot be written: No space left on device\n"


def test_a_reader_that_has_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([*_program(), "list"], stdout=write, stderr=subprocess.PIPE,
                           text=True, check=False)
    os.close(write)
    assert ended.stderr == ""
    assert ended.returncode == 0, "what was to be done is done"


def _program() -> list[str]:
    import sys
    return [sys.executable, "-c", "from replay.cli import main; main()"]


@pytest.mark.parametrize(("error", "code", "says"), [
    (KeyboardInterrupt(), 130, "replay: interrupted\n"), (MemoryError(), 2, "out of memory"),
    (OSError(errno.ENOSPC, "No space left on device", "x.arrow"), 2, "disk is full"),
    (ValueError("odd"), 2, "a defect of replay"),
])
def test_unexpected_ends(error: BaseException, code: int, says: str,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("replay.trace.events.open_events", fails)
    result = cli("info", "x.arrow")
    assert result.code == code
    assert says in result.err
    assert "Traceback" not in result.err
