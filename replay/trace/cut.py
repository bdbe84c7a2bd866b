"""What is whole of a trace file that ends too early, or that something else follows.

A file that was cut has no footer to say where its messages are. They are found one after the other
from the front, and those that are whole can be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from replay.trace.messages import (
    BATCH, NO_FOOTER, SCHEMA_MESSAGE, Message, check_batches, messages_of,
)  # fmt: skip


class CutFile:
    """The whole batches of a file without a footer; read like a pyarrow.RecordBatchFileReader.

    messages: those that are whole. why: what the file has in place of the rest. ended: whether all
    batches that were written are there, and the footer alone is not.
    """

    def __init__(self, path: Path, messages: list[Message], why: str, ended: bool,
                 options: Any = None) -> None:
        self.path, self.why, self.ended = path, why, ended
        self.messages, self._options = messages, options
        self._batches = [k for k, message in enumerate(messages) if message.kind == BATCH]
        with self._stream(1) as stream:
            self.schema = stream.schema

    def reader(self, options: Any) -> CutFile:
        """The same with pyarrow.ipc.IpcReadOptions."""
        return CutFile(self.path, self.messages, self.why, self.ended, options)

    @property
    def num_record_batches(self) -> int:
        """How many are whole."""
        return len(self._batches)

    def count_rows(self) -> int:
        """Of the whole batches."""
        return sum(self.messages[k].rows for k in self._batches)

    def get_batch(self, number: int) -> pa.RecordBatch:
        """One of them; errors are pyarrow's."""
        with self._stream(self._batches[number] + 1) as stream:
            return stream.read_next_batch()

    def _stream(self, end: int) -> Any:
        """Schema and dictionaries before message `end`, and that before it."""
        wanted = [m for m in self.messages[: end - 1] if m.kind != BATCH] + [
            self.messages[end - 1]]
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
        return CutFile(self.path, self.messages[: self._batches[-1]],
                       "a batch that cannot be read", False, self._options)


def cut_file(path: Path) -> CutFile | None:
    """What is whole of a file that has no footer; None where not even its schema is."""
    messages, why = messages_of(path)
    if not messages or messages[0].kind != SCHEMA_MESSAGE:
        return None
    check_batches(path, messages)
    try:
        found = CutFile(path, messages, why, why == NO_FOOTER)
        while found.num_record_batches and not _can_be_read(found):
            found = found.without_last()
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        return None
    return found


def _can_be_read(found: CutFile) -> bool:
    """Whether the last batch is one: a file system may have kept its length and not its bytes."""
    try:
        found.get_batch(found.num_record_batches - 1).validate(full=True)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True
