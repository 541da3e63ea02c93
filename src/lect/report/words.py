# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them: counts, bytes, durations, rates, shares and changes; a missing one is said."""

from __future__ import annotations

import math

MISSING = "not measured"
RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def significant(value: float, digits: int = 3) -> str:
    """The value with ``digits`` significant digits, thousands grouped, as a power of ten outside 1e-4 to 1e16."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e16:
        return _power(value, max(1, digits - 1))
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits}g}")))))
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _power(value: float, digits: int) -> str:
    """The value as a number from 1 to 10 with ``digits`` digits, times a power of ten."""
    digit, _, power = f"{value:.{digits - 1}e}".partition("e")
    raised = str(int(power)).translate(RAISED)
    return f"{digit}\N{MULTIPLICATION SIGN}10{raised}".replace("-", "\N{MINUS SIGN}")


def _scaled(value: float, steps: list[tuple[float, str]]) -> str:
    for size, unit in steps:
        if abs(value) >= size * 0.9995:
            return f"{significant(value / size)}\N{NO-BREAK SPACE}{unit}"
    return significant(value)


def count(value: float | None) -> str:
    """A number of things: whole below ten thousand, else thousands, millions, billions."""
    if value is None:
        return MISSING
    if abs(value) < 1e4:
        return f"{value:,.0f}" if value == int(value) else significant(value)
    if abs(value) < 1e6:
        return f"{value:,.0f}"
    return _scaled(value, [(1e12, "trillion"), (1e9, "billion"), (1e6, "million")])


def size(value: float | None) -> str:
    """A number of bytes in decimal units (1 kB = 1,000 bytes)."""
    if value is None:
        return MISSING
    if abs(value) < 1e3:
        return f"{value:.0f}\N{NO-BREAK SPACE}bytes"
    return _scaled(value, [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")])


def duration(value: float | None) -> str:
    """Seconds as milliseconds, seconds, minutes or hours."""
    if value is None:
        return MISSING
    gap = "\N{NO-BREAK SPACE}"
    if abs(value) < 0.9995:
        return f"{1000 * value:.0f}{gap}ms"
    if abs(value) < 59.95:
        return f"{value:.1f}{gap}s" if abs(value) < 9.95 else f"{value:.0f}{gap}s"
    whole = round(value)
    if whole < 3600:
        minutes, seconds = divmod(whole, 60)
        return f"{minutes}{gap}min" + (f"{gap}{seconds}{gap}s" if seconds else "")
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours:,}{gap}h" + (f"{gap}{minutes}{gap}min" if minutes else "")


def rate(value: float | None, unit: str) -> str:
    """Something per second, such as ``1,240 bytes/s``."""
    if value is None:
        return MISSING
    text = f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else _scaled(value, [(1e9, "billion"), (1e6, "million")])
    return f"{text} {unit}/s"


def share(value: float | None, digits: int = 3) -> str:
    """A fraction as a percentage without sign."""
    return MISSING if value is None else f"{significant(100 * value, digits)}\N{NO-BREAK SPACE}%"


def change(value: float | None) -> str:
    """A relative change as a signed percentage; what rounds to nothing has no sign."""
    if value is None:
        return MISSING
    percent = 100 * value
    if abs(percent) < 0.005:
        return "0\N{NO-BREAK SPACE}%"
    text = (
        f"{abs(percent):,.0f}"
        if abs(percent) >= 100
        else f"{abs(percent):.2f}"
        if abs(percent) < 1
        else f"{abs(percent):.1f}"
    )
    sign = "\N{MINUS SIGN}" if percent < 0 else "+"
    return f"{sign}{text}\N{NO-BREAK SPACE}%"


def ratio(before: float | None, after: float | None) -> float | None:
    """``after / before``, or None when it has no meaning."""
    if before is None or after is None or before <= 0:
        return None
    value = after / before
    return value if math.isfinite(value) else None


def relative(before: float | None, after: float | None) -> float | None:
    """``after / before - 1``, or None when it has no meaning."""
    value = ratio(before, after)
    return None if value is None else value - 1


def quantity(value: float | None, unit: str) -> str:
    """A predicted or measured number in its unit: ``seconds``, ``bytes``, ``tokens``, ``rows``, ``parameters``,
    ``bits``, ``rate`` or ``share``.

    In any other unit it has three digits; a missing number is a dash.
    """
    if value is None:
        return "\N{EN DASH}"
    if unit in ("seconds", "bytes"):
        return duration(value) if unit == "seconds" else size(value)
    if unit in ("tokens", "rows", "parameters"):
        return count(round(value))
    if unit == "rate" and 0 < value < 0.01:
        return _power(value, 2)
    if unit == "share":
        return share(value)
    if unit == "bits" and abs(value) >= 1e6:
        return _scaled(value, [(1e12, "Tbit"), (1e9, "Gbit"), (1e6, "Mbit")])
    return significant(value, 4 if unit == "bits" else 3)


def span(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    """A number with the range that is as good, where there is one."""
    if low is None or high is None:
        return quantity(value, unit)
    return f"{quantity(low, unit)} to {quantity(high, unit)}"
