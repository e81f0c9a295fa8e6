"""A real pair for tests: two agents as processes, real certificates, real sockets, a workload that leaves a trace.

`Pair` makes the files of two nodes in a folder; a `Node` starts, kills, freezes and asks its agent. Every wait has a
bound and names what it waited for, with the tails of both logs. Nothing survives `Pair.close`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config.creation import create_node
from agent.core.vocabulary import Mode
from tests.real.wire import socket_in

WAIT_S = 20.0
PROJECT = Path(__file__).resolve().parents[2]
RECORDER = [sys.executable, "-I", "-S", str(Path(__file__).with_name("recorder.py"))]


def free_port() -> int:
    """Returns a TCP port that nobody listens on, outside the range from which outgoing connections get theirs."""
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
    raise AssertionError("no free port")


_given: set[int] = set()


@dataclass(frozen=True)
class Span:
    """One life of the workload by its own record, in ns of the clock that both nodes share."""

    name: str
    term: int
    first_ns: int
    last_ns: int


class Node:
    """One node of a pair; `toml` is put before the tables of its agent.toml."""

    def __init__(self, directory: Path, name: str, mode: Mode, admin_port: int, namespace: str = "") -> None:
        self.directory, self.name, self.mode = directory, name, mode
        self.admin_port = admin_port
        self.namespace = namespace  # the network namespace that the agent runs in
        self.trace = directory / "trace"
        self.log = directory / "agent.log"
        self.config = directory / "agent.toml"
        self.process: subprocess.Popen[bytes] | None = None
        create_node(directory, mode, name, None)

    @property
    def recorder(self) -> list[str]:
        """The workload, unless a test brings its own: it leaves its trace in `trace`."""
        return [*RECORDER, str(self.trace)]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *options: str, environment: Mapping[str, str] = {}) -> None:
        """Starts the agent; `wait_for` tells when it is where it should be."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(["ip", "netns", "exec", self.namespace] if self.namespace else []),
                    sys.executable,
                    "-m",
                    "agent",
                    "run",
                    "--config",
                    str(self.config),
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def signal(self, number: int) -> int:
        """Sends a signal to the agent alone; returns the clock just before, in ns."""
        before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        os.kill(self.pid, number)
        return before_ns

    def kill(self) -> int:
        """Kills the agent with -9 and waits for its end; returns the clock just before, in ns."""
        before_ns = self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(WAIT_S)
        return before_ns

    def stop(self) -> int:
        """Stops the agent in good order and returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)

    def ask(self, path: str, method: str = "GET", body: Mapping[str, Any] | None = None) -> Any:
        """Returns the JSON answer of the agent's API; OSError while it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=30)
        try:
            if self.namespace:
                connection.sock = socket_in(self.namespace)
                connection.sock.settimeout(30)
                connection.sock.connect(("127.0.0.1", self.admin_port))
            token = self.directory / "state" / "admin.token"
            headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if method == "POST" else {}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert method == "GET" or response.status == 200, answer
            return answer
        finally:
            connection.close()

    def order(self, action: str, **arguments: Any) -> str:
        """Orders an action and returns the sentence of its success; AssertionError with the answer if it is refused."""
        return str(self.ask(f"/v1/{action}", "POST", arguments)["sentence"])

    def status(self) -> dict[str, Any]:
        """Returns the agent's status, or an empty one while it does not answer."""
        try:
            status: dict[str, Any] = self.ask("/v1/status")
        except (OSError, http.client.HTTPException):
            return {}
        return status

    def events(self) -> list[dict[str, Any]]:
        """Returns the events, oldest first: from the agent, or from its file when it does not run."""
        try:
            events: list[dict[str, Any]] = self.ask("/v1/events?after=0&limit=1000")
        except (OSError, http.client.HTTPException):
            lines = (self.directory / "state" / "events.jsonl").read_text().splitlines()
            return [json.loads(line) for line in lines if line.endswith("}")]
        return events

    def spans(self) -> list[Span]:
        """Returns every life of the workload on this node, by its own record."""
        spans: dict[int, Span] = {}
        if not self.trace.exists():
            return []
        for line in self.trace.read_text().splitlines():
            fields = line.split()
            if len(fields) != 4 or fields[2] != "active":
                continue  # the last line may be torn by a kill
            now_ns, term = int(fields[0]), int(fields[3])
            first = spans[term].first_ns if term in spans else now_ns
            spans[term] = Span(self.name, term, first, now_ns)
        return list(spans.values())

    def tail(self) -> str:
        """Returns the end of the agent's log."""
        lines = self.log.read_text().splitlines()[-25:] if self.log.exists() else []
        return f"--- {self.name}\n" + "\n".join(lines)


