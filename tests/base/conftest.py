"""What tests of kernels and of their files share."""

from __future__ import annotations

from typing import Any

import pytest

from replay.base import jit


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were compiled."""
    made: list[str] = []
    real = jit.compile_for

    def counted(kernel: Any, args: Any) -> Any:
        made.append(kernel.__name__)
        return real(kernel, args)

    monkeypatch.setattr(jit, "compile_for", counted)
    return made
