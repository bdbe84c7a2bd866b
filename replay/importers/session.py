"""One recording as a whole: its sources, the machine they came from, and the trace they become."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import replay
from replay.base import memory
from replay.base.anomalies import Anomalies
from replay.base.errors import InputError, ReplayError
from replay.base.progress import step
from replay.base.scratch import Scratch
from replay.base.units import moment
from replay.importers.archive import unpacked
from replay.importers.beginning import beginning
from replay.importers.clocks.relation import Unknown
from replay.importers.finishing import find_out, streamed_trace, whole_trace
from replay.importers.merge import moved, united, unmoved
from replay.importers.related import HOW_TO_STATE, Placed, place
from replay.importers.sniff import sniff
from replay.importers.source.settings import whole
from replay.importers.source.format import Asked, Format
from replay.importers.source.imported import Imported
from replay.importers.source.probes import ProbeTable, load_table
from replay.importers.source.rows import Rows
from replay.importers.xen.keep import kept, without
from replay.physmap.readers import Machine, read_machine, with_linear_map
from replay.trace.meta import Meta
from replay.trace.opening import imbalance
from replay.trace.store import Trace, check

def _moment(text: str) -> None:
    try:
        moment(text)
    except (ValueError, OverflowError):
        raise ReplayError(f"--set recorded_at={text}: expected a time such as 2026-11-27T02:17") \
            from None


def _read(path: Path, index: int, settings: dict[str, str], machine: Machine | None,
          table: ProbeTable, streamed: bool, scratch: Scratch
          ) -> tuple[Imported, Format, dict[str, str]]:
    hz = whole(settings, "cpu_hz", machine.provenance.get("cpu_hz") if machine else None)
    kind = sniff(path)
    if kind is None:
        raise InputError(path, "is a whole recording", hint="Import it alone")
    part, facts = kind.read(Asked(path, index, hz, settings, machine, table, streamed, scratch))
    return part, kind, facts


def _digest(path: Path) -> str:
    """SHA-256 of a file; "" if it cannot be read, which its importer then says."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _source(path: Path, kind: Format, imported: Imported, digest: str) -> dict[str, Any]:
    return {"file": path.name, "format": kind.name, "bytes": path.stat().st_size, "sha256": digest,
            "clock": imported.clock, "hz": imported.hz,
            "records": int(imported.accounting["records"])}


def _clock(imported: Imported) -> dict[str, Any]:
    """The clock of time_ns: hz, or where the file says so (ticks * mult >> shift) + offset_ns."""
    facts = {"name": imported.clock, "hz": imported.hz, "t0_raw": imported.t0_raw}
    if imported.scale:
        facts |= {"mult": imported.scale[0], "shift": imported.scale[1]}
    return facts | ({"offset_ns": imported.offset_ns} if imported.offset_ns else {})


def _account(parts: list[Imported]) -> tuple[dict[str, Any], Anomalies]:
    anomalies = Anomalies()
    skipped: Counter[str] = Counter()
    for part in parts:
        anomalies.counts.update(part.anomalies.counts)
        skipped.update(part.accounting["skipped"])
    totals = {name: sum(int(p.accounting[name]) for p in parts)
              for name in ("records", "imported", "lost")}
    account = {**totals, "skipped": dict(sorted(skipped.items()))}
    if problem := imbalance(account):  # of the importers, whatever the recording
        raise AssertionError(problem)
    return account, anomalies


def _merged(parts: list[Imported], kinds: list[Format], placed: list[Placed], scratch: Scratch
            ) -> Rows:
    """All sources on the first one's clock; only some formats can follow."""
    if not all(kind.follows for kind in kinds[1:]):
        raise ReplayError("several sources of one recording: give one ftrace file first, "
                          "then the xentrace files")
    if len(parts) == 1:
        return parts[0].all_rows(scratch)
    return united([unmoved(parts[0], scratch),
                   *(moved(parts[0], other, at.offset_ns, scratch, at.drift)
                     for other, at in zip(parts[1:], placed, strict=True))], scratch)


def import_recording(sources: list[Path], name: str, *, machine_dir: Path | None,
                     settings: dict[str, str], probes: Path | None,
                     streamed: bool = False, beside: Path | None = None) -> Trace:
    """Read all sources of one recording, merge, order and pair them into a trace.

    One source may be an archive: it holds the sources and the machine, what is given here counts.
    streamed: the rows become a stream, for a trace that is only to be saved. beside: the folder for
    temporary files, where TMPDIR names none.
    """
    scratch = Scratch(None if os.environ.get("TMPDIR") else beside)
    if len(sources) == 1 and sniff(sources[0]) is None:
        return _import_archive(sources[0], name, machine_dir, settings, probes, streamed, scratch)
    machine = read_machine(machine_dir, settings) if machine_dir else None
    return _import(sources, [], name, machine, settings, probes, streamed, scratch)


