"""Frames of recordings whose struct pages begin elsewhere; one fact per case."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.base.errors import ReplayError
from replay.base.units import GIB, KIB
from replay.importers.session import import_recording
from replay.physmap.vmemmap import LAYOUTS, Layout, arm64_base, arm64_start
from replay.trace.store import Trace

BEFORE_5_4, FROM_5_4, FROM_5_11, FROM_6_9 = LAYOUTS
DRAM = 3 * GIB
IOMEM = "c0000000-ffffffff : System RAM\n100000000-13fffffff : System RAM\n"
LINE = "{:>16}-7     [000] ..... {}: {}: ({}+0x0/0x40) {}\n"


def base_of(layout: Layout, kib: int = 4, va_bits: int = 48) -> int:
    """The address of frame 0's struct page of a dom0 that begins at DRAM."""
    return arm64_base(arm64_start(layout, kib * KIB, va_bits), DRAM, kib * KIB)


def imported(tmp_path: Path, base: int, *, kib: int = 4, files: dict[str, str] | None = None,
             frames: tuple[int, ...] = (), iomem: str = IOMEM, arch: str = "arm64", also: str = "",
             **settings: str) -> Trace:
    """A recording of two frees of dom0's second and last page, by their struct pages."""
    folder = tmp_path / "machine"
    folder.mkdir(exist_ok=True)
    for name, text in {"iomem": iomem, **(files or {})}.items():
        (folder / name).write_text(text)
    frames = frames or frames_of(kib)
    text = "".join(LINE.format("task", 10 + k, "xen_free1", "xen_free_unpopulated_pages",
                               f"nr=1 p={base + 64 * frame:#x}{also}") for k, frame in enumerate(frames))
    (tmp_path / "trace.txt").write_text(text)
    return import_recording([tmp_path / "trace.txt"], "t", machine_dir=folder,
                            settings={"cpu_hz": "1000000000", "arch": arch, **settings},
                            probes=None)


def frames_of(kib: int) -> tuple[int, int]:
    """dom0's second and last frame."""
    return DRAM // (kib * KIB) + 1, 5 * GIB // (kib * KIB) - 1


def freed(trace: Trace) -> list[int]:
    """The frames of all frees."""
    return [f for row in trace.table.to_pylist() if row["kind"] == "free" for f in row["frames"] or ()]


@pytest.mark.parametrize(("kernel", "layout"), [
    ("4.19.0", BEFORE_5_4), ("5.4.0-1", FROM_5_4), ("5.10.262", FROM_5_4), ("5.15.0", FROM_5_11),
    ("6.1.192", FROM_5_11), ("6.12.118", FROM_6_9), ("7.3.4", FROM_6_9)])
@pytest.mark.parametrize(("kib", "va_bits"), [(4, 48), (4, 39), (16, 47), (64, 48), (64, 42)])
def test_frames_are_right_on_every_kernel(tmp_path: Path, kernel: str, layout: Layout, kib: int,
                                          va_bits: int) -> None:
    trace = imported(tmp_path, base_of(layout, kib, va_bits), kib=kib, kernel=kernel,
                     page_bytes=str(kib * KIB))
    assert freed(trace) == [*frames_of(kib)]
    assert f"{va_bits} bits" in trace.meta.provenance["struct_pages"]


def test_bits_that_no_file_says_are_found_and_change_what_can_be_mapped(tmp_path: Path) -> None:
    trace = imported(tmp_path, base_of(FROM_6_9, va_bits=39), kernel="6.12.1")
    assert trace.meta.provenance["va_bits"] == "39"
    assert trace.meta.physmap is not None
    assert trace.meta.physmap.pluggable == (DRAM, DRAM + (1 << 38))
    assert not [f for f in trace.meta.physmap.assumed if f.startswith("va_bits")]
    large = imported(tmp_path, base_of(FROM_6_9, va_bits=52), kernel="6.12.1")
    assert large.meta.physmap is not None
    assert large.meta.physmap.pluggable == (DRAM, 1 << 48)


