"""The kinds of value that hold several texts: lists, argument lists, tables of variables.

In the environment they are written as JSON or as a TOML value on one line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import tomli

from agent.config.values import NotAllowedError, ValueKind

LIST_LENGTH_MAX = 1000


def _structure_from_text(text: str) -> object:
    """Reads a JSON value, or a TOML value on one line; a text that is neither raises NotAllowedError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return tomli.loads(f"value = {text.strip()}")["value"]
    except (ValueError, RecursionError):
        raise NotAllowedError("in the environment it is written as JSON or as a TOML value") from None


@dataclass(frozen=True)
class ListOf(ValueKind):
    """A list of values of one kind."""

    element: ValueKind
    description: str
    length_min: int = 0

    @property
    def allowed(self) -> str:
        return self.description

    def accept(self, value: object) -> tuple[object, ...]:
        if not isinstance(value, list) or not self.length_min <= len(value) <= LIST_LENGTH_MAX:
            raise NotAllowedError
        accepted = []
        for position, element in enumerate(value, start=1):
            try:
                accepted.append(self.element.accept(element))
            except NotAllowedError as refusal:
                reason = f": {refusal}" if str(refusal) else ""
                raise NotAllowedError(f"element {position} is not allowed{reason}") from None
        return tuple(accepted)

    def from_text(self, text: str) -> object:
        return _structure_from_text(text)


@dataclass(frozen=True)
class ArgumentList(ValueKind):
    """A program and its arguments, each as its own text; the program comes first and is not empty."""

    @property
    def allowed(self) -> str:
        return 'an argument list, such as ["program", "--option", "value"]'

    def accept(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            raise NotAllowedError("no shell takes a command line apart here: write each argument as its own text")
        if not isinstance(value, list) or not 1 <= len(value) <= LIST_LENGTH_MAX:
            raise NotAllowedError
        for argument in value:
            if not isinstance(argument, str) or "\0" in argument:
                raise NotAllowedError("every argument is a text in quotes")
        if not value[0].strip():
            raise NotAllowedError("the program is empty")
        return tuple(value)

    def from_text(self, text: str) -> object:
        return _structure_from_text(text)


@dataclass(frozen=True)
class ArgumentLists(ValueKind):
    """Several argument lists; one alone is taken as a list of one."""

    @property
    def allowed(self) -> str:
        return 'a list of argument lists, such as [["program", "--option"], ["another"]]'

    def accept(self, value: object) -> tuple[tuple[str, ...], ...]:
        if isinstance(value, str):
            raise NotAllowedError("no shell takes a command line apart here: write each argument as its own text")
        if not isinstance(value, list) or len(value) > LIST_LENGTH_MAX:
            raise NotAllowedError
        if value and all(isinstance(argument, str) for argument in value):
            return (ArgumentList().accept(value),)
        return tuple(ArgumentList().accept(arguments) for arguments in value)

    def from_text(self, text: str) -> object:
        return _structure_from_text(text)


@dataclass(frozen=True)
class TextTable(ValueKind):
    """A table of variable names and texts."""

    @property
    def allowed(self) -> str:
        return 'a table of names and texts, such as { NAME = "text" }'

    def accept(self, value: object) -> dict[str, str]:
        if not isinstance(value, dict) or len(value) > LIST_LENGTH_MAX:
            raise NotAllowedError
        for name, text in value.items():
            if not name or "=" in name or "\0" in name:
                raise NotAllowedError(f"{name!r} cannot be the name of an environment variable")
            if not isinstance(text, str) or "\0" in text:
                raise NotAllowedError(f"the value of {name!r} is no text in quotes")
        return dict(value)

    def from_text(self, text: str) -> object:
        return _structure_from_text(text)
