"""An agent that answers, and the configuration that leads a command to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.__main__ import run_command
from agent.admin.token import load_or_create_token
from tests.admin.fake_control import Api, serving_in_thread


def write_config(folder: Path, port: int, extra: str = "") -> Path:
    """An agent.toml for the given admin port, with findings of its own: clients must not mind."""
    path = folder / "agent.toml"
    path.write_text(f'{extra}\nstate_directory = "state"\n[admin]\nport = {port}\n', "utf-8")
    return path


@contextmanager
def running_agent(folder: Path, **fields: Any) -> Iterator[Api]:
    """A fake agent in `folder`, whose agent.toml and state directory lead to it."""
    (folder / "state").mkdir(exist_ok=True)
    with serving_in_thread(folder, token=load_or_create_token(folder / "state"), **fields) as api:
        write_config(folder, api.port)
        yield api


def run(folder: Path, *arguments: str) -> int:
    """Runs one command against the agent in `folder`; returns the exit code."""
    return run_command([*arguments, "--config", str(folder / "agent.toml")])
