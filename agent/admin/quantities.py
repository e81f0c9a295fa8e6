"""Bytes and times as people read them, in sentences and in views. Pure text; knows nothing of what is counted."""

from __future__ import annotations

_SIZE_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_BYTES_OF_UNIT = 1000


def size_text(count: float) -> str:
    """Bytes with the unit that fits: "1 byte", "1.2 kB"; decimal units, as disks and links are sold."""
    if count == 1:
        return "1 byte"
    value = float(count)
    for unit in _SIZE_UNITS:
        if value < _BYTES_OF_UNIT or unit == _SIZE_UNITS[-1]:
            break
        value /= _BYTES_OF_UNIT
    return f"{value:.0f} {unit}" if unit == _SIZE_UNITS[0] else f"{value:.1f} {unit}"


def span_text(milliseconds: int) -> str:
    """A span of time, rounded up to what is worth saying: "40 ms", "3 s", "2 h 5 min"."""
    return f"{milliseconds} ms" if milliseconds < 1000 else age_text(-(-milliseconds // 1000))


def age_text(seconds: float) -> str:
    """A longer time in whole units: "59 s", "5 min", "3 h 1 min", "28 days"; below 0 is 0."""
    try:
        whole = max(0, int(seconds))
    except (ValueError, OverflowError):
        return "ever"
    if whole < 120:
        return f"{whole} s"
    if whole < 2 * 3600:
        return f"{whole // 60} min"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days"


def listed(words: list[str]) -> str:
    """The words as part of a sentence: "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
