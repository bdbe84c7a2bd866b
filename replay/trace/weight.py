"""How much a trace holds, told before its rows are in memory, and whether they may all be there.

What needs all rows at once is refused here where memory would not do: the number of rows is in the
file's footer, that of pages in two of its columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from replay.base import memory
from replay.base.errors import InputError
from replay.engine.drive import LARGEST_REQUEST
from replay.trace.checks import as_schema
from replay.trace.columns import ints, is_kind
from replay.trace.opening import opened, readable, seen_as_arrow
from replay.trace.schema import SCHEMA
from replay.trace.store import Trace, in_memory, load

SLOT_BYTES, SLOT_BYTES_EACH = 24, 80
"""Of a replay, for a page that is live at once, a slot, and of these for each allocator: its frame,
its list, its state."""
PROCESS_BYTES = 230 << 20
"""Of a process with all that it imports."""


class Weight(NamedTuple):
    """rows: of a trace. pages: that its allocations ask for, all together."""

    rows: int
    pages: int


class Whole(NamedTuple):
    """What is done with all rows at once, and the bytes that it takes for each row and page."""

    doing: str
    row_bytes: int
    page_bytes: int


VERBS_THAT_LOAD = {
    "verify": Whole("verifying", 420, 75), "calibrate": Whole("calibrating with", 420, 75),
    "predict": Whole("predicting", 420, 75), "convert": Whole("converting", 540, 48),
    "add": Whole("reading", 200, 16)}
"""By verb; the first three replay one strategy beside the recorded rows. Measured at 10^6 rows
(peak of the process, Linux 6.1, Python 3.11): repeated recordings with 0.1 and 15 pages a row took
582 and 1,572 MiB to verify, 694 and 1,578 to calibrate with, 641 and 1,577 to predict; synthetic
traces with 1 and 15 pages a row 795 and 1,425 MiB to convert, 427 and 536 to read."""


def weigh(path: Path, allow_loss: bool = False) -> Weight:
    """What a file holds; InputError where that cannot be told. allow_loss: see store.load()."""
    columns = ("kind", "nr_pages")
    source = readable(seen_as_arrow(path), allow_loss)
    with opened(path, source) as reader:
        names = reader.schema.names
        if missing := [name for name in columns if name not in names]:
            raise InputError(path, f"columns differ: missing {missing}")
    options = pa.ipc.IpcReadOptions(included_fields=sorted(map(names.index, columns)))
    with opened(path, source, options) as reader:
        return Weight(int(reader.count_rows()), sum(_pages(path, reader)))


def _pages(path: Path, reader: Any) -> Iterable[int]:
    for number in range(reader.num_record_batches):
        try:
            batch = reader.get_batch(number)
            batch.validate(full=True)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(path, f"is damaged ({str(error).splitlines()[0]})",
                             f"batch {number}") from None
        table = pa.Table.from_batches([as_schema(path, batch, pa.schema(
            [SCHEMA.field(name) for name in batch.schema.names]))])
        pages = np.clip(ints(table, "nr_pages", 0), 0, LARGEST_REQUEST)
        yield int(pages[is_kind(table, "alloc")].sum())


def check_whole(paths: Iterable[Path], verb: str, allow_loss: bool = False) -> None:
    """Refuse, before they are read, traces that a verb would take too much memory for together."""
    paths = list(paths)
    found, whole = [weigh(path, allow_loss) for path in paths], VERBS_THAT_LOAD[verb]
    rows, pages = sum(one.rows for one in found), sum(one.pages for one in found)
    memory.need(max(PROCESS_BYTES, memory.used())
                + rows * whole.row_bytes + pages * whole.page_bytes,
                f"{', '.join(map(str, paths))}: {whole.doing} {rows:,} rows with {pages:,} pages "
                "at once",
                "take a part of the trace")


def load_whole(path: Path, verb: str, allow_loss: bool = False) -> Trace:
    """A trace whose rows a verb needs all at once, if there is memory for it."""
    check_whole([path], verb, allow_loss)
    return load(path, allow_loss)


def loaded(given: Trace | str | os.PathLike[str], verb: str) -> Trace:
    """A trace in memory, or the file's."""
    return in_memory(given) if isinstance(given, Trace) else load_whole(Path(given), verb)
