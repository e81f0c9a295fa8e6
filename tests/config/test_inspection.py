"""What would keep the agent from running is found before it runs, all of it at once."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from agent.config.inspection import inspect_node
from agent.config.ports import is_running_agent, listener_of
from agent.config.results import Level
from agent.demo.pair_files import free_ports
from agent.platform.locks import DirectoryLock

from .conftest import COMPLETE

PORTS = "[server]\nport = {server}\n[admin]\nport = {admin}\n"


@pytest.fixture
def ports() -> dict[str, int]:
    """Two ports that were free a moment ago, and that the system gives to no outgoing connection meanwhile."""
    return dict(zip(("server", "admin"), free_ports(2), strict=True))


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


LISTEN = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_ports_that_this_nodes_running_agent_and_its_guardian_hold_are_no_error(folder: Path) -> None:
    guardian = subprocess.Popen([sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert guardian.stdout is not None
    with guardian, DirectoryLock(folder / "state"), socket.create_server(("127.0.0.1", 0)) as own:
        ports = {"server": int(guardian.stdout.readline()), "admin": own.getsockname()[1]}
        results = inspect(folder, COMPLETE + PORTS.format(**ports))
        guardian.communicate()
    assert results[Level.ERROR] == []
    for key, port in ports.items():
        assert f"{key}.port: {port} on 0.0.0.0 is used by this node's running agent" in [
            sentence.replace("127.0.0.1", "0.0.0.0") for sentence in results[Level.OK]
        ]


def test_a_port_that_another_program_holds_is_an_error_though_the_agent_runs(folder: Path) -> None:
    hold = f"""
import sys
from pathlib import Path
from agent.demo.pair_files import free_ports
from agent.platform.locks import DirectoryLock
with DirectoryLock(Path({str(folder / "state")!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    agent = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    with agent, socket.create_server(("127.0.0.1", 0)) as stranger:
        assert agent.stdout.readline().strip() == b"held"
        port = stranger.getsockname()[1]
        holder = listener_of(port)
        results = inspect(folder, COMPLETE.replace("primary", "stand-alone") + f"[admin]\nport = {port}\n")
        agent.communicate()
    if holder is None or holder.pid == 0:
        pytest.skip("this system does not tell who holds a port (Wine)")
    assert f"port {port} is already in use" in "\n".join(results[Level.ERROR])


def test_a_lock_that_nobody_holds_excuses_no_port(folder: Path, ports: dict[str, int]) -> None:
    with DirectoryLock(folder / "state"):
        pass
    with socket.create_server(("127.0.0.1", ports["admin"])):
        results = inspect(folder, COMPLETE + PORTS.format(**ports))
    assert f"port {ports['admin']} is already in use" in "\n".join(results[Level.ERROR])
    assert (folder / "state" / "lock").read_text() == str(os.getpid())


def refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_state_directory_that_takes_no_file_is_a_finding(
    folder: Path, ports: dict[str, int], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "state").mkdir()
    write, remove = Path.open, Path.unlink
    probed = ".check-"
    monkeypatch.setattr(Path, "open", lambda p, *a, **o: refuse(number) if probed in p.name else write(p, *a, **o))
    monkeypatch.setattr(
        Path, "unlink", lambda p, **options: refuse(number) if probed in p.name else remove(p, **options)
    )
    results = inspect(folder, COMPLETE + PORTS.format(**ports))
    (found,) = results[Level.ERROR]
    assert found.startswith(
        f"state_directory: {folder / 'state'} cannot be written: {os.strerror(number)}; name another"
    )


def test_a_state_directory_below_one_that_may_not_be_looked_into_is_a_finding(
    folder: Path, ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Path.stat
    monkeypatch.setattr(
        Path, "stat", lambda p, **options: refuse(errno.EACCES) if p.name == "state" else look(p, **options)
    )
    (found,) = inspect(folder, COMPLETE + PORTS.format(**ports))[Level.ERROR]
    assert found.startswith(f"state_directory: {folder / 'state'} cannot be looked at: {os.strerror(errno.EACCES)}")


@pytest.mark.skipif(sys.platform == "win32", reason="/proc is a folder in which nobody can make one")
def test_a_state_directory_that_cannot_be_made_is_not_promised(folder: Path, ports: dict[str, int]) -> None:
    text = COMPLETE.replace('"state"', '"/proc/no-such-folder/state"')
    (found,) = inspect(folder, text + PORTS.format(**ports))[Level.ERROR]
    assert found.startswith("state_directory: /proc/no-such-folder/state cannot be made in /proc: ")


def test_a_state_directory_that_is_a_file_is_called_one(folder: Path, ports: dict[str, int]) -> None:
    for text in ('"state"', '"state/below"'):
        (folder / "state").write_text("a file")
        (found,) = inspect(folder, COMPLETE.replace('"state"', text) + PORTS.format(**ports))[Level.ERROR]
        assert f"{folder / 'state'} is a file" in found
        assert "name another folder" in found


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
    forward = '[[forward]]\nlisten = "127.0.0.1:0"\ntargets = ["127.0.0.1:1"]\n'.replace(":0", f":{free_ports(1)[0]}")
    results = inspect(folder, COMPLETE + PORTS.format(**ports) + forward)
    assert "[[forward]] (1): accepted, not active in this version" in results[Level.WARNING]


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
