"""What would keep the agent from running is found before it runs, all of it at once."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from agent.config.inspection import Level, inspect_node
from agent.config.ports import is_running_agent

from .conftest import COMPLETE

PORTS = "[server]\nport = {server}\n[admin]\nport = {admin}\n"


@pytest.fixture
def ports() -> dict[str, int]:
    """Two ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    numbers = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return dict(zip(("server", "admin"), numbers, strict=True))


def inspect(folder: Path, text: str, environ: dict[str, str] | None = None) -> dict[Level, list[str]]:
    (folder / "agent.toml").write_text(text)
    results: dict[Level, list[str]] = {level: [] for level in Level}
    for result in inspect_node(folder / "agent.toml", dict(os.environ) if environ is None else environ):
        results[result.level].append(result.sentence)
    return results


def test_a_sound_node_has_no_error(folder: Path, ports: dict[str, int]) -> None:
    results = inspect(folder, COMPLETE + PORTS.format(**ports))
    assert results[Level.ERROR] == []
    assert any("mode primary, name alpha" in sentence for sentence in results[Level.OK])
    assert list(folder.glob("state*")) == []


def test_everything_that_is_wrong_is_found_at_once(folder: Path, ports: dict[str, int]) -> None:
    (folder / "state").write_text("a file")
    with socket.create_server(("127.0.0.1", ports["admin"])):
        results = inspect(
            folder,
            COMPLETE
            + PORTS.format(**ports).replace("[admin]", 'interface = "192.0.2.250"\n[admin]')
            + '[heartbeat]\ntimeout = 1\n[workload]\nkind = "process"\ncommand = ["no-such-program-here"]\n'
            + '[hooks]\non_active = ["./no-such-hook"]\n',
        )
    text = "\n".join(results[Level.ERROR])
    for part in (
        "heartbeat.timeout: found 1;",
        "192.0.2.250 is not an address of this node",
        "This node has ",
        f"port {ports['admin']} is already in use",
        "state_directory:",
        "workload.command: no program no-such-program-here on the PATH",
        "hooks.on_active: no program ./no-such-hook in ",
    ):
        assert part in text


def test_a_backup_asks_for_the_primarys_name(folder: Path, ports: dict[str, int]) -> None:
    text = COMPLETE.replace("primary", "backup") + f"[admin]\nport = {ports['admin']}\n[connection]\nhost = "
    assert "leads to no address" in "\n".join(inspect(folder, text + '"no-such-host.invalid"\n')[Level.ERROR])
    results = inspect(folder, text + '"127.0.0.1"\n')
    assert results[Level.ERROR] == []
    assert "connection.host: 127.0.0.1" in results[Level.OK]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes; access lists are tested with agent.platform")
def test_a_shared_secret_in_an_open_file_and_a_short_one_are_warnings(folder: Path, ports: dict[str, int]) -> None:
    (folder / "agent.toml").chmod(0o644)
    results = inspect(folder, COMPLETE + PORTS.format(**ports) + '[security]\npre_shared_key = "hunter2"\n')
    text = "\n".join(results[Level.WARNING])
    assert "is short" in text
    assert "is not private" in text
    assert "hunter2" not in str(results)


def test_overrides_are_shown(folder: Path, ports: dict[str, int]) -> None:
    environ = {"PAIR_AGENT_SERVER__PORT": str(ports["server"])}
    results = inspect(folder, COMPLETE + f"[admin]\nport = {ports['admin']}\n", environ)
    assert any("server.port is set by the environment variable" in sentence for sentence in results[Level.WARNING])


def test_settings_that_do_nothing_yet_are_warnings(folder: Path, ports: dict[str, int]) -> None:
    results = inspect(folder, COMPLETE + PORTS.format(**ports) + '[[tree]]\nname = "a"\nkind = "data"\npath = "a"\n')
    assert "[[tree]] (a): accepted, not active in this version" in results[Level.WARNING]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    (first, *_) = inspect_node(tmp_path / "agent.toml", {})
    assert first.level is Level.ERROR
    assert "does not exist" in first.sentence


@pytest.mark.parametrize(
    ("command_line", "expected"),
    [
        (["/usr/bin/python3", "/usr/bin/pair-agent", "run"], True),
        (["C:/pair-agent.exe", "run", "--config", "a.toml"], True),
        (["python", "-m", "agent", "run"], True),
        (["pair-agent", "status"], False),
        (["node-red", "run"], False),
        ([], False),
    ],
)
def test_a_running_agent_is_told_from_another_program(command_line: list[str], expected: bool) -> None:
    assert is_running_agent(command_line) is expected
