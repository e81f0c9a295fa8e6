"""A finding about the configuration: what was found, where, what is allowed, and which key was meant.

Knows how to show a value without showing a secret. Decides nothing about validity.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from agent.config.schema import KEYS, SECTIONS, general_path

SHOWN_LENGTH_MAX = 60
_SECRET_NAME = re.compile(r"key|secret|passw|psk|token|pem", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """One fault of the configuration.

    `line` counts from 1 and is None where the file does not hold the key; `variable` is the environment variable that
    set the value, if one did.
    """

    key: str
    problem: str
    allowed: str = ""
    nearest: str = ""
    line: int | None = None
    variable: str = ""

    def sentence(self) -> str:
        """The finding in one line for an operator."""
        if self.variable:
            place = f"environment {self.variable}: "
        else:
            place = f"line {self.line}: " if self.line is not None else ""
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        nearest = f"; the nearest valid name is {self.nearest}" if self.nearest else ""
        subject = f"{self.key}: " if self.key else ""
        return f"{place}{subject}{self.problem}{allowed}{nearest}"


def is_secret(path: str) -> bool:
    """Tells whether the value at this path, known or misspelt, may be a secret."""
    general = general_path(path)
    key = KEYS.get(general)
    if key is not None:
        return key.secret
    if general.partition(".")[0] == "security" or general.startswith("workload.environment"):
        return True
    nearest = KEYS.get(nearest_name(path))
    return bool(_SECRET_NAME.search(general)) or (nearest is not None and nearest.secret)


def shown(path: str, value: object) -> str:
    """The value as a message may show it: short, on one line, secrets, PEM text and passwords in URLs left out."""
    if is_secret(path) and value != "":
        return f"{_type_name(value)} (not shown: it may be a secret)"
    if path.startswith("workload.environment") or isinstance(value, dict):
        # Environment values often hold passwords, and a table in the wrong place may hold anything.
        return _type_name(value)
    text = _as_toml(value)
    if "-----BEGIN" in text or (isinstance(value, str) and len(value) > 2 * SHOWN_LENGTH_MAX and "\n" in value):
        return f"{_type_name(value)} (not shown: PEM)"
    text = re.sub(r"//[^/@\s]*@", "//***@", text)
    return text if len(text) <= SHOWN_LENGTH_MAX else f"{text[:SHOWN_LENGTH_MAX]}..."


def _as_toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(_as_toml(element) for element in value) + "]"
    return str(value)


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, dict):
        return "a table"
    names: dict[type, str] = {str: "a text", int: "a whole number", float: "a number", list: "a list"}
    return names.get(type(value), "a date or time")


def nearest_name(path: str) -> str:
    """The valid key whose name is nearest to an unknown one; empty if none is near.

    The same table comes first, then the same last name in another table, then any similar path.
    """
    general = general_path(path).lower().replace("-", "_")
    section, _, name = general.rpartition(".")
    known = [key for key in KEYS.values() if key.section == section]
    if close := difflib.get_close_matches(name, [key.name for key in known], n=1, cutoff=0.6):
        return ".".join(part for part in (section, close[0]) if part)
    elsewhere = [key.path for key in KEYS.values() if key.name == name]
    if elsewhere:
        return (difflib.get_close_matches(general, elsewhere, n=1, cutoff=0.0) or elsewhere)[0]
    partial = [key.path for key in known if len(name) > 3 and (key.name.endswith(name) or name.endswith(key.name))]
    if partial:
        return partial[0]
    return next(iter(difflib.get_close_matches(general, list(KEYS), n=1, cutoff=0.6)), "")


def nearest_section(path: str) -> str:
    """The valid table whose name is nearest to an unknown one, as it is written in the file; empty if none is near."""
    names = [name for name in SECTIONS if name]
    close = difflib.get_close_matches(general_path(path).lower(), names, n=1, cutoff=0.6)
    if not close:
        return ""
    return f"[[{close[0]}]]" if SECTIONS[close[0]].repeated else f"[{close[0]}]"
