"""What an Arrow file is made of, and what it becomes in memory, told before any of it is unpacked.

A file is eight bytes and then messages: the schema, dictionaries, record batches, each behind its
length; a footer says where they are (Arrow columnar format, "Encapsulated message format" and "IPC
File Format"; format/Message.fbs, format/File.fbs). Each compressed buffer begins with the number
of bytes that it becomes, so that a small file that holds gigabytes is known for what it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


from replay.base import memory
from replay.base.errors import InputError

MAGIC = b"ARROW1"
MAGIC_BYTES = 8
"""Before the first message: ARROW1 and two more."""
CONTINUES = 0xFFFFFFFF
"""Before the length of each message; a length of 0 ends them."""
SCHEMA_MESSAGE, DICTIONARY, BATCH = 1, 2, 3
KIND_FIELD, HEADER_FIELD, BODY_FIELD = 1, 2, 3
"""Numbers of a message's fields: its kind, what it is, the bytes behind it."""
ROWS_FIELD, BUFFERS_FIELD, COMPRESSION_FIELD = 0, 2, 3
"""Of a batch."""
VALUES_FIELD = 1
"""Of a dictionary: its batch."""
DICTIONARIES_FIELD, BATCHES_FIELD = 2, 3
"""Of a footer."""
BUFFER, BLOCK = struct.Struct("<qq"), struct.Struct("<qi4xq")
"""Begin and length of a buffer; begin of a message, length of its head and of its body."""
NOT_COMPRESSED = -1
"""In place of the bytes that a buffer becomes: it is stored as it is."""
MOST_BATCH_ROWS = 1 << 40
MOST_HEAD_BYTES = 1 << 24
"""Of a message or a footer without its body: a footer says 24 bytes of a batch."""
FREE_BYTES = 1 << 24
"""Of a file in memory that are not asked about, however small it is."""
NO_FOOTER = "no footer"
NO_MESSAGE = "bytes that are no part of a trace"


@dataclass(frozen=True)
class Message:
    """kind: SCHEMA_MESSAGE, DICTIONARY or BATCH. at, size: bytes of the file. rows: of a batch.
    unpacked: bytes that its buffers take in memory."""

    kind: int
    at: int
    size: int
    rows: int
    unpacked: int


class NoMessageError(ValueError):
    """Bytes that are no message."""


def check_batches(path: Path, messages: Iterable[Message]) -> None:
    """Refuse what memory would not do for: the dictionaries, and any one batch beside the one that
    is worked on."""
    names = largest = total = 0
    for message in messages:
        total += message.unpacked
        if message.kind == DICTIONARY:
            names += message.unpacked
        largest = max(largest, message.unpacked)
    if total > memory.MAX_RATIO * path.stat().st_size + FREE_BYTES:
        raise InputError(path, f"expands to more than {memory.MAX_RATIO} times its size ("
                         f"{path.stat().st_size:,} bytes to {total:,})")
    if names + 2 * largest > FREE_BYTES:
        memory.need(memory.used() + names + 2 * largest, f"{path}: reading it", "split it by time")


def messages_of(path: Path) -> tuple[list[Message], str]:
    """The messages of a file from the front on, up to what ends them: that, in words."""
    size = path.stat().st_size
    messages: list[Message] = []
    with path.open("rb", buffering=0) as file:
        at, why = MAGIC_BYTES, ""
        while not why:
            why, message = _next(file, at, size)
            if message is not None:
                messages.append(message)
                at += message.size
    return messages, why


def listed_messages(path: Path) -> list[Message]:
    """The dictionaries and batches that a file's footer names. NoMessageError where it has none, or
    where one of them is none."""
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        footer = _footer(file, size)
        found = []
        try:
            root = _at(footer, 0, "<I")
            for number in (DICTIONARIES_FIELD, BATCHES_FIELD):
                for block in _structs(footer, root, number, BLOCK):
                    at = block[0]
                    why, message = _next(file, at, size) if MAGIC_BYTES <= at < size else (
                        NO_MESSAGE, None)
                    if message is None:
                        raise NoMessageError(f"at offset {at}: {why}")
                    found.append(message)
        except struct.error:
            raise NoMessageError("its footer is no footer") from None
    return found


