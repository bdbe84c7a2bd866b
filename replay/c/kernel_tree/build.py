"""Compiles a kernel tree's allocator files against the shims, into a cached shared object."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replay.base.code_files import cache_root
from replay.base.errors import InputError, ReplayError
from replay.c.compiler import compiler, compiler_version
from replay.base.leftovers import temporary_folder
from replay.c.kernel_tree.source import ARCH, BALLOON_SOURCE, HEADERS, POOL_SOURCE, SOURCES, Tree
from replay.c.library import C_HEADER

SHIM = Path(__file__).with_name("shim")
COMPILER_FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-fno-strict-aliasing", "-fwrapv",
                  "-Werror=implicit-function-declaration", "-Werror=int-conversion",
                  "-Werror=incompatible-pointer-types")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)
NO_POOL = "this kernel has no pool on this architecture: the balloon driver serves all calls"
NOT_BUILT = "built without CONFIG_XEN_UNPOPULATED_ALLOC: the balloon driver serves all calls"
SHIM_HEADERS = {C_HEADER.name, *(path.name for path in SHIM.glob("*.h"))}


@dataclass(frozen=True)
class Built:
    """A shared object in the form of replay_allocator.h, and what a reader must know of it."""

    path: Path
    notes: tuple[str, ...]


def bounds_search(tree: Tree) -> bool:
    """Whether fill_list() searches within mhp_get_pluggable_range() (since Linux 5.17)."""
    pool = tree.path / POOL_SOURCE
    return pool.is_file() and "mhp_get_pluggable_range" in pool.read_text(
        encoding="utf-8", errors="replace")


def pools_extra_memory(tree: Tree) -> bool:
    """Whether a PV domain's extra memory is on the pool's list from boot (xen_extra_mem)."""
    pool = tree.path / POOL_SOURCE
    return pool.is_file() and (bool(arch_init(tree, "x86")) or "xen_extra_mem" in pool.read_text(
        encoding="utf-8", errors="replace"))


def _function(text: str, name: str) -> str:
    """A function's whole text: from its first line to the brace in column 0 that ends it."""
    found = re.search(rf"^[a-z][^\n;]*\b{name}\([^;{{]*\)\n\{{\n.*?^\}}\n", text,
                      re.MULTILINE | re.DOTALL)
    return found.group(0) if found else ""


def arch_init(tree: Tree, arch: str) -> str:
    """arch_xen_unpopulated_init() of the tree with what it names of its own file; or nothing.

    Cut out, because the rest of that file is the whole of the architecture's Xen support.
    """
    path = tree.path / ARCH[arch]
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    body = _function(text, "arch_xen_unpopulated_init")
    if not body:
        return ""
    index = re.findall(r"^#define EXT_REGION_INDEX.*$", text, re.MULTILINE)
    resource = re.findall(r"^static struct resource xen_resource = \{.*?^\};", text,
                          re.MULTILINE | re.DOTALL)
    return "\n".join(['#include "shim.h"', *index, *resource, body])


def _forward(tree: Tree, folder: Path, sources: list[Path]) -> None:
    """A file per header that is included anywhere: the tree's own, or the shims' one."""
    own = {h.removeprefix("include/"): tree.path / h for h in HEADERS}
    names = {name for path in (*sources, *own.values())
             for name in INCLUDE.findall(path.read_text(encoding="utf-8", errors="replace"))}
    for name in sorted(names | set(own)):
        if name in SHIM_HEADERS or "/" not in name or ".." in name:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # shim.h first, whichever is included first: it brings the others in their order.
        lines = ["shim.h", str(own[name])] if name in own else ["shim.h"]
        target.write_text("".join(f'#include "{line}"\n' for line in lines))


