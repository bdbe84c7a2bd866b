"""The text of `replay verify`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from replay.base.units import human_ns
from replay.report.telling.escapes import plain
from replay.report.telling.tables import fitted, render, table, warning_rows
from replay.report.telling.telling import Warned
from replay.truth.verify.result import Verification


def verification(name: str, results: Sequence[Verification], warnings: Sequence[Warned] = (), *,
                 color: bool = False) -> str:
    """What was compared, what is equal, what was learned, and the first differences.

    warnings: of the recording.
    """
    parts: list[RenderableType | str] = [
        *warning_rows([(w.label, w.said, w.fails) for w in warnings])]
    for result in results:
        rows = [[what.replace("_", " "), f"{checked:,}", f"{same:,}",
                 "all" if checked == same else f"{checked - same:,} DIFFER"]
                for what, (checked, same) in sorted(result.counts.items())]
        title = f"{fitted(name, 40)}: model of the {result.strategy} against the recording"
        parts.append(table(title, ["compared", "checked", "equal", ""], rows))
        parts.append(f"  frames learned (first sight of a page whose origin is not recorded): "
                     f"{result.frames_learned:,}")
        if result.calls_undetermined:
            parts.append(f"  undetermined: {result.frames_undetermined:,} frames of "
                         f"{result.calls_undetermined:,} calls that another place in the order of "
                         "lock holders fits as well; they are not compared")
        parts += [Text(f"  note: {plain(note)}") for note in result.notes]
        if result.differences:
            listed = [[d["what"], human_ns(d["time_ns"]), str(d["event"]),
                       fitted(d["recorded"], 30), fitted(d["model"], 30)]
                      for d in result.differences]
            parts.append(table("First differences", ["what", "at", "event", "recorded", "model"],
                               listed, left=5))
    equal = all(r.equal for r in results)
    parts.append("\nEQUAL in everything compared" if equal else "\nDIFFERENT")
    return render(parts, color=color)