class Pair:
    """A primary and a backup in `directory`, certificates exchanged, not started."""

    def __init__(
        self,
        directory: Path,
        *,
        interval_ms: int = 100,
        timeout_ms: int = 1_000,
        standby_ms: int = 3_000,
        toml: str = "",
        workload: Sequence[str] | None = None,
        workload_toml: str = "",
        host: str = "127.0.0.1",
        namespaces: tuple[str, str] = ("", ""),
        make: tuple[Callable[..., Node], Callable[..., Node]] = (Node, Node),
    ) -> None:
        self.port = free_port()
        self.primary = make[0](directory / "a", "line-4-a", Mode.PRIMARY, free_port(), namespaces[0])
        self.backup = make[1](directory / "b", "line-4-b", Mode.BACKUP, free_port(), namespaces[1])
        self.nodes = (self.primary, self.backup)
        for node, other in (self.nodes, self.nodes[::-1]):
            remote = (other.directory / "certs" / "own.crt").read_text()
            (node.directory / "certs" / "remote.crt").write_text(remote)
            command = json.dumps(workload if workload is not None else node.recorder)
            node.config.write_text(f"""
mode = "{node.mode.value}"
name = "{node.name}"
state_directory = "state"
{toml}
[certificates]
own_certificate = "certs/own.crt"
own_key = "certs/own.key"
remote_certificate = "certs/remote.crt"
[server]
port = {self.port}
interface = "{host}"
initial_standby_time = {standby_ms}
[connection]
host = "{host}"
port = {self.port}
connection_timeout = {max(timeout_ms, 1000)}
reconnect_delay = 100
[heartbeat]
interval = {interval_ms}
timeout = {timeout_ms}
[admin]
port = {node.admin_port}
[workload]
kind = "process"
command = {command}
stop_timeout = 2000
{workload_toml}
""")

    def start(self) -> None:
        """Starts both and waits until the primary is active and the backup stands by."""
        for node in self.nodes:
            node.start()
        self.wait_in_order()

    def wait_in_order(self) -> None:
        """Waits until the primary is active, its workload runs, and the backup is ready."""
        self.wait_for(
            lambda: (
                self.primary.status().get("role") == "active"
                and self.primary.status()["workload"]["state"] == "running"
                and self.backup.status().get("role") == "standby"
                and self.backup.status()["readiness"]["ready"]
            ),
            "the primary active and the backup ready",
        )

    def wait_active(self, node: Node) -> None:
        """Waits until `node` is active and its workload runs."""
        self.wait_for(
            lambda: node.status().get("role") == "active" and node.status()["workload"]["state"] == "running",
            f"{node.name} active",
        )

    def wait_for(self, condition: Callable[[], bool], what: str, bound_s: float = WAIT_S) -> None:
        """Waits until `condition`, polling; AssertionError with both logs when it does not come."""
        deadline = time.monotonic() + bound_s
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(node.tail() for node in self.nodes)
                raise AssertionError(f"waited {bound_s} s in vain for: {what}\n{logs}")
            time.sleep(0.01)

    def break_connection(self, node: Node) -> None:
        """Destroys the TCP connection of the link at one node, as `ss --kill` does; the agents live on."""
        inside = ["ip", "netns", "exec", node.namespace] if node.namespace else []
        subprocess.run([*inside, "ss", "--kill", "dport", "=", str(self.port)], check=True, capture_output=True)

    def stop_both(self) -> None:
        """Stops both agents in good order, the backup first so that nobody takes over."""
        for node in self.nodes[::-1]:
            node.stop()

    def wait_other_active(self, node: Node) -> None:
        """Waits until the node that is not `node` is active."""
        other = self.backup if node is self.primary else self.primary
        self.wait_for(lambda: other.status().get("role") == "active", f"{other.name} active")

    def overlap_ns(self) -> int:
        """Returns for how long two lives of the workload ran at once, summed; 0 is the promise."""
        spans = sorted(self.primary.spans() + self.backup.spans(), key=lambda span: span.first_ns)
        return sum(
            max(0, min(earlier.last_ns, later.last_ns) - later.first_ns)
            for index, later in enumerate(spans)
            for earlier in spans[:index]
        )

    def close(self) -> None:
        """Ends both agents; their guardians end the workloads."""
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(node.pid, signal.SIGCONT)
                node.process.terminate()
        for node in self.nodes:
            if node.process is not None:
                try:
                    node.process.wait(WAIT_S)
                except subprocess.TimeoutExpired:
                    node.process.kill()
                    node.process.wait(WAIT_S)


@contextlib.contextmanager
def running_pair(directory: Path, **options: Any) -> Iterator[Pair]:
    """A pair that is started, in order, and ended afterwards."""
    pair = Pair(directory, **options)
    try:
        pair.start()
        yield pair
    finally:
        pair.close()