def _footer(file: Any, size: int) -> bytes:
    ending = 4 + len(MAGIC)
    if size < MAGIC_BYTES + ending:
        raise NoMessageError(NO_FOOTER)
    file.seek(size - ending)
    length, magic = struct.unpack(f"<i{len(MAGIC)}s", file.read(ending))
    if magic != MAGIC or not 0 < length <= min(MOST_HEAD_BYTES, size - ending - MAGIC_BYTES):
        raise NoMessageError(NO_FOOTER)
    file.seek(size - ending - length)
    return bytes(file.read(length))


def _next(file: Any, at: int, size: int) -> tuple[str, Message | None]:
    """The message that begins at a byte; or why there is none."""
    file.seek(at)
    head = file.read(8)
    if len(head) < 8:
        return "the file ends", None
    continues, length = struct.unpack("<Ii", head)
    if continues != CONTINUES or not 0 <= length <= MOST_HEAD_BYTES:
        return NO_MESSAGE, None
    if not length:
        return NO_FOOTER, None
    if at + 8 + length > size:
        return "the file ends within a batch", None
    begin = at + 8 + length
    try:
        kind, body, rows, buffers, compressed = _said_by(file.read(length))
        if body >= 0 and begin + body > size:
            return "the file ends within a batch", None
        unpacked = _unpacked(file, begin, body, buffers) if compressed else body
    except (struct.error, ValueError):
        return NO_MESSAGE, None
    if (body < 0 or kind not in (SCHEMA_MESSAGE, DICTIONARY, BATCH)
            or not 0 <= rows < MOST_BATCH_ROWS):
        return NO_MESSAGE, None
    return "", Message(kind, at, 8 + length + body, rows, unpacked)


def _said_by(data: bytes) -> tuple[int, int, int, list[tuple[int, ...]], bool]:
    """Of a message its kind, the bytes behind it, and the rows of a batch, else 0; its buffers, and
    whether they are compressed. struct.error or ValueError where these bytes are no message."""
    message = _at(data, 0, "<I")
    kind, body = _field(data, message, KIND_FIELD, "<B"), _field(data, message, BODY_FIELD, "<q")
    header = _table(data, message, HEADER_FIELD)
    batch = header if kind == BATCH else _table(data, header, VALUES_FIELD)
    if kind not in (BATCH, DICTIONARY) or not batch:
        return kind, body, 0, [], False
    rows = _field(data, batch, ROWS_FIELD, "<q")
    return (kind, body, rows if kind == BATCH else 0,
            list(_structs(data, batch, BUFFERS_FIELD, BUFFER)),
            bool(_table(data, batch, COMPRESSION_FIELD)))


def _unpacked(file: Any, begin: int, body: int, buffers: list[tuple[int, ...]]) -> int:
    """Bytes that compressed buffers become."""
    total = 0
    for offset, length in buffers:
        if not 0 <= offset <= body or not 0 <= length <= body - offset:
            raise NoMessageError(NO_MESSAGE)
        if length < 8:
            continue
        file.seek(begin + offset)
        becomes = int.from_bytes(file.read(8), "little", signed=True)
        if becomes < NOT_COMPRESSED:
            raise NoMessageError(NO_MESSAGE)
        total += length - 8 if becomes == NOT_COMPRESSED else becomes
    return total


def _at(data: bytes, place: int, form: str) -> int:
    if place < 0:
        raise NoMessageError(NO_MESSAGE)
    return int(struct.unpack_from(form, data, place)[0])


def _place(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table stands; 0 if it has its default."""
    places = table - _at(data, table, "<i")
    if 4 + 2 * number < _at(data, places, "<H"):
        offset = _at(data, places + 4 + 2 * number, "<H")
        return table + offset if offset else 0
    return 0


def _field(data: bytes, table: int, number: int, form: str) -> int:
    place = _place(data, table, number)
    return _at(data, place, form) if place else 0


def _table(data: bytes, table: int, number: int) -> int:
    """Where the table or vector begins that a field refers to; 0 if there is none."""
    place = _place(data, table, number)
    return place + _at(data, place, "<I") if place else 0


def _structs(data: bytes, table: int, number: int, form: struct.Struct
             ) -> Iterator[tuple[int, ...]]:
    """The entries of a vector."""
    begin = _table(data, table, number)
    if not begin:
        return
    count = _at(data, begin, "<I")
    if count * form.size > len(data) - begin - 4:
        raise NoMessageError(NO_MESSAGE)
    for k in range(count):
        yield form.unpack_from(data, begin + 4 + k * form.size)
