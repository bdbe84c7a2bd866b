"""What the options of a run name, looked up: strategies, machine, costs, arrivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from replay import allocators
from replay.base.arrow import compute as pc
from replay.base import memory
from replay.base.errors import ReplayError, unknown_name
from replay.base.since import version_of
from replay.costs import profile as profiles
from replay.engine.arrivals import arrange
from replay.engine.drive import Workload
from replay.engine.faults import FAULT_PREFIX, NO_FAULTS, Faults, parse_faults
from replay.engine.start import Start
from replay.engine.strategy import Strategy
from replay.physmap.model import Physmap
from replay.runs.options import CCode, RunOptions, is_object
from replay.trace.batches import open_batches
from replay.trace.machine import machine_for
from replay.trace.requests import MAX_SLOTS, to_workload
from replay.trace.meta import Meta
from replay.trace.rescale import in_pages_of
from replay.trace.store import Trace, load
from replay.trace.weight import SLOT_BYTES, SLOT_BYTES_EACH, Weight, weigh


BASE_BYTES = 300 << 20
"""Of a process with all that it imports."""


class AtOnce(NamedTuple):
    """Bytes of memory that a replay of all rows takes for each row and page, and of these for each
    allocator."""

    row: int
    row_each: int
    page: int
    page_each: int


RUNNING = AtOnce(250, 330, 70, 10)
"""Measured on synthetic traces of 60,000 to 10^6 rows with 1 and 15 pages each (peak of the
process, Linux 6.1, Python 3.11); at most a fifth more there."""
SWEEPING = AtOnce(250, 225, 20, 5)
"""The same of `sensitivity`, which keeps no rows of an outcome: 1,436 and 1,917 MiB at 10^6 rows.
"""


@dataclass(frozen=True, kw_only=True)
class Named:
    """What the options of a run name, looked up. options: by strategy or C row. objects: in C.
    faults: what fails in all of them."""

    machine: Physmap
    costs: profiles.Profile
    chosen: dict[str, Strategy]
    options: dict[str, dict[str, str]]
    objects: list[str]
    faults: Faults = NO_FAULTS


@dataclass(frozen=True, kw_only=True)
class Prepared(Named):
    """The same with all requests of a trace."""

    trace: Trace
    workload: Workload


def looked_up(meta: Meta, plan: RunOptions) -> Named:
    """All that the options name; ReplayError for what is not there or does not fit the trace."""
    chosen, objects = _split(plan.allocators, plan.code)
    own, faults = _without_faults(plan.settings)
    options = _options(own, chosen, _stems(objects, plan.code))
    kernel = _kernel(meta, plan)
    options |= {name: strategy.as_of(kernel, options[name]) for name, strategy in chosen.items()}
    machine = machine_for(meta, plan.machine)
    costs = profiles.load(plan.profile or machine.arch, machine.arch)
    costs = costs.for_pages(machine.page_bytes)
    return Named(machine=machine, costs=costs, chosen=chosen, options=options, objects=objects,
                 faults=faults)


def start_on(start: Start | None, plan: RunOptions) -> Start | None:
    """What the recording began with, on the machine that is asked for: lists and sections are of
    the recorded one."""
    return start.elsewhere() if plan.machine.another and start else start


def prepared(trace: Trace, plan: RunOptions, at_once: AtOnce = RUNNING) -> Prepared:
    """Look up all that the options name, and take in all requests of the trace; ReplayError for
    what is not there or does not fit."""
    named = looked_up(trace.meta, plan)
    trace = in_pages_of(trace, named.machine.page_bytes)
    pages = pc.sum(pc.filter(trace.table["nr_pages"], pc.equal(
        trace.table["kind"].cast("string"), "alloc"))).as_py() or 0
    weight = Weight(trace.num_rows, pages)
    check_memory(weight, 0, named, plan, at_once)
    workload = to_workload(trace)
    check_memory(weight, workload.peak_pages, named, plan, at_once)
    workload = arrange(replace(workload, start=start_on(workload.start, plan)), plan.arrivals)
    if not len(workload):
        kinds = pc.value_counts(trace.table["kind"]).to_pylist()
        rows = ", ".join(f"{kind['counts']:,} of kind {kind['values']}" for kind in kinds)
        raise ReplayError(
            f"trace {trace.meta.name!r} holds no allocator calls to replay; its rows: "
            f"{rows or 'none'}. Probes at the entry of the allocator's functions record them, as "
            "`replay record` sets them")
    return Prepared(**vars(named), trace=trace, workload=workload)


def taken_in(trace: Trace | Path, plan: RunOptions, at_once: AtOnce) -> Prepared:
    """The same of a trace or a file, which is not read where memory would not do."""
    if isinstance(trace, Path):
        source = open_batches(trace, plan.allow_loss)
        named = looked_up(source.meta, plan)
        check_memory(weigh(trace, plan.allow_loss), source.bounds["live_pages"], named, plan,
                     at_once)
        trace = load(trace, plan.allow_loss)
    return prepared(trace, plan, at_once)


def check_memory(weight: Weight, live: int, named: Named, plan: RunOptions,
                 at_once: AtOnce = RUNNING) -> None:
    """Refuse a trace that a replay of all its rows would not have the memory for. live: most pages
    that are so at once."""
    rows, pages = weight
    if pages > MAX_SLOTS:
        return  # to_workload() says what is wrong with it
    each = len(named.chosen) + len(named.objects) + len(plan.code.trees)
    size = BASE_BYTES + rows * (at_once.row + each * at_once.row_each) + pages * (
        at_once.page + each * at_once.page_each) + live * (SLOT_BYTES + each * SLOT_BYTES_EACH)
    memory.need(size, f"replaying {rows:,} rows with {pages:,} pages through {each} allocators at "
                "once", "replay fewer of them, or a part of the trace")


def _kernel(meta: Meta, plan: RunOptions) -> str:
    """The Linux that models behave as."""
    if plan.kernel is None:
        return str(meta.provenance.get("kernel", ""))
    if version_of(plan.kernel) is None:
        raise ReplayError(f"--kernel {plan.kernel}: expected a version of Linux such as 6.9")
    return plan.kernel


def _stems(objects: Sequence[str], code: CCode) -> list[str]:
    return [Path(name).stem for name in objects] + (["kernel"] if code.trees else [])


def _split(names: Sequence[str], code: CCode) -> tuple[dict[str, Strategy], list[str]]:
    """Strategies by name, and shared objects; these stand beside the four unless some are named."""
    objects = list(dict.fromkeys(name for name in names if is_object(name)))
    models = [name for name in names if not is_object(name)]
    chosen = _chosen(models or allocators.DEFAULT)
    stems = _stems(objects, code)
    for stem in stems:
        if stem in chosen or stems.count(stem) > 1:
            raise ReplayError(f"two allocators are called {stem!r}: rename the file of one")
    return chosen, objects


def _chosen(names: Sequence[str]) -> dict[str, Strategy]:
    """The strategies by name, in the order asked for; two of one name are an error."""
    chosen: dict[str, Strategy] = {}
    for name in dict.fromkeys(names):
        strategy = allocators.load(name)
        if strategy.name in chosen:
            raise ReplayError(f"--allocator {name}: a strategy called {strategy.name!r} is already "
                              "chosen; give it another name")
        chosen[strategy.name] = strategy
    return chosen


def _without_faults(given: Mapping[str, str]) -> tuple[dict[str, str], Faults]:
    """The settings of strategies, and what is to fail: `fault.NAME=VALUE`."""
    prefix = f"{FAULT_PREFIX}."
    found = {key.removeprefix(prefix): value for key, value in given.items()
             if key.startswith(prefix)}
    return ({key: value for key, value in given.items() if not key.startswith(prefix)},
            parse_faults(found))


def _options(given: Mapping[str, str], strategies: dict[str, Strategy], rows: Sequence[str]
             ) -> dict[str, dict[str, str]]:
    """`strategy.option=value` by strategy; every one must belong to a chosen strategy or C row."""
    found: dict[str, dict[str, str]] = {name: {} for name in (*strategies, *rows)}
    for key, value in given.items():
        name, dot, option = key.partition(".")
        if not dot:
            raise ReplayError(f"--set {key}={value}: expected STRATEGY.OPTION=VALUE")
        if name not in found:
            raise unknown_name("allocator in --set", name, list(found))
        found[name][option] = value
    for name, strategy in strategies.items():
        strategy.values(found[name])
    return found
