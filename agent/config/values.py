"""The kinds of value that a key of agent.toml can hold: what is allowed, and how it is read from text.

Each kind says in `allowed` what an operator may write, accepts a TOML value with `accept` and turns the text of an
environment variable into a TOML value with `from_text`. It knows no key, no file and no other key's value. A value is
never bent into shape: a boolean is no integer, and a number in quotes is no number.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

TEXT_LENGTH_MAX = 4096


class NotAllowedError(Exception):
    """The value is not allowed; the message, where there is one, says more than `ValueKind.allowed` does."""


class ValueKind(ABC):
    """What a key can hold."""

    @property
    @abstractmethod
    def allowed(self) -> str:
        """Says what is allowed, to complete "allowed: ..."."""

    @abstractmethod
    def accept(self, value: object) -> object:
        """Returns the TOML value as the configuration keeps it. Raises NotAllowedError."""

    def from_text(self, text: str) -> object:
        """Returns the TOML value that the text of an environment variable stands for. Raises NotAllowedError."""
        return text


@dataclass(frozen=True)
class Text(ValueKind):
    """One line of printable text, `length_min` to `length_max` characters."""

    length_min: int = 1
    length_max: int = TEXT_LENGTH_MAX
    pattern: str = ""
    description: str = ""

    @property
    def allowed(self) -> str:
        if self.description:
            return self.description
        if self.length_max == TEXT_LENGTH_MAX:
            return "a text in quotes" if self.length_min == 0 else "a text in quotes, not empty"
        return f"a text of {self.length_min} to {self.length_max} characters in quotes"

    def accept(self, value: object) -> str:
        if not isinstance(value, str) or not self.length_min <= len(value) <= self.length_max:
            raise NotAllowedError
        if not value.isprintable():
            raise NotAllowedError("it holds a line break or a control character")
        if value != value.strip():
            raise NotAllowedError("it begins or ends with a blank")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise NotAllowedError
        return value


@dataclass(frozen=True)
class Secret(ValueKind):
    """A secret that is never shown."""

    @property
    def allowed(self) -> str:
        return "a text in quotes, not empty (`pair-agent key generate` makes a strong one)"

    def accept(self, value: object) -> str:
        if not isinstance(value, str) or len(value) > TEXT_LENGTH_MAX:
            raise NotAllowedError
        if not value.strip():
            raise NotAllowedError("it is empty: write a key, or remove the line to go without")
        return value


@dataclass(frozen=True)
class PathOrPem(ValueKind):
    """A path to a PEM file, or the PEM text itself."""

    content: str

    @property
    def allowed(self) -> str:
        return f"a path to {self.content}, or the PEM text itself as a multi-line string"

    def accept(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise NotAllowedError
        return value


@dataclass(frozen=True)
class FilePath(ValueKind):
    """A path, relative to agent.toml or absolute."""

    @property
    def allowed(self) -> str:
        return "a path in quotes, absolute or relative to agent.toml"

    def accept(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > TEXT_LENGTH_MAX:
            raise NotAllowedError
        if not value.isprintable():
            raise NotAllowedError("it holds a control character: write Windows paths in 'single quotes'")
        return value


@dataclass(frozen=True)
class Choice(ValueKind):
    """One of the words of an enum."""

    words: type[Enum]

    @property
    def allowed(self) -> str:
        words = [f'"{word.value}"' for word in self.words]
        return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]

    def accept(self, value: object) -> Enum:
        for word in self.words:
            if isinstance(value, str) and word.value == value:
                return word
        raise NotAllowedError


@dataclass(frozen=True)
class Integer(ValueKind):
    """A whole number; a boolean is none."""

    minimum: int
    maximum: int
    unit: str = ""

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.minimum} to {self.maximum}{' ' + self.unit if self.unit else ''}"

    def accept(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self.minimum <= value <= self.maximum:
            raise NotAllowedError
        return value

    def from_text(self, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip(), re.ASCII):
            raise NotAllowedError
        return int(text)


def milliseconds(minimum: int, maximum: int) -> Integer:
    """A time in milliseconds."""
    return Integer(minimum, maximum, "milliseconds")


PORT = Integer(1, 65535)


@dataclass(frozen=True)
class Flag(ValueKind):
    """True or false."""

    @property
    def allowed(self) -> str:
        return "true or false"

    def accept(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise NotAllowedError
        return value

    def from_text(self, text: str) -> bool:
        word = text.strip().lower()
        if word not in ("true", "false"):
            raise NotAllowedError
        return word == "true"
