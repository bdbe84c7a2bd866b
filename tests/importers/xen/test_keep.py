"""`--keep calls`: the rows of a Xen trace that a replay uses, and an account of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from replay.base.errors import ReplayError
from replay.base.scratch import Scratch
from replay.importers.session import import_recording
from replay.importers.xen.keep import kept, without
from replay.importers.xen.read import open_xentrace, read_xentrace
from replay.physmap import presets
from replay.trace.schema import KINDS, SCHEMA
from replay.trace.opening import imbalance
from replay.trace.store import Trace, load

from driving import cli, refused  # isort: skip
from xen_files import HZ, some_file  # isort: skip

CALLS = {"cpu_hz": str(HZ), "xen_version": "4.17.7", "keep": "calls"}
ARM, X86 = presets.load("qemu-virt-arm64"), presets.load("qemu-q35-pvh")


def names(keep: np.ndarray) -> list[str]:
    return [name for name, its in zip(KINDS, keep, strict=True) if its]


def test_grants_are_kept_where_a_replay_looks_at_them() -> None:
    assert names(kept({}, ARM)) == names(kept({"keep": "all"}, None)) == list(KINDS)
    assert names(kept(CALLS, ARM)) == ["grant_map", "grant_unmap", "lost"]
    assert names(kept(CALLS, X86)) == names(kept(CALLS, None)) == ["lost"]
    with pytest.raises(ReplayError, match=r"unknown way .* 'calsl'.* Did you mean 'calls'"):
        kept({"keep": "calsl"}, None)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("machine", [ARM, X86], ids=lambda machine: machine.name)
def test_kept_rows_are_those_of_all_and_the_others_are_named(
        tmp_path: Path, machine, backwards: bool) -> None:
    path, keep, some = tmp_path / "x.bin", kept(CALLS, machine), 0
    for seed in range(60):
        path.write_bytes(some_file(seed, backwards))
        every = read_xentrace(path, hz=HZ, xen_version="4.17.7")
        streamed = open_xentrace(path, hz=HZ, xen_version="4.17.7", keep=keep)
        assert streamed.stream is not None
        rows = pa.Table.from_batches(list(streamed.stream.batches()), SCHEMA)
        kinds = every.table["kind"].to_pylist()
        stays = [kind in names(keep) for kind in kinds]
        assert rows.to_pylist() == every.table.filter(pa.array(stays, pa.bool_())).to_pylist()
        assert streamed.stream.rows == sum(stays)
        assert {kind: f.total() for kind, f in streamed.stream.kinds.items()} == {
            kind: kinds.count(kind) for kind in set(kinds) if kind in names(keep)}
        account = streamed.accounting
        assert imbalance(account) == ""
        assert account["records"] == every.accounting["records"]
        assert {name: count for name, count in account["skipped"].items()
                if name.endswith(" (not kept)")} == {
            f"{kind} (not kept)": kinds.count(kind) for kind in set(kinds)
            if kind not in names(keep)}
        whole, scratch = without(every, keep, Scratch()), Scratch()
        assert whole.all_rows(scratch).table().to_pylist() == rows.to_pylist()
        assert (whole.accounting, whole.anomalies) == (account, streamed.anomalies)
        assert whole.ticks is not None
        assert len(whole.ticks) == len(rows)
        some += len(rows)
    assert some > 60


def test_an_import_says_what_it_did_not_keep(tmp_path: Path) -> None:
    path, out = tmp_path / "x.bin", tmp_path / "x.arrow"
    path.write_bytes(some_file(3, False))
    def imported(streamed: bool) -> Trace:
        return import_recording([path], "x", machine_dir=None, settings=CALLS, probes=None,
                                streamed=streamed)

    command = ("import", path, "-o", out, "--cpu-hz", HZ, "--set", "xen_version=4.17.7")
    run = cli(*command, "--keep", "calls")
    assert run.code == 0, run.err
    trace = load(out)
    assert trace.meta.options["keep"] == "calls"
    assert set(trace.table["kind"].to_pylist()) <= {"lost"}
    for streamed in (True, False):
        assert imported(streamed).meta.accounting == trace.meta.accounting
    for name, count in trace.meta.accounting["skipped"].items():
        assert f"skipped: {name}" in run.out
        assert f"{count:,}" in run.out
    every = []
    for more in ((), ("--keep", "all")):
        assert cli(*command, *more).code == 0
        every.append(load(out))
    assert every[0].table.equals(every[1].table)
    assert every[0].meta.accounting == every[1].meta.accounting
    refused(*command, "--keep", "none", naming=("--keep", "all, calls"))
    refused(*command, "--keep", "calls", "--set", "keep=all", naming=("--keep calls", "disagree"))
