"""The end of a run of tests: what was not tested, and why. In CI a skip that is not one of
`needs.EXPECTED_IN_CI` fails the run."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from needs import EXPECTED_IN_CI, not_fetched


def by_reason(reports: Iterable[Any]) -> dict[str, list[str]]:
    """Tests (or files, where a whole one is skipped) that were skipped, by reason."""
    found: dict[str, list[str]] = defaultdict(list)
    for report in reports:
        said = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found[said.removeprefix("Skipped: ")].append(report.nodeid)
    return dict(sorted(found.items()))


def unexpected(reasons: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """The reasons that fail a run: in CI all but the expected ones, elsewhere none."""
    if environment.get("CI", "").lower() in ("", "0", "false"):
        return []
    without = tuple(f"make {target}" for target in not_fetched())
    return [reason for reason in reasons if not reason.startswith(EXPECTED_IN_CI)
            and not any(target in reason for target in without)]


def listed(skipped: Mapping[str, list[str]]) -> Iterable[str]:
    """A line per reason: how many tests, and of which files."""
    for reason, names in skipped.items():
        count = f"{len(names)} test{'s'[:len(names) != 1]}"
        files = sorted({name.partition("::")[0] for name in names})
        yield f"{reason} ({count}: {', '.join(files)})"


def _skipped(config: pytest.Config) -> dict[str, list[str]]:
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    return by_reason(reporter.stats.get("skipped", ())) if reporter else {}


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run with an unexpected skip has failed; a worker leaves that to the whole run."""
    if (not hasattr(session.config, "workerinput") and session.exitstatus == pytest.ExitCode.OK
            and unexpected(_skipped(session.config), os.environ)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write the list."""
    skipped = _skipped(terminalreporter.config)
    if not skipped:
        return
    terminalreporter.section("not tested")
    for line in listed(skipped):
        terminalreporter.line(line)
    for reason in unexpected(skipped, os.environ):
        terminalreporter.line(f"FAILED: skipped in CI, which is to have it: {reason}", red=True)
