"""What engine.checked() refuses, each with a sentence that names the request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from replay.base.errors import ReplayError
from replay.engine.drive import MAX_TIME_NS, Workload, checked, largest, most_pages
from replay.engine.requests import ALLOC, FREE, Requests, TARGET
from replay.physmap import presets

TOP = (1 << 63) - 1


def stream(**changes) -> Workload:
    """Two allocations, two frees, a target; with other columns."""
    columns = {
        "time": [0, 5, 9, 9, 20], "kind": [ALLOC, ALLOC, FREE, TARGET, FREE],
        "pages": [2, 3, 2, 1000, 2], "first": [0, 2, 0, 0, 2], "slots": [4, 0, 1, -1]}
    arrays = {name: np.array(values, np.int64) for name, values in columns.items()}
    extra = {k: changes.pop(k) for k in ("nr_slots", "event") if k in changes}
    arrays |= {k: np.array(v, np.int64) if isinstance(v, list) else v for k, v in changes.items()}
    return replace(Workload(Requests(**arrays), 5, 5, np.arange(100, 105)), **extra)


def test_the_stream_itself_is_accepted() -> None:
    assert len(checked(stream())) == 5


def test_an_empty_stream_is_accepted() -> None:
    none = np.zeros(0, np.int64)
    empty = checked(Workload(Requests(none, none, none, none, none), 0, 0, none))
    assert largest(empty) == 1


@pytest.mark.parametrize(("changes", "message"), [
    ({"time": [-1, 5, 9, 9, 20]}, r"request 0 \(event 100\): time is not within"),
    ({"time": [0, 5, 9, 9, MAX_TIME_NS + 1]}, r"request 4 \(event 104\): time is not within"),
    ({"time": [0, 5, 4, 9, 20]}, r"request 2 \(event 102\): time runs backwards"),
    ({"kind": [ALLOC, ALLOC, FREE, 3, FREE]}, "request 3 .*unknown kind"),
    ({"kind": [-1, ALLOC, FREE, TARGET, FREE]}, "request 0 .*unknown kind"),
    ({"pages": [2, 3, 2, -1, 2]}, "request 3 .*pages is not within"),
    ({"pages": [2, 1 << 62, 2, 1000, 2]}, "request 1 .*pages is not within"),
    ({"pages": [2, TOP, 2, 1000, 2]}, "request 1 .*pages is not within"),
    ({"pages": [2, 0, 2, 1000, 2]}, "request 1 .*no pages"),
    ({"pages": [2, 3, 0, 1000, 4]}, "request 2 .*no pages"),
    ({"first": [0, 3, 0, 0, 2]}, "request 1 .*slots beyond"),
    ({"first": [0, 1, 0, 0, 2]}, "request 1 .*do not run on"),
    ({"first": [0, 2, -1, 0, 2]}, "request 2 .*slots beyond"),
    ({"first": [0, 2, 0, 0, 3]}, "request 4 .*slots beyond"),
    ({"first": [0, 2, 0, 0, TOP]}, "request 4 .*slots beyond"),
    ({"first": [0, TOP, 0, 0, 2]}, "request 1 .*slots"),
    # Two frees that name one part of the list, and none the other.
    ({"first": [0, 2, 0, 0, 0]}, "request 4 .*do not run on"),
    ({"first": [0, 2, 2, 0, 0]}, "request 2 .*do not run on"),
    ({"slots": [5, 0, 1, -1]}, "beyond the stream's pages"),
    ({"slots": [4, 0, 1, -2]}, "beyond the stream's pages"),
    ({"slots": [4, 0, 1, 0]}, "request 4 .*freed before"),
    ({"slots": [4, 4, 1, -1]}, "request 2 .*freed before"),
    ({"slots": [4, 0, 1]}, "."),
    ({"slots": [4, 0, 1, -1, 2]}, "do not cover"),
    ({"kind": [ALLOC, FREE, ALLOC, TARGET, FREE], "pages": [2, 2, 3, 1000, 2],
      "first": [0, 0, 2, 0, 2]}, "request 1 .*before it is allocated"),
    ({"nr_slots": 6}, "6 slots announced, 5 allocated"),
    ({"nr_slots": 4}, "request 1 .*slots beyond"),
    ({"time": [0, 5, 9, 20]}, "different length"),
    ({"time": np.zeros(5, np.int32)}, "requests.time: expected a contiguous int64 column"),
    ({"pages": np.array([2, 3, 2, 1000, 2], np.uint64)}, "requests.pages: expected"),
    ({"kind": np.zeros(5)}, "requests.kind: expected"),
    ({"first": np.zeros((5, 1), np.int64)}, "requests.first: expected"),
    ({"time": np.zeros(10, np.int64)[::2]}, "requests.time: expected"),
    ({"slots": np.zeros(4, np.int16)}, "requests.slots: expected"),
])
def test_what_cannot_be_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ReplayError, match=message):
        checked(stream(**changes))


def test_a_target_needs_no_room_for_its_pages_in_the_scratch() -> None:
    huge = stream(pages=[2, 3, 2, 1 << 36, 2])
    assert largest(checked(huge)) == 3


def test_a_target_above_all_memory_needs_room_in_the_state() -> None:
    machine = presets.load("qemu-virt-arm64")
    total = machine.memory.total
    assert most_pages(stream(), machine) == 5
    assert most_pages(stream(pages=[2, 3, 2, total + 77, 2]), machine) == 5 + 77
