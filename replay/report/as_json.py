"""A summary as JSON: sorted keys, no NaN, one line break at the end; the same bytes every time."""

from __future__ import annotations

import json
from typing import Any

from replay.metrics.summary import rounded


def as_json(data: dict[str, Any]) -> str:
    """The text of `summary.json`."""
    return json.dumps(rounded(data), indent=1, sort_keys=True, allow_nan=False) + "\n"
