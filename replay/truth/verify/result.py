"""What a verification counts, and how recorded frames are held against modelled ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from replay.base.notebook import shown
from replay.base.printable import plain

PLACEHOLDER = 1 << 50
"""Frames from here on stand for ones the recording has not shown yet."""
ANONYMOUS = PLACEHOLDER * 2
"""And from here on for freed pages whose identity the recording does not tell at all."""
MAX_DIFFERENCES = 20


@dataclass
class Verification:
    """Counters of one verification; `counts` holds (checked, equal) by what was compared."""

    strategy: str
    frames_learned: int = 0
    calls_undetermined: int = 0
    frames_undetermined: int = 0
    ambiguous: bool = False
    counts: dict[str, list[int]] = field(default_factory=dict)
    differences: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Verification of {plain(self.strategy)}: {self._verdict}>"

    def _repr_html_(self) -> str:
        rows = [(what.replace("_", " "), f"{checked:,}", f"{same:,}")
                for what, (checked, same) in sorted(self.counts.items())]
        said = [f"first difference: {d['what']} of event {d['event']}: recorded {d['recorded']}, "
                f"model {d['model']}" for d in self.differences[:1]]
        return shown(f"Model of the {self.strategy} against the recording: {self._verdict}",
                     [*said, *self.notes], ["", "checked", "equal"], rows)

    @property
    def _verdict(self) -> str:
        checked, same = (sum(column) for column in zip(*self.counts.values(), strict=True)) \
            if self.counts else (0, 0)
        if not checked:
            return "nothing to compare"
        return f"EQUAL in {checked:,} comparisons" if self.equal else (
            f"{checked - same:,} of {checked:,} comparisons DIFFER")

    def compare(self, what: str, time_ns: int, position: int, recorded: Any, model: Any) -> bool:
        """Count one comparison, and keep the first differences; returns whether both are equal."""
        if self.ambiguous:
            return bool(recorded == model)
        pair = self.counts.setdefault(what, [0, 0])
        pair[0] += 1
        if recorded == model:
            pair[1] += 1
            return True
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append({"what": what, "time_ns": int(time_ns), "event": int(position),
                                     "recorded": recorded, "model": model})
        return False

    def begin(self, *, ambiguous: bool) -> None:
        """What is compared from now on is of one call; of an ambiguous one nothing counts.

        Its place in the order of lock holders is open, and so is what it found there.
        """
        self.ambiguous = ambiguous
        self.calls_undetermined += ambiguous

    @property
    def equal(self) -> bool:
        """Whether nothing that was compared differs."""
        return all(checked == same for checked, same in self.counts.values())

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: X_checked and X_equal for each X, what was learned, and what is open."""
        data: dict[str, Any] = {"strategy": self.strategy, "frames_learned": self.frames_learned,
                                "frames_undetermined": self.frames_undetermined,
                                "calls_undetermined": self.calls_undetermined}
        for what in sorted({*self.counts, "frames", "sections"}):
            checked, same = self.counts.get(what, [0, 0])
            data[f"{what}_checked"], data[f"{what}_equal"] = checked, same
        return {**data, "equal": self.equal, "differences": self.differences, "notes": self.notes}


class Frames:
    """Learns what each placeholder stands for, and checks every frame that is known.

    A recording that starts in mid-life does not show the initial free list, nor which pages
    alloc_page() picks: the first sight of such a frame is learned, every later one checked.
    """

    def __init__(self, result: Verification) -> None:
        self.result = result
        self.real: dict[int, int] = {}
        self.stands_for: dict[int, int] = {}
        self.unnamed = 0
        """Freed pages that the recording did not name and that have not turned up since."""
        self.is_listed: Callable[[int], bool] = lambda placeholder: True

    def _may_be(self, ours: int, theirs: int) -> bool:
        """Whether an unlearned frame can be this one: nobody else is, or it was freed unnamed.

        Then whoever was thought to hold it is the one that gave it back.
        """
        holder = self.stands_for.get(theirs)
        if holder is None:
            return True
        if self.unnamed <= 0 or self.is_listed(holder):
            return False
        self.unnamed -= 1
        self.real.pop(holder, None)
        return True

    def known(self, model: int) -> int:
        """The real frame behind a modelled one; -1 while it is not learned."""
        return model if model < PLACEHOLDER else self.real.get(model, -1)

    def forget(self, model: int) -> None:
        """The frame left the strategy's hands; its number may come back under another name."""
        frame = self.real.pop(model, None)
        if frame is not None:
            self.stands_for.pop(frame, None)

    def check(self, time_ns: int, event: int, recorded: np.ndarray, model: np.ndarray) -> None:
        """Hold recorded frames against the modelled ones, in order; of an ambiguous call none is
        compared, and none learned."""
        compare = self.result.compare
        for ours, theirs in zip(model.tolist(), recorded.tolist(), strict=False):
            if theirs < 0:
                continue
            if self.result.ambiguous:
                self.result.frames_undetermined += 1
                continue
            frame = self.known(ours)
            if frame < 0 and ours >= PLACEHOLDER and self._may_be(ours, theirs):
                self.real[ours] = theirs
                self.stands_for[theirs] = ours
                self.result.frames_learned += 1
                continue
            compare("frames", time_ns, event, int(theirs), int(frame))
