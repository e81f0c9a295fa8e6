"""Nothing that comes from elsewhere forges a log line or steers a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.admin.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 5 µm", "Größe 5 µm"),
        ("a\nb", r"a\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202eevil", r"\u202eevil"),
        ("\ud800", r"\ud800"),
        ("x" * 1001, "x" * 997 + "..."),
    ],
)
def test_text_is_one_harmless_line(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_any_text_becomes_printable(text: str) -> None:
    assert printable(text).isprintable()