def _defines(tree: Tree, arch: str, page_shift: int) -> Iterator[str]:
    yield f"-DSHIM_PAGE_SHIFT={page_shift}"
    yield f'-DSHIM_NAME="Linux {re.sub(r"[^A-Za-z0-9.+_-]", "_", tree.name)}"'
    if arch == "x86":
        yield "-DSHIM_X86"
        if arch_init(tree, arch):
            yield "-DSHIM_SEEDS_EXTRA_MEMORY"
    balloon = (tree.path / BALLOON_SOURCE).read_text("utf-8", errors="replace")
    if "alloc_xenballooned_pages(" in balloon:
        yield "-DSHIM_OLD_BALLOON_NAMES"
    pool = tree.path / POOL_SOURCE
    text = pool.read_text(encoding="utf-8", errors="replace") if pool.is_file() else ""
    if re.search(r"^static struct resource \*target_resource;", text, re.MULTILINE):
        yield "-DSHIM_HAS_TARGET_RESOURCE"
    if (re.search(r"^static struct page \*page_list;", text, re.MULTILINE)
            and re.search(r"^static unsigned int list_count;", text, re.MULTILINE)):
        yield "-DSHIM_HAS_PAGE_LIST"


UNDECLARED = re.compile(
    r"implicit declaration of function [‘'`](\w+)|(?:unknown type name|undeclared identifier) "
    r"[‘'`](\w+)|[‘'`](\w+)[’'] undeclared|undefined reference to [‘'`](\w+)|"
    r"call to undeclared function [‘'`](\w+)")
"""What gcc and clang say of a name that nobody declares or defines."""


def _explain(tree: Tree, said: list[str]) -> ReplayError:
    """The compiler's first error and where it is, and all names that the shims lack.

    said: what it printed, by translation unit.
    """
    text = "\n".join(said)
    lines = [line for line in text.splitlines()
             if re.search(r"error:|undefined reference|multiple definition", line)]
    first = lines[0].strip() if lines else text.strip()[:300]
    for folder, name in ((tree.path, ""), (SHIM, "shim/")):
        first = re.sub(rf"(?<![^\s\"]){re.escape(str(folder))}/", name, first)
    missing = sorted({name for found in UNDECLARED.finditer(text)
                      for name in found.groups() if name})
    names = ", ".join(map(repr, missing))
    hint = (f"the shims have no {names}: add {'it' if len(missing) == 1 else 'them'} to "
            "replay/c/kernel_tree/shim/: stubs.h (does nothing), duplicates.h (means what it does "
            "in the kernel) or environment.h and glue.c (behaviour)"
            ) if missing else "see replay/c/kernel_tree/shim/"
    return InputError(tree.path, f"does not compile against the shims: {first}", hint=hint)


def _run(tree: Tree, commands: list[list[str]]) -> None:
    """Run them all, so that an error names all that is missing at once."""
    said = []
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              errors="replace", env={**os.environ, "LC_ALL": "C"})
        if done.returncode:
            said.append(done.stderr)
    if said:
        raise _explain(tree, said)


@dataclass(frozen=True)
class _Unit:
    """A translation unit. of: the file of the tree that it includes; defines: its own."""

    path: Path
    of: Path | None = None
    defines: tuple[str, ...] = ()

    @property
    def read(self) -> list[Path]:
        """The files that it is made of, headers aside."""
        return [self.path, *([self.of] if self.of else [])]

    def flags(self, folder: Path) -> list[str]:
        """Those of its own; folder: where the tree's headers are forwarded from."""
        kernel = [] if self.path.name == "host.c" else ["-ffreestanding", "-I", f"{folder}/include"]
        return [*kernel, *self.defines, *([f'-DSHIM_SOURCE="{self.of}"'] if self.of else [])]

    def key(self, rest: bytes) -> str:
        """What its object follows from, so that a patch compiles what it changed."""
        text = repr((self.path.name, self.defines)).encode()
        return hashlib.sha256(b"\0".join([rest, text, *(path.read_bytes() for path in self.read)])
                              ).hexdigest()[:24]


