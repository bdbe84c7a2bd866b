"""`import replay` and the command line give the same results, since they are the same functions."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import replay
from replay import api

from driving import ROOT, cli  # isort: skip

PVH = ROOT / "traces/pvh-dom0.arrow"
ARM = ROOT / "traces/arm64-dom0.arrow"
CASES: list[tuple[tuple[object, ...], dict[str, Any]]] = [
    ((), {}),
    (("--allocator", "pool", "--allocator", "extents"), {"allocators": ["pool", "extents"]}),
    (("--allocator", "pool", "--set", "pool.section_pages=262144"),
     {"allocators": ["pool"], "settings": {"pool.section_pages": "262144"}}),
    (("--allocator", "hotplug", "--asap", "--lock", "spin"),
     {"allocators": ["hotplug"], "loop": "asap", "lock": "spin"}),
    (("--allocator", "pool", "--closed-loop", "--time-scale", "0.5"),
     {"allocators": ["pool"], "loop": "closed", "time_scale": "0.5"}),
    (("--allocator", "pool", "--iommu", "off", "--physmap", "zynqmp", "--profile", "arm64"),
     {"allocators": ["pool"], "iommu": "off", "physmap": "zynqmp", "profile": "arm64"}),
]


@pytest.mark.parametrize(("args", "given"), CASES, ids=[" ".join(map(str, a)) for a, _ in CASES])
def test_run(args: tuple[object, ...], given: dict[str, Any], tmp_path: Path) -> None:
    printed = json.loads(cli("run", ARM, *args, "--out", tmp_path / "cli", "--json").out)
    run = replay.run_trace(ARM, **given)
    assert run.summary == printed
    files = run.save(tmp_path / "api")
    for name in files:
        assert (tmp_path / "api" / name).read_bytes() == (tmp_path / "cli" / name).read_bytes()
    again = replay.read_run(tmp_path / "cli")
    for name in run.allocators:
        assert again.outcome(name).equals(run.outcome(name))
    assert again.metrics().equals(run.metrics())


def test_a_run_in_frames() -> None:
    run = replay.run_trace(PVH, ["pool", "balloon"])
    frame = run.metrics()
    assert frame.schema == {"allocator": pl.String, "metric": pl.String, "unit": pl.String,
                            "better": pl.String, "value": pl.Float64}
    by_caller = run.latency_by("caller")
    assert set(by_caller["allocator"]) == {"pool", "balloon"}
    assert by_caller["calls"].sum() == 2 * run.allocators["pool"]["requests"]
    with pytest.raises(replay.ReplayError, match="grouping"):
        run.latency_by("colour")
    with pytest.raises(replay.ReplayError, match="ballon"):
        run.outcome("ballon")


def test_info_verify_and_synth(tmp_path: Path) -> None:
    assert json.loads(cli("info", PVH, "--json").out) == json.loads(
        json.dumps(replay.describe_trace(PVH)))
    printed = json.loads(cli("verify", PVH, "--json").out)
    parts = replay.verify_trace(replay.load_trace(PVH))
    assert printed["parts"] == json.loads(json.dumps([p.as_dict() for p in parts]))
    assert cli("synth", "-o", tmp_path / "s.arrow", "--seconds", 2, "--seed", 5).code == 0
    made = replay.synthesize("s", seed=5, seconds=2)
    assert made.table.equals(replay.load_trace(tmp_path / "s.arrow").table)


def test_compare_and_diff(tmp_path: Path) -> None:
    run = replay.run_trace(PVH, ["pool", "extents"])
    run.save(tmp_path / "pvh")
    printed = json.loads(cli("compare", tmp_path / "pvh", "--json").out)
    found = replay.compare_runs(run)
    assert json.loads(json.dumps(found.as_dict())) == printed
    assert found.metrics().height == len(printed["tables"][0]["metrics"])
    assert found.requests()["calls"].to_list() == [4184]
    sides = f"{tmp_path / 'pvh'}:pool", f"{tmp_path / 'pvh'}:extents"
    assert json.loads(cli("diff", *sides, "--json").out) == json.loads(
        json.dumps(replay.diff_runs(*sides)))


def test_costs(tmp_path: Path) -> None:
    args = ("--allocator", "pool", "--allocator", "extents", "--samples", 64)
    assert json.loads(cli("sensitivity", PVH, *args, "--json").out) == json.loads(
        json.dumps(replay.sweep_costs(PVH, ["pool", "extents"], samples=64)))
    no_regions = ROOT / "traces/arm64-dom0-no-regions.arrow"
    assert cli("calibrate", no_regions, "-o", tmp_path / "p.toml").code == 0
    (tmp_path / "api").mkdir()
    replay.calibrate_costs([no_regions], tmp_path / "api/p.toml")
    assert (tmp_path / "p.toml").read_bytes() == (tmp_path / "api/p.toml").read_bytes()
    from replay.metrics.summary import rounded

    printed = json.loads(cli("predict", no_regions, "--profile", tmp_path / "p.toml", "--json").out)
    found = replay.predict_latency(no_regions, str(tmp_path / "p.toml"))
    assert printed == json.loads(json.dumps(rounded(found.as_dict())))


def test_import(tmp_path: Path) -> None:
    head = "            prog-7     [000] .....     "
    (tmp_path / "t.txt").write_text(
        f"# tracer: nop\n{head}1.000001: xen_alloc: (xen_alloc_unpopulated_pages+0x0/0x450) nr=2 "
        f"pages=0xffff8880079977e0\n{head}1.000009: xen_alloc_ret: (gnttab_alloc_pages+0x10/0x40 "
        f"<- xen_alloc_unpopulated_pages) ret=0x0\n{head}1.000020: xen_free: "
        "(xen_free_unpopulated_pages+0x0/0x110) nr=2 pages=0xffff8880079977e0\n")
    assert cli("import", tmp_path / "t.txt", "-o", tmp_path / "cli.arrow").code == 0
    made = replay.import_trace(tmp_path / "t.txt", name="cli")
    assert made.num_rows == 2
    assert made.table.equals(replay.load_trace(tmp_path / "cli.arrow").table)
    saved = replay.import_trace(tmp_path / "t.txt", output=tmp_path / "api.arrow", name="cli")
    assert saved.table.equals(made.table)
    assert (tmp_path / "api.arrow").read_bytes() == (tmp_path / "cli.arrow").read_bytes()
    streamed = replay.import_trace(tmp_path / "t.txt", output=tmp_path / "api.arrow", name="cli",
                                   streamed=True)
    assert (streamed.num_rows, streamed.table.num_rows) == (2, 0)
    assert (tmp_path / "api.arrow").read_bytes() == (tmp_path / "cli.arrow").read_bytes()
    with pytest.raises(replay.ReplayError, match="'cli': its rows are not in memory"):
        replay.run_trace(streamed, ("pool",))
    with pytest.raises(replay.ReplayError, match="overwrite"):
        replay.import_trace(tmp_path / "t.txt", output=tmp_path / "t.txt")


def test_gate() -> None:
    config = ROOT / "gate.toml"
    printed = json.loads(cli("gate", "check", "--config", config, "--only", "pv-dom0",
                             "--json").out)
    found = replay.check_gate(config, only=["pv-dom0"])
    assert json.loads(json.dumps(found)) == printed


def test_every_function_is_documented_typed_and_exported() -> None:
    public = {name for name, value in vars(api).items()
              if inspect.isfunction(value) and value.__module__ == api.__name__
              and not name.startswith("_")} - {"check_output"}
    assert public == set(replay.__all__) - {"InputError", "ReplayError"}
    for name in public:
        function = getattr(replay, name)
        assert function.__doc__, name
        assert "return" in function.__annotations__, name
    with pytest.raises(AttributeError):
        _ = replay.no_such_name


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert (ROOT / "replay/py.typed").is_file()  # PEP 561
    assert '"py.typed"' in (ROOT / "pyproject.toml").read_text()


def test_importing_is_cheap() -> None:
    """The command line starts through the same package: nothing heavy comes with it."""
    code = ("import replay, sys; print(sorted({'numpy', 'polars', 'numba', 'pyarrow', 'scipy'}"
            " & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