def test_a_kernel_that_no_file_names_is_found_where_one_base_fits(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        trace = imported(tmp_path, base_of(layout))
        assert freed(trace) == [*frames_of(4)]
        assert layout.said in trace.meta.provenance["struct_pages"]


def test_a_kernel_that_several_bases_fit_is_asked_for(tmp_path: Path) -> None:
    """5.4's and 6.9's arrays begin 1,022 MiB apart, the struct pages of 64 GiB."""
    iomem = "c0000000-3fffffffff : System RAM\n"
    with pytest.raises(ReplayError, match=r"5\.4 to 5\.10 .* or in Linux 6\.9 or later .*"
                                          r"--set kernel"):
        imported(tmp_path, base_of(FROM_5_4), iomem=iomem)
    trace = imported(tmp_path, base_of(FROM_5_4), iomem=iomem, kernel="5.10.0")
    assert freed(trace) == [*frames_of(4)]


def test_a_kernel_that_the_addresses_contradict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"Linux 6\.9 or later \(6\.12\.1\) with 4 KiB pages "
                                          r"these are no memory.*They would fit Linux 5\.11 to"):
        imported(tmp_path, base_of(FROM_5_11), kernel="6.12.1")
    with pytest.raises(ReplayError, match=r"fit Linux 6\.9 or later with 16 KiB pages and 47"):
        imported(tmp_path, base_of(FROM_6_9, 16, 47), kib=16, kernel="6.12.1")
    with pytest.raises(ReplayError, match=r"fit Linux 6\.9 or later with 4 KiB pages and 48"):
        imported(tmp_path, base_of(FROM_6_9), kernel="6.12.1", page_bytes="65536")


def test_an_array_that_was_moved_at_random_is_refused(tmp_path: Path) -> None:
    moved = base_of(FROM_5_11) + (90 << 30)
    with pytest.raises(ReplayError, match=r"KASLR.*--set vmemmap_base=ADDRESS"):
        imported(tmp_path, moved, kernel="6.1.0")
    assert freed(imported(tmp_path, moved, kernel="6.1.0", vmemmap_base=hex(moved))) == [
        *frames_of(4)]


@pytest.mark.parametrize("moved", [0, 2 * GIB, 5 * GIB, (1 << 46) + GIB])
def test_a_probe_may_say_where_the_linear_map_begins(tmp_path: Path, moved: int) -> None:
    """What can be mapped begins there as well: below 0 it counts as 0, its end is as low."""
    memstart = DRAM - moved
    base = arm64_base(arm64_start(FROM_5_11, 4 * KIB, 48), memstart, 4 * KIB)
    trace = imported(tmp_path, base, kernel="6.1.0",
                     also=f" memstart_addr={memstart % (1 << 64):#x}")
    assert freed(trace) == [*frames_of(4)]
    machine = trace.meta.physmap
    assert machine is not None
    assert machine.pluggable == (max(0, memstart), memstart + (1 << 47))
    assert trace.meta.provenance["memstart_addr"] == f"{memstart:#x}"
    assert not [note for note in machine.notes if note.startswith("kaslr: ")]
    assert any(f"by memstart_addr ({memstart:#x})" in note for note in machine.notes)


def test_a_large_kernels_memstart_tells_frames_and_not_what_can_be_mapped(tmp_path: Path) -> None:
    """On a processor of 48 bits it is lower by what the two differ in (arm64_memblock_init())."""
    memstart = DRAM - ((1 << 52) - (1 << 48))
    base = arm64_base(arm64_start(FROM_6_9, 4 * KIB, 52), memstart, 4 * KIB)
    trace = imported(tmp_path, base, kernel="6.12.1",
                     also=f" memstart_addr={memstart % (1 << 64):#x}")
    assert freed(trace) == [*frames_of(4)]
    assert trace.meta.physmap is not None
    assert trace.meta.physmap.pluggable[0] == DRAM


def test_an_odd_word_among_many_addresses_is_no_reason(tmp_path: Path) -> None:
    first = DRAM >> 12
    trace = imported(tmp_path, base_of(FROM_6_9), kernel="6.12.1",
                     frames=(*range(first, first + 150), (1 << 40) + 5))
    assert freed(trace)[:150] == [*range(first, first + 150)]