def _units(tree: Tree, arch: str, folder: Path, pool: bool) -> list[_Unit]:
    """Translation units of an object."""
    units = [_Unit(SHIM / "host.c"), _Unit(SHIM / "glue.c"),
             _Unit(SHIM / "balloon.c", tree.path / BALLOON_SOURCE),
             *(_Unit(tree.path / name) for name in SOURCES[1:3]),
             _Unit(SHIM / "pool.c", tree.path / POOL_SOURCE) if pool else _Unit(SHIM / "no_pool.c")]
    if arch == "x86":
        units.append(_Unit(tree.path / SOURCES[3], defines=(
            "-Darch_remove_reservations=kernel_arch_remove_reservations",)))
    cut = arch_init(tree, arch)
    if cut and pool:
        (folder / "arch_init.c").write_text(cut)
        units.append(_Unit(folder / "arch_init.c"))
    return units


def _inputs(tree: Tree, flags: list[str], cc: tuple[str, ...]) -> bytes:
    """What every unit follows from besides its own files: headers, flags, compiler, this file."""
    digest = hashlib.sha256(repr((flags, compiler_version(cc))).encode())
    ours = sorted(path for path in (*SHIM.glob("*.h"), C_HEADER, Path(__file__)))
    for path in (*(tree.path / name for name in HEADERS), *ours):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.digest()


def _key(tree: Tree, arch: str, flags: list[str], cc: tuple[str, ...]) -> str:
    version = compiler_version(cc)
    digest = hashlib.sha256(repr((arch, flags, version, str(tree.path))).encode())
    ours = sorted(p for p in (*SHIM.iterdir(), C_HEADER) if p.suffix in (".c", ".h"))
    for path in (*(tree.path / n for n in (POOL_SOURCE, *SOURCES, *HEADERS, ARCH[arch])), *ours):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:24]


def build(tree: Tree, arch: str, page_bytes: int, memory_hotplug: bool = True,
          unpopulated: bool = True) -> Built:
    """Compile once per content; ReplayError with the compiler's first error.

    arch: x86 (PV, PVH, HVM: the machine says which) or arm64. memory_hotplug, unpopulated:
    CONFIG_XEN_BALLOON_MEMORY_HOTPLUG, CONFIG_XEN_UNPOPULATED_ALLOC. Before Linux 5.17 the pool was
    x86's alone, so on arm64 the balloon driver serves all calls.
    """
    pool = unpopulated and (tree.path / POOL_SOURCE).is_file() and (
        arch == "x86" or bool(arch_init(tree, arch)))
    notes = () if pool else (NO_POOL if unpopulated else NOT_BUILT,)
    cc = compiler()
    flags = [*COMPILER_FLAGS, *_defines(tree, arch, page_bytes.bit_length() - 1)]
    if not memory_hotplug:
        flags.append("-DSHIM_NO_MEMORY_HOTPLUG")
    if not unpopulated:
        flags.append("-DSHIM_NO_UNPOPULATED_ALLOC")
    target = cache_root() / "kernel-objects" / f"{_key(tree, arch, flags, cc)}.so"
    if target.exists():
        return Built(target, notes)
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target) as folder:
        units = _units(tree, arch, folder, pool)
        _forward(tree, folder / "include", [path for unit in units for path in unit.read])
        rest = _inputs(tree, flags, cc)
        objects = [target.parent / "units" / f"{unit.key(rest)}.o" for unit in units]
        objects[0].parent.mkdir(exist_ok=True)
        made = {out: folder / out.name for out in objects if not out.exists()}
        _run(tree, [[*cc, *flags, f"-fmacro-prefix-map={tree.path}/=",
                     *unit.flags(folder), "-I", str(SHIM), "-I", str(C_HEADER.parent),
                     "-c", str(unit.path), "-o", str(made[out])]
                    for unit, out in zip(units, objects, strict=True) if out in made])
        for out, new in made.items():
            new.replace(out)
        _run(tree, [[*cc, "-shared", "-Wl,-z,defs", "-o", str(folder / "made.so"),
                     *map(str, objects)]])
        (folder / "made.so").replace(target)
    return Built(target, notes)
