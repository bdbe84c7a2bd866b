"""`replay compare`, `replay diff` and the files of a run that they read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.api import compare_runs
from replay.base.alike import Counting, Counts
from replay.base.errors import InputError
from replay.compare.diff import diff
from replay.compare.effects import cliffs_delta, effect
from replay.compare.importance import by_importance
from replay.compare.sides import Side
from replay.metrics.catalogue import Metric, catalogue
from replay.metrics.part import whole
from replay.metrics.summary import summary
from replay.report.compared import MOST_DIFFERENCES, change
from replay.runs.columns import fill, room
from replay.runs.files import arrow_writer, outcome_table
from replay.runs.run import Run, read_run

from run_folders import change_run
from driving import ROOT, cli, refused  # isort: skip
from made_outcomes import outcome, trace  # isort: skip

LOWER = Metric(("latency_ns", "p50"), "p50", "ns", "lower", "", lambda m: None)
HIGHER = replace(LOWER, better="higher")
NEITHER = replace(LOWER, better="")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two strategies on a small shipped trace."""
    path = tmp_path_factory.mktemp("run") / "pvh"
    done = cli("run", ROOT / "traces/pvh-dom0.arrow", "--allocator", "pool", "--allocator",
               "balloon", "--out", path)
    assert done.code == 0, done.err
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize(("metric", "base", "value", "verdict", "size"), [
    (LOWER, 100, 100, "equal", "none"), (LOWER, 100, 100.5, "worse", "negligible"),
    (LOWER, 100, 95, "better", "small"), (LOWER, 100, 150, "worse", "moderate"),
    (LOWER, 100, 1000, "worse", "large"), (HIGHER, 100, 1000, "better", "large"),
    (HIGHER, 100, 95, "worse", "small"), (NEITHER, 100, 95, "differs", "small"),
    (LOWER, 0, 5, "worse", "large"), (LOWER, 5, 0, "better", "large"),
    (LOWER, None, 5, "unknown", "unknown"), (LOWER, None, None, "equal", "none"),
])
def test_effect_has_a_direction_and_a_size(metric: Metric, base: float | None, value: float | None,
                                           verdict: str, size: str) -> None:
    found = effect(metric, base, value)
    assert (found.verdict, found.size) == (verdict, size)


def counted(values: list[int]) -> Counts:
    counting = Counting()
    counting.add(np.array(values, np.int64))
    return counting.counts()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12),
       st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_cliffs_delta_is_what_counting_all_pairs_gives(a: list[int], b: list[int]) -> None:
    pairs = [(y > x) - (y < x) for x in a for y in b]
    assert cliffs_delta(counted(a), counted(b)) == pytest.approx(sum(pairs) / len(pairs))


def test_each_metric_of_the_catalogue_is_in_every_summary(folder: Path) -> None:
    run = read_run(folder)
    frame = run.metrics()
    assert frame.height == 2 * len(catalogue())
    assert len({m.name for m in catalogue()}) == len(catalogue())
    p50 = frame.filter(allocator="pool", metric="latency_ns.p50")["value"][0]
    assert p50 == run.allocators["pool"]["latency_ns"]["p50"]


def test_strategies_of_one_run_side_by_side(folder: Path) -> None:
    data = json.loads(cli("compare", folder, "--json").out)
    [table] = data["tables"]
    assert [side["allocator"] for side in table["sides"]] == ["pool", "balloon"]
    assert table["provenance"] == []
    [pair] = table["paired"]
    assert pair["faster"] + pair["slower"] + pair["equal"] == pytest.approx(1)
    rows = {row["metric"]: row for row in table["metrics"]}
    ram = rows["fragmentation.ram_given_bytes.mean"]
    assert ram["effects"][0]["verdict"] == "worse"
    text = cli("compare", folder).out
    assert "MODELLED" in text
    assert max(map(len, text.splitlines())) <= 100