def _import_archive(path: Path, name: str, machine_dir: Path | None, settings: dict[str, str],
                    probes: Path | None, streamed: bool, scratch: Scratch) -> Trace:
    with unpacked(path) as found:
        try:
            machine = read_machine(machine_dir or found.folder, settings)
            trace = _import([found.ftrace], found.xentrace, name, machine,
                            {**found.settings, **settings}, probes, streamed, scratch)
        except ReplayError as error:  # the temporary folder tells nobody anything
            said = str(error).replace(f"{found.folder}/", f"{path}: ")
            raise ReplayError(said.replace(str(found.folder), str(path))) from None
    about = {"archive": path.name, "archive_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    anomalies = trace.meta.anomalies
    if found.xentrace_cut and len(trace.meta.sources) > 1:
        anomalies, about["xentrace_cut"] = {**anomalies, "xentrace_cut": 1}, found.xentrace_cut
    return replace(trace, meta=replace(
        trace.meta, options=dict(sorted(settings.items())), anomalies=anomalies,
        provenance={**trace.meta.provenance, **about}))


def _placed(parts: list[Imported], part: Imported, kind: Format, settings: dict[str, str],
            machine: Machine | None) -> Placed | Unknown:
    """How the next source relates to the first."""
    if not parts or not kind.follows:
        return Placed(None)
    mode = machine.physmap.mode if machine else ""
    return place(parts[0], part, mode, whole(settings, "clock_offset_ns", None))


def _learnt(machine: Machine | None, facts: dict[str, str]) -> Machine | None:
    """The machine with what a source's addresses tell of it."""
    if machine is None or "va_bits" not in facts:
        return machine
    memstart = facts.get("memstart_addr")
    return with_linear_map(machine, int(facts["va_bits"]),
                           None if memstart is None else int(memstart, 16))


def _kernel(machine: Machine | None) -> str:
    """The recorded kernel's release, "" where it is not known."""
    return str(machine.provenance.get("kernel", "")) if machine else ""


def _import(sources: list[Path], spare: list[Path], name: str, machine: Machine | None,
            settings: dict[str, str], probes: Path | None, streamed: bool,
            scratch: Scratch) -> Trace:
    """spare: Xen traces that are left out, by name, where they can add nothing."""
    table = load_table(probes)
    parts: list[Imported] = []
    metas: list[dict[str, Any]] = []
    kinds: list[Format] = []
    placed: list[Placed] = []
    seen: dict[str, str] = {}
    every = [*sources, *spare]
    with ThreadPoolExecutor(1) as beside:  # hashing takes a third of the time decoding does
        digests = [beside.submit(_digest, path) for path in every]
        for index, path in enumerate(every):
            if path in spare and not path.stat().st_size:
                seen["left_out"] = f"{path.name}: is empty: xentrace wrote no record"
                continue
            part, kind, facts = _read(path, index, settings, machine, table,
                                      streamed and len(every) == 1, scratch)
            memory.check(f"{path}: importing it", "record in shorter pieces")
            at = _placed(parts, part, kind, settings, machine)
            if isinstance(at, Unknown):
                if path not in spare:
                    raise InputError(path, HOW_TO_STATE.format(at.why))
                seen["left_out"] = f"{path.name}: {HOW_TO_STATE.format(at.why)}"
                continue
            if kind.follows and part.stream is None:
                keep = kept(settings, machine.physmap if machine else None)
                part = without(part, keep, scratch)
            metas.append(_source(path, kind, part, digests[index].result())
                         | ({"relation": at.facts} if at.facts else {}))
            placed += [at] if parts else []
            parts.append(part)
            kinds.append(kind)
            seen.update(facts)
            machine = _learnt(machine, facts)
    accounting, anomalies = _account(parts)
    physmap = machine.physmap if machine else None
    with step("putting calls in order"):
        rows = _merged(parts, kinds, placed, scratch)
        found = find_out(rows, physmap, scratch, anomalies, _kernel(machine))
    if "recorded_at" in settings:
        _moment(settings["recorded_at"])
    provenance = {**seen, **{k: str(v) for k, v in (machine.provenance if machine else {}).items()
                             if not isinstance(v, dict | list)}}
    origin = machine.provenance["files"] if machine else {}
    if "emulated" in settings:
        provenance["emulated"] = settings["emulated"]
    meta = Meta(
        name=name, synthetic=False, description=settings.get("description", ""), sources=metas,
        clock=_clock(parts[0]), provenance=provenance, recorded_strategy=found.strategy,
        accounting=accounting, anomalies=dict(sorted(anomalies.counts.items())),
        options=dict(sorted(settings.items())), importer=f"replay {replay.__version__}",
        physmap=physmap,
        start=beginning(found.ledger, found.strategy, physmap, origin, _kernel(machine)))
    if parts[0].stream:
        return check(sources[0], Trace(parts[0].table, meta, parts[0].stream))
    if streamed:
        return streamed_trace(sources[0], found, meta, rows.last)
    return whole_trace(sources[0], found, meta)
