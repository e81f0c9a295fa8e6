"""Text of unknown origin made safe for a log line or a terminal.

Names and sentences may come from the other node. A line break in one would forge a log line, an escape sequence
would steer the operator's terminal, a direction mark would turn a sentence round. Knows nothing of where it is printed.
"""

from __future__ import annotations


def printable(text: str, *, characters_max: int = 1000) -> str:
    """`text` on one line: whatever `str.isprintable` refuses becomes a visible escape; cut at `characters_max`."""
    if len(text) > characters_max:
        text = text[: characters_max - 3] + "..."
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