def test_a_recording_without_struct_pages_needs_no_base(tmp_path: Path) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    (folder / "iomem").write_text(IOMEM)
    (tmp_path / "t.txt").write_text(LINE.format("task", 1, "a", "xen_alloc_unpopulated_pages",
                                                "nr=1"))
    trace = import_recording([tmp_path / "t.txt"], "t", machine_dir=folder, probes=None,
                             settings={"cpu_hz": "1000000000", "arch": "arm64"})
    assert "struct_pages" not in trace.meta.provenance


@pytest.mark.parametrize(("base", "said"), [(0xFFFFEA0000000000, None),
                                            (0xFFD4000000000000, "5 levels")])
def test_x86_has_two_bases(tmp_path: Path, base: int, said: str | None) -> None:
    trace = imported(tmp_path, base, arch="x86")
    assert freed(trace) == [*frames_of(4)]
    assert (said or "no") in trace.meta.provenance.get("struct_pages", "no")


def test_x86_with_kaslr_is_refused(tmp_path: Path) -> None:
    for base in (0xFFFFEAC340000000, 0xFFFFFA1240000000):
        with pytest.raises(ReplayError, match="without KASLR.*vmemmap_base=ADDRESS"):
            imported(tmp_path, base, arch="x86")


@pytest.mark.parametrize(("files", "bits", "page"), [
    ({"config": "CONFIG_ARM64_VA_BITS=39\n"}, 39, 4096),
    ({"config": "CONFIG_ARM64_VA_BITS=52\n",
      "dmesg": "CPU features: detected: 52-bit Virtual Addressing (LPA2)\n"}, 52, 4096),
    ({"dmesg": "CPU features: detected: 52-bit Virtual Addressing for KVM (LPA2)\n"}, 48, 4096),
    ({"dmesg": "Dentry cache hash table entries: 131072 (order: 6, 1048576 bytes, linear)\n"},
     48, 16384),
    ({"dmesg": "futex hash table entries: 256 (order: -4, 4096 bytes, linear)\n"}, 48, 65536)])
def test_files_that_tell_bits_and_pages(tmp_path: Path, files: dict[str, str], bits: int,
                                        page: int) -> None:
    trace = imported(tmp_path, base_of(FROM_6_9, page // KIB, bits), kib=page // KIB, files=files,
                     kernel="6.12.1")
    assert freed(trace) == [*frames_of(page // KIB)]
    assert trace.meta.physmap is not None
    assert (trace.meta.provenance["va_bits"], trace.meta.physmap.page_bytes) == (str(bits), page)


def test_bits_that_no_kernel_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"va_bits is 47, expected one of 39, 48, 52 with 4 KiB"):
        imported(tmp_path, base_of(FROM_6_9), va_bits="47")
    with pytest.raises(ReplayError, match="page_bytes is 16384, expected 4096"):
        imported(tmp_path, base_of(FROM_6_9), arch="x86", page_bytes="16384")


def test_a_kernel_of_large_pages_counts_sections_and_extents_in_them(tmp_path: Path) -> None:
    """Ranges are in bytes, or frames; a hypercall names Xen's frames, of 4 KiB."""
    folder, base = tmp_path / "machine", base_of(FROM_6_9, 64)
    folder.mkdir()
    (folder / "iomem").write_text(IOMEM)
    lines = [("xen_free1", "xen_free_unpopulated_pages", f"nr=1 p={base + 64 * 0xC001:#x}"),
             ("memremap", "memremap_pages", "start=0x140000000 end=0x15fffffff"),
             ("add_pages", "add_pages", "start_pfn=0x16000 nr_pages=8192"),
             ("resdec", "xenmem_reservation_decrease", "count=1 frame0=0xd0010")]
    (tmp_path / "t.txt").write_text("".join(
        LINE.format("task", 10 + k, *one) for k, one in enumerate(lines)))
    trace = import_recording([tmp_path / "t.txt"], "t", machine_dir=folder, probes=None, settings={
        "cpu_hz": "1000000000", "arch": "arm64", "page_bytes": "65536", "kernel": "6.12.1"})
    rows = trace.table.to_pylist()
    assert [(r["start_pfn"], r["nr_pages"]) for r in rows if r["kind"] == "section"] == [
        (0x14000, 8192), (0x16000, 8192)]
    assert [r["frames"] for r in rows if r["kind"] == "decrease"] == [[0xD001]]
