"""Talks to the running agent: finds its HTTP API and its token through agent.toml, asks, translates the answers.

Light to import, because every command that only asks should feel instant. Knows no command and prints nothing.
Only the keys that lead to the agent are needed: other findings in agent.toml are `pair-agent check`'s business, and
must not keep an operator from seeing the state of a plant that runs.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.admin.printable import printable
from agent.admin.token import read_token
from agent.config.document import find_config_path, read_document
from agent.config.environment import overlay_environment
from agent.config.settings import Settings, read_settings
from agent.config.tree_contradictions import real_tree_path
from agent.core.errors import ApiError, ConfigurationError, StateError

ANSWER_TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 8 * 1024 * 1024

_ADDRESSES_TO_ASK = {"0.0.0.0": "127.0.0.1", "All interfaces": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}


class ActionRefusedError(ApiError):
    """The agent refused an action, or it failed there; `details` is what it said besides the sentence."""

    def __init__(self, sentence: str, details: Mapping[str, Any]) -> None:
        super().__init__(sentence, agent_running=True)
        self.details = details


@dataclass(frozen=True)
class Target:
    """Where the agent of one configuration answers, and where it keeps its token."""

    config: Path
    host: str
    port: int
    state_directory: Path
    trees: tuple[tuple[str, Path], ...] = ()  # name and path of those whose settings could be read

    @property
    def address(self) -> str:
        """host:port, for sentences."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def find_target(explicit: Path | None, environ: Mapping[str, str]) -> Target:
    """The agent that agent.toml and the environment name; `explicit` is --config. Raises ConfigurationError."""
    path = find_config_path(explicit, environ)
    document = read_document(path)
    overlay = overlay_environment(document.tables, environ)
    settings = read_settings(overlay.tables, document.positions, overlay.overrides)
    interface = settings.get("admin.interface", str)
    port = settings.get("admin.port", int)
    if interface is None or port is None or settings.refused("state_directory"):
        findings = [*settings.findings, *overlay.findings]
        raise ConfigurationError([f"{path}: {finding.sentence()}" for finding in findings])
    state_directory = settings.get("state_directory", str)
    if state_directory is None:
        from agent.platform.places import default_state_directory

        directory = default_state_directory()
    else:
        directory = path.parent / state_directory
    return Target(path, _ADDRESSES_TO_ASK.get(interface, interface), port, directory, _trees(settings, path))


def client_for(config_path: Path | None) -> AgentClient:
    """A client of the agent that --config, or one of the usual places, leads to. Raises ConfigurationError."""
    return AgentClient(find_target(config_path, os.environ))


def _trees(settings: Settings, source: Path) -> tuple[tuple[str, Path], ...]:
    found = []
    for number in range(settings.counts["tree"]):
        name, path = settings.get(f"tree.{number}.name", str), settings.get(f"tree.{number}.path", str)
        if name is not None and path is not None:
            found.append((name, real_tree_path(source.parent / path)))
    return tuple(found)


class AgentClient:
    """Asks the agent at `target`; every failure is an ApiError, ConfigurationError or StateError with a sentence."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def get(self, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """The JSON that a GET of `path` answers with."""
        token = None
        # From the loopback interface reading needs none; if it is needed after all, the refusal says so.
        with contextlib.suppress(StateError):
            token = read_token(self.target.state_directory)
        return self._ask("GET", path, None, token, timeout_s)

    def get_object(self, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        """The JSON object that a GET of `path` answers with."""
        answer = self.get(path, timeout_s=timeout_s)
        if not isinstance(answer, dict):
            raise self._stranger()
        return answer

    def get_events(self, query: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> list[dict[str, Any]]:
        """Events, oldest first, each with its number as `sequence`; `query` as `/v1/events` takes it."""
        answer = self.get(f"/v1/events?{query}", timeout_s=timeout_s)
        if isinstance(answer, list) and all(isinstance(each, dict) and "sequence" in each for each in answer):
            return answer
        raise self._stranger()

    def post(self, path: str, arguments: Mapping[str, Any], *, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        """The JSON object that a POST of `arguments` answers with; a refused action raises ActionRefusedError."""
        try:
            token = read_token(self.target.state_directory)
        except StateError:
            # An agent that does not run is the likelier cause, and then the better answer.
            self._ask("GET", "/v1/readiness", None, None, ANSWER_TIMEOUT_S, refusals=False)
            raise
        answer = self._ask("POST", path, json.dumps(dict(arguments)).encode("utf-8"), token, timeout_s)
        if not isinstance(answer, dict):
            raise self._stranger()
        return answer

    def _ask(
        self, method: str, path: str, body: bytes | None, token: str | None, timeout_s: float, *, refusals: bool = True
    ) -> Any:
        headers = {"Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection(self.target.host, self.target.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise self._no_agent(error, timeout_s) from error
        finally:
            connection.close()
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._stranger() from error
        if response.status == http.HTTPStatus.OK or not refusals:
            return answer
        raise self._refusal(response.status, answer)

    def _no_agent(self, error: Exception, timeout_s: float) -> ApiError:
        address, config = self.target.address, self.target.config
        if isinstance(error, TimeoutError):
            return ApiError(
                f"No answer from {address} within {timeout_s:g} seconds. The agent may hang, or another program may "
                f"hold its port ([admin] in {config}). Look at the agent's log.",
                agent_running=False,
            )
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            return ApiError(
                f"The agent at {address} closed the connection before it had answered; it may be stopping.",
                agent_running=False,
            )
        if isinstance(error, http.client.HTTPException):
            return self._stranger()
        return ApiError(
            f"No agent answers at {address} ([admin] in {config}). Start it with `pair-agent run`; "
            "if it runs with another configuration, name that with --config.",
            agent_running=False,
        )

    def _stranger(self) -> ApiError:
        return ApiError(
            f"What answers at {self.target.address} is not pair-agent. Stop the program that holds the port, or choose "
            f"another port under [admin] in {self.target.config}.",
            agent_running=False,
        )

    def _refusal(self, status: int, answer: Any) -> ApiError:
        if status == http.HTTPStatus.UNAUTHORIZED:
            return ApiError(
                f"The agent at {self.target.address} does not accept the token in {self.target.state_directory}. "
                "Either the agent runs with another configuration (name it with --config), or this account may not "
                "read the token (use the agent's account, or sudo).",
                agent_running=True,
            )
        detail = answer.get("detail") if isinstance(answer, dict) else None
        if not isinstance(detail, str):
            return self._stranger()
        details = answer.get("details")
        return ActionRefusedError(printable(detail), details if isinstance(details, dict) else {})
