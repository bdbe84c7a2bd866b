"""A figure before and after, and by how much it moved, as people write it."""

from __future__ import annotations

from decimal import Decimal

from replay.report.telling.escapes import plain
from replay.report.telling.figures import SHOWN
from replay.report.telling.tables import NO_VALUE

TELLING_DIGITS = 15
LEAST_PERCENT = 0.05
"""Shown as 0.1 %: what is less is said to be less."""
AS_FACTOR = 10
"""From here on a change is told as a factor."""
MOST_TEXT = 12
"""Letters of a digest."""

Number = float | str | None


def both(unit: str, base: Number, value: Number) -> tuple[str, str]:
    """Two values, with as many digits as tell them apart."""
    if isinstance(base, str) or isinstance(value, str):
        return _text(base), _text(value)
    shown = SHOWN[unit](base), SHOWN[unit](value)
    if base is None or value is None or base == value or shown[0] != shown[1]:
        return shown
    factor, sign = (100.0, " %") if unit == "share" else (1.0, "" if unit in (
        "count", "ratio", "pages") else " B" if unit == "bytes" else f" {unit}")
    for digits in range(4, TELLING_DIGITS):
        shown = (_number(factor * base, digits) + sign, _number(factor * value, digits) + sign)
        if shown[0] != shown[1]:
            break
    return shown


def _text(value: Number) -> str:
    return NO_VALUE if value is None else plain(value)[:MOST_TEXT]


def _number(value: float, digits: int) -> str:
    """To so many digits, or all before the point; none of them as a power of ten."""
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{Decimal(f'{value:.{digits}g}'):,f}"


def moved(base: Number, value: Number) -> str:
    """By how much: as a percentage, from a factor of ten on as that factor."""
    if base is None or value is None or isinstance(base, str) or isinstance(value, str):
        return NO_VALUE
    if base == value:
        return "none"
    if not base or not value:
        return "from 0" if not base else "to 0"
    if (base < 0) != (value < 0):
        return "changed its sign"
    ratio = value / base
    if ratio >= AS_FACTOR:
        return f"{_times(ratio)} times"
    if ratio <= 1 / AS_FACTOR:
        return f"{_times(base / value)} times less"
    percent = 100 * (ratio - 1)
    if abs(percent) < LEAST_PERCENT:
        return f"{'up' if percent > 0 else 'down'} < 0.1 %"
    return f"{percent:+.1f} %"


def _times(factor: float) -> str:
    """Two digits, or all before the point; a million and more in words."""
    if factor >= 1e15:
        return "countless"
    for least, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if factor >= least:
            return f"{factor / least:.2g} {word}" if factor < 100 * least else \
                f"{factor / least:,.0f} {word}"
    return f"{factor:,.0f}"
