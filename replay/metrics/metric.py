"""What a metric is: its name, unit, which way is better, one sentence. Reports and gate read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One number of a replay. unit: ns, pages, bytes, share, count, byte_seconds or ratio."""

    name: str
    unit: str
    better: Literal["lower", "higher", ""]
    label: str
    what: str
