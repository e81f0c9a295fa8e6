"""The lines that views are made of, and how they take values out of an answer that may be of any shape.

The answer comes from a process that may be older, newer or told nonsense by its peer: a missing or strange value shows
as unknown, and never breaks a view.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.admin.printable import printable
from agent.admin.quantities import age_text, size_text

LABEL_WIDTH = 12


@dataclass(frozen=True)
class Line:
    """One line of the view; `alarming` ones are shown in a warning colour where there are colours."""

    text: str
    alarming: bool = False

    def made_printable(self) -> Line:
        """The same line without anything that could steer a terminal."""
        return Line(printable(self.text), self.alarming)


def labelled(label: str, text: str, *, alarming: bool = False) -> Line:
    """A line of the status: a label in its column, and the text."""
    return Line(f"  {label:<{LABEL_WIDTH}}{text}", alarming)


def part(answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object at `key`, empty if there is none."""
    value = answer.get(key)
    return value if isinstance(value, dict) else {}


def objects(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in the list at `key`; what is no object is left out."""
    value = answer.get(key)
    return [element for element in value if isinstance(element, dict)] if isinstance(value, list) else []


def text_at(answer: Mapping[str, Any], *keys: str) -> str:
    """The value at the end of `keys` as text, "-" if there is none."""
    value: Any = answer
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return "-" if value is None else str(value)


def number_at(answer: Mapping[str, Any], key: str) -> float | None:
    """The finite number at `key`, None if there is none."""
    value = answer.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def count_at(answer: Mapping[str, Any], key: str) -> int:
    """The whole number at `key`; 0 if there is none."""
    return int(number_at(answer, key) or 0)


def size_at(answer: Mapping[str, Any], key: str) -> str:
    """The number of bytes at `key` as text, "-" if there is none."""
    value = number_at(answer, key)
    return "-" if value is None else size_text(value)


def age_at(answer: Mapping[str, Any], key: str, now: datetime) -> str | None:
    """How long before `now` the time at `key` was; None if there is no time."""
    value = answer.get(key)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return age_text((now - moment).total_seconds())


def plural(count: int, word: str) -> str:
    """ "1 file", "2 files"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
