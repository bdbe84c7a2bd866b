"""What is whole of a trace file that ends too early, or that something else follows.

An Arrow file is eight bytes and then messages: the schema, dictionaries, record batches, each
behind its length; a footer says where they are (Arrow columnar format, "Encapsulated message
format" and "IPC File Format"). A file that was cut has no footer. Its messages are found one after
the other from the front, and those that are whole can be read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

MAGIC_BYTES = 8
"""Before the first message: ARROW1 and two more."""
CONTINUES = 0xFFFFFFFF
"""Before the length of each message; a length of 0 ends them."""
SCHEMA_MESSAGE, DICTIONARY, BATCH = 1, 2, 3
KIND_FIELD, HEADER_FIELD, BODY_FIELD, ROWS_FIELD = 1, 2, 3, 0
"""Numbers of fields: of a message its kind, what it is and the bytes behind it; of a batch its
rows (format/Message.fbs)."""
MOST_BATCH_ROWS = 1 << 40
NO_FOOTER = "no footer"
NO_MESSAGE = "bytes that are no part of a trace"


@dataclass(frozen=True)
class Message:
    """kind: SCHEMA_MESSAGE, DICTIONARY or BATCH. at, size: bytes of the file. rows: of a batch."""

    kind: int
    at: int
    size: int
    rows: int


class CutFile:
    """The whole batches of a file without a footer; read like a pyarrow.RecordBatchFileReader.

    why: what the file has in place of the rest. ended: whether all batches that were written are
    there, and the footer alone is not.
    """

    def __init__(self, path: Path, messages: list[Message], why: str, ended: bool,
                 options: Any = None) -> None:
        self.path, self.why, self.ended = path, why, ended
        self._messages, self._options = messages, options
        self._batches = [k for k, message in enumerate(messages) if message.kind == BATCH]
        with self._stream(1) as stream:
            self.schema = stream.schema

    def reader(self, options: Any) -> CutFile:
        """The same with pyarrow.ipc.IpcReadOptions."""
        return CutFile(self.path, self._messages, self.why, self.ended, options)

    @property
    def num_record_batches(self) -> int:
        """How many are whole."""
        return len(self._batches)

    def count_rows(self) -> int:
        """Of the whole batches."""
        return sum(self._messages[k].rows for k in self._batches)

    def get_batch(self, number: int) -> pa.RecordBatch:
        """One of them; errors are pyarrow's."""
        with self._stream(self._batches[number] + 1) as stream:
            return stream.read_next_batch()

    def _stream(self, end: int) -> Any:
        """Schema and dictionaries before message `end`, and that before it."""
        wanted = [m for m in self._messages[: end - 1] if m.kind != BATCH] + [
            self._messages[end - 1]]
        with self.path.open("rb") as file:
            parts = []
            for message in wanted:
                file.seek(message.at)
                parts.append(file.read(message.size))
        return pa.ipc.open_stream(pa.BufferReader(b"".join(parts)), options=self._options)

    def problem(self) -> str:
        """What is wrong with the file."""
        return f"is cut: {self._said()}, then {self.why}"

    def loss(self) -> str:
        """What a reader of the whole batches has to know; "" if no row is missing."""
        return "" if self.ended else f"the trace is cut: {self._said()} read, the rest lost"

    def _said(self) -> str:
        batches, rows = self.num_record_batches, self.count_rows()
        return f"{batches:,} batch{'' if batches == 1 else 'es'}, {rows:,} rows"

    def without_last(self) -> CutFile:
        """The same without its last batch, of which the bytes are not those that were written."""
        return CutFile(self.path, self._messages[: self._batches[-1]],
                       "a batch that cannot be read", False, self._options)


def cut_file(path: Path) -> CutFile | None:
    """What is whole of a file that has no footer; None where not even its schema is."""
    size = path.stat().st_size
    messages: list[Message] = []
    with path.open("rb") as file:
        at, why = MAGIC_BYTES, ""
        while not why:
            why, message = _next(file, at, size)
            if message is not None:
                messages.append(message)
                at += message.size
    if not messages or messages[0].kind != SCHEMA_MESSAGE:
        return None
    try:
        found = CutFile(path, messages, why, why == NO_FOOTER)
        while found.num_record_batches and not _can_be_read(found):
            found = found.without_last()
    except (pa.ArrowException, OSError, ValueError):
        return None
    return found


def _can_be_read(found: CutFile) -> bool:
    """Whether the last batch is one: a file system may have kept its length and not its bytes."""
    try:
        found.get_batch(found.num_record_batches - 1).validate(full=True)
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def _next(file: Any, at: int, size: int) -> tuple[str, Message | None]:
    """The message that begins at a byte; or why there is none."""
    file.seek(at)
    head = file.read(8)
    if len(head) < 8:
        return "the file ends", None
    continues, length = struct.unpack("<Ii", head)
    if continues != CONTINUES or length < 0:
        return NO_MESSAGE, None
    if not length:
        return NO_FOOTER, None
    if at + 8 + length > size:
        return "the file ends within a batch", None
    try:
        kind, body, rows = _said_by(file.read(length))
    except (struct.error, ValueError):
        return NO_MESSAGE, None
    if (body < 0 or kind not in (SCHEMA_MESSAGE, DICTIONARY, BATCH)
            or not 0 <= rows < MOST_BATCH_ROWS):
        return NO_MESSAGE, None
    if at + 8 + length + body > size:
        return "the file ends within a batch", None
    return "", Message(kind, at, 8 + length + body, rows)


def _said_by(data: bytes) -> tuple[int, int, int]:
    """Of a message its kind, the bytes behind it, and the rows of a batch, else 0.

    struct.error or ValueError where these bytes are no message.
    """
    def at(place: int, form: str) -> int:
        if place < 0:
            raise ValueError
        return int(struct.unpack_from(form, data, place)[0])

    def field(table: int, number: int, form: str) -> Iterator[int]:
        """The place of a field of a flatbuffer's table, and what stands there; nothing if it has
        its default."""
        places = table - at(table, "<i")
        if 4 + 2 * number < at(places, "<H") and (offset := at(places + 4 + 2 * number, "<H")):
            yield from (table + offset, at(table + offset, form))

    message = at(0, "<I")
    _, kind = tuple(field(message, KIND_FIELD, "<B")) or (0, 0)
    _, body = tuple(field(message, BODY_FIELD, "<q")) or (0, 0)
    place, header = tuple(field(message, HEADER_FIELD, "<I")) or (0, 0)
    if kind != BATCH:
        return kind, body, 0
    _, rows = tuple(field(place + header, ROWS_FIELD, "<q")) or (0, 0)
    return kind, body, rows
