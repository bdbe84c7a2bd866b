"""For all tests, before any of them imports numpy."""

import os

# Threads of a BLAS make the small matrices of calibration slower, on two cores up to 14 times.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402  (it may import numpy)
from untested import pytest_sessionfinish, pytest_terminal_summary  # noqa: E402, F401

# How long an example takes says what else the machine is doing.
settings.register_profile("replay", deadline=None)
settings.load_profile("replay")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `make cases`: the report of a run names the public case that a test holds."""
    for item in items:
        for mark in item.iter_markers("case"):
            item.user_properties.append(("case", mark.args[0]))
