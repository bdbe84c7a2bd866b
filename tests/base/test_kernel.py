"""Kernels: what they take and give, when they are compiled again, what is done with their files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from replay.base import built_for, object_code
from replay.base.compiled import (
    address_of, compiled, index, inline, interpreted, lowest_bit, record, row_at, seen_as, template,
)  # fmt: skip
from replay.base.errors import ReplayError

from small_kernels import module  # isort: skip

ROOT = Path(__file__).parent.parent.parent
PAIR = record("low", ("high", np.int16))
pair = seen_as(record("low", "high"), 1)
pairs = row_at(record("low", "high"))

pytestmark = pytest.mark.skipif(interpreted, reason="nothing is compiled")


class Two(NamedTuple):
    a: np.ndarray
    b: tuple[int, float]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPLAY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


@compiled
def _kinds(two: Two, table: np.ndarray, flag: bool, nothing: None, row: Any, x: float) -> Any:
    row.low = table[1, 2] + len(two.a)
    two.a[0] = 7 if flag and nothing is None else 8
    return two.b[0], two.b[1] * x, not flag


def test_arguments_of_all_kinds_and_a_tuple_as_result() -> None:
    rows, a = np.zeros(3, PAIR), np.arange(5)
    found = _kinds(Two(a, (1 << 62, 0.5)), np.arange(6).reshape(2, 3), True, None, rows[1], 3)
    assert found == (1 << 62, 1.5, False)
    assert [type(one) for one in found] == [int, float, bool]
    assert a[0] == 7
    assert rows["low"].tolist() == [0, 10, 0]


@pytest.mark.parametrize(("array", "total"), [
    (np.arange(4), 6), (np.arange(8)[::2], 12), (np.array([], np.int64), 0),
    (np.frombuffer(bytes([1, 2, 250]), np.uint8), 253), (np.arange(3, dtype=np.int32), 3),
    (np.array([1.5, 2]), 3.5), (np.array([True, True]), 2)])
def test_arrays_of_all_kinds(array: np.ndarray, total: float) -> None:
    assert _sum(array) == total


@compiled
def _sum(array: np.ndarray) -> Any:
    total = array.dtype.type(0) * 1
    for one in array:
        total += one
    return total


def test_what_is_read_only_is_compiled_apart(compilations: list[str]) -> None:
    array = np.arange(7, dtype=np.int16)
    fixed = array.copy()
    fixed.flags.writeable = False
    assert _last(array) == _last(fixed) == _last(array) == 6
    assert compilations == ["_last", "_last"]


@compiled
def _last(array: np.ndarray) -> int:
    return int(array[len(array) - 1])


def test_no_other_kinds_are_taken() -> None:
    with pytest.raises(TypeError, match="arrays, records and tuples, not <class 'str'>"):
        _last("text")


@template
def _twice(call: Any, x: int) -> int:
    return call(call(x))


@inline
def _more(x: int) -> int:
    return x + lowest_bit(x)


@compiled
def _through_all(m: np.ndarray) -> int:
    pair(m).low = _twice(_more, 12)
    pairs(m, 0, 1).high = 5
    return address_of(m)


def test_kernels_call_each_other_and_see_records() -> None:
    m = np.zeros(5, np.int64)
    assert _through_all(m) == m.ctypes.data
    assert m.tolist() == [0, 15, 0, 5, 0]
    assert _more(8) == 11


@compiled
def _ends(m: np.ndarray, k: int) -> int:
    return int(m[index(0)] // k)


def test_an_exception_of_compiled_code_is_raised_by_name() -> None:
    with pytest.raises(ZeroDivisionError, match="in compiled code of .*_ends"):
        _ends(np.ones(1, np.int64), 0)
    assert _ends(np.full(1, 6), 2) == 3


def test_a_kernel_is_compiled_again_when_anything_it_follows_from_changes(
        tmp_path: Path, compilations: list[str]) -> None:
    def value(amount: int = 2, **given: Any) -> Any:
        made = module(tmp_path, **given)
        made.AMOUNT = amount  # type: ignore[attr-defined]
        return made.total(10)

    assert value() == 33
    assert value(comment="another line\n\n") == 33
    assert len(compilations) == 1
    assert value(factor=4) == 43  # of a helper
    assert value(offset=5) == 37  # of a closure
    assert value(amount=7) == 38  # of the module
    assert len(compilations) == 4
    assert value() == 33
    assert len(compilations) == 4


@pytest.mark.parametrize("damage", ["cut", "byte", "empty", "other"])
def test_a_damaged_file_is_compiled_anew(
        damage: str, tmp_path: Path, cache: Path, compilations: list[str]) -> None:
    assert module(tmp_path).total(1) == 6
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes({"cut": whole[:middle], "empty": b"", "other": b"something else",
                      "byte": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1:],
                      }[damage])
    assert module(tmp_path).total(1) == 6
    assert len(compilations) == 2
    assert module(tmp_path).total(1) == 6
    assert len(compilations) == 2


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_can_write_to_is_refused(what: str, tmp_path: Path, cache: Path) -> None:
    assert module(tmp_path).total(1) == 6
    (path,) = cache.iterdir()
    place = path if what == "file" else cache
    place.chmod(0o777)
    with pytest.raises(ReplayError, match=f"{place.name}: others can write to it.*chmod"):
        module(tmp_path).total(1)


def test_files_are_the_users_alone(tmp_path: Path, cache: Path) -> None:
    module(tmp_path).total(1)
    (path,) = cache.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o077 == 0


WARM = """
import sys
from replay.cli import main
try:
    main(["run", "traces/pvh-dom0.arrow", "--out", sys.argv[1]])
except SystemExit:
    pass
print(sorted(name for name in ("numba", "scipy", "altair") if name in sys.modules))
"""


def test_a_run_of_compiled_code_imports_no_compiler(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the cache of this machine, where the four strategies are compiled
    command = [sys.executable, "-c", WARM, str(tmp_path)]
    for _ in range(2):  # once for what may not be compiled yet
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True,
                              check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_two_objects_with_helpers_of_one_name_keep_apart() -> None:
    first, second = (compiled(_maker(k)) for k in (1, 2))
    m = np.arange(3)
    assert (first(m), second(m)) == (103, 203)


def _maker(k: int) -> Any:
    def helper(m: np.ndarray) -> int:
        total = 0
        for one in m:
            total += one
        return total + k * 100

    helper = compiled(helper)

    def outer(m: np.ndarray) -> int:
        return int(helper(m))
    return outer


def test_code_of_another_compiler_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    here = object_code.place_of("a", "b")
    built_for.made_here.cache_clear()
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "other")
    assert object_code.place_of("a", "b") != here
    built_for.made_here.cache_clear()
