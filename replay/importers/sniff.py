"""Which wire format a file is in, by its first bytes; gzip and zstd are looked through."""

from __future__ import annotations

from pathlib import Path

from replay.base.errors import InputError
from replay.importers.source.inputs import DAMAGE, compression, expanded

TRACE_DAT, FTRACE_TEXT, XENTRACE = "trace.dat", "ftrace text", "xentrace"
ARCHIVE = "archive of a recording"
HEAD_BYTES = 4096
TRACE_DAT_MAGIC = b"\x17\x08\x44tracing"
CPU_CHANGE = (b"\x03\xf0\x01\x20", b"\x20\x01\xf0\x03")
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
HINT = ("expected trace-cmd's trace.dat, ftrace text, or xentrace binary (also as .gz or .zst), or "
        "an archive of `replay record`")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        kind = compression(head)
        if kind:
            with expanded(path, kind) as stream:
                return bytes(stream.read(HEAD_BYTES))
    except IsADirectoryError:
        raise InputError(path, "is a directory", hint=HINT) from None
    except DAMAGE as error:
        raise InputError(path, f"damaged compression ({error})", hint=HINT) from None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error})", hint=HINT) from None
    return head


def sniff(path: Path) -> str:
    """TRACE_DAT, FTRACE_TEXT, XENTRACE or ARCHIVE; InputError for anything else."""
    head = _head(path)
    if not head:
        raise InputError(path, "is empty", hint=HINT)
    if head.startswith(TRACE_DAT_MAGIC):
        return TRACE_DAT
    if head.startswith(CPU_CHANGE):
        return XENTRACE
    if head[TAR_MAGIC_AT:].startswith(TAR_MAGIC):
        return ARCHIVE
    if b"\x00" in head or head.startswith((b"\x89PNG", b"ARROW1")):
        raise InputError(path, f"begins with {head[:8]!r}, no format this program reads",
                         "offset 0", HINT)
    return FTRACE_TEXT
