"""Trace-replay testbed for the memory allocators behind Xen foreign mappings.

>>> import replay
>>> run = replay.run_trace("traces/pvh-dom0.arrow", ["pool", "extents"])
>>> run.metrics()             # a polars frame: allocator, metric, unit, better, value
>>> run.outcome("pool")       # a row per request; times are modelled, in ns

The functions are those of replay.api, one per verb of the command line.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replay.api import (
        accept_gate, add_results, calibrate_costs, check_gate, check_strategy, compare_runs,
        convert_trace, describe_trace, diff_runs, export, export_history, find_drift,
        import_trace, init_gate, list_runs, load_trace, predict_latency, read_run, report_text,
        run_trace, strategies, sweep_costs, synthesize, try_claims, verify_trace, write_report,
    )  # fmt: skip
    from replay.base.errors import InputError, ReplayError

__version__ = "0.1.0"

__all__ = [
    "InputError", "ReplayError", "accept_gate", "add_results", "calibrate_costs", "check_gate",
    "check_strategy", "compare_runs", "convert_trace", "describe_trace", "diff_runs",
    "export", "export_history", "find_drift", "import_trace", "init_gate", "list_runs",
    "load_trace", "predict_latency", "read_run", "report_text", "run_trace", "strategies",
    "sweep_costs", "synthesize", "try_claims", "verify_trace", "write_report",
]


def __getattr__(name: str) -> Any:
    """Names of replay.api when first asked for, so that the command line starts fast."""
    if name in ("InputError", "ReplayError"):
        from replay.base import errors

        return getattr(errors, name)
    if name in __all__:
        from replay import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})
