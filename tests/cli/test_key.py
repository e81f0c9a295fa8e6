"""`key generate` prints a strong key, and a new one every time."""

from __future__ import annotations

import pytest

from agent.__main__ import run_command


def test_two_keys_differ_and_are_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["key", "generate"]) == 0
    assert run_command(["key", "generate"]) == 0
    first, second = capsys.readouterr().out.split()
    assert first != second
    assert min(len(first), len(second)) >= 43
