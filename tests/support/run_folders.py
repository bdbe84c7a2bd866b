"""Run folders with figures that no replay came to, whose files say that they belong together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from replay.runs.belonging import KEY, belonging, metadata_of
from replay.runs.files import arrow_writer


def change_run(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the summary in place, and let outcomes and time lines say that they are of it."""
    path = folder / "summary.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    for name in data["order"]:
        outcome, line = folder / f"outcome-{name}.arrow", folder / f"timeline-{name}.json"
        with pa.OSFile(str(outcome)) as source:
            table = pa.ipc.open_file(source).read_all()
        arrow_writer(table.replace_schema_metadata({KEY: metadata_of(data, name)}))(outcome)
        line.write_text(json.dumps({**json.loads(line.read_text()), "run": belonging(data, name)}))
