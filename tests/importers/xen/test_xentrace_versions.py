"""What each Xen from 4.13 to 4.20 writes, by an encoder: one load, one table.

The differences between them (xen/include/public/trace.h and the code that emits the records): the
layout of extents changed with 4.18, SVM's exits have numbers of their own since 4.19.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from driving import cli, refused
from naive_xentrace import rows as slow
from needs import needs_xenalyze
from xen_files import DECREASE, GRANT_MAP, GRANT_UNMAP, LOST, POD_POPULATE, POD_SPLINTER, SET_P2M, WRAP, read, record, rows, wide, window

from replay.base.errors import ReplayError
from replay.importers.xen.read import read_xentrace
from replay.physmap.readers import read_machine
from replay.trace.schema import Flag
from replay.trace.store import load

VERSIONS = [f"4.{minor}.{minor % 3}" for minor in range(13, 21)]
V2, PART, VMMCALL, VMENTRY = 0x20100D, 0x20200E, 0x82012, 0x81001
MMU_UPDATE, MEMORY_OP, MULTICALL, GRANT_TABLE_OP = 1, 12, 13, 20
COLUMNS = ("time_ns", "cpu", "kind", "domid", "nr_pages", "frames", "mfns", "value", "label",
           "latency_ns", "flags")


def minor(version: str) -> int:
    """4.17.7 -> 17."""
    return int(version.split(".")[1])


def extent(version: str, event: int, domid: int, order: int, *frames: int) -> bytes:
    """DECREASE_RESERVATION or a POD_* record as that version packs it, without a time."""
    words = [word for frame in frames for word in wide(frame)]
    tail = (domid, order) if minor(version) >= 18 else (domid | order << 16, 0xDEADBEEF)
    return record(event, *words, *tail)


def vmexit(version: str, tsc: int, *, svm: bool = False, nested: bool = False,
           rip: int = 0xFFFFFFFF81000000) -> bytes:
    """An exit of a 64-bit guest: reason and rip."""
    event = 0x81103 if svm and minor(version) >= 19 else 0x81102
    return record(event | 0x400 * nested, 0x81 if svm else 18, *wide(rip), tsc=tsc)


def pv(version: str) -> bytes:
    """A PV dom0: hypercalls with their arguments' presence bits, a multicall's parts, extents."""
    count = 1 << 20 + 2 * 1  # argument 1 is a 32-bit value
    return (window(0, record(V2, MULTICALL | count, 2, tsc=100),
                   record(PART, MMU_UPDATE | count, 7, tsc=110), record(PART, 999, tsc=120),
                   record(GRANT_MAP, 3, tsc=130), record(WRAP, 0xFFFFFFFF, 0xFFFFFFFF),
                   record(V2, MEMORY_OP, tsc=200),
                   extent(version, DECREASE, 5, 9, 0x100000000))
            + window(1, extent(version, POD_POPULATE, 5, 9, 1, 2),
                     extent(version, POD_SPLINTER, 5, 9, 3),
                     record(LOST, 40, 7 | 1 << 16, *wide(150), tsc=160),
                     record(GRANT_UNMAP, 3, tsc=190)))


PV_ROWS = [
    (0, 0, "hypercall", None, None, None, None, 13, "multicall", None, 0),
    (10, 0, "hypercall", None, None, None, None, 1, "multicall mmu_update", None, 0),
    (20, 0, "hypercall", None, None, None, None, 999, "multicall unknown", None, 0),
    (30, 0, "grant_map", 3, None, None, None, None, None, None, 0),
    (60, 1, "pod_populate", 5, 512, [1], [2], None, None, None, Flag.TIME_INFERRED),
    (60, 1, "pod_splinter", 5, 512, [3], None, None, None, None, Flag.TIME_INFERRED),
    (60, 1, "lost", 7, None, None, None, 40, None, None, 0),
    (90, 1, "grant_unmap", 3, None, None, None, None, None, None, Flag.AFTER_LOSS),
    (100, 0, "hypercall", None, None, None, None, 12, "memory_op", None, 0),
    (100, 0, "decrease_extent", 5, 512, [1 << 32], None, None, None, None, Flag.TIME_INFERRED),
]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pv_load_reads_alike_whatever_xen_wrote_it(tmp_path: Path, version: str) -> None:
    data = pv(version)
    got = read(tmp_path, data, version)
    assert rows(got, *COLUMNS) == PV_ROWS
    assert got.accounting == {"records": 13, "imported": 10, "lost": 40, "byte_order": "little",
                              "skipped": {"cpu_change": 2, "wrap_buffer": 1}}
    naive = slow(data, 10**9, minor(version) < 18)
    assert [tuple(row.get(c) for c in COLUMNS) for row in naive] == PV_ROWS


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("svm", [False, True])
def test_a_pvh_load_has_hypercalls_with_a_latency(tmp_path: Path, version: str, svm: bool) -> None:
    p2m = record(SET_P2M, *wide(0xC42C7), *wide(0x17B800), 14, 0)
    got = read(tmp_path, window(
        0, record(VMENTRY, tsc=50), vmexit(version, 100, svm=svm), record(VMMCALL, GRANT_TABLE_OP),
        p2m, record(VMENTRY, tsc=350), vmexit(version, 400, svm=svm), record(0x8200F, 0xF3),
        record(VMENTRY, tsc=450)), version)
    assert rows(got, *COLUMNS) == [
        (0, 0, "hypercall", None, None, None, None, 20, "grant_table_op", 250, Flag.TIME_INFERRED),
        (0, 0, "p2m_set", 0, 1, [0xC42C7], [0x17B800], 14, None, None, Flag.TIME_INFERRED)]
    exits = "hvm_vmexit_svm_64" if svm and minor(version) >= 19 else "hvm_vmexit_64"
    assert got.accounting["skipped"] == {"cpu_change": 1, "hvm_intr": 1, "hvm_vmentry": 3, exits: 2}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_arm_file_has_grants_domains_and_runstates(tmp_path: Path, version: str) -> None:
    data = window(0, record(0x41001, 1, tsc=62_500_000), record(GRANT_MAP, 0, tsc=62_500_001),
                  record(0x21001 | 1 << 8, 1 << 16, tsc=62_500_003), record(0x41002, 1, tsc=10**8))
    path = tmp_path / "arm.bin"
    path.write_bytes(data)
    got = read_xentrace(path, hz=62_500_000, xen_version=version, arch="arm64")
    assert (got.clock, got.hz, got.t0_raw) == ("generic counter", 62_500_000, 62_500_000)
    assert rows(got, "time_ns", "kind", "domid", "value") == [
        (0, "domain_create", 1, None), (16, "grant_map", 0, None), (48, "runstate", 1, 1 << 8),
        (600_000_000, "domain_destroy", 1, None)]


def test_the_hypercall_records_of_old_xens_are_read_too(tmp_path: Path) -> None:
    """Version 1, before 4.2: rip and eax instead of the arguments."""
    got = read(tmp_path, window(0, record(0x201001, 0xC0001000, MEMORY_OP, tsc=1),
                                record(0x201101, *wide(0xFFFF800000000000), GRANT_TABLE_OP, tsc=2),
                                record(0x201101, 1, 2, tsc=3)), None)
    assert rows(got, "value", "label") == [(12, "memory_op"), (20, "grant_table_op")]
    assert got.accounting["skipped"] == {"cpu_change": 1, "pv_hypercall_64 (odd payload)": 1}


@needs_xenalyze
def test_xenalyze_of_4_17_reads_the_old_layout_alike(tmp_path: Path) -> None:
    assert read(tmp_path, pv("4.17.0"), "4.17.0").table.num_rows == 10
    printed = subprocess.run(["xenalyze", "--dump-all", tmp_path / "x.bin"], capture_output=True,
                             text=True, check=True).stdout
    assert "decrease_reservation d5 o9 g 100000000" in printed
    assert "lost_records count 40 d7v1" in printed
    assert "grant-map domain 3" in printed


# -- the latency of a hypercall ----------------------------------------------------------------
def latencies(tmp_path: Path, *windows: bytes, hz: int = 10**9) -> list[int | None]:
    """Of each hypercall, in nanoseconds."""
    got = read(tmp_path, b"".join(windows), "4.19.0", hz)
    return [r["latency_ns"] for r in got.table.to_pylist() if r["kind"] == "hypercall"]


EXIT, CALL, ENTRY = vmexit("4.19.0", 100), record(VMMCALL, 20), record(VMENTRY, tsc=150)


@pytest.mark.parametrize(("records", "expected"), [
    ((EXIT, CALL, ENTRY), [50]),
    ((EXIT, CALL, record(GRANT_MAP, 1, tsc=120), ENTRY), [50]),
    ((CALL, ENTRY), [None]),                                        # recorded from within
    ((EXIT, CALL), [None]),                                         # recorded to within
    ((EXIT, CALL, record(LOST, 3, 0, *wide(110), tsc=140), ENTRY), [None]),
    ((EXIT, record(LOST, 3, 0, *wide(90), tsc=95), CALL, ENTRY), [None]),
    ((EXIT, CALL, ENTRY, CALL, record(VMENTRY, tsc=190)), [50, None]),  # its exit is missing
    ((EXIT, CALL, vmexit("4.19.0", 300), CALL, record(VMENTRY, tsc=310)), [None, 10]),
    ((EXIT, CALL, CALL, ENTRY), [None, 50]),                        # one exit is one call
    ((EXIT, record(VMMCALL), ENTRY), []),                           # odd payload: no row
    ((EXIT, CALL, record(VMENTRY, tsc=90)), [None]),                # time went back
    ((EXIT, CALL, record(VMENTRY)), [None]),                        # an entry without a time
    ((record(0x81102, 18, 1, 2), CALL, ENTRY), [None]),             # an exit without a time
    ((EXIT, record(V2, 12, tsc=120), ENTRY), [None]),               # a PV guest's has no bracket
    ((vmexit("4.19.0", 100, nested=True), record(0x82412, 20), record(0x81401, tsc=170)), [70]),
    ((vmexit("4.17.0", 100, nested=True, svm=True), CALL, ENTRY), [50]),
    ((vmexit("4.19.0", 100, nested=True, svm=True), CALL, ENTRY), [50]),
    ((record(0x81002, 18, 0xC0001000, tsc=100), CALL, ENTRY), [50]),  # a 32-bit guest
    ((record(0x81003, 0x81, 0xC0001000, tsc=100), CALL, ENTRY), [50]),
])
def test_latency_is_from_exit_to_entry(tmp_path: Path, records: tuple[bytes, ...],
                                       expected: list[int | None]) -> None:
    assert latencies(tmp_path, window(0, *records)) == expected


def test_latency_goes_by_cpu_and_across_windows(tmp_path: Path) -> None:
    other = window(1, record(VMENTRY, tsc=120), record(LOST, 1, 0, 0, 0, tsc=130))
    assert latencies(tmp_path, window(0, EXIT, CALL), other, window(0, ENTRY)) == [50]


def test_latency_is_scaled_exactly(tmp_path: Path) -> None:
    hz, ticks = 2_596_140_000, 2_596_140_000 * 7 + 12_345
    long = window(0, EXIT, CALL, record(VMENTRY, tsc=100 + ticks))
    assert latencies(tmp_path, long, hz=hz) == [ticks * 10**9 // hz]


# -- the frequency of the clock ----------------------------------------------------------------
IOMEM = "00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n"
XL_DMESG = "(XEN) Xen version 4.19.1 (Debian)\n(XEN) Detected 2596.141 MHz processor.\n"
XL_INFO = "release     : 6.1.0\nmachine     : x86_64\ncpu_mhz     : {}\n"
DMESG = "[    0.0] Linux version 6.1.0\n[    0.1] tsc: Detected 2596.750 MHz processor\n"


@pytest.mark.parametrize(("files", "hz", "where"), [
    ({"xl-dmesg": XL_DMESG, "xl-info": XL_INFO.format("2596.144"), "dmesg": DMESG},
     2_596_141_000, "xl-dmesg"),
    ({"xl-info": XL_INFO.format("2596.144"), "dmesg": DMESG}, 2_596_144_000, "xl-info"),
    ({"xl-info": XL_INFO.format("2596"), "dmesg": DMESG}, 2_596_750_000, "dmesg"),
    ({"dmesg": DMESG}, 2_596_750_000, "dmesg"),
    ({"xl-info": XL_INFO.format("2596")}, 2_596_000_000, "xl-info"),
    ({}, 0, "not known"),
])
def test_the_clocks_frequency_is_read_from_the_most_exact_file(
        tmp_path: Path, files: dict[str, str], hz: int, where: str) -> None:
    for name, text in {"iomem": IOMEM, **files}.items():
        (tmp_path / name).write_text(text)
    facts = read_machine(tmp_path).provenance
    assert (facts["cpu_hz"], facts["files"]["cpu_hz"]) == (hz, where)


def test_cpu_hz_is_an_option_and_outranks_the_machine(tmp_path: Path) -> None:
    source, machine, made = tmp_path / "x.bin", tmp_path / "machine", tmp_path / "t.arrow"
    source.write_bytes(window(0, record(GRANT_MAP, 1, tsc=0), record(GRANT_MAP, 1, tsc=3 * 10**9)))
    machine.mkdir()
    for name, text in {"iomem": IOMEM, "xl-dmesg": XL_DMESG}.items():
        (machine / name).write_text(text)

    def last(*options: object) -> int:
        result = cli("import", source, "-o", made, *options)
        assert result.code == 0, result.err
        trace = load(made)
        assert trace.meta.clock["hz"] == trace.meta.sources[0]["hz"]
        return trace.table["time_ns"].to_pylist()[-1]

    assert last("--cpu-hz", 3 * 10**9) == 10**9
    assert last("--set", "cpu_hz=3000000000") == 10**9
    assert last("--cpu-hz", 3 * 10**9, "--set", "cpu_hz=3000000000") == 10**9
    assert last("--machine", machine) == 3 * 10**18 // 2_596_141_000
    assert last("--machine", machine, "--cpu-hz", 10**9) == 3 * 10**9
    refused("import", source, "-o", made, "--cpu-hz", 5, "--set", "cpu_hz=6", naming=("disagree",))
    refused("import", source, "-o", made, naming=("--cpu-hz", "xl dmesg"))
    refused("import", source, "-o", made, "--cpu-hz", 0, naming=("--cpu-hz",))


def test_a_version_is_needed_only_for_extents(tmp_path: Path) -> None:
    assert read(tmp_path, window(0, EXIT, CALL, ENTRY), None).table.num_rows == 1
    with pytest.raises(ReplayError, match="pod_superpage_splinter records"):
        read(tmp_path, window(0, extent("4.17.0", POD_SPLINTER, 1, 0, 3)), None)
