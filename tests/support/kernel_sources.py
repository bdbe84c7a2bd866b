"""Kernel sources, and ones that were changed."""

from __future__ import annotations

import shutil
from pathlib import Path
import pytest
from replay.c.kernel_tree import source

INSTALLED = source.installed()
POOL, BALLOON = "drivers/xen/unpopulated-alloc.c", "drivers/xen/balloon.c"


@pytest.fixture(scope="module")
def tree() -> source.Tree:
    return source.open_tree(INSTALLED[0])


def patched(tree: source.Tree, folder: Path, name: str, old: str, new: str) -> source.Tree:
    """A copy of the tree with one change."""
    shutil.copytree(tree.path, folder / "tree")
    path = folder / "tree" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return source.open_tree(folder / "tree")
