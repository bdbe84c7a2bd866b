"""Little-endian sub-buffers read word by word, by include/linux/ring_buffer.h alone."""

from __future__ import annotations

import struct

LIMIT = 1 << 62


def events_of(page: bytes) -> list[tuple[int, int, int]] | None:
    """Time, place and length of each event of one sub-buffer; None if it cannot be one."""
    time, commit = struct.unpack_from("<QQ", page)
    at, stop = 16, 16 + (commit & 0x7FFFFFF) // 4 * 4
    if stop > len(page) or time >= LIMIT:
        return None
    found = []
    while at < stop:
        (word,) = struct.unpack_from("<I", page, at)
        kind, delta = word & 31, word >> 5
        if kind == 29 and not delta:
            break
        data = at + 4
        if 1 <= kind <= 28:
            length = 4 * kind
        elif data + 4 > stop:
            return None
        else:
            (next_word,) = struct.unpack_from("<I", page, data)
            if kind == 0:
                data, length = data + 4, next_word - 4
            elif kind == 29:
                length = max(4, (next_word + 3) // 4 * 4)
            else:
                length = 4
        end = data + (length + 3) // 4 * 4
        if kind <= 28 and length < 8 or end > stop:
            return None
        time = time & 0xF8 << 56 | next_word << 27 | delta if kind == 31 else \
            time + delta + (next_word << 27 if kind == 30 else 0)
        if time >= LIMIT:
            return None
        if kind <= 28:
            found.append((time, data, length))
        at = end
    return found
