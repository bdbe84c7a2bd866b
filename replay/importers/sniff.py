"""Which wire format a file is in, by its first bytes; gzip and zstd are looked through."""

from __future__ import annotations

from pathlib import Path

from replay.base.errors import InputError
from replay.importers.formats import formats
from replay.importers.source.format import Format
from replay.importers.source.inputs import DAMAGE, compression, expanded

HEAD_BYTES = 4096
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257


def _hint() -> str:
    said = ", ".join(one.said for one in sorted(formats(), key=lambda one: one.name))
    return f"expected {said} (also as .gz or .zst), or an archive of `replay record`"


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        kind = compression(head)
        if kind:
            with expanded(path, kind) as stream:
                return bytes(stream.read(HEAD_BYTES))
    except IsADirectoryError:
        raise InputError(path, "is a directory", hint=_hint()) from None
    except DAMAGE as error:
        raise InputError(path, f"damaged compression ({error})", hint=_hint()) from None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error})",
                         hint=_hint()) from None
    return head


def sniff(path: Path) -> Format | None:
    """The format of a file, None for an archive of a recording; InputError for anything else."""
    head = _head(path)
    if not head:
        raise InputError(path, "is empty", hint=_hint())
    if head[TAR_MAGIC_AT:].startswith(TAR_MAGIC):
        return None
    known = not head.startswith((b"\x89PNG", b"ARROW1"))
    for one in formats() if known else ():
        if one.fits(head):
            return one
    raise InputError(path, f"begins with {head[:8]!r}, no format this program reads", "offset 0",
                     _hint())
