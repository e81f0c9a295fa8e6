"""The agent.toml that `pair-agent init` writes: every key with its meaning, in the order of the table of keys.

What the operator must decide, and what `init` decided, is set; everything else stands there commented out with its
default or an example, so that removing one "#" is enough.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from enum import Enum

from agent.config.schema import SECTIONS, Key, Presence, keys_of
from agent.config.values import Integer

LINE_LENGTH_MAX = 100
HEADING = """\
# The configuration of one node of a pair. Times are in milliseconds, relative paths start at this file's folder.
# A setting with "#" before it stands at its default, or is an example; remove the "#" to set it.
# `pair-agent check` finds mistakes.
"""


def render_template(values: Mapping[str, object]) -> str:
    """Returns the text of agent.toml with `values` ("server.port": 3002) set and every other key commented out."""
    blocks = [HEADING]
    for section in SECTIONS.values():
        used = not section.repeated
        lines = []
        if section.path:
            lines.append(f"# {section.doc}")
            header = f"[[{section.path}]]" if section.repeated else f"[{section.path}]"
            lines.append(header if used else f"#{header}")
        for key in keys_of(section.path):
            lines.extend(textwrap.wrap(f"# {_meaning(key)}", LINE_LENGTH_MAX, subsequent_indent="# "))
            if key.path in values:
                lines.append(f"{key.name} = {toml_text(values[key.path])}")
            else:
                lines.append(f"#{key.name} = {_example(key)}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def toml_text(value: object) -> str:
    """Writes a text, boolean, number, enum, list, tuple or table of them as TOML on one line."""
    if isinstance(value, Enum):
        return toml_text(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_text(element) for element in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_text(name)} = {toml_text(inner)}" for name, inner in value.items()) + " }"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'


def _meaning(key: Key) -> str:
    if isinstance(key.kind, Integer):
        return f"{key.doc.rstrip('.')} ({key.kind.minimum} to {key.kind.maximum})."
    return key.doc


def _example(key: Key) -> str:
    return key.example if isinstance(key.default, Presence) or key.example else toml_text(key.default)
