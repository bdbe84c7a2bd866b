"""Reads a flattened device tree: nodes, properties, and the addresses they claim.

Format: Devicetree Specification v0.4, chapter 5 (header, structure block, strings block), and
2.3.6-2.3.8 (`reg`, `#address-cells`, `ranges`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from replay.base.errors import InputError

FDT_MAGIC = 0xD00DFEED
BEGIN_NODE, END_NODE, PROP, NOP, END_TREE = 1, 2, 3, 4, 9
MAX_DEPTH = 64


@dataclass
class Node:
    """One node: its name with unit address, raw property values, children in file order."""

    name: str
    props: dict[str, bytes] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def cells(self, name: str, default: int) -> int:
        """A one-cell property such as `#address-cells`."""
        raw = self.props.get(name, b"")
        return int.from_bytes(raw, "big") if len(raw) == 4 else default

    def text(self, name: str) -> list[str]:
        """A string-list property."""
        raw = self.props.get(name, b"")
        return [part.decode("ascii", "replace") for part in raw.split(b"\0") if part]


@dataclass(frozen=True)
class Claim:
    """An address range [start, end) that a node claims by `reg` or, for PCI, by `ranges`."""

    start: int
    end: int
    name: str
    kind: str
    """"memory", "reserved" (under /reserved-memory), or "device"."""


def parse(path: Path) -> Node:
    """The root node of a .dtb file; InputError with an offset where it is malformed."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, error.strerror or "cannot be read") from None
    if len(data) < 40 or struct.unpack_from(">I", data)[0] != FDT_MAGIC:
        raise InputError(path, "is no flattened device tree (magic d00dfeed is missing)",
                         "offset 0", "Copy it from /sys/firmware/fdt")
    _, total, at, strings, _, version, _, _, strings_len, struct_len = struct.unpack_from(
        ">10I", data)
    if version < 16 or total > len(data):
        raise InputError(path, f"version {version}, size {total}: expected version 16 or later and "
                         f"at most the {len(data)} bytes of the file", "offset 4")
    end = at + struct_len if version >= 17 else total
    if at % 4 or end > len(data) or strings + strings_len > len(data):
        raise InputError(path, "a block of the header lies beyond the file", "offset 8")
    return _structure(path, data, (at, end), data[strings:strings + strings_len])


def _structure(path: Path, data: bytes, block: tuple[int, int], strings: bytes) -> Node:
    at, end = block
    stack: list[Node] = []
    while at + 4 <= end:
        token = int.from_bytes(data[at:at + 4], "big")
        here, at = at, at + 4
        if token == BEGIN_NODE:
            stop = data.find(b"\0", at, end)
            if stop < 0 or len(stack) >= MAX_DEPTH:
                raise InputError(path, "unterminated node name, or nesting too deep",
                                 f"offset {here}")
            node = Node(data[at:stop].decode("ascii", "replace"))
            if stack:
                stack[-1].children.append(node)
            stack.append(node)
            at = (stop + 4) & ~3
        elif token == END_NODE and stack:
            node = stack.pop()
            if not stack:
                return node
        elif token == PROP and stack and at + 8 <= end:
            length, name = struct.unpack_from(">2I", data, at)
            stop = strings.find(b"\0", name)
            if at + 8 + length > end or name >= len(strings) or stop < 0:
                raise InputError(path, "property lies beyond its block", f"offset {here}")
            stack[-1].props[strings[name:stop].decode("ascii", "replace")] = \
                data[at + 8:at + 8 + length]
            at = (at + 8 + length + 3) & ~3
        elif token != NOP:
            raise InputError(path, f"token {token:#x} is not expected here", f"offset {here}")
    raise InputError(path, "the structure block ends inside a node", f"offset {at}")


def find_compatible(node: Node, compatible: str) -> Node | None:
    """The first node, depth first, that is `compatible`."""
    if compatible in node.text("compatible"):
        return node
    for child in node.children:
        found = find_compatible(child, compatible)
        if found:
            return found
    return None


