"""What the folder of a run is called by default: of a name that says what was replayed how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from replay.runs.options import RunOptions, options, switch

RUNS_FOLDER: Final = Path("reports")
"""Where runs are kept and looked for by their names."""
LATEST: Final = "latest"
"""There, the newest run."""
MOST_LABEL_BYTES: Final = 160
"""Of a name without version and digest; a file system takes 255."""
DIGEST_DIGITS: Final = 8


def label(trace: str, plan: RunOptions) -> str:
    """The name of a trace, strategies unless they are the default four, options that were set."""
    said = "-".join(filter(None, map(_tidy, (trace, *_words(plan))))).lstrip("-.")
    return said.encode()[:MOST_LABEL_BYTES].decode(errors="ignore") or "unnamed"


def _words(plan: RunOptions) -> Iterator[str]:
    from replay.allocators import DEFAULT

    for name, written, default in options():
        value = getattr(plan, name)
        if value == default:
            continue
        if name == "allocators":
            if tuple(value) != tuple(DEFAULT):
                yield "+".join(Path(one).stem for one in value)
        elif written.switches:
            yield switch(value, name)
        elif isinstance(default, bool):
            yield switch(name)
        elif isinstance(value, Mapping):
            yield from (f"{key}={text}" for key, text in sorted(value.items()))
        else:
            flag = written.flag or switch(name)
            yield from (f"{flag}={Path(str(one)).name}"
                        for one in (value if isinstance(value, tuple) else (value,)))


def _tidy(text: str) -> str:
    """As part of a file's name that a shell and a reader take as it is."""
    return "".join(c if c.isalnum() or c in "-_.+=," else "_" for c in text).strip("-. ")


def text_of(summary: dict[str, Any]) -> str:
    """What `summary.json` holds."""
    return json.dumps(summary, indent=1, sort_keys=True) + "\n"


def name_of(label: str, summary: dict[str, Any]) -> str:
    """The name of a run: the label, the version of replay, a digest of what the run rested on and
    came to. The same run has the same name."""
    digest = hashlib.sha256(text_of(summary).encode("utf-8", "surrogatepass")).hexdigest()
    return (f"{label}-{_tidy(str(summary['run']['replay_version']))}"
            f"-{digest[:DIGEST_DIGITS]}")
