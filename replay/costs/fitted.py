"""What a calibrated profile says of its origin: the recordings, the machine, and the spread.

The section `[fitted]` of a profile file. Costs are those of the typical call of a CPU that has just
made another one. After a pause its caches have gone cold (and an emulator's translations), which
takes time of its own; no primitive stands for that, so `replay run` leaves it out, as it does what
an allocation takes at its entry. The spread is
what like calls were recorded to take, over what costs and pause make of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replay.base.errors import InputError

SHARES = (0.001, 0.005, 0.01, 0.025, 0.05, *(k / 20 for k in range(2, 19)), 0.95, 0.975, 0.99,
          0.995, 0.999)
"""Which quantiles of a spread a profile holds."""

FITTED = "fitted on "
"""How the source of a fitted cost begins."""


PAUSES_NS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
"""Since the last allocation on a CPU: from each on, the next one takes longer by a step."""

STEPS = (*(f"pause_{ns // 1000}us" for ns in PAUSES_NS), "alloc_entry")
"""What a call takes besides its work: after pauses, and as an allocation. That one's probes fetch
more than a free's, and the kernel does more around its loop; told where frees were timed too."""


def groups(kind: str, path: str, pages: int, cold: int) -> tuple[str, ...]:
    """The groups of calls that a call belongs to, the closest first; sizes by powers of two.

    cold: how many of PAUSES_NS had passed.
    """
    size = f"{kind}/{path}/{1 << (pages - 1).bit_length()}"
    return f"{size}/{cold}", size, f"{kind}/{path}", kind


@dataclass(frozen=True)
class FittedTrace:
    """One recording that costs were fitted on, with the number of its calls that were used."""

    name: str
    sha256: str
    calls: int


@dataclass(frozen=True)
class Fitted:
    """Where fitted costs come from. emulated: by what, "" for hardware. base: the profile that
    gave what the recordings do not tell. steps: ns that a call takes longer, one per STEPS;
    they add up. spread: quantiles at SHARES of recorded over modelled service time, see `groups`.
    """

    traces: tuple[FittedTrace, ...]
    arch: str
    mode: str
    emulated: str
    base: str
    steps: tuple[float, ...]
    spread: dict[str, tuple[float, ...]]

    def sentence(self) -> str:
        """What every report repeats."""
        names = ", ".join(f"{t.name} ({t.calls:,} calls)" for t in self.traces)
        return f"{FITTED}{names}, the probes' own time included; {self.origin()}"

    def origin(self) -> str:
        """Hardware or emulator."""
        if self.emulated:
            return f"EMULATED by {self.emulated}: says nothing of hardware"
        return "recorded on hardware"

    def spread_of(self, kind: str, path: str, pages: int, cold: int) -> np.ndarray:
        """Quantiles at SHARES for such a call: of the closest group there is, 1 without one."""
        return np.array(next((self.spread[name] for name in groups(kind, path, pages, cold)
                              if name in self.spread), np.ones(len(SHARES))))


def _are_numbers(values: Any, length: int) -> bool:
    """Not negative, and finite."""
    return (isinstance(values, list) and len(values) == length
            and all(isinstance(v, int | float) and 0 <= v < 1e12 for v in values))


def _is_spread(values: Any) -> bool:
    """Positive, finite and rising."""
    return _are_numbers(values, len(SHARES)) and values[0] > 0 and values == sorted(values)


def read_fitted(path: Path, data: Any) -> Fitted:
    """The section `[fitted]` of a profile file, checked."""
    def fail(what: str) -> InputError:
        return InputError(path, what, "[fitted]", "it is made by `replay calibrate`")

    if not isinstance(data, dict):
        raise fail("expected a table")
    texts = {name: data.get(name) for name in ("arch", "mode", "emulated", "base")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise fail("needs the texts arch, mode, emulated and base")
    traces, steps, spread = data.get("trace"), data.get("steps"), data.get("spread", {})
    if not isinstance(traces, list) or not traces or not all(
            isinstance(t, dict) and isinstance(t.get("name"), str)
            and isinstance(t.get("sha256"), str) and isinstance(t.get("calls"), int)
            for t in traces):
        raise fail("needs a [[fitted.trace]] with name, sha256 and calls")
    if not _are_numbers(steps, len(STEPS)):
        raise fail(f"needs steps, {len(STEPS)} numbers from 0")
    if not isinstance(spread, dict) or not all(map(_is_spread, spread.values())):
        raise fail(f"a spread is {len(SHARES)} rising numbers above 0")
    return Fitted(tuple(FittedTrace(t["name"], t["sha256"], t["calls"]) for t in traces),
                  **{name: str(text) for name, text in texts.items()},
                  steps=tuple(map(float, steps or [])),
                  spread={str(k): tuple(map(float, v)) for k, v in spread.items()})
