"""What to type after a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from replay.report.telling.escapes import plain


def next_commands(summary: Mapping[str, Any], trace: str, folder: str) -> list[tuple[str, str]]:
    """Commands, and what each answers. trace, folder: as a command line names them."""
    run = summary["run"]
    found = []
    if "outcome" not in run:
        found.append((_command("report", folder), "the same as a page: curves, maps, hazards"))
    if len(summary["order"]) > 1 and run["profile_assumed"]:
        found.append((_command("sensitivity", trace),
                      "whether the order holds when the costs move"))
    if not run["synthetic"] and run["recorded_strategy"] in summary["order"]:
        found.append((_command("verify", trace), "the model's frames against the recorded ones"))
    return found


def _command(verb: str, path: str) -> str:
    return plain(f"replay {verb} {shlex.quote(path)}")
