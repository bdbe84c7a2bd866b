"""Finds the kernel's files: a source tree, a linux-source tarball, or an installed package."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from replay.base.code_files import cache_root
from replay.base.errors import InputError, ReplayError

POOL_SOURCE = "drivers/xen/unpopulated-alloc.c"
BALLOON_SOURCE = "drivers/xen/balloon.c"
SOURCES = (BALLOON_SOURCE, "drivers/xen/mem-reservation.c", "kernel/resource.c",
           "arch/x86/kernel/resource.c")
ARCH = {"x86": "arch/x86/xen/enlighten.c", "arm64": "arch/arm/xen/enlighten.c"}
HEADERS = ("include/linux/ioport.h", "include/linux/resource_ext.h",
           "include/xen/interface/memory.h", "include/xen/mem-reservation.h",
           "include/xen/balloon.h")
"""The tree's own headers; all others are the shims'."""
NEEDED = ("Makefile", POOL_SOURCE, *SOURCES, *ARCH.values(), *HEADERS)
PACKAGES = Path("/usr/src")
FETCHED = "kernel-package"
"""Folder in the cache where `make kernel-source` unpacks a package without installing it."""
SOURCE_HINT = ("give a kernel source tree, or install a package such as linux-source-6.1 "
               "(apt install linux-source)")


@dataclass(frozen=True)
class Tree:
    """A kernel source tree, or the part of one that is needed: version as in `6.1.192`."""

    path: Path
    version: str
    commit: str

    @property
    def name(self) -> str:
        """Version and, where there is one, git commit."""
        return f"{self.version}-{self.commit}" if self.commit else self.version


def _version(makefile: Path) -> str:
    text = makefile.read_text(encoding="utf-8", errors="replace")
    found = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*(\S*)$", text,
                            re.MULTILINE))
    if "VERSION" not in found or "PATCHLEVEL" not in found:
        raise InputError(makefile, "names no kernel version", hint=SOURCE_HINT)
    number = ".".join(found[k] for k in ("VERSION", "PATCHLEVEL", "SUBLEVEL") if found.get(k))
    return number + found.get("EXTRAVERSION", "")


def _commit(tree: Path) -> str:
    """Short commit of a git work tree, with a plus if files that matter were changed."""
    if not (tree / ".git").exists():
        return ""
    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(tree), *args], capture_output=True, text=True,
                              check=False)
        return done.stdout.strip() if done.returncode == 0 else ""
    commit = git("rev-parse", "--short=12", "HEAD")
    return commit and commit + ("+" if git("status", "--porcelain", "--", *NEEDED) else "")


def _unpacked(tarball: Path) -> Path:
    """The needed files of a tarball, kept in the cache: unpacking takes a quarter of a minute."""
    about = tarball.stat()
    key = hashlib.sha256(f"{tarball.resolve()} {about.st_size} {about.st_mtime_ns}".encode())
    folder = cache_root() / "kernel-source" / key.hexdigest()[:16]
    if (folder / "complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(tarball) as archive:
            for member in archive:
                inside = member.name.partition("/")[2]
                if inside in NEEDED and member.isfile():
                    body = archive.extractfile(member)
                    target = folder / inside
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(body.read() if body else b"")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(tarball, f"cannot be unpacked: {error}", hint=SOURCE_HINT) from None
    (folder / "complete").touch()
    return folder


def open_tree(path: Path) -> Tree:
    """A tree from a folder or a tarball; InputError says which file is missing."""
    if not path.exists():
        raise InputError(path, "no such kernel source tree", hint=SOURCE_HINT)
    # Absolute, since a compiler runs in another folder than the user.
    folder = path.resolve() if path.is_dir() else _unpacked(path)
    for name in ("Makefile", *SOURCES, *HEADERS):
        if not (folder / name).is_file():
            raise InputError(path, f"is no kernel source tree: {name} is missing", hint=SOURCE_HINT)
    return Tree(folder, _version(folder / "Makefile"), _commit(folder))


def installed() -> list[Path]:
    """Tarballs of installed or fetched linux-source packages, oldest version first."""
    def number(path: Path) -> tuple[int, ...]:
        return tuple(int(n) for n in re.findall(r"\d+", path.name))
    folders = (PACKAGES, cache_root() / FETCHED / "usr" / "src")
    found = {p.name: p for folder in folders for p in folder.glob("linux-source-*.tar.*")}
    return sorted(found.values(), key=number)


def all_installed() -> list[Path]:
    """As installed(); ReplayError if there is none."""
    found = installed()
    if not found:
        raise ReplayError(f"no kernel source in {PACKAGES}; {SOURCE_HINT}")
    return found
