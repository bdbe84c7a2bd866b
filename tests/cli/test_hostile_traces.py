"""Files made to hurt: each refused in a sentence by every verb alike, in bounded time and memory."""

from __future__ import annotations

import json
import resource
import struct
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from replay.base import memory
from replay.base.texts import MOST_LETTERS, cut, cut_all, cut_lines, value_of
from replay.importers.source.settings import check_settings
from replay.base.errors import ReplayError
from replay.trace import messages
from replay.trace.messages import NoMessageError, listed_messages
from replay.trace.opening import KEY
from replay.trace.store import load

from driving import ROOT, cli, metadata, refused, rewrite, small  # isort: skip

TRACE = ROOT / "traces/pvh-dom0.arrow"
READ_BY = ("info", "run", "verify", "sensitivity", "predict", "calibrate", "convert", "compare",
           "diff")


def _words(verb: str, trace: Path, folder: Path) -> list[object]:
    more: dict[str, list[object]] = {
        "run": ["--out", folder / "run", "--allocator", "pool"], "predict": ["--profile", "x86"],
        "calibrate": ["-o", folder / "costs.toml"], "convert": [folder / "new.arrow"],
        "compare": [TRACE], "diff": [f"{TRACE}:pool"], "sensitivity": ["--samples", 4]}
    named = f"{trace}:pool" if verb in ("compare", "diff") else trace
    return [verb, named, *more.get(verb, [])]


def _freed(values: list[Any], change: Any) -> list[Any]:
    """Lists of slots, the first one with another first slot."""
    at = next(k for k, slots in enumerate(values) if slots)
    return [*values[:at], [change, *values[at][1:]], *values[at + 1:]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("good") / "s.arrow", "gntdev")


