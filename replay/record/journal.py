"""What was changed and how to undo it, on disk before each change.

Whoever comes later, even after the recorder was killed, reads it and restores: an undo of a change
that never happened does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from replay.base.errors import InputError
from replay.base.files import replaced

STATE_FILE: Final = "state.json"
STATE_VERSION: Final = 1


@dataclass
class Journal:
    """The undo list of one session and the facts that `stop` needs; `path` is its file.

    undo: ["remove", file, event], ["rmdir", directory] or ["end", pid, start time], in the order
    of the changes. dry: nothing is written.
    """

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    undo: list[list[Any]] = field(default_factory=list)
    dry: bool = False

    def before(self, *entry: Any) -> None:
        """Note how to undo the change that follows."""
        self.undo.append(list(entry))
        self.save()

    def save(self) -> None:
        """Write the whole journal, aside first, down to the disk."""
        if self.dry:
            return
        data = {"version": STATE_VERSION, "facts": self.facts, "undo": self.undo}
        with replaced(self.path) as aside:
            aside.write_text(json.dumps(data))  # without indent=, which takes the encoder in Python

    def unwind(self, how: Callable[[list[Any]], None]) -> None:
        """Undo the changes, the last first; each is forgotten when it is undone."""
        while self.undo:
            how(self.undo[-1])
            self.undo.pop()
            self.save()

    def forget(self) -> None:
        """Nothing is left to be undone."""
        if not self.dry:
            self.path.unlink(missing_ok=True)


def load(folder: Path) -> Journal:
    """The journal of a session that has begun."""
    path = folder / STATE_FILE
    try:
        data = json.loads(path.read_text("utf-8"))
        if data["version"] != STATE_VERSION:
            raise ValueError(f"version {data['version']}")
        undo = [list(entry) for entry in data["undo"]]
        return Journal(path, dict(data["facts"]), undo)
    except FileNotFoundError:
        raise InputError(folder, "no recording is under way here", hint=(
            "`replay record start` begins one; --dir names its folder")) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(path, f"not the state of a recording ({error})") from None
