"""Reads an exported trace by Perfetto's own message classes, and by nothing of replay's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Track:
    """A track with its events in order of time. path: names from the process on. slices: (begin,
    end, name, annotations, depth), instants: (time, name, annotations), counts: (time, value)."""

    path: tuple[str, ...]
    unit: str = ""
    slices: list[tuple[int, int, str, dict[str, Any], int]] = field(default_factory=list)
    instants: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    counts: list[tuple[int, int]] = field(default_factory=list)
    categories: set[str] = field(default_factory=set)


def read(path: Path) -> list[Track]:
    """All tracks, in the order in which they are described; asserts what a reader relies on."""
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    assert trace.packet[0].sequence_flags == 1
    assert {packet.trusted_packet_sequence_id for packet in trace.packet} == {1}
    tracks: dict[int, Track] = {}
    texts: dict[tuple[str, int], str] = {}
    pids: dict[int, tuple[str, ...]] = {}
    events: list[Any] = []
    for packet in trace.packet:
        if packet.HasField("interned_data"):
            for table, entries in packet.interned_data.ListFields():
                for entry in entries:
                    said = entry.name if hasattr(entry, "name") else entry.str.decode()
                    assert texts.setdefault((table.name, entry.iid), said) == said
        elif packet.HasField("track_descriptor"):
            one = packet.track_descriptor
            assert one.uuid not in tracks
            name = one.process.process_name or one.thread.thread_name or one.name
            parent = tracks[one.parent_uuid].path if one.parent_uuid else (
                pids[one.thread.pid] if one.HasField("thread") else ())
            tracks[one.uuid] = Track((*parent, name), one.counter.unit_name)
            if one.HasField("process"):
                pids[one.process.pid] = (name,)
        elif packet.HasField("track_event"):
            assert packet.track_event.track_uuid in tracks
            one = packet.track_event
            known = {entry: texts[entry] for entry in [
                *(("event_names", one.name_iid),) * bool(one.name_iid),
                *(("event_categories", iid) for iid in one.category_iids)]}
            said = {}
            for note in one.debug_annotations:
                kind = note.WhichOneof("value")
                said[texts["debug_annotation_names", note.name_iid]] = (
                    texts["debug_annotation_string_values", note.string_value_iid]
                    if kind == "string_value_iid" else getattr(note, kind))
            events.append((packet.timestamp, one, known, said))
    events.sort(key=lambda event: event[0])  # stable, as that of the trace processor
    _placed(tracks, events, TrackEvent)
    return list(tracks.values())


def _placed(tracks: dict[int, Track], events: list[Any], kinds: Any) -> None:
    open_slices: dict[int, list[Any]] = {uuid: [] for uuid in tracks}
    for time, one, known, said in events:
        track, stack = tracks[one.track_uuid], open_slices[one.track_uuid]
        name = known.get(("event_names", one.name_iid), "")
        track.categories |= {text for (table, _), text in known.items()
                             if table == "event_categories"}
        if one.type == kinds.TYPE_SLICE_BEGIN:
            stack.append((time, name, said))
        elif one.type == kinds.TYPE_SLICE_END:
            begin, called, notes = stack.pop()
            track.slices.append((begin, time, called, notes, len(stack)))
        elif one.type == kinds.TYPE_INSTANT:
            track.instants.append((time, name, said))
        else:
            track.counts.append((time, one.counter_value))
    assert not any(open_slices.values())
