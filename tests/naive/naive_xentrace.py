"""The slow reading of an xentrace file: one record after the other, then a sort. An oracle.

It shares nothing with the importer: names and numbers of hypercalls are written out from
xen/include/public/xen.h (__HYPERVISOR_*), by number where the header numbers them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

GRANTS = {0x10F001: "grant_map", 0x10F002: "grant_unmap", 0x10F003: "grant_transfer",
          0x41001: "domain_create", 0x41002: "domain_destroy"}
EXTENTS = {0x10F005: ("decrease_extent", 4), 0x10F010: ("pod_populate", 6),
           0x10F011: ("pod_reclaim", 6), 0x10F012: ("pod_splinter", 4)}
NUMBER_IN = {0x20100D: 0, 0x20200E: 0, 0x201001: 1, 0x201101: 2, 0x82012: 0, 0x82412: 0}
EXITS = {0x81002, 0x81102, 0x81003, 0x81103, 0x81402, 0x81502, 0x81403, 0x81503}
ENTRIES = {0x81001, 0x81401}
CALLS = {
    0: "set_trap_table", 1: "mmu_update", 2: "set_gdt", 3: "stack_switch", 4: "set_callbacks",
    5: "fpu_taskswitch", 6: "sched_op_compat", 7: "platform_op", 8: "set_debugreg",
    9: "get_debugreg", 10: "update_descriptor", 12: "memory_op", 13: "multicall",
    14: "update_va_mapping", 15: "set_timer_op", 16: "event_channel_op_compat",
    17: "xen_version", 18: "console_io", 19: "physdev_op_compat", 20: "grant_table_op",
    21: "vm_assist", 22: "update_va_mapping_otherdomain", 23: "iret", 24: "vcpu_op",
    25: "set_segment_base", 26: "mmuext_op", 27: "xsm_op", 28: "nmi_op", 29: "sched_op",
    30: "callback_op", 31: "xenoprof_op", 32: "event_channel_op", 33: "physdev_op",
    34: "hvm_op", 35: "sysctl", 36: "domctl", 37: "kexec_op", 38: "tmem_op", 39: "argo_op",
    40: "xenpmu_op", 41: "dm_op", 42: "hypfs_op",
    11: "op 11",  # not assigned
}


@dataclass
class Record:
    """One record; time: its own, or the one it inherits."""

    at: int
    cpu: int
    event: int
    timed: bool
    time: int
    words: tuple[int, ...]
    window: int


def records(data: bytes) -> list[Record]:
    """Every record but CPU_CHANGE, in the order of the file; its last window may be short."""
    found: list[Record] = []
    at, window = 0, 0
    while at + 12 <= len(data):
        _, cpu, size = struct.unpack_from("<III", data, at)
        at += 12
        end = at + size
        while at + 4 <= min(end, len(data)):
            head, = struct.unpack_from("<I", data, at)
            timed, extra = head >> 31, head >> 28 & 7
            length = 4 + 8 * timed + 4 * extra
            if at + length > len(data):
                break
            time = struct.unpack_from("<Q", data, at + 4)[0] if timed else -1
            words = struct.unpack_from(f"<{extra}I", data, at + 4 + 8 * timed)
            found.append(Record(at, cpu, head & 0xFFFFFFF, bool(timed), time, words, window))
            at += length
        at, window = end, window + 1
    _inherit(found)
    return found


def _inherit(found: list[Record]) -> None:
    first: dict[int, int] = {}
    for r in found:
        if r.timed:
            first.setdefault(r.cpu, r.time)
    least = min((r.time for r in found if r.timed), default=0)
    last: dict[int, int] = {}
    for r in found:
        if r.timed:
            last[r.cpu] = r.time
        else:
            r.time = last.get(r.cpu, first.get(r.cpu, least))


def _wide(low: int, high: int) -> int:
    return struct.unpack("<q", struct.pack("<II", low, high))[0]


def meaning(r: Record, old: bool) -> dict[str, Any] | None:
    """The columns of a record's own kind, or None if it makes no row. old: before Xen 4.18."""
    w = r.words
    if r.event in GRANTS and w:
        return {"kind": GRANTS[r.event], "domid": w[0] & 0xFFFF}
    if r.event == 0x10F004 and len(w) >= 6:
        domid, order, value = w[5] & 0xFFFF, w[5] >> 16, {"value": w[4]}
        kind, mfns = "p2m_set", True
    elif r.event in EXTENTS and len(w) >= EXTENTS[r.event][1]:
        kind, needs = EXTENTS[r.event]
        packed = w[needs - 2]
        domid, order = packed & 0xFFFF, packed >> 16 if old else w[needs - 1]
        value, mfns = {}, needs == 6
    elif r.event in NUMBER_IN and len(w) > NUMBER_IN[r.event]:
        number = w[NUMBER_IN[r.event]]
        if r.event in (0x20100D, 0x20200E):
            number &= 0xFFFFF
        part = "multicall " if r.event == 0x20200E else ""
        return {"kind": "hypercall", "value": number,
                "label": part + CALLS.get(number, "unknown")}
    elif r.event & 0xFFFF00F == 0x21001 and w:
        return {"kind": "runstate", "domid": w[0] >> 16, "value":
                (w[0] & 0xFFFF) << 16 | (r.event >> 8 & 3) << 8 | r.event >> 4 & 3}
    elif r.event == 0x1F001 and len(w) >= 2:
        return {"kind": "lost", "value": w[0], "domid": w[1] & 0xFFFF}
    else:
        return None
    frame = _wide(w[0], w[1])
    if order > 40 or frame not in range(1 << 40):
        return None
    return {"kind": kind, "domid": domid, "nr_pages": 1 << order, "frames": [frame],
            "start_pfn": frame, **value, **({"mfns": [_wide(w[2], w[3])]} if mfns else {})}


def rows(data: bytes, hz: int, old: bool) -> list[dict[str, Any]]:
    """All rows of a file, in the order of time, then of the file; None where nothing is known."""
    found, after_loss = [], {}
    exits: dict[int, int | None] = {}
    calls: dict[int, dict[str, Any] | None] = {}
    for r in records(data):
        row = meaning(r, old)
        if row is not None:
            flags = 0 if r.timed else 1
            if row["kind"] == "lost":
                after_loss[r.cpu] = True
            elif after_loss.pop(r.cpu, False):
                flags |= 8
            row |= {"cpu": r.cpu, "flags": flags, "source_offset": r.at, "ticks": r.time}
            found.append(row)
        if r.event in EXITS:
            exits[r.cpu], calls[r.cpu] = r.time if r.timed else None, None
        elif r.event in (0x82012, 0x82412):
            calls[r.cpu] = row
        elif r.event in ENTRIES or r.event == 0x1F001:
            start, call = exits.pop(r.cpu, None), calls.pop(r.cpu, None)
            if (r.event in ENTRIES and r.timed and call and start is not None
                    and r.time >= start):
                call["latency_ns"] = (r.time - start) * 10**9 // hz
    found.sort(key=lambda row: (row["ticks"], row["source_offset"]))
    for row in found:
        row["time_ns"] = (row["ticks"] - found[0]["ticks"]) * 10**9 // hz
    return found
