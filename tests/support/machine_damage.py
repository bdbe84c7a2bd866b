"""Seeded damage to the folders of machines that imports read: by line, word, number and byte."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path

from replay.physmap import presets
from replay.physmap.folder import MACHINE_FILES

from import_corpus import text_inputs  # isort: skip
from mutations import by_byte, edge  # isort: skip
from recordings import RECORDINGS  # isort: skip

Random = random.Random
MOST_BYTES, MOST_LINES = 20_000, 300
FORMS = 7
"""Of ftrace text, a few lines of each."""
WORDS = ("", "-", "System RAM", "managed", "Node 0, zone   Normal", "0x", "[mem 0x", "usable", "reserved",
         "\x00", "\u202e", "  ", "(XEN) ", "[    0.000000] ", "BIOS-e820: ", "ffffffffffffffff-0 : x",
         "0-ffffffffffffffff : System RAM", "spanned", "MemTotal:", "kB", "%", "Xen Scratch", "a" * 3000)
E820 = "\n".join(f"[    0.000000] BIOS-e820: [mem 0x{a:016x}-0x{b:016x}] {what}" for a, b, what in (
    (0, 0x9FBFF, "usable"), (0x9FC00, 0xFFFFF, "reserved"), (0x100000, 0x3FFFFFFF, "usable"),
    (0xFEFFC000, 0xFEFFFFFF, "reserved")))
MADE = {
    "dmesg": f"[    0.000000] Linux version 6.1.0-18-amd64 (gcc 12) #1 SMP\n{E820}\n"
             "[    0.000000] Booting paravirtualized kernel on Xen PVH\n"
             "[    0.000000] tsc: Detected 2596.140 MHz processor\n",
    "xl-dmesg": "(XEN) Xen version 4.17.3 (Debian 4.17.3) (gcc 12)\n(XEN) Xen-e820 RAM map:\n"
                "(XEN)  [0000000000000000, 000000000009fbff] (usable)\n"
                "(XEN)  [0000000000100000, 000000007ffdefff] (usable)\n"
                "(XEN) System RAM: 2047MB (2096632kB)\n(XEN) Detected 2596.140 MHz processor.\n",
    "before/xl-info": "release : 6.1.0\nnr_cpus : 2\ntotal_memory : 2047\nfree_memory : 900\n"
                      "xen_major : 4\nxen_minor : 17\nxen_extra : .3\nxen_version : 4.17.3\n"
                      "xen_caps : xen-3.0-x86_64 hvm-3.0-x86_64\nvirt_caps : pv hvm hap\n",
    "before/meminfo": "MemTotal:         994304 kB\nMemFree:          700000 kB\n"
                      "DirectMap4k:  30000 kB\n",
    "before/zoneinfo": "Node 0, zone      DMA\n  pages free     3840\n        spanned  4095\n"
                       "        present  3999\n        managed  3840\nNode 0, zone   Normal\n"
                       "  pages free     200000\n        spanned  258048\n        present  258048\n"
                       "        managed  244736\n  start_pfn:           4096\n",
    "before/xen_balloon": "current_kb:1048576\nlow_kb:0\nhigh_kb:0\ntarget_kb:1048576\n",
    "cpuinfo": "processor : 0\nflags : fpu xsave\naddress sizes : 40 bits physical, 48 bits virtual\n",
    "uname": "Linux dom0 6.1.0-18-amd64 #1 SMP x86_64 GNU/Linux\n", "guest_type": "PVH\n",
    "xen-config": "CONFIG_XEN_UNPOPULATED_ALLOC=y\nCONFIG_XEN_BALLOON_MEMORY_HOTPLUG=y\n",
    "cmdline": "console=hvc0 root=/dev/xvda1\n", "xen-features": "4: auto_translated_physmap\n"}
DEVICE_TREE = bytes.fromhex("0000000040000000000000000100000000000000700000000000000010000000")
Files = dict[str, bytes]


def _iomem(name: str) -> bytes:
    machine = presets.load(name)
    return "".join(f"{r.start:08x}-{r.end - 1:08x} : {r.name}\n" for r in machine.iomem).encode()


@cache
def machines() -> tuple[Files, ...]:
    """Folders of machines by file: made ones, and those of the recordings where these are."""
    made = {name: text.encode() for name, text in MADE.items()}
    found = [{**made, "before/iomem": _iomem("qemu-q35-pvh")},
             {"before/iomem": _iomem("qemu-virt-arm64"), "uname": b"Linux d 6.1.0 #1 SMP aarch64\n",
              "before/xl-info": made["before/xl-info"], "dt/reg": DEVICE_TREE,
              "xl-dmesg": b"(XEN) Xen version 4.17.3\n(XEN) BANK[0] 0x00000040000000-"
                          b"0x0000007fffffff (1024MB)\n"}]
    names = [name for one in MACHINE_FILES.values() for name in one]
    for folder in sorted(RECORDINGS.glob("*")) if RECORDINGS.is_dir() else []:
        files = {name: _cut((folder / name).read_bytes()) for name in names
                 if (folder / name).is_file()}
        if files:
            found.append(files)
    return tuple(found)


def _cut(data: bytes) -> bytes:
    lines = data[:MOST_BYTES].splitlines(keepends=True)
    return b"".join(lines[:MOST_LINES])


def damaged_machine(rng: Random, folder: Path) -> None:
    """Write a machine's folder with some of its files damaged, missing, or of another machine."""
    files = dict(rng.choice(machines()))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        name = rng.choice(list(files))
        kind = rng.randrange(12)
        if kind == 0 and len(files) > 1:
            del files[name]
        elif kind == 1:
            other = rng.choice(machines())
            files[name] = other.get(name, rng.choice(list(other.values())))
        elif kind == 2:
            files[name] = rng.choice((b"", b"\n", b"\0" * 99, rng.randbytes(200), b"\xff\xfe"))
        elif kind == 3:
            files[name] = by_byte(rng, files[name] or b" ", [files[name] or b" "])
        else:
            files[name] = _by_line(rng, files[name].decode("latin-1")).encode("utf-8", "replace")
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _by_line(rng: Random, text: str) -> str:
    lines = text.splitlines(keepends=True) or ["\n"]
    for _ in range(rng.choice((1, 1, 2, 5))):
        k, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(9)
        if kind == 0 and len(lines) > 1:
            del lines[k]
        elif kind == 1:
            lines.insert(j, lines[k])
        elif kind == 2:
            lines[k], lines[j] = lines[j], lines[k]
        elif kind == 3:
            lines[k] = lines[k][:rng.randrange(len(lines[k]) + 1)]
        elif kind == 4:
            lines.insert(k, rng.choice(WORDS) + "\n")
        elif kind < 7:
            lines[k] = _other_number(rng, lines[k])
        else:
            words = lines[k].split(" ")
            words[rng.randrange(len(words))] = rng.choice((*WORDS, rng.choice(words)))
            lines[k] = " ".join(words)
    return "".join(lines)


_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{4,}\b|\d+")


def _other_number(rng: Random, line: str) -> str:
    spots = list(_NUMBER.finditer(line))
    if not spots:
        return line
    spot = rng.choice(spots)
    text = spot[0]
    base = 16 if re.search("[a-fA-Fx]", text) or len(text) > 7 else 10
    value = edge(rng, int(text, base))
    new = rng.choice((f"{value:x}" if base == 16 else str(value), f"-{value:x}", "", "9" * 30, "9" * 5000,
                      text + "0", "\u0661\u0662", "1_000", f"{value:#x}"))
    return line[:spot.start()] + new + line[spot.end():]


def recording(rng: Random, folder: Path) -> Path:
    """A small good recording, mostly of a few lines."""
    path = folder / "t.txt"
    path.write_bytes(rng.choice(text_inputs() if rng.random() < 0.05 else text_inputs()[:FORMS]))
    return path
