"""The files of the demo's pair: two nodes made as an operator makes them, in one folder, with certificates exchanged.

Uses the code of `pair-agent init` and `pair-agent trust`. Starts nothing. The ports are free on the loopback interface
and outside the range from which the system serves outgoing connections: a port of a killed agent must still be free,
and must not connect to itself, when it returns.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.config.creation import NewNode, create_node
from agent.config.document import CONFIG_NAME
from agent.config.load import examine_config, load_config
from agent.config.model import Heartbeat, TreeKind
from agent.config.template import toml_text
from agent.config.trusted import apply_trust, plan_trust
from agent.core.errors import PairAgentError
from agent.core.vocabulary import Mode

LOOPBACK = "127.0.0.1"
HEARTBEAT = Heartbeat()  # the defaults: a takeover after a kill must not wait for the timeout
WORKLOAD_STOP_TIMEOUT_MS = 3_000
PORTS = range(20_000, 32_000)
PORT_ATTEMPTS = 200
LOG_BYTES_MAX = 16_384
NODE_NAMES = ("node-a", "node-b")

_APPLICATION = Path(__file__).with_name("application.py")
_READINGS = "readings"
_PAUSE = "pause"
_STATE = "state"
_HEADING = "# One node of a pair on one machine, written by `pair-agent demo`.\n"

Tables = Mapping[str, Mapping[str, object]]
"""Settings by the headers that they stand under, "" for none."""


@dataclass(frozen=True)
class DemoNode:
    """One node: its words and where its files are."""

    name: str
    mode: Mode
    folder: Path
    config_path: Path
    fingerprint: str

    @property
    def log_path(self) -> Path:
        """What the agent prints."""
        return self.folder / "agent.log"

    @property
    def tree_path(self) -> Path:
        """The tree: the folder that the protected application of this node writes to, and that both nodes have."""
        return self.folder / _READINGS

    @property
    def archive_path(self) -> Path:
        """What would have been destroyed on this node; there only if there was any."""
        return self.folder / _STATE / "archive"

    @property
    def pause_path(self) -> Path:
        """A file; while it exists the protected application of this node writes nothing."""
        return self.folder / _PAUSE

    def log_tail(self, lines_max: int) -> list[str]:
        """Returns the last lines of the agent's log, none if there is no log yet."""
        try:
            data = self.log_path.read_bytes()[-LOG_BYTES_MAX:]
        except OSError:
            return []
        return data.decode("utf-8", "backslashreplace").splitlines()[-lines_max:]


@dataclass(frozen=True)
class DemoPair:
    """Both nodes, and the port on which the primary listens for the backup."""

    folder: Path
    primary: DemoNode
    backup: DemoNode
    link_port: int

    @property
    def nodes(self) -> tuple[DemoNode, DemoNode]:
        """The primary and the backup."""
        return self.primary, self.backup


def create_pair(folder: Path) -> DemoPair:
    """Makes both nodes in `folder`, which exists. Raises PairAgentError if something cannot be written."""
    link_port, primary_port, backup_port = free_ports(3)
    listening: Tables = {"[server]": {"port": link_port, "interface": LOOPBACK}}
    dialling: Tables = {"[connection]": {"host": LOOPBACK, "port": link_port}}
    primary = _create(folder, Mode.PRIMARY, NODE_NAMES[0], primary_port, listening)
    backup = _create(folder, Mode.BACKUP, NODE_NAMES[1], backup_port, dialling)
    for (node, _), (_, other) in ((primary, backup), (backup, primary)):
        pasted = other.certificate_path.read_text("ascii")
        apply_trust(plan_trust(examine_config(node.config_path, {}), pasted, replace=False))
        load_config(node.config_path, {})
    return DemoPair(folder, primary[0], backup[0], link_port)


def written_configurations(folder: Path) -> list[Path]:
    """Returns each agent.toml of a pair that `create_pair` made in `folder`; none if it did not. Raises OSError."""
    paths = [folder / name / CONFIG_NAME for name in NODE_NAMES]
    written = [path for path in paths if path.is_file()]
    with contextlib.ExitStack() as opened:
        beginnings = [opened.enter_context(path.open("rb")).read(len(_HEADING)) for path in written]
    return written if all(beginning == _HEADING.encode("ascii") for beginning in beginnings) else []


def free_ports(count: int) -> list[int]:
    """Returns ports on which nothing listens, all different. Raises PairAgentError if none are found."""
    found: list[int] = []
    for port in random.sample(PORTS, PORT_ATTEMPTS):
        with socket.socket() as probe:
            if sys.platform == "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise PairAgentError(
        f"The demo needs {count} free ports on {LOOPBACK} and found {len(found)} from {PORTS.start} to "
        f"{PORTS.stop - 1}; end what listens on so many, or let this account open ports there."
    )


def _create(folder: Path, mode: Mode, name: str, admin_port: int, tables: Tables) -> tuple[DemoNode, NewNode]:
    made = create_node(folder / name, mode, name, None)
    own: Tables = {
        "": {"mode": mode, "name": name, "state_directory": _STATE},
        "[certificates]": {
            "own_certificate": "certs/own.crt",
            "own_key": "certs/own.key",
            "remote_certificate": "certs/remote.crt",
        },
        "[heartbeat]": {"interval": HEARTBEAT.interval, "timeout": HEARTBEAT.timeout},
        "[workload]": {
            "kind": "process",
            "command": [sys.executable, "-I", "-S", str(_APPLICATION), _READINGS, _PAUSE],
            "stop_timeout": WORKLOAD_STOP_TIMEOUT_MS,
        },
        "[[tree]]": {"name": _READINGS, "kind": TreeKind.DATA, "path": _READINGS},
        "[admin]": {"interface": LOOPBACK, "port": admin_port},
    }
    made.config_path.write_text(_HEADING + _toml({**own, **tables}), encoding="utf-8", newline="\n")
    node = DemoNode(name, mode, folder / name, made.config_path, made.fingerprint)
    node.tree_path.mkdir()
    return node, made


def _toml(tables: Tables) -> str:
    lines: list[str] = []
    for header, values in tables.items():
        if header:
            lines += ["", header]
        lines += [f"{key} = {toml_text(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
