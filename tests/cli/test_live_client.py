"""Finding the agent, and saying what is wrong when it is not found or does not answer as it should."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.admin.token import TOKEN_FILE_NAME
from agent.cli.client import AgentClient, Target, find_target
from agent.core.errors import ApiError, ConfigurationError
from tests.cli.live_agent import run, running_agent, write_config


@pytest.mark.parametrize(
    ("interface", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("All interfaces", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("::", "::1"),
        ("192.168.10.11", "192.168.10.11"),
    ],
)
def test_the_agent_is_asked_where_it_listens(tmp_path: Path, interface: str, host: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f'state_directory = "s"\n[admin]\ninterface = "{interface}"\nport = 4003\n', "utf-8")
    assert find_target(path, {}) == Target(path, host, 4003, tmp_path / "s")


def test_the_environment_wins_as_it_does_for_the_agent(tmp_path: Path) -> None:
    path = write_config(tmp_path, 4003)
    environ = {
        "PAIR_AGENT_ADMIN__PORT": "5003",
        "PAIR_AGENT_STATE_DIRECTORY": "elsewhere",
        "PAIR_AGENT_CONFIG": str(path),
    }
    assert find_target(None, environ) == Target(path, "127.0.0.1", 5003, tmp_path / "elsewhere")


def test_findings_elsewhere_in_the_configuration_do_not_hide_a_running_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_agent(tmp_path) as api:
        write_config(tmp_path, api.port, extra='mode = "boss"\nnonsense = 1')
        assert run(tmp_path, "status") == 0
    assert capsys.readouterr().err == ""


def test_a_configuration_that_does_not_lead_to_the_agent_shows_all_its_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('mode = "boss"\n[admin]\nport = 99999\n', "utf-8")
    with pytest.raises(ConfigurationError) as refused:
        find_target(path, {})
    assert len(refused.value.findings) == 2
    assert run(tmp_path, "status") == 2
    assert "admin.port" in capsys.readouterr().err


def test_a_missing_configuration_is_wrong_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "status") == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["failover"], ["maintenance", "on"]])
def test_another_nodes_token_is_refused_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with running_agent(tmp_path) as api:
        (tmp_path / "state" / TOKEN_FILE_NAME).write_text("w" * 43 + "\n", "ascii")
        assert run(tmp_path, *arguments) == 1
        assert api.control.acted == []
    shown = capsys.readouterr().err
    assert "does not accept the token" in shown
    assert "--config" in shown
    assert "w" * 43 not in shown


def test_a_missing_token_keeps_from_acting_and_not_from_asking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_agent(tmp_path) as api:
        (tmp_path / "state" / TOKEN_FILE_NAME).unlink()
        assert run(tmp_path, "status") == 0
        assert run(tmp_path, "failover") == 1
        assert api.control.acted == []
    assert "There is no admin token" in capsys.readouterr().err


def test_without_agent_and_token_the_agent_is_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_agent(tmp_path):
        pass
    (tmp_path / "state" / TOKEN_FILE_NAME).unlink()
    assert run(tmp_path, "maintenance", "on") == 3
    assert "No agent answers" in capsys.readouterr().err


@contextmanager
def stranger(answer: bytes | None) -> Iterator[Target]:
    """Something else on the agent's port: sends `answer` and closes, or accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                if answer is None:
                    done.wait(30)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Target(Path("agent.toml"), "127.0.0.1", listener.getsockname()[1], Path("missing"))
        finally:
            done.set()
            thread.join(30)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "is not pair-agent"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]", "is not pair-agent"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "is not pair-agent"),
        (b"", "closed the connection"),
    ],
)
def test_another_program_on_the_port_is_told_from_an_agent(answer: bytes, words: str) -> None:
    with stranger(answer) as target, pytest.raises(ApiError, match=words) as failed:
        AgentClient(target).get("/v1/status")
    assert not failed.value.agent_running


def test_an_agent_that_hangs_is_not_waited_for_for_ever() -> None:
    with stranger(None) as target, pytest.raises(ApiError, match=r"No answer from .* within 0.05 seconds") as failed:
        AgentClient(target).get("/v1/status", timeout_s=0.05)
    assert not failed.value.agent_running


def test_what_another_program_says_cannot_steer_the_terminal() -> None:
    body = b'{"detail": "\\u001b[2J"}'
    head = f"HTTP/1.1 409 Conflict\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with stranger(head + body) as target, pytest.raises(ApiError) as failed:
        AgentClient(target).get("/v1/status")
    assert str(failed.value).isprintable()


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        *((["status"], body) for body in (b"[1]", b"null", b'"x"')),
        *((["status", "--watch"], body) for body in (b"[1]", b"null")),
        *((["readiness"], body) for body in (b"[1]", b"null")),
        *((["events"], body) for body in (b"[1]", b'{"a": 1}', b"null", b'[{"a": 1}]')),
        (["failover"], b'{"a": 1}'),
    ],
)
def test_an_answer_of_another_shape_is_no_internal_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], body: bytes
) -> None:
    (tmp_path / "state").mkdir()
    with stranger(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body) as target:
        write_config(tmp_path, target.port)
        assert run(tmp_path, *arguments) == 3
    assert "is not pair-agent" in capsys.readouterr().err
