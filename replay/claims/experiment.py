"""What an experiment is: replays that are asked for, figures that are read from their summaries.

A claim is data and one function: which replays, which figures of them, and what follows from the
figures. Nothing is said of a claim that does not follow from figures that `replay run --json`
prints; the commands that print them are made from the same data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from replay.engine.arrivals import ASAP, CLOSED, OPEN

Word = Literal["supported", "refuted", "depends"]
BESIDE_STRATEGIES = ("run", "events")
"""Parts of a summary that are not one strategy's; `events` is that of `replay info --json`."""


@dataclass(frozen=True)
class Synthetic:
    """A labelled synthetic trace: workload models of trace/synthetic, a seed, a machine."""

    name: str
    models: tuple[str, ...]
    physmap: str
    seed: int = 1
    seconds: int = 20

    @property
    def file(self) -> str:
        """Where its command puts it."""
        return f"reports/{self.name}.arrow"

    def command(self) -> str:
        """The command that makes it."""
        models = "".join(f" --model {m}" for m in self.models)
        return (f"replay synth -o {self.file} --seed {self.seed} --seconds {self.seconds} "
                f"--physmap {self.physmap}{models}")


@dataclass(frozen=True)
class Run:
    """One `replay run`. trace: the name of a shipped one, or a synthetic one. settings: texts of
    `--set`. label: what is special about it, where its rows need telling apart."""

    trace: str | Synthetic
    strategies: tuple[str, ...]
    physmap: str | None = None
    iommu: str | None = None
    subtract_ram: str | None = None
    settings: tuple[str, ...] = ()
    loop: str = OPEN
    label: str = ""

    @property
    def trace_name(self) -> str:
        """The trace, as a table shows it."""
        return self.trace if isinstance(self.trace, str) else self.trace.name

    def commands(self) -> list[str]:
        """The command lines that print this run's summary; they work in a clean clone."""
        made = [] if isinstance(self.trace, str) else [self.trace.command()]
        file = f"traces/{self.trace}.arrow" if isinstance(self.trace, str) else self.trace.file
        words = ["replay run", file, *(f"--allocator {s}" for s in self.strategies)]
        for option, value in (("physmap", self.physmap), ("iommu", self.iommu),
                              ("subtract-ram", self.subtract_ram)):
            words += [f"--{option} {value}"] if value else []
        words += [f"--set {text}" for text in self.settings]
        words += {OPEN: [], CLOSED: ["--closed-loop"], ASAP: ["--asap"]}[self.loop]
        return [*made, " ".join([*words, "--json"])]


@dataclass(frozen=True)
class Column:
    """One figure of each row: where it stands in the summary, and how a table shows it.

    path: below `allocators.STRATEGY`, or from one of BESIDE_STRATEGIES on. unit: count, bytes, ns,
    share, number.
    """

    name: str
    path: str
    unit: str = "count"

    def of(self, summary: dict[str, Any], strategy: str) -> float | None:
        """The figure; None where the summary says that it has no value."""
        parts = self.path.split(".")
        at: Any = summary if parts[0] in BESIDE_STRATEGIES else summary["allocators"][strategy]
        for part in parts:
            at = at[part]
        return at if at is None else float(at)


@dataclass(frozen=True)
class Row:
    """One strategy of one run, with its figures by column name."""

    run: Run
    strategy: str
    machine: str
    figures: dict[str, float | None]

    def __getitem__(self, column: str) -> float:
        """A figure; what has no value counts as none at all."""
        return self.figures[column] or 0.0


class Rows(tuple[Row, ...]):
    """The rows of a claim, to pick from."""

    def of(self, strategy: str = "", **wanted: Any) -> Rows:
        """Those of a strategy, and of runs with these attributes."""
        return Rows(r for r in self if (not strategy or r.strategy == strategy)
                    and all(getattr(r.run, k) == v for k, v in wanted.items()))

    def beside(self, row: Row, strategy: str) -> Row:
        """The row of another strategy in the same run."""
        return next(r for r in self if r.run == row.run and r.strategy == strategy)

    def total(self, column: str) -> float:
        """The sum of a column."""
        return sum(r[column] for r in self)

    def values(self, column: str) -> list[float]:
        """A column."""
        return [r[column] for r in self]


@dataclass(frozen=True)
class Finding:
    """What follows from the figures. outcome: sentences, the one that decides first. on: what the
    verdict depends on, where it does."""

    word: Word
    outcome: tuple[str, ...]
    on: str = ""

    @property
    def verdict(self) -> str:
        """As printed."""
        return f"depends on {self.on}" if self.word == "depends" else self.word


@dataclass(frozen=True)
class Claim:
    """says: the claim in one line. experiment: what is done. rule: how the verdict is reached, in
    words. caveats: what the figures do not show."""

    number: int
    says: str
    experiment: str
    runs: tuple[Run, ...]
    columns: tuple[Column, ...]
    judge: Callable[[Rows], Finding]
    rule: str
    caveats: tuple[str, ...] = ()
