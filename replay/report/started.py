"""What `replay gate init` prints: what it wrote, what to commit, what to type next."""

from __future__ import annotations

import shlex
from typing import Any

from rich.console import RenderableType

from replay.report.telling.escapes import plain
from replay.report.telling.tables import notes, render


def text(data: dict[str, Any], *, color: bool = False) -> str:
    """Lines for a person; commands may be copied as they stand."""
    checks = data["checks"]
    count = f"{len(checks)} check{'' if len(checks) == 1 else 's'}"
    names = ", ".join(one["name"] for one in checks)
    parts: list[RenderableType] = [f"Written: {plain(data['config'])} ({count}: {names})"]
    remarks = [f"{plain(one['path'])}: {plain(one['lost'])}; its check says allow_loss = true"
               for one in checks if one["lost"]]
    remarks += [f"{plain(one['path'])}: outside of what is committed; whoever checks elsewhere "
                "needs it there" for one in checks if one["outside"]]
    remarks += [f"left out: {plain(why)}" for _, why in data["left_out"]]
    remarks += [f"git ignores {plain(path)}: added with -f all the same"
                for path in data["ignored"]]
    if not data["in_checkout"]:
        remarks.append("this folder is in no git repository: make it one, or keep what `git add` "
                       "names as you keep other files")
    if remarks:
        parts.append(notes(remarks))
    return render([*parts, "Next:"], color=color) + "".join(
        f"  {line}\n" for line in commands(data))


def commands(data: dict[str, Any]) -> list[str]:
    """What to type, in this order."""
    config = "" if data["config"] == "gate.toml" else f" --config {_word(data['config'])}"
    force = ("-f " if data["ignored"] else "") + (
        "-- " if any(path.startswith("-") for path in data["commit"]) else "")
    files = " ".join(map(_word, data["commit"]))
    return [*([] if data["in_checkout"] else ["git init"]),
            f'replay gate accept{config} --why "first figures"',
            f"git add {force}{files}",
            'git commit -m "gate: accept the first figures"',
            f"replay gate check{config}"]


def _word(text: str) -> str:
    return shlex.quote(plain(text))
