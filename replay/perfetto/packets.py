"""The packets of a Perfetto trace that are used here, by the field numbers of its messages.

Source: protos/perfetto/trace/{trace_packet,interned_data/interned_data}.proto and
track_event/{track_event,track_descriptor,debug_annotation}.proto of Perfetto 59.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from replay.perfetto.wire import (
    ID_BYTES, NUMBER_BYTES, PACKET, TIME_BYTES, Piece, hole, number, text,
)  # fmt: skip

SLICE_BEGIN, SLICE_END, INSTANT, COUNTER = 1, 2, 3, 4
"""TrackEvent.Type."""
SEQUENCE: Final = number(10, 1)
"""TracePacket.trusted_packet_sequence_id: all packets are of one."""
TEXTS_CLEARED, TEXTS_NEEDED = number(13, 1), number(13, 2)
"""TracePacket.sequence_flags: what is interned begins anew; what is interned is needed."""

CATEGORIES, NAMES_OF_EVENTS, ANNOTATION_NAMES, ANNOTATION_TEXTS = 1, 2, 3, 29
"""Fields of InternedData."""


def packet(body: bytes) -> bytes:
    """A packet as it stands in the file."""
    return text(PACKET, body)


def begun() -> bytes:
    """The first packet."""
    return packet(SEQUENCE + TEXTS_CLEARED)


def interned(table: int, entries: Sequence[tuple[int, str]]) -> bytes:
    """Texts that later packets name by their numbers."""
    told = b"".join(text(table, number(1, iid) + text(2, said)) for iid, said in entries)
    return packet(SEQUENCE + TEXTS_NEEDED + text(12, told))


def process_track(uuid: int, pid: int, name: str) -> bytes:
    """The track of a process."""
    return _descriptor(number(1, uuid) + text(3, number(1, pid) + text(6, name)))


def thread_track(uuid: int, pid: int, tid: int, name: str) -> bytes:
    """The track of a thread of it."""
    return _descriptor(number(1, uuid) + text(4, number(1, pid) + number(2, tid) + text(5, name)))


def child_track(uuid: int, parent: int, name: str) -> bytes:
    """A track below another one."""
    return _descriptor(number(1, uuid) + text(2, name) + number(5, parent))


def counter_track(uuid: int, parent: int, name: str, unit: str) -> bytes:
    """A track of a counter."""
    return _descriptor(number(1, uuid) + text(2, name) + number(5, parent)
                       + text(8, text(6, unit)))


def _descriptor(body: bytes) -> bytes:
    return packet(SEQUENCE + text(60, body))


def event(kind: int, category: int, named: bool = True, numbers: Sequence[tuple[str, int]] = (),
          texts: Sequence[tuple[str, int]] = ()) -> Piece:
    """An event with places for `time`, `track` and, if named, `name`.

    numbers, texts: annotations, by what fills them and the number of their name; a text is told by
    its number.
    """
    body = Piece(number(9, kind) + number(3, category)) + hole(11, "track", ID_BYTES)
    if named:
        body += hole(10, "name", ID_BYTES)
    for filled, name in numbers:
        body += (Piece(number(1, name)) + hole(4, filled, NUMBER_BYTES)).within(4)
    for filled, name in texts:
        body += (Piece(number(1, name)) + hole(17, filled, ID_BYTES)).within(4)
    return _timed(body)


def counted() -> Piece:
    """A counter's value, with places for `time`, `track` and `value`."""
    return _timed(Piece(number(9, COUNTER)) + hole(11, "track", ID_BYTES)
                  + hole(30, "value", NUMBER_BYTES))


def _timed(body: Piece) -> Piece:
    whole = Piece(SEQUENCE + TEXTS_NEEDED) + hole(8, "time", TIME_BYTES) + body.within(11)
    return whole.within(PACKET)
