"""The plain bytes of an input file, whether it is compressed or not, without holding them.

A plain file is mapped; gzip and zstd are expanded into an unnamed temporary file, which is mapped:
memory stays bounded whatever the size, and every importer sees one buffer it can index.
"""

from __future__ import annotations

import errno
import gzip
import mmap
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import IO, Any, Final

import pyarrow as pa

from replay.base.errors import InputError
from replay.base.memory import MAX_RATIO
from replay.base.progress import step

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
LONG_BYTES: Final = 1 << 27
_OFTEN_S: Final = 0.02
_READ_BYTES: Final = 1 << 22

Buffer = mmap.mmap | bytes
"""Both can be sliced, searched, and given to numpy."""


def forget(data: Buffer, begin: int = 0, end: int | None = None) -> None:
    """Let go of bytes that have been walked through: what is read of a mapped file counts as memory
    of the process until somebody else needs the room. They come back when they are looked at."""
    end = len(data) if end is None else end // mmap.PAGESIZE * mmap.PAGESIZE
    begin = begin // mmap.PAGESIZE * mmap.PAGESIZE
    if isinstance(data, mmap.mmap) and end > begin:
        data.madvise(mmap.MADV_DONTNEED, begin, end - begin)


@contextmanager
def forgetting(buffer: Buffer) -> Iterator[None]:
    """The same again and again in a second thread, while one compiled pass reads a long file."""
    if len(buffer) < LONG_BYTES:
        yield
        return
    stop = Event()

    def work() -> None:
        while not stop.wait(_OFTEN_S):
            forget(buffer)

    with ThreadPoolExecutor(1) as beside:
        beside.submit(work)
        try:
            yield
        finally:
            stop.set()
            forget(buffer)


def compression(head: bytes) -> str:
    """gzip, zstd or nothing, by a file's first bytes."""
    return "gzip" if head.startswith(GZIP) else "zstd" if head.startswith(ZSTD) else ""


def expanded(path: Path, kind: str) -> Any:
    """A stream of the plain bytes of a compressed file."""
    if kind == "gzip":
        return gzip.open(path)
    return pa.input_stream(str(path), compression="zstd")


DAMAGE: Final = (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException)
"""What the decompressors raise for a damaged or cut stream; pyarrow also raises OSError."""


@contextmanager
def plain_bytes(path: Path) -> Iterator[Buffer]:
    """The file's plain content; InputError if it cannot be read or expanded.

    A step of as many bytes: who reads them says how far it has come.
    """
    try:
        with path.open("rb") as file:
            kind = compression(file.read(4))
            if not kind:
                with _mapped(file) as buffer, step(f"reading {path.name}", len(buffer), "B"):
                    yield buffer
                return
        with _spool(path) as spool:
            with step(f"expanding {path.name}"):
                _expand(path, kind, spool)
            with _mapped(spool) as buffer, step(f"reading {path.name}", len(buffer), "B"):
                yield buffer
    except OSError as error:
        raise InputError(path, error.strerror or "cannot be read") from None


def _expand(path: Path, kind: str, spool: IO[bytes]) -> None:
    limit = MAX_RATIO * path.stat().st_size + (1 << 16)
    try:
        with expanded(path, kind) as stream:
            while chunk := stream.read(_READ_BYTES):
                spool.write(chunk)
                if spool.tell() > limit:
                    raise InputError(path, f"expands to more than {MAX_RATIO} times its size",
                                     hint="expand it first if it is what you expect")
    except MemoryError:
        raise
    except DAMAGE as error:
        raise InputError(path, f"the {kind} stream is damaged or cut ({error})") from None
    except OSError as error:
        if error.errno:  # a full disk, say; pyarrow's own have no number
            raise no_room(path, error) from None
        raise InputError(path, f"the {kind} stream is damaged or cut ({error})") from None
    spool.flush()


def _spool(path: Path) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise no_room(path, error) from None


def no_room(path: Path, error: OSError) -> InputError:
    """What a file is unpacked into cannot be written."""
    place = tempfile.gettempdir() if error.errno != errno.ENOENT else "the temporary folder"
    return InputError(path, f"cannot be unpacked in {place}: {error.strerror or error}",
                      hint="make room there, or let TMPDIR name another folder")


@contextmanager
def _mapped(file: IO[bytes]) -> Iterator[Buffer]:
    file.seek(0, 2)
    if not file.tell():
        yield b""
        return
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        yield mapping
    finally:
        try:
            mapping.close()
        except BufferError:  # an array still looks at it: it closes with the last of them
            pass
