"""Files that no reader sees half of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from replay.errors import InputError


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path`, all at once, when the block is through.

    InputError where it cannot be written; nothing is changed then.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        raise InputError(path, f"cannot be written: {error.strerror or error}",
                         hint="nothing was changed") from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
