"""Syncthing as a copier: one on each node of a network, every discovery, relay and report turned off.

Its settings are its own otherwise. It brings its own TLS, and its nodes know each other by their certificates.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.copier import Copied, wait_patiently
from tests.bench.data_sets import Stage, flush
from tests.bench.namespaces import ADDRESSES, Network
from tests.bench.processes import ended, run, wait_until_listening
from tests.bench.usage import PeakMemory, processor_s
from tests.real.wire import socket_in

SYNCTHING_PORT, SYNCTHING_GUI_PORT = 22000, 8384
SETTLE_S = 2.0


class Syncthing:
    """Two Syncthing that share one folder.

    A first copy counts from the moment when the folder is added on both, linked already; a change from the order to
    look for changes, after what was there before had been copied. Durable: it flushes each file by itself, and a syncfs
    right after its end comes on top.
    """

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self._network = network

    def copy(self, stage: Stage, directory: Path) -> Copied:
        """See Copier."""
        with linked_instances(self._network, directory) as nodes:
            source, destination = nodes
            roots = [node.pid for node in nodes]
            first = stage.data.before is None
            if first:
                stage.change()
            else:
                share(nodes, (stage.source, stage.destination))
                wait_patiently(lambda: all(node.is_idle() for node in nodes), "Syncthing's first look")
                time.sleep(SETTLE_S)
                stage.change()
            memory = PeakMemory()
            for number, pid in enumerate(roots):
                memory.add(number, pid)
            spent_s, carried = processor_s(roots), self._network.carried_bytes()
            with memory:
                start = time.monotonic()
                if first:
                    share(nodes, (stage.source, stage.destination))
                elif stage.data.changed:
                    source.scan()
                else:
                    both_at_once(source.scan, destination.scan)
                finished = wait_patiently(
                    lambda: destination.is_idle() and stage.looks_the_same(), "Syncthing's destination"
                )
                flush(stage.destination)
                durable = time.monotonic()
                memory.look()
            carried = self._network.carried_bytes() - carried
            spent_s = processor_s(roots) - spent_s
            return Copied(finished - start, durable - start, carried, spent_s, memory.of_node_mb, memory.of_process_mb)


class Instance:
    """One Syncthing on a node, driven over its REST interface."""

    def __init__(self, network: Network, node: int, home: Path) -> None:
        """Makes its keys and its configuration."""
        self._network, self._node, self._home = network, node, home
        self._process: subprocess.Popen[bytes] | None = None
        quiet = ["--no-default-folder", "--skip-port-probing", f"--home={home}"]
        subprocess.run(["syncthing", "generate", *quiet], check=True, capture_output=True)
        text = (home / "config.xml").read_text()
        self._api_key = first_group("<apikey>(.*?)</apikey>", text)
        self.id = first_group('<device id="(.*?)"', text)
        own_places = {
            r"<address>127\.0\.0\.1:\d+</address>": f"<address>127.0.0.1:{SYNCTHING_GUI_PORT}</address>",
            r"<listenAddress>.*?</listenAddress>": f"<listenAddress>{self.address}</listenAddress>",
            r"<urAccepted>.*?</urAccepted>": "<urAccepted>-1</urAccepted>",
            r"<autoUpgradeIntervalH>\d+<": "<autoUpgradeIntervalH>0<",
        }
        for option in ("globalAnnounce", "localAnnounce", "relays", "nat", "crashReporting"):
            own_places[rf"<{option}Enabled>true<"] = f"<{option}Enabled>false<"
        for pattern, replacement in own_places.items():
            text = re.sub(pattern, replacement, text)
        (home / "config.xml").write_text(text)

    @property
    def address(self) -> str:
        """Where it listens for the other."""
        return f"tcp://{ADDRESSES[self._node]}:{SYNCTHING_PORT}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> subprocess.Popen[bytes]:
        """Starts it and returns once it can be asked."""
        command = ["syncthing", "serve", "--no-browser", "--no-restart", f"--home={self._home}"]
        self._process = run(self._network.prefix(self._node), command, self._home / "log")
        wait_until_listening(self.pid, SYNCTHING_GUI_PORT)
        return self._process

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Returns the JSON answer; RuntimeError if it is refused."""
        own = socket_in(self._network.names[self._node])
        own.settimeout(600)
        own.connect(("127.0.0.1", SYNCTHING_GUI_PORT))
        connection = http.client.HTTPConnection("127.0.0.1", SYNCTHING_GUI_PORT)
        connection.sock = own
        with contextlib.closing(connection):
            headers = {"X-API-Key": self._api_key, "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"Syncthing refuses {method} {path}: {text.decode(errors='replace')}")
        return json.loads(text) if text.strip() else None

    def know(self, other: Instance) -> None:
        """Makes the other one a device of this one."""
        body = {"deviceID": other.id, "addresses": [other.address]}
        self.ask("PUT", f"/rest/config/devices/{other.id}", body)

    def add_folder(self, path: Path, other: Instance, watch_delay_s: int | None) -> None:
        """Shares a folder with the other one; watched with that delay, or only looked at when told to."""
        body: dict[str, Any] = {
            "id": "tree",
            "path": str(path),
            "devices": [{"deviceID": self.id}, {"deviceID": other.id}],
            "fsWatcherEnabled": watch_delay_s is not None,
            "rescanIntervalS": 0,
        }
        if watch_delay_s is not None:
            body["fsWatcherDelayS"] = watch_delay_s
        self.ask("PUT", "/rest/config/folders/tree", body)

    def folder(self) -> dict[str, Any]:
        """Returns the shared folder's settings as they are in force."""
        settings: dict[str, Any] = self.ask("GET", "/rest/config/folders/tree")
        return settings

    def scan(self) -> None:
        """Looks for changes, and returns when it has looked."""
        self.ask("POST", "/rest/db/scan?folder=tree")

    def is_linked(self, other: Instance) -> bool:
        """Tells whether it is connected with the other one."""
        connections = self.ask("GET", "/rest/system/connections")["connections"]
        return bool(connections.get(other.id, {}).get("connected"))

    def is_idle(self) -> bool:
        """Tells whether it has nothing more to do that it knows of."""
        status = self.ask("GET", "/rest/db/status?folder=tree")
        return status["state"] == "idle" and status["needTotalItems"] == 0 and bool(status["stateChanged"])


@contextlib.contextmanager
def linked_instances(network: Network, directory: Path) -> Iterator[tuple[Instance, Instance]]:
    """Two of them on the nodes of a network, linked and without a folder; ended afterwards."""
    nodes = Instance(network, 0, directory / "home-0"), Instance(network, 1, directory / "home-1")
    with contextlib.ExitStack() as end:
        for node in nodes:
            end.enter_context(ended(node.start()))
        for node, other in (nodes, nodes[::-1]):
            node.know(other)
        wait_patiently(lambda: nodes[0].is_linked(nodes[1]) and nodes[1].is_linked(nodes[0]), "Syncthing's link")
        yield nodes


def share(nodes: tuple[Instance, Instance], paths: tuple[Path, Path], watch_delay_s: int | None = None) -> None:
    """Adds the folder on both, at the destination first so that it is there when the source has looked."""
    for node in (1, 0):
        nodes[node].add_folder(paths[node], nodes[1 - node], watch_delay_s)


def both_at_once(*calls: Callable[[], None]) -> None:
    """Returns when all calls have returned, each in a thread."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def first_group(pattern: str, text: str) -> str:
    """Returns what the pattern's group matches; RuntimeError if it is not there."""
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"nothing like {pattern} in the configuration")
    return found[1]
