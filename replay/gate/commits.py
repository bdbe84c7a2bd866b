"""What git knows of a folder, and which code makes figures; empty where nothing is known."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

FIGURES_COME_FROM = ("base", "physmap", "costs", "engine", "allocators", "trace", "metrics", "runs",
                     "c")
"""Folders of the package whose code a replay's figures hang on."""


def commit_of(folder: Path) -> str:
    """The commit that is checked out around a folder, with + for uncommitted changes; else empty,
    so before the first one."""
    head = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not head:
        return ""
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return head[:12] + ("+" if changed else "")


def commits_since(folder: Path, commit: str) -> int | None:
    """How many commits have come behind one; None where that is not known."""
    if not commit.rstrip("+").isalnum():  # of a file: no option of git's, and no range
        return None
    counted = _git(folder, "rev-list", "--count", f"{commit.rstrip('+')}..HEAD")
    return int(counted) if counted.isdigit() else None


def checkout_of(folder: Path) -> Path | None:
    """The top of the git repository's files that a folder lies in, be it before the first commit.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    return Path(top) if top else None


def ignored(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """Which of these git would not take."""
    return [path for path in paths
            if _git(folder, "check-ignore", "--", str(path.absolute()))]


def _git(folder: Path, *args: str) -> str:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True,
                              errors="replace", timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@cache
def code_digest() -> str:
    """16 digits of the sources that figures come from; the machines and profiles that are shipped
    are not among them, but told one by one."""
    package = Path(__file__).parents[1]
    found = hashlib.sha256()
    for name in FIGURES_COME_FROM:
        for path in sorted((package / name).rglob("*")):
            if path.suffix in (".py", ".c", ".h"):
                body = path.read_bytes()
                found.update(f"{path.relative_to(package)}\0{len(body)}\0".encode() + body)
    return found.hexdigest()[:16]