def pairs(raw: bytes, address_cells: int, size_cells: int) -> list[tuple[int, int]]:
    """A `reg` value as (address, size) pairs; ValueError if its length does not fit the cells."""
    step = 4 * (address_cells + size_cells)
    if not step or len(raw) % step:
        raise ValueError(f"{len(raw)} bytes are no multiple of {step}")
    split = 4 * address_cells
    rows = [raw[at:at + step] for at in range(0, len(raw), step)]
    return [(int.from_bytes(r[:split], "big"), int.from_bytes(r[split:], "big")) for r in rows]


CELLS = ((2, 2), (2, 1), (1, 1))
"""Address and size cells of root nodes, the usual ones first; boards with little memory have one of
either (a Raspberry Pi 4 has 2 and 1)."""


def likely_cells(raw: bytes) -> list[tuple[int, int]]:
    """The cells by which a `reg` of the hypervisor node is a grant table and ascending regions."""
    def fits(address: int, size: int) -> bool:
        try:
            found = pairs(raw, address, size)
        except ValueError:
            return False
        ends = [start + length for start, length in found]
        return all(length for _, length in found) and max(ends, default=0) <= 1 << 52 and all(
            end <= start for end, (start, _) in zip(ends[1:], found[2:], strict=False))

    return [cells for cells in CELLS if fits(*cells)]


Windows = list[tuple[int, int, int]] | None
"""`ranges` as (child address, parent address, size); None where addresses are the root's own."""


def claims(root: Node) -> Iterator[Claim]:
    """Every range of root addresses that the tree's nodes claim; the hypervisor node excepted.

    Nodes below a bus without `ranges` have addresses of their own (I2C, CPUs) and claim nothing.
    """
    for child in root.children:
        if child.name not in ("cpus", "chosen") and "xen,xen" not in child.text("compatible"):
            cells = root.cells("#address-cells", 2), root.cells("#size-cells", 1)
            yield from _claims(child, cells, None, "reserved" if child.name == "reserved-memory"
                               else "device")


def _claims(node: Node, cells: tuple[int, int], up: Windows, kind: str) -> Iterator[Claim]:
    if node.text("device_type") == ["memory"] and kind == "device":
        kind = "memory"
    for start, size in _regs(node, cells):
        there = _translate(start, size, up)
        if size and there is not None:
            yield Claim(there, there + size, node.name, kind)
    ranges = node.props.get("ranges")
    if ranges is None:
        return
    own = node.cells("#address-cells", 2), node.cells("#size-cells", 1)
    windows = _windows(ranges, own[0], cells[0], own[1])
    if node.text("device_type") == ["pci"]:
        for child, parent, size in windows or ():
            there = _translate(parent, size, up)
            if size and there is not None and (child >> 64) & 0x02000000:  # memory space
                yield Claim(there, there + size, node.name, "device")
        return
    if windows is None:
        below = up
    else:
        below = [(c, p, s) for c, parent, s in windows
                 if (p := _translate(parent, s, up)) is not None]
    for child_node in node.children:
        yield from _claims(child_node, own, below, kind)


def _regs(node: Node, cells: tuple[int, int]) -> list[tuple[int, int]]:
    if not cells[1]:
        return []
    try:
        return pairs(node.props.get("reg", b""), *cells)
    except ValueError:
        return []


def _windows(raw: bytes, child: int, parent: int, size: int) -> Windows:
    if not raw:
        return None
    step = 4 * (child + parent + size)
    out = []
    for at in range(0, len(raw) - step + 1, step):
        a, b = at + 4 * child, at + 4 * (child + parent)
        out.append((int.from_bytes(raw[at:a], "big"), int.from_bytes(raw[a:b], "big"),
                    int.from_bytes(raw[b:at + step], "big")))
    return out


def _translate(start: int, size: int, up: Windows) -> int | None:
    if up is None:
        return start
    for child, parent, length in up:
        if child <= start and start + size <= child + length:
            return parent + start - child
    return None
