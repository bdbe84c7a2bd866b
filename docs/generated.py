"""Pages made when the site is built: the reference from the sources, the first page and that of the
traces from their READMEs; and the tables of results in the written pages.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from replay.cli.reference import reference

ROOT = Path(__file__).parent.parent
_spec = importlib.util.spec_from_file_location(
    "replay_results", Path(__file__).parent / "results.py")
assert _spec is not None and _spec.loader is not None
results = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(results)
table = results.table


def on_files(files: Files, config: Any) -> Files:
    """Called by mkdocs once it has found the written pages."""
    for name, body in (("columns", columns()), ("metrics", metrics()), ("costs", costs()),
                       ("commands", reference())):
        files.append(File.generated(config, f"reference/{name}.md", content=body))
    for name, source in SHOWN.items():
        body = site_links((ROOT / source).read_text(encoding="utf-8"), source)
        files.append(File.generated(config, name, content=body))
    return files


SHOWN = {"index.md": "README.md", "traces.md": "traces/README.md"}
"""Pages of the site, and the files of the checkout that they show."""


def site_links(text: str, source: str) -> str:
    """The text with its links to pages, and to what the site shows, as they are in the site."""
    up = "../" * source.count("/")
    text = text.replace(f"]({up}docs/pages/", "](")
    for name, shown in SHOWN.items():
        text = text.replace(f"]({up}{shown}", f"]({name}")
    return text


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page: its tables of results are drawn."""
    return str(results.filled(markdown))


def columns() -> str:
    """replay.trace.schema: what a trace's rows hold."""
    from replay.trace.schema import KINDS, RELEASE, STORED_COLUMNS

    return ("# The trace's columns\n\nA trace is one Arrow IPC file; a row is an event, in order "
            "of time. How slots are used again is told with the [shipped traces]"
            "(../traces.md#how-a-trace-is-stored).\n\n"
            + table(("column", "Arrow type", "unit", "what"),
                    [(f"`{c.name}`", f"`{c.type}`", c.unit, c.what) for c in STORED_COLUMNS])
            + "\nKinds of events: " + ", ".join(f"`{kind}`" for kind in (*KINDS, RELEASE)) + ".\n")


def metrics() -> str:
    """replay.metrics.catalogue: what summaries, comparisons and the gate speak of."""
    from replay.metrics.catalogue import families
    from replay.metrics.hazards import by_severity

    parts = [("# Metrics\n\nThe names are those of `gate.toml` and of `Run.metrics()`. Times are "
              "modelled; all else is exact.\n")]
    for family, found in families().items():
        parts.append(f"## {family.capitalize()}\n\n" + table(
            ("metric", "unit", "better", "what"),
            [(f"`{m.name}`", m.unit, m.better or "neither", m.what) for m in found]))
    parts.append("## What a hazard does\n\n" + table(
        ("hazard", "it"), [(one.label, one.severity) for one in by_severity()]))
    return "\n".join(parts)


def costs() -> str:
    """The profiles that the package ships, with each constant's range and source."""
    from replay.costs import profile

    parts = [("# Work and costs\n\nAllocators report work, in counts of primitives; a profile "
              "gives each primitive a cost. A source that begins with `assumed` is a guess within "
              "a range: ask `replay sensitivity` what hangs on it.\n")]
    for name in profile.names():
        its = profile.load(name)
        parts.append(f"## {name}\n\n{its.summary}\n\n" + table(
            ("primitive", "ns", "from", "to", "source"),
            [(f"`{n}`", f"{c.ns:g}", f"{c.low:g}", f"{c.high:g}", c.source)
             for n, c in its.costs.items()]))
    return "\n".join(parts)
