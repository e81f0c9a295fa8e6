"""What an inspection says about one thing: how bad it is, and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a result is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Result:
    """One line of the report."""

    level: Level
    sentence: str
