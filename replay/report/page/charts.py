"""The figures of a run as Altair charts, for notebooks: `run.charts`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from replay.base.errors import ReplayError
from replay.report.page.document import FIGURE_WIDTH
from replay.report.page.figure import Figure
from replay.report.page.page import figures
from replay.runs.run import Run

OF_TIME = ("live-pages", "section-pages", "unusable-free-index")


class Charts:
    """One method per figure; each gives an Altair chart with its data in it, however many rows.

    All times are modelled. ReplayError where a run has no such figure: it keeps its summary alone,
    has a single strategy, or nothing of the kind happened.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __repr__(self) -> str:
        return f"<charts: {', '.join(self.names())}>"

    @cached_property
    def _figures(self) -> tuple[dict[str, Figure], list[str]]:
        made, missing = figures(self._run)
        return {figure.name: figure for figure in made}, missing

    def names(self) -> list[str]:
        """Of the figures that the run has; `-` is `_` in the names of methods."""
        return list(self._figures[0])

    def figure(self, name: str) -> Any:
        """The chart of this name."""
        return _with_data(self._figure(name).chart)

    def _figure(self, name: str) -> Figure:
        made, missing = self._figures
        if name not in made:
            why = f" {missing[0]}" if missing else ""
            raise ReplayError(f"the run has no figure {name!r}.{why} It has: "
                              f"{', '.join(made) or 'none'}.")
        return made[name]

    def latency(self) -> Any:
        """Percentile curves of latency, the tail on a logarithmic axis."""
        return self.figure("latency")

    def waiting(self) -> Any:
        """The same of the time before the lock was had."""
        return self.figure("waiting")

    def in_the_lock(self) -> Any:
        """The same of the time in the lock."""
        return self.figure("in-the-lock")

    def by_size(self) -> Any:
        """p50 and p99 by pages per request."""
        return self.figure("by-size")

    def by_caller(self) -> Any:
        """p50 and p99 by calling function."""
        return self.figure("by-caller")

    def gauges(self) -> Any:
        """Live pages, pages of sections and the unusable free index over time, one below the
        other, as far as the run has them."""
        import altair as alt

        made = self._figures[0]
        found = [made[name] for name in OF_TIME if name in made]
        if not found:
            return self.figure(OF_TIME[0])
        return _with_data(alt.vconcat(*(one.chart.properties(title=one.title, width=FIGURE_WIDTH)
                                        for one in found)))

    def physmap(self) -> Any:
        """The physmap as a map, with a slider for the time and a choice of the strategy."""
        return self.figure("physmap")

    def ages(self) -> Any:
        """How long live pages have been live."""
        return self.figure("ages")

    def factors(self) -> Any:
        """Each metric against the best strategy's."""
        return self.figure("factors")

    def pairs(self) -> Any:
        """The share of requests that one strategy served faster than another."""
        return self.figure("pairs")


def _with_data(chart: Any) -> Any:
    """A chart that a notebook draws as it is: its rows are in it, and not counted."""
    import altair as alt

    with alt.data_transformers.enable("default", max_rows=None, consolidate_datasets=True):
        sized = chart if isinstance(chart, alt.VConcatChart) else chart.properties(
            width=FIGURE_WIDTH)
        return alt.Chart.from_dict(sized.to_dict())
