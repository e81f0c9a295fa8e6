"""Where the platform keeps an agent's configuration and state when nobody says otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform == "win32":

    def _program_data() -> Path:
        # A service account always has the variable; a stripped environment falls back to where Windows puts it.
        return Path(os.environ.get("PROGRAMDATA") or r"C:\ProgramData") / "pair-agent"

    def default_config_path() -> Path:
        """Returns the platform's place of agent.toml, whether or not it exists."""
        return _program_data() / "agent.toml"

    def default_state_directory() -> Path:
        """Returns the platform's place of the state directory, whether or not it exists."""
        return _program_data() / "state"

else:

    def default_config_path() -> Path:
        """Returns the platform's place of agent.toml, whether or not it exists."""
        return Path("/etc/pair-agent/agent.toml")

    def default_state_directory() -> Path:
        """Returns the platform's place of the state directory, whether or not it exists."""
        return Path("/var/lib/pair-agent")
