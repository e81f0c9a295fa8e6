"""On which line of agent.toml a key stands; the TOML reader does not tell.

A scanner for text that is already known to be valid TOML: it tracks tables, keys, strings and brackets, and knows no
values. What stands inside an inline table or a list is found by the line of the key that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import tomli

_STRING = r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
_TOKEN = re.compile(
    rf"(?P<string>{_STRING})|(?P<comment>#[^\n]*)|(?P<newline>\n)|(?P<open>[\[{{])|(?P<close>[\]}}])"
    r"|(?P<equals>=)|(?P<comma>,)|(?P<dot>\.)|(?P<bare>[A-Za-z0-9_-]+)|(?P<blank>[ \t\r]+)|(?P<other>.)",
    re.DOTALL,
)


class Positions:
    """The lines of the keys and tables of one TOML text."""

    def __init__(self, lines: dict[str, int]) -> None:
        self._lines = lines

    def line(self, path: str) -> int | None:
        """The line, from 1, of the key, or of the nearest table or key that holds it; None if the text has neither."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path.rpartition(".")[0]
        return None


def _name(kind: str, text: str) -> str:
    if kind == "string":
        return str(tomli.loads(f"value = {text}")["value"])
    return text


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        yield str(match.lastgroup), match.group(), line
        line += match.group().count("\n")


def scan_positions(text: str) -> Positions:
    """Finds the line of every table and key: "server.port", or "tree.0.name" for an element of a repeated table."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table: list[str] = []
    statement: list[str] = []  # the names seen since the statement began
    brackets = 0  # depth inside a value, or of a table header
    header = ""
    in_value = False
    for kind, token, line in _tokens(text):
        if kind in ("comment", "blank"):
            continue
        if kind == "newline":
            if brackets == 0:
                statement, in_value = [], False
        elif in_value:
            brackets += (kind == "open") - (kind == "close")
        elif kind == "open":
            header += token
            brackets += 1
        elif kind == "close":
            brackets -= 1
            if brackets == 0:
                table = _enter(statement, header == "[[", counts)
                lines.setdefault(".".join(table), line)
                statement, header = [], ""
        elif kind == "equals":
            lines.setdefault(".".join([*table, *statement]), line)
            in_value = True
        elif kind in ("string", "bare"):
            statement.append(_name(kind, token))
    return Positions(lines)


def _enter(names: list[str], repeated: bool, counts: dict[str, int]) -> list[str]:
    """The path of the table that a header opens, the elements of repeated tables by number."""
    path: list[str] = []
    for depth, name in enumerate(names):
        path.append(name)
        joined = ".".join(path)
        if repeated and depth == len(names) - 1:
            counts[joined] = counts.get(joined, -1) + 1
        if joined in counts:
            path.append(str(counts[joined]))
    return path
