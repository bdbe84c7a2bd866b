"""Grants of pages and their mapping, by the ioctls of gntalloc and gntdev: what the loads share.

    python3 grants.py COUNT

In a guest that grants COUNT pages to the dom0, writes "LO-HI,LO-HI..." to the guest's data/grants
in xenstore, and keeps them granted. A dom0's load takes them by GRANTS="DOMAIN LO-HI,LO-HI...";
without it the dom0 grants its own pages, which a PVH dom0 cannot map.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys

ALLOC, DEVICE = "/dev/xen/gntalloc", "/dev/xen/gntdev"
_AT_ONCE = 128
_XS_WRITE = 11


def _ioctl(number: int, size: int) -> int:
    return size << 16 | ord("G") << 8 | number


def grant(alloc: int, count: int, domain: int = 0) -> tuple[int, list[int]]:
    """Index and references of `count` of the own pages, granted writable to `domain`."""
    size = max(24, 16 + 4 * count)
    data = bytearray(struct.pack("=HHIQ", domain, 1, count, 0).ljust(size, b"\0"))
    fcntl.ioctl(alloc, _ioctl(5, 24), data)
    index, = struct.unpack_from("=Q", data, 8)
    return index, list(struct.unpack_from(f"={count}I", data, 16))


def revoke(alloc: int, index: int, count: int) -> None:
    """End what grant() began at `index`."""
    fcntl.ioctl(alloc, _ioctl(6, 16), struct.pack("=QII", index, count, 0))


PLACE, RELEASE = _ioctl(0, 24), _ioctl(1, 16)


def request(domain: int, references: list[int]) -> bytes:
    """What PLACE is asked with; its answer has the index behind the first eight bytes."""
    data = struct.pack("=IIQ", len(references), 0, 0)
    return data + b"".join(struct.pack("=II", domain, reference) for reference in references)


def place(device: int, domain: int, references: list[int]) -> int:
    """Index of a new mapping of these grants; the kernel calls gnttab_alloc_pages()."""
    data = bytearray(request(domain, references))
    fcntl.ioctl(device, PLACE, data)
    index, = struct.unpack_from("=Q", data, 8)
    return int(index)


def release(device: int, index: int, count: int) -> None:
    """End a mapping; the kernel calls gnttab_free_pages()."""
    fcntl.ioctl(device, RELEASE, struct.pack("=QII", index, count, 0))


def given() -> tuple[int, list[int]] | None:
    """Domain and references of a guest's grants, where GRANTS names them."""
    words = os.environ.get("GRANTS", "").split()
    if not words:
        return None
    spans = (span.split("-") for span in words[1].split(","))
    return int(words[0]), [one for low, high in spans for one in range(int(low), int(high) + 1)]


def stock(count: int) -> tuple[int, list[int]]:
    """Domain and references for a load that maps some of the same `count` grants again and again."""
    guest = given()
    if guest is not None:
        return guest[0], guest[1][:count]
    alloc = os.open(ALLOC, os.O_RDWR)
    return 0, grant(alloc, count)[1]


def _spans(references: list[int]) -> str:
    """Sorted numbers as "LO-HI,LO-HI..."."""
    starts = [one for one in references if one - 1 not in set(references)]
    ends = [one for one in references if one + 1 not in set(references)]
    return ",".join(f"{low}-{high}" for low, high in zip(starts, ends, strict=True))


def _publish(path: str, value: str) -> None:
    """Write to xenstore by the kernel's device alone: a guest has no tools."""
    body = path.encode() + b"\0" + value.encode()
    bus = os.open("/dev/xen/xenbus", os.O_RDWR)
    os.write(bus, struct.pack("=IIII", _XS_WRITE, 1, 0, len(body)) + body)
    os.read(bus, 4096)


def serve(count: int) -> None:
    """Grant pages to the dom0, tell it which, and keep them."""
    alloc = os.open(ALLOC, os.O_RDWR)
    references: list[int] = []
    while len(references) < count:
        references += grant(alloc, min(_AT_ONCE, count - len(references)))[1]
    _publish("data/grants", _spans(sorted(references)))
    signal.pause()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
