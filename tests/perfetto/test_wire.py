"""Messages as bytes, against what the format says and Perfetto's own classes."""

from __future__ import annotations

import numpy as np
import pytest
from needs import needs_perfetto

from replay.perfetto.packets import (
    NAMES_OF_EVENTS, SLICE_BEGIN, child_track, counted, counter_track, event, interned, process_track,
    thread_track,
)  # fmt: skip
from replay.perfetto.wire import NUMBER_BYTES, hole, number, text, varint


@pytest.mark.parametrize(("value", "body"), [
    (0, b"\0"), (1, b"\1"), (127, b"\x7f"), (128, b"\x80\1"), (150, b"\x96\1"),
    (2**63 - 1, b"\xff" * 8 + b"\x7f")])
def test_varints(value: int, body: bytes) -> None:
    assert varint(value) == body


def test_fields_are_as_the_format_s_own_examples() -> None:
    assert number(1, 150) == b"\x08\x96\x01"
    assert text(2, "testing") == b"\x12\x07testing"


def test_a_place_holds_any_number() -> None:
    values = np.array([0, 1, -1, 2**63 - 1, -(2**63), 300], np.int64)
    rows = hole(1, "n", NUMBER_BYTES).filled({"n": values}, len(values))
    for row, value in zip(rows.tolist(), values.tolist(), strict=True):
        assert row[0] == 8
        found = sum((byte & 127) << 7 * k for k, byte in enumerate(row[1:]))
        assert found == value % 2**64
        assert [byte >> 7 for byte in row[1:]] == [1] * (NUMBER_BYTES - 1) + [0]


@needs_perfetto
def test_packets_are_read_by_perfetto_s_classes() -> None:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

    columns = {"time": np.array([5, 2**62]), "track": np.array([3, 4]), "name": np.array([1, 2]),
               "a": np.array([-7, 2**62]), "t": np.array([9, 10]), "value": np.array([-1, 8])}
    piece = event(SLICE_BEGIN, 6, True, [("a", 11)], [("t", 12)])
    body = b"".join((
        process_track(1, 2, "p"), thread_track(3, 2, 1025, "t"), child_track(4, 3, "c"),
        counter_track(5, 1, "n", "pages"), interned(NAMES_OF_EVENTS, [(1, "é<b>")]),
        piece.filled(columns, 2).tobytes(), counted().filled(columns, 2).tobytes()))
    trace = Trace()
    trace.ParseFromString(body)
    process, thread, child, counter, told, first, second, value, _ = trace.packet
    assert (process.track_descriptor.process.pid, thread.track_descriptor.thread.tid) == (2, 1025)
    assert child.track_descriptor.parent_uuid == 3
    assert counter.track_descriptor.counter.unit_name == "pages"
    assert told.interned_data.event_names[0].name == "é<b>"
    assert (first.timestamp, second.timestamp) == (5, 2**62)
    one = first.track_event
    assert (one.type, one.track_uuid, one.name_iid, list(one.category_iids)) == (
        TrackEvent.TYPE_SLICE_BEGIN, 3, 1, [6])
    assert [(n.name_iid, n.int_value, n.string_value_iid) for n in one.debug_annotations] == [
        (11, -7, 0), (12, 0, 9)]
    assert (value.track_event.counter_value, value.timestamp) == (-1, 5)