@pytest.mark.parametrize("verb", READ_BY)
@pytest.mark.parametrize("slot", [10**9, -5, 1 << 62, -(1 << 63)])
def test_a_slot_that_cannot_be_is_refused_by_every_verb(verb: str, slot: int, good: Path,
                                                        tmp_path: Path) -> None:
    path = rewrite(good, tmp_path / "bad.arrow", columns={
        "slots": lambda values: _freed(values, slot)})
    refused(*_words(verb, path, tmp_path), naming=(path, "row", "slot"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.arrow"]


@pytest.mark.parametrize("verb", READ_BY)
def test_a_request_of_a_terabyte_is_refused_before_it_is_tried(verb: str, good: Path,
                                                               tmp_path: Path) -> None:
    table = load(good).table
    row = table["kind"].to_pylist().index("alloc")
    one = table.slice(row, 1)
    at = one.schema.get_field_index("nr_pages")
    huge = one.set_column(at, "nr_pages", pa.array([1 << 24], one.schema.field(at).type))
    path = rewrite(good, tmp_path / "bad.arrow", table=huge)
    begun = memory.used()
    if verb in ("info", "convert"):
        assert cli(*_words(verb, path, tmp_path)).code == 0, "it is only looked at"
    else:
        refused(*_words(verb, path, tmp_path), "--memory-limit", f"{(begun >> 20) + 600}M",
                naming=("memory",))
    assert memory.used() < begun + (700 << 20)


def test_a_request_of_a_terabyte_is_refused_before_its_pages_are_numbered(good: Path,
                                                                          tmp_path: Path) -> None:
    table = load(good).table
    one = table.slice(table["kind"].to_pylist().index("alloc"), 1)
    at = one.schema.get_field_index("nr_pages")
    path = rewrite(good, tmp_path / "bad.arrow", table=one.set_column(
        at, "nr_pages", pa.array([1 << 28], one.schema.field(at).type)))
    begun, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused("run", path, "--memory-limit", "4G", naming=(path, "268,435,456", "memory"))
    assert time.process_time() - begun < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + (100 << 10)


@pytest.mark.parametrize("verb", READ_BY)
def test_metadata_that_is_no_text_is_refused(verb: str, good: Path, tmp_path: Path) -> None:
    path, table = tmp_path / "bad.arrow", load(good).table
    said = {KEY: json.dumps(metadata(good)).encode(), b"\xff\xfe": b"x"}
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(
            sink, table.schema.with_metadata(said)) as writer:
        writer.write_table(table)
    refused(*_words(verb, path, tmp_path), naming=(path, "not UTF-8"))


@pytest.mark.parametrize("letters", ["a", "0123456789abcdef", "@a", "\r", " ", "\u202e"])
def test_a_name_without_end_takes_no_time(letters: str, good: Path, tmp_path: Path) -> None:
    long = letters * (200_000 // len(letters))

    def lengthened(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: lengthened(one) for name, one in value.items()}
        if isinstance(value, list):
            return [lengthened(one) for one in value]
        return long if isinstance(value, str) else value

    said = metadata(good)
    physmap = said["physmap"]
    for one in (*physmap["iomem"], *physmap["host"]):
        one["name"] = long
    physmap |= {"name": long, "source": long, "notes": [long]}
    meta = {"physmap": physmap, "name": long, "description": long, "sources": [{"file": long}],
            "provenance": {"kernel": long, long: long}, "options": {"emulated": long}}
    path = rewrite(good, tmp_path / "long.arrow", meta=meta, columns={
        "task": lambda values: [long for _ in values], "caller": lambda values: [long] * len(values)})
    begun = time.process_time()
    for verb in ("info", "run", "verify"):
        done = cli(*_words(verb, path, tmp_path))
        assert done.code in (0, 2), done.err
        assert "defect" not in done.err
        assert len(done.out) < 200_000
    assert time.process_time() - begun < 20


@pytest.mark.parametrize("text", ["short", "a" * 1001, '"' * 600, "\u00e9" * 3, "\ud800", "\\" * 600])
def test_texts_of_json_are_cut_whatever_its_bytes(text: str) -> None:
    for value in (text, {"a": [text, 1]}, {text: None}):
        for body in (json.dumps(value).encode(),
                     json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"),
                     json.dumps(value).encode("utf-16")):
            assert value_of(body) == cut_all(value)


def test_texts_are_cut_and_say_by_how_much() -> None:
    assert cut("a" * MOST_LETTERS) == "a" * MOST_LETTERS
    assert cut("a" * (MOST_LETTERS + 7)) == "a" * 960 + "... (47 letters more)"
    for longer in (1, 7, 10**6):
        once = cut("a" * (MOST_LETTERS + longer))
        assert len(once) <= MOST_LETTERS and cut(once) == once
    assert cut_all({"b" * 5000: ["c" * 1001, 5, None, {"d": "e"}]}) == {
        "b" * 960 + "... (4,040 letters more)": ["c" * 960 + "... (41 letters more)", 5, None,
                                                  {"d": "e"}]}
    assert cut_lines("short\n" + "x" * (1 << 15) + "\nlast").endswith("letters more)\nlast")


@pytest.mark.parametrize("setting", [
    "clock_offset_ns=10000000000000000000000", "page_bytes=0", "va_bits=-1", "phys_bits=-1",
    "phys_bits=99999", "section_bytes=0", "cpu_hz=0", "cpu_hz=1e9", "memory.low=-5",
    "memory.total=99999999999999999999", "vmemmap_base=0x10000000000000000", "nosuch=1",
    f"description={'a' * 2000}"])
def test_a_setting_that_cannot_be_is_refused_whether_it_is_used_or_not(setting: str) -> None:
    name, _, value = setting.partition("=")
    with pytest.raises(ReplayError, match=name.replace(".", r"\.")):
        check_settings({name: value})
    check_settings({"phys_bits": "46", "clock_offset_ns": "-5", "vmemmap_base": "0xffffea0000000000"})


def test_what_a_file_becomes_in_memory_stands_in_its_messages() -> None:
    for path in sorted((ROOT / "traces").glob("*.arrow")):
        with pa.OSFile(str(path)) as source:
            reader = pa.ipc.open_file(source)
            batches = [reader.get_batch(k) for k in range(reader.num_record_batches)]
        found = [m for m in listed_messages(path) if m.rows]
        assert [m.rows for m in found] == [batch.num_rows for batch in batches]
        for message, batch in zip(found, batches, strict=True):
            held = batch.get_total_buffer_size() - sum(
                column.dictionary.get_total_buffer_size() for column in batch.columns
                if pa.types.is_dictionary(column.type))
            assert message.unpacked == pytest.approx(held, rel=0.01)


def test_a_footer_that_lies_is_no_footer(good: Path, tmp_path: Path) -> None:
    whole, bad = good.read_bytes(), tmp_path / "bad.arrow"
    length = int.from_bytes(whole[-10:-6], "little")
    begin = len(whole) - 10 - length
    for at in range(begin, len(whole)):
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1:])
        try:
            found = listed_messages(bad)
        except NoMessageError:
            continue
        assert all(0 < m.at < len(whole) and m.at + m.size <= len(whole) for m in found)


def _nulls(data: bytes) -> list[int]:
    """Places of the counts of nulls in the heads of a file's batches."""
    found, at = [], messages.MAGIC_BYTES
    while at + 8 <= len(data):
        continues, length = struct.unpack_from("<Ii", data, at)
        if continues != messages.CONTINUES or length <= 0:
            break
        head = data[at + 8:at + 8 + length]
        kind, body, *_ = messages._said_by(head)
        if kind == messages.BATCH:
            batch = messages._table(head, messages._at(head, 0, "<I"), messages.HEADER_FIELD)
            nodes = messages._table(head, batch, 1)
            found += [at + 8 + nodes + 4 + 16 * k + 8
                      for k in range(messages._at(head, nodes, "<I"))]
        at += 8 + length + body
    return found


def test_a_lie_on_how_many_values_are_null_is_seen_by_every_verb(good: Path, tmp_path: Path) -> None:
    whole, path = good.read_bytes(), tmp_path / "bad.arrow"
    places, refusals = _nulls(whole), 0
    assert len(places) > 20
    for place in places:
        (nulls,) = struct.unpack_from("<q", whole, place)
        said = nulls - 1 if nulls else 1
        path.write_bytes(whole[:place] + struct.pack("<q", said) + whole[place + 8:])
        ended = {verb: cli(*_words(verb, path, tmp_path)).code for verb in ("info", "run")}
        assert len(set(ended.values())) == 1, (place, nulls, said, ended)
        refusals += ended["run"] == 2
    assert refusals > len(places) // 2
