"""A run: the results of one replay, in memory or in the folder that `replay run` wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from replay.base.errors import InputError, unknown_name
from replay.base.files import text_writer, write_files
from replay.base.notebook import shown
from replay.base.printable import plain
from replay.base.progress import say
from replay.metrics.catalogue import catalogue
from replay.metrics.timeline import Timeline, columns
from replay.report.telling.figures import rows_of
from replay.report.telling.telling import told
from replay.report.telling.text import report
from replay.runs.belonging import KEY, belonging, check_belonging, metadata_of, tell
from replay.runs.files import arrow_writer
from replay.runs.finding import point_latest
from replay.runs.naming import RUNS_FOLDER, name_of, text_of
from replay.runs.own_files import MOST_SUMMARY_BYTES, SUMMARY, remove, to_remove
from replay.runs.rows import Rows
from replay.runs.shape import checked
from replay.runs.timeline_file import read_timeline

if TYPE_CHECKING:
    import polars as pl

NOT_KEPT = "not kept"
"""In the header of a run that is its summary alone."""
SHOWN_METRICS = frozenset((
    "requests", "failed", "latency_ns.p50", "latency_ns.p99", "latency_ns.max", "latency_ns.mean",
    "slow.share", "fragmentation.live_pages.mean", "fragmentation.unusable_free_index.mean",
    "fragmentation.added_pages.end", "fragmentation.ram_given_bytes.mean"))
"""Metrics that a run shows of itself in a notebook, beside the hazards that were met."""
BEST_MARKED = "All times are MODELLED. * marks the best of a row."
LABEL_BEFORE = {"latency_ns": "latency, ", "hazards": "hazard: "}
"""What goes before labels that stand beneath a title elsewhere."""


@dataclass(frozen=True)
class Run:
    """The results of one replay.

    summary: what `summary.json` holds. folder: where it was read from. tables, timelines: outcomes
    and time lines that are in memory; of a run read from a folder they are opened when asked for.
    files: outcomes written while it was replayed, which save() moves into its folder. label: what
    its name begins with, of a run that has no folder yet.
    """

    summary: dict[str, Any]
    folder: Path | None = None
    tables: Mapping[str, pa.Table] = field(default_factory=dict, repr=False)
    timelines: Mapping[str, Timeline] = field(default_factory=dict, repr=False)
    files: Mapping[str, Path] = field(default_factory=dict, repr=False)
    label: str = field(default="", repr=False)

    def __repr__(self) -> str:
        where = f" in {self.folder}" if self.folder else ""
        return plain(f"<Run of {self._about}: {', '.join(self.allocators)}{where}>")

    def _repr_html_(self) -> str:
        names = list(self.allocators)
        rows = [(LABEL_BEFORE.get(row.metric.path[0], "") + row.metric.label,
                 *(f"{text} *" if best else text
                   for text, best in zip(row.shown, row.best, strict=True)))
                for row in rows_of((m for m in catalogue() if m.name in SHOWN_METRICS or (
                    m.path[0] == "hazards" and any(map(m.of, self.allocators.values())))),
                    self.allocators)]
        return shown(f"Run of {self._about}", [
            f"{self.header['physmap']}; {self.header['mode']}", *self.verdict, BEST_MARKED,
            *self.failed.values()], ["", *names], rows)

    @property
    def _about(self) -> str:
        return f"{'SYNTHETIC ' if self.header['synthetic'] else ''}trace {self.name}"

    @property
    def charts(self) -> Any:
        """Its figures as Altair charts: charts.latency(), charts.physmap() and so on, see
        report.page.charts.Charts."""
        # By name: what draws runs comes behind what they are.
        return import_module("replay.report.page.charts").Charts(self)

    @property
    def name(self) -> str:
        """The trace's name."""
        return str(self.summary["run"]["trace"])

    @property
    def header(self) -> dict[str, Any]:
        """What the figures rest on: trace, machine, costs, mode."""
        found: dict[str, Any] = self.summary["run"]
        return found

    @property
    def allocators(self) -> dict[str, dict[str, Any]]:
        """The figures of each allocator, in the order they were named."""
        return {name: self.summary["allocators"][name] for name in self.summary["order"]}

    @property
    def kept(self) -> bool:
        """Whether there is more than the summary: outcomes and time lines."""
        return self.header.get("outcome") != NOT_KEPT

    def in_memory(self) -> Run:
        """The same with the outcomes of `files` in memory, so that these may go."""
        read = {name: Rows(path).read_all() for name, path in self.files.items()}
        return replace(self, files={}, tables={**self.tables, **read})

    def _check_kept(self, allocator: str) -> None:
        if allocator not in self.summary["order"]:
            raise unknown_name(f"allocator of {self.folder or self.name}", allocator,
                               self.summary["order"])
        if not self.kept:
            raise InputError(self.folder or Path(self.name), "keeps the summary alone, no row per "
                             "request (--no-outcome)", hint="run `replay run` again without it")

    def outcome(self, allocator: str) -> pl.DataFrame:
        """One row per request: event (row of the trace), time_ns, kind (alloc, free, target), task,
        caller, nr_pages, wait_ns, service_ns, latency_ns (their sum), path (fast, slow, slept),
        errno (0, or negative), runs (of frames that follow each other), first_pfn (-1: none),
        frames_hash, and work_NAME, a count, for each primitive.

        Times are modelled, in ns. kind, task, caller and path are categoricals. ReplayError for an
        allocator that the run does not have, and for a run that keeps its summary alone.
        """
        import polars as pl

        found = pl.from_arrow(self.rows(allocator).read_all())
        assert isinstance(found, pl.DataFrame)
        return found

    def rows(self, allocator: str) -> Rows:
        """The same as batches, so that the rows of a long run need not be in memory at once."""
        self._check_kept(allocator)
        if allocator in self.tables:
            return Rows(Path(self.name), self.tables[allocator])
        if allocator in self.files:
            return Rows(self.files[allocator])
        assert self.folder is not None
        found = Rows(self.folder / f"outcome-{allocator}.arrow")
        check_belonging(found.path, found.said, self.summary, allocator)
        return found

    def timeline(self, allocator: str) -> Timeline:
        """What was where over modelled time, see metrics.timeline; for pictures."""
        self._check_kept(allocator)
        if allocator in self.timelines:
            return self.timelines[allocator]
        assert self.folder is not None
        path = self.folder / f"timeline-{allocator}.json"
        return read_timeline(path, lambda said: check_belonging(
            path, said, self.summary, allocator))

    def metrics(self) -> pl.DataFrame:
        """One row per allocator and metric of the catalogue: unit (ns, count, pages, bytes, share,
        ratio), better (lower, higher, or empty where neither is), value (null where there is none).
        """
        import polars as pl

        schema = {"allocator": pl.String, "metric": pl.String, "unit": pl.String,
                  "better": pl.String, "value": pl.Float64}
        return pl.DataFrame(
            [(name, m.name, m.unit, m.better, m.of(figures))
             for name, figures in self.allocators.items() for m in catalogue()],
            schema=schema, orient="row")

    def latency_by(self, key: str) -> pl.DataFrame:
        """Latency of allocations by `size`, `path` or `caller`: calls, failed, pages, percentiles.

        Modelled, in ns. Callers: the twenty busiest.
        """
        import polars as pl

        if key not in ("size", "path", "caller"):
            raise unknown_name("grouping", key, ["size", "path", "caller"])
        frames = [pl.DataFrame(figures[f"latency_by_{key}"], infer_schema_length=None)
                  .with_columns(pl.lit(name).alias("allocator"))
                  for name, figures in self.allocators.items() if figures[f"latency_by_{key}"]]
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()

    @property
    def verdict(self) -> tuple[str, ...]:
        """What came out, in a few sentences."""
        return told(self.summary).verdict

    @cached_property
    def text(self) -> str:
        """The text report, as report.txt holds it."""
        return report(self.summary)

    @property
    def failed(self) -> dict[str, str]:
        """C allocators that misbehaved, each with a sentence."""
        return dict(self.summary.get("failed_allocators", {}))

    @property
    def default_folder(self) -> Path:
        """Where it is saved unless told otherwise: `reports/` and a name of trace, strategies,
        options, version, and a digest of all that it rests on and came to."""
        return RUNS_FOLDER / name_of(self.label or self.name, self.summary)

    def save(self, folder: str | os.PathLike[str] | None = None, *, overwrite: bool = False
             ) -> list[str]:
        """Write summary, outcomes and the text report into a folder, by default default_folder;
        gives the files' names. One in `reports/` is the latest from then on.

        InputError where another run's files are in that folder, unless they are to be overwritten:
        then all that replay knows as theirs goes. Other files never do.
        """
        place = self.default_folder if folder is None else Path(folder)
        files = self._writers()
        old = to_remove(place, self.summary, files, overwrite)
        for name, path in self.files.items():
            tell(path, self.summary, name)
        write_files(place, files)
        remove(old)
        if said := point_latest(place):
            say(said)
        return sorted(files)

    def _writers(self) -> dict[str, Callable[[Path], Any]]:
        """Its files by name, in the order in which they are renamed."""
        files: dict[str, Callable[[Path], Any]] = {
            f"outcome-{name}.arrow": arrow_writer(table.replace_schema_metadata(
                {KEY: metadata_of(self.summary, name)})) for name, table in self.tables.items()}
        for name, path in self.files.items():
            files[f"outcome-{name}.arrow"] = path.replace
        for name, made in self.timelines.items():
            said = {"run": belonging(self.summary, name), **columns(made)}
            files[f"timeline-{name}.json"] = text_writer(json.dumps(said) + "\n")
        files[SUMMARY] = text_writer(text_of(self.summary))
        files["report.txt"] = text_writer(self.text)
        return files


def read_run(folder: Path) -> Run:
    """The run in a folder that `replay run` wrote, or in its `summary.json`.

    InputError where it is none. What it holds may come from anywhere: names of allocators are file
    names only, and every figure that reports use is there and is a number or null.
    """
    path = folder / SUMMARY if folder.is_dir() else folder
    hint = "expected the folder or the name of a run (`replay runs` lists them)"
    if path.suffix == ".arrow":
        raise InputError(path, "is a trace, expected a run", hint=f"`replay run {path}` makes one")
    try:
        if path.stat().st_size > MOST_SUMMARY_BYTES:
            raise InputError(path, f"larger than {MOST_SUMMARY_BYTES >> 20} MiB", hint=hint)
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(folder, f"no {SUMMARY} there", hint=hint) from None
    except NotADirectoryError:
        raise InputError(folder, "not a folder", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"not JSON ({error})", hint=hint) from None
    return Run(checked(path, data), path.parent)
