"""Where files are looked for when nobody says otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.platform.places import default_config_path, default_state_directory


@pytest.mark.skipif(sys.platform == "win32", reason="Linux' places")
def test_linux_keeps_configuration_in_etc_and_state_in_var() -> None:
    assert default_config_path() == Path("/etc/pair-agent/agent.toml")
    assert default_state_directory() == Path("/var/lib/pair-agent")


@pytest.mark.skipif(sys.platform != "win32", reason="Windows' places")
def test_windows_keeps_both_in_program_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ProgramData", r"D:\Data")
    assert default_config_path() == Path(r"D:\Data\pair-agent\agent.toml")
    assert default_state_directory() == Path(r"D:\Data\pair-agent\state")
    monkeypatch.delenv("ProgramData")
    assert default_config_path() == Path(r"C:\ProgramData\pair-agent\agent.toml")
