"""What is installed for whom: the locks hold what pyproject.toml names, users get theirs alone."""

from __future__ import annotations

import re
import tomllib

from driving import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FOR_THE_BUILD = "setuptools"
"""In the users' lock, since the environment builds without one of its own."""


def names(requirements: list[str]) -> set[str]:
    """The names of packages, as an index spells them."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[<>=!;\[ ]", one)[0]).lower() for one in requirements}


def pinned(lock: str) -> set[str]:
    """The packages that a lock pins, each with the digests of its files."""
    text = (ROOT / lock).read_text("utf-8")
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[A-Za-z0-9_.-]+==\S+", one) and "--hash=sha256:" in one
               for one in entries), "an entry without a version or a digest"
    assert "://" not in text and "--index" not in text, "an index is whoever installs's own affair"
    return names(entries)


def test_users_get_what_the_program_needs_and_nothing_else() -> None:
    users, ours = pinned("requirements.lock"), pinned("tests/requirements.lock")
    dev = names(PROJECT["optional-dependencies"]["dev"])
    assert names(PROJECT["dependencies"]) <= users
    assert dev <= ours | {FOR_THE_BUILD}
    assert users.isdisjoint((dev | ours) - {FOR_THE_BUILD})
