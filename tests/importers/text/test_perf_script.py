"""perf script of recordings by `perf probe`, and notices of losses in text of any tracer."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.importers.session import import_recording
from replay.trace.columns import ints, is_kind

from driving import cli  # isort: skip

# -- plain `perf probe` --------------------------------------------------------------------------
PERF = """\
xl  1201 [001]   100.000000: probe:{f}: (ffffffff815c0f20) nr=16 pages=0xffff888010000000
\tffffffff815c0f21 {f}+0x1 ([kernel.kallsyms])
\tffffffffc0a1103e alloc_empty_pages+0x2e ([xen_privcmd])
\t    7f12a1b2c3d4 __ioctl+0x14 (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t    7f12a1b2c3d4 [unknown] (inlined)

xl  1201 [001]   100.000050: probe:{r}: (ffffffffc0a1103e <- ffffffff815c0f20) ret=0

xl  1201 [001]   100.001000: probe:{g}: (ffffffff815c1000) nr=16 pages=0xffff888010000000
"""


@pytest.mark.parametrize(("entry", "back", "free"), [
    ("xen_alloc_unpopulated_pages", "xen_alloc_unpopulated_pages__return",
     "xen_free_unpopulated_pages"),
    ("xen_alloc_unpopulated_pages__entry", "xen_alloc_unpopulated_pages__exit",
     "xen_free_unpopulated_pages__entry"),
    ("p_xen_alloc_ballooned_pages_0", "r_xen_alloc_ballooned_pages_0",
     "p_xen_free_ballooned_pages_0"),
    ("alloc_xenballooned_pages", "alloc_xenballooned_pages__return", "free_xenballooned_pages"),
])
def test_default_names_of_probes(tmp_path: Path, entry: str, back: str, free: str) -> None:
    path = tmp_path / "perf.txt"
    path.write_text(PERF.format(f=entry, r=back, g=free))
    trace = import_recording([path], "t", machine_dir=None, settings={}, probes=None)
    assert (is_kind(trace.table, "alloc").sum(), is_kind(trace.table, "free").sum()) == (1, 1)
    assert ints(trace.table, "latency_ns")[is_kind(trace.table, "alloc")].tolist() == [50_000]
    assert trace.meta.accounting["imported"] == 3
    assert "lines_unmatched" not in trace.meta.anomalies


def test_a_return_value_without_a_name(tmp_path: Path) -> None:
    # perf probe 'xen_alloc_unpopulated_pages%return $retval'
    path = tmp_path / "perf.txt"
    path.write_text(PERF.format(f="xen_alloc_unpopulated_pages",
                                r="xen_alloc_unpopulated_pages__return",
                                g="xen_free_unpopulated_pages").replace(
                                    "ret=0", "arg1=0xfffffffffffffff4"))
    trace = import_recording([path], "t", machine_dir=None, settings={}, probes=None)
    assert ints(trace.table, "errno")[is_kind(trace.table, "alloc")].tolist() == [-12]


# -- losses of unknown number --------------------------------------------------------------------
@pytest.mark.parametrize(("notice", "number"), [
    ("CPU:1 [LOST EVENTS]", "an unknown number of"),
    ("CPU:1 [EVENTS DROPPED]", "an unknown number of"),
    ("CPU:1 [LOST 12 EVENTS]", "12"), ("CPU:1 [12 EVENTS DROPPED]", "12"),
    ("xl  1201 [001]   100.000020: PERF_RECORD_LOST lost 12", "12"),
    ("xl  1201 [001]   100.000020: PERF_RECORD_LOST_SAMPLES", "an unknown number of"),
    ("Processed 1201 events and lost 3 chunks!", "an unknown number of")])
def test_every_notice_of_a_loss_is_data_loss(tmp_path: Path, notice: str, number: str) -> None:
    lines = PERF.format(f="xen_alloc_unpopulated_pages", r="xen_alloc_unpopulated_pages__return",
                        g="xen_free_unpopulated_pages").splitlines(keepends=True)
    path, trace = tmp_path / "perf.txt", tmp_path / "t.arrow"
    path.write_text("".join([*lines[:6], notice + "\n", *lines[6:]]))
    assert cli("import", path, "-o", trace).code == 0
    said = cli("info", trace).out
    assert f"DATA LOSS: {number} records lost" in said
    assert "lines unmatched" not in said
    ran = cli("run", trace, "--physmap", "qemu-q35-pvh", "--out", tmp_path / "out")
    assert "DATA LOSS" in ran.out