def test_runs_are_compared_strategy_by_strategy_and_provenance_comes_first(
        folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "laptop"
    assert cli("run", ROOT / "traces/pvh-dom0.arrow", "--allocator", "pool", "--physmap",
               "qemu-q35-pvh", "--out", other).code == 0
    data = json.loads(cli("compare", folder, other, "--json").out)
    [table] = data["tables"]
    assert {"physmap", "machine_digest"} <= {row["name"] for row in table["provenance"]}
    text = cli("compare", folder, other).out
    assert text.index("What the runs differ in") < text.index("equal in every metric")


def test_a_trace_is_replayed_for_a_comparison(folder: Path) -> None:
    data = json.loads(cli("compare", f"{folder}:pool",
                          f"{ROOT}/traces/pvh-dom0.arrow:pool", "--json").out)
    [table] = data["tables"]
    assert table["same_frames"] == [True]
    assert {e["verdict"] for row in table["metrics"] for e in row["effects"]} == {"equal"}


def test_equal_outcomes_have_no_first_difference(folder: Path, copy: Path) -> None:
    done = cli("diff", f"{folder}:pool", f"{copy}:pool")
    assert done.code == 0
    assert "Equal in every request" in done.out


def test_diff_goes_down_to_the_first_request(folder: Path, copy: Path) -> None:
    path = copy / "outcome-pool.arrow"
    table = pa.ipc.open_file(path).read_all()
    values = table["service_ns"].to_numpy().copy()
    values[77] += 1
    values[901:903] += 5
    table = table.set_column(table.column_names.index("service_ns"), "service_ns",
                             pa.array(values))
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    done = cli("diff", f"{folder}:pool", f"{copy}:pool", "--json")
    assert done.code == 1
    data = json.loads(done.out)
    assert (data["parts_at"], data["kind"]) == (77, "answer")
    assert [(c["column"], c["request"], c["rows"]) for c in data["columns"]] == [
        ("service_ns", 77, 3)]
    assert [row["request"] for row in data["context"]] == [74, 75, 76, 77]
    assert "part at request 77" in cli("diff", f"{folder}:pool", f"{copy}:pool").out


@pytest.mark.parametrize("sizes", [(1, 2000), (7, 100), (5000, 13)])
def test_rows_are_compared_however_they_are_cut(folder: Path, copy: Path, sizes: tuple[int, int]
                                                ) -> None:
    for size, home in zip(sizes, (folder, copy), strict=True):
        path = copy / f"cut-{size}"
        path.mkdir()
        (path / "summary.json").write_bytes((home / "summary.json").read_bytes())
        table = pa.ipc.open_file(home / "outcome-pool.arrow").read_all()
        if home == copy:
            values = table["wait_ns"].to_numpy().copy()
            values[[5, 999]] += 1
            table = table.set_column(table.column_names.index("wait_ns"), "wait_ns",
                                     pa.array(values))
        with pa.ipc.new_file(path / "outcome-pool.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=size)
    one, other = (f"{copy}/cut-{size}:pool" for size in sizes)
    data = json.loads(cli("diff", one, other, "--json").out)
    assert [(c["column"], c["request"], c["rows"]) for c in data["columns"]] == [
        ("wait_ns", 5, 2)]
    assert [row["request"] for row in data["context"]] == [2, 3, 4, 5]
    [table] = json.loads(cli("compare", one, other, "--json").out)["tables"]
    assert table["paired"][0]["equal"] == 1


def made(rows: list[tuple[int, ...]], frames: list[int], pages: int = 2) -> Side:
    calls: list[tuple[Any, ...]] = [("alloc", 0, pages), ("alloc", 10, 1)]
    one, its = outcome(calls, rows, frames), trace([{"kind": "alloc", "time_ns": 0}] * 2)
    return Side("made", Run(summary([one], its), None, {"toy": outcome_table(one, its)}), "toy")


def test_diff_tells_other_frames_from_other_requests() -> None:
    rows = [(0, 5, 0, 0, 1), (0, 5, 0, 0, 1)]
    a = made(rows, [4096, 4097, 4098])
    assert diff(a, made(rows, [4096, 4097, 4098]))["equal"]
    swapped = diff(a, made(rows, [4096, 4098, 4097]))
    assert (swapped["parts_at"], swapped["kind"]) == (0, "answer")
    assert swapped["columns"][0]["column"] == "frames_hash"
    asked = diff(a, made(rows, [4096, 4097, 4098, 4099], pages=3))
    assert (asked["parts_at"], asked["kind"]) == (0, "request")
    assert [c["column"] for c in asked["columns"]] == ["nr_pages"]


def test_frames_hash_knows_order_and_place() -> None:
    def of(frames: list[int]) -> tuple[list[int], list[int]]:
        part = whole(outcome([("alloc", 0, 2), ("alloc", 1, 2)], [(0, 1, 0, 0, 1)] * 2, frames))
        made = fill(part, room(len(part)))
        return made.first_pfn.tolist(), made.frames_hash.tolist()

    pfns, base = of([10, 11, 12, 13])
    assert pfns == [10, 12]
    assert of([10, 11, 12, 13])[1] == base
    assert of([10, 11, 13, 12])[1][0] == base[0]
    assert of([10, 11, 13, 12])[1][1] != base[1]
    assert of([11, 10, 12, 13])[1][0] != base[0]
    assert of([12, 13, 12, 13])[1][0] == base[1], "the place in the request counts, not the slot"


@pytest.mark.parametrize(("damage", "said"), [
    (lambda d: d["order"].append("../../etc/passwd"), "order"),
    (lambda d: d["order"].append("ghost"), "ghost"),
    (lambda d: d["allocators"]["pool"]["latency_ns"].update(p50="fast"), "p50"),
    (lambda d: d["allocators"]["pool"]["latency_ns"].pop("p99"), "p99"),
    (lambda d: d["allocators"]["pool"]["latency_ns"].update(p50=10**300), "p50"),
    (lambda d: d.pop("run"), "run"),
    (lambda d: d["run"].update(synthetic="no"), "synthetic"),
    (lambda d: d["run"].update(costs_ns={"page_free": [1]}), "costs_ns"),
    (lambda d: d["allocators"]["pool"]["hazards"].update(thread_spins=True), "thread_spins"),
])
def test_a_summary_that_is_none_is_refused(copy: Path, damage: Any, said: str) -> None:
    path = copy / "summary.json"
    data = json.loads(path.read_text())
    damage(data)
    path.write_text(json.dumps(data))
    refused("compare", copy, naming=("summary.json", said))


@pytest.mark.parametrize("text", ["", "[", "[]", "null", "{\"run\": NaN}", "[" * 100_000])
def test_no_json_is_refused(copy: Path, text: str) -> None:
    (copy / "summary.json").write_text(text)
    refused("compare", copy, naming=("summary.json",))


def test_damaged_outcomes_are_refused(copy: Path) -> None:
    path = copy / "outcome-pool.arrow"
    data = path.read_bytes()
    for cut in (0, 7, 1000, len(data) // 2, len(data) - 3):
        path.write_bytes(data[:cut])
        refused("diff", f"{copy}:pool", f"{copy}:balloon", naming=("outcome-pool.arrow",))
    path.unlink()
    refused("diff", f"{copy}:pool", f"{copy}:balloon", naming=("outcome-pool.arrow", "missing"))


@pytest.mark.parametrize("name", ["errno", "frames_hash", "work_page_free", "task"])
def test_an_outcome_with_a_column_of_another_type_is_refused(name: str, copy: Path) -> None:
    path = copy / "outcome-pool.arrow"
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    at = table.schema.get_field_index(name)
    arrow_writer(table.set_column(at, name, pa.array(["1"] * table.num_rows)))(path)
    refused("diff", f"{copy}:pool", f"{copy}:balloon", naming=(path, name))
    arrow_writer(table.append_column(name, table[name]))(path)
    refused("diff", f"{copy}:pool", f"{copy}:balloon", naming=(path, name))


@pytest.mark.parametrize("name", ["errno", "service_ns", "frames_hash", "event"])
def test_an_outcome_without_a_number_is_refused(name: str, copy: Path) -> None:
    path = copy / "outcome-pool.arrow"
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    at = table.schema.get_field_index(name)
    values = [None, *table[name].to_pylist()[1:]]
    arrow_writer(table.set_column(at, table.schema.field(at), pa.array(
        values, table[name].type)))(path)
    refused("diff", f"{copy}:pool", f"{copy}:balloon", naming=(path, name))


def test_files_of_another_run_are_refused(copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for recorded, options in (("pv-dom0", ()), ("pvh-dom0", ("--profile", "arm64")),
                           ("pvh-dom0", ("--set", "pool.section_pages=65536"))):
        assert cli("run", ROOT / f"traces/{recorded}.arrow", "--allocator", "pool", "--out", other,
                   "--overwrite", *options).code == 0
        shutil.copy(other / "outcome-pool.arrow", copy)
        for verb in ("diff", "compare"):
            said = refused(verb, f"{copy}:pool", f"{copy}:balloon",
                           naming=(copy / "outcome-pool.arrow", "is of another run"))
    assert "strategy or its options is not the same" in said
    assert cli("run", ROOT / "traces/pvh-dom0.arrow", "--allocator", "pool", "--out", copy,
               "--overwrite").code == 0
    shutil.copy(other / "timeline-pool.json", copy)
    with pytest.raises(InputError, match="timeline-pool.json: is of another run"):
        read_run(copy).timeline("pool")


def test_an_outcome_that_does_not_say_its_run_is_refused(copy: Path) -> None:
    path = copy / "outcome-pool.arrow"
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    for said in (None, {b"replay": b"[]"}, {b"replay": b"{"}, {b"replay": b"\xff"}):
        arrow_writer(table.replace_schema_metadata(said))(path)
        refused("diff", f"{copy}:pool", f"{copy}:balloon", naming=(path, "run `replay run` again"))


def test_wrong_sides_are_refused(folder: Path, tmp_path: Path) -> None:
    refused("compare", tmp_path, naming=(tmp_path, "summary.json"))
    refused("compare", f"{folder}:pool", naming=("compared with what",))
    refused("compare", f"{folder}:lisst", f"{folder}:pool", naming=("lisst",))
    refused("diff", folder, f"{folder}:pool", naming=("which of its strategies",))
    refused("diff", tmp_path / "none.arrow", f"{folder}:pool", naming=("none.arrow",))


def test_foreign_names_stay_harmless(copy: Path) -> None:
    change_run(copy, lambda data: data["run"].update(physmap="\x1b[31mred\u202e"))
    out = cli("compare", f"{copy}:pool", f"{ROOT}/traces/pvh-dom0.arrow:pool").out
    assert "\x1b" not in out
    assert "\\x1b[31mred\\u202e" in out


def test_outcomes_carry_first_frames(folder: Path) -> None:
    rows = read_run(folder).outcome("pool")
    allocs = rows.filter(pl.col("kind").cast(pl.String) == "alloc")
    assert (allocs["first_pfn"] > 0).all()
    assert (rows.filter(pl.col("kind").cast(pl.String) == "free")["first_pfn"] == -1).all()


@pytest.mark.parametrize(("base", "value", "said"), [
    (100, 100, "equal"), (100, 130, "+30.0 %"), (100, 55, "-45.0 %"), (100, 290, "2.9 times"),
    (1, 4926, "4,900 times"), (100, 2.8, "1/36"), (0, 7, "from none"), (7, 0, "to none"),
    (1e9, 1e9 + 6, "under 0.1 %"), (None, 3, "-")])
def test_a_change_reads_as_people_say_it(base: float, value: float, said: str) -> None:
    assert change(effect(LOWER, base, value).as_dict()) == said


def row(metric: str, ratio: float | None, change_: float = 1.0, size: str = "large"
        ) -> dict[str, Any]:
    verdict = "equal" if not change_ else "worse"
    return {"metric": metric, "effects": [
        {"ratio": ratio, "change": change_, "size": size, "verdict": verdict}]}


def test_what_matters_comes_first_and_what_is_small_is_folded() -> None:
    rows = [row("latency_ns.p90", 1000.0), row("latency_ns.p99", 2.0), row("failed", None),
            row("latency_ns.mean", 0.1), row("requests", 1.0, 0.0, "none"),
            row("latency_ns.max", 1.001, size="negligible")]
    matters, small = by_importance(rows)
    assert [one["metric"] for one in matters] == [
        "failed", "latency_ns.mean", "latency_ns.p99", "latency_ns.p90"]
    assert [one["metric"] for one in small] == ["latency_ns.max"]


def test_the_verdict_names_strategies_without_the_trace_they_share(folder: Path) -> None:
    trace = f"{ROOT}/traces/pvh-dom0.arrow"
    [table] = compare_runs(f"{trace}:pool", f"{trace}:balloon").tables
    assert any(one.startswith("Fastest in the mean: pool, ") for one in table["verdict"])
    [same] = compare_runs(f"{folder}:pool", f"{trace}:pool").tables
    assert same["verdict"] == []


def test_twenty_rows_unless_all_are_asked_for() -> None:
    trace = f"{ROOT}/traces/arm64-dom0.arrow"
    short, full = (cli("compare", f"{trace}:pool", f"{trace}:balloon", *more).out
                   for more in ((), ("--all",)))
    rows = short.split("What differs, the most")[1].split("\n\n")[0].splitlines()[4:]
    assert len(rows) == MOST_DIFFERENCES
    assert "left out:" in short and "left out:" not in full
    assert "use of pinned sections" in full and "use of pinned sections" not in short
