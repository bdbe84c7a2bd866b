"""The help of every verb as one page: of the documentation, and of a wheel."""

from __future__ import annotations

from typing import Any

import click


def reference() -> str:
    """In Markdown, each as the program prints it."""
    from replay.cli.main import commands

    parts = ["# Command line\n"]

    def walk(command: Any, path: str) -> None:
        context = click.Context(command, info_name=path, terminal_width=96, max_content_width=96)
        parts.append(f"## {path}\n\n```text\n{command.get_help(context).strip()}\n```\n")
        for name, sub in getattr(command, "commands", {}).items():
            if not sub.hidden:
                walk(sub, f"{path} {name}")

    walk(commands(), "replay")
    return "\n".join(parts)
