"""A real pair as the benchmarks drive it: told where it stands by its event files, never asked while it is measured.

Asking over HTTP would cost the agents time in the very moment that counts; the files are written anyway.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.namespaces import ADDRESSES, Network
from tests.real.pair import Node, Pair

WAIT_S = 30.0
POLL_S = 0.005
SETTLE_S = 0.3  # after everything is in order, for whatever still goes on in the background


def now_ns() -> int:
    """Returns CLOCK_BOOTTIME, which agents, programs and benchmarks share."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wait_for(condition: Callable[[], bool], what: str, bound_s: float = WAIT_S) -> None:
    """Waits until `condition`; RuntimeError when it does not come in time."""
    deadline = time.monotonic() + bound_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {bound_s:.0f} s in vain for {what}")
        time.sleep(POLL_S)


class EventTail:
    """What one agent has told since its last start, read as its event file grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self._unfinished = b""
        self.events: list[dict[str, Any]] = []

    def forget(self) -> None:
        """Begins anew with what is written from now on."""
        self.read()
        self.events.clear()

    def read(self) -> list[dict[str, Any]]:
        """Returns all events since `forget`."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                data = file.read()
            self._read_bytes += len(data)
            *lines, self._unfinished = (self._unfinished + data).split(b"\n")
            self.events += [json.loads(line) for line in lines if line]
        return self.events

    def last(self, *codes: str) -> dict[str, Any] | None:
        """Returns the newest event with one of these codes."""
        return next((event for event in reversed(self.read()) if event["code"] in codes), None)

    def count(self, *codes: str) -> int:
        """Returns how many events have one of these codes."""
        return sum(event["code"] in codes for event in self.read())

    def stands(self, role: str) -> bool:
        """Tells whether the agent is linked and in that role, an active one with its workload running."""
        link, changed = self.last("link-up", "link-down"), self.last("role-changed")
        if link is None or link["code"] != "link-up" or changed is None or changed["fields"]["role"] != role:
            return False
        workload = self.last("workload-started", "workload-stopped", "workload-fenced")
        return role != "active" or (workload is not None and workload["code"] == "workload-started")


class MeasuredPair:
    """A pair, on loopback or on the two nodes of a network, with its event tails."""

    def __init__(
        self,
        directory: Path,
        *,
        interval_ms: int,
        timeout_ms: int,
        workload: Sequence[str],
        network: Network | None = None,
    ) -> None:
        """`workload` runs in its node's folder, so that relative paths in it are the node's own."""
        self.pair = Pair(
            directory,
            interval_ms=interval_ms,
            timeout_ms=timeout_ms,
            workload=workload,
            host=ADDRESSES[0] if network else "127.0.0.1",
            namespaces=network.names if network else ("", ""),
        )
        self.primary, self.backup = self.pair.nodes
        self.tails = {node.name: EventTail(node.directory / "state" / "events.jsonl") for node in self.pair.nodes}

    def tail(self, node: Node) -> EventTail:
        """Returns the event tail of a node."""
        return self.tails[node.name]

    def start(self, node: Node) -> None:
        """Starts one agent."""
        self.tail(node).forget()
        node.start()

    def start_in_order(self) -> None:
        """Starts both agents and returns when they have settled."""
        for node in self.pair.nodes:
            self.start(node)
        self.wait_in_order()

    def in_order(self) -> bool:
        """Tells whether the primary is active and the backup stands by."""
        return self.tail(self.primary).stands("active") and self.tail(self.backup).stands("standby")

    def wait_in_order(self) -> None:
        """Waits until the pair is in order and stays so while everything settles."""
        deadline = time.monotonic() + WAIT_S
        settled = False
        while not settled:
            if time.monotonic() > deadline:
                logs = "\n".join(node.tail() for node in self.pair.nodes)
                raise RuntimeError(f"waited {WAIT_S:.0f} s in vain for a pair in order\n{logs}")
            time.sleep(POLL_S)
            if self.in_order():
                time.sleep(SETTLE_S)
                settled = self.in_order()

    def kill_both(self) -> None:
        """Ends both agents at once; their guardians see to the rest."""
        for node in self.pair.nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()
        self.wait_workloads_dead()

    def wait_workloads_dead(self) -> None:
        """Waits until no process works in a node's folder any more: neither workload nor guardian of it."""
        folders = {str(node.directory) for node in self.pair.nodes}
        wait_for(lambda: not any(_folder(entry) in folders for entry in os.listdir("/proc")), "the workloads dead")

    def close(self) -> None:
        """Ends both agents in good order, as far as they are alive."""
        self.pair.close()


def guardian_pid(agent_pid: int) -> int | None:
    """Returns the process id of the agent's guardian."""
    for task in Path(f"/proc/{agent_pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"guardian" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return None


def _folder(entry: str) -> str:
    try:
        return os.readlink(f"/proc/{entry}/cwd") if entry.isdigit() else ""
    except OSError:
        return ""
