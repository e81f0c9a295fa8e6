"""The validated configuration as frozen values: the shape of agent.toml, paths made absolute, enums instead of words.

Times keep the file's unit, milliseconds. Nothing here reads a file; `agent.config.load` makes these values.
Secrets (`pre_shared_key`, `Certificates.own_key`) are left out of every repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from agent.core.vocabulary import Mode, TimeoutPolicy


class Trust(StrEnum):
    """How a remote certificate is judged."""

    PINNED = "pinned"
    SYSTEM = "system"
    INSECURE = "insecure"


class WorkloadKind(StrEnum):
    """What the workload is."""

    PROCESS = "process"
    SYSTEMD = "systemd"
    WINDOWS_SERVICE = "windows-service"
    COMMANDS = "commands"
    NONE = "none"


class StandbyKind(StrEnum):
    """What the workload does on the standby node."""

    COLD = "cold"
    WARM = "warm"


class HealthKind(StrEnum):
    """How the workload's health is asked."""

    PROCESS = "process"
    TCP = "tcp"
    HTTP = "http"
    COMMAND = "command"


class TreeKind(StrEnum):
    """What a tree holds."""

    CONFIG = "config"
    DATA = "data"


@dataclass(frozen=True)
class Credential:
    """A certificate or key: the PEM text itself, and where it came from for messages (`path` None: in the TOML)."""

    pem: str = field(repr=False)
    path: Path | None


@dataclass(frozen=True)
class Certificates:
    own_certificate: Credential | None
    own_key: Credential | None
    remote_certificate: Credential | None
    trust: Trust = Trust.PINNED
    enforce_validity: bool = False


@dataclass(frozen=True)
class Server:
    port: int = 3002
    interface: str = "0.0.0.0"
    initial_standby_time: int = 10_000
    on_initial_standby_timeout: TimeoutPolicy = TimeoutPolicy.ACTIVATE


@dataclass(frozen=True)
class Connection:
    host: str = ""
    port: int = 3002
    connection_timeout: int = 5_000
    reconnect_delay: int = 1_000


@dataclass(frozen=True)
class Heartbeat:
    interval: int = 1_000
    timeout: int = 5_000


@dataclass(frozen=True)
class Health:
    kind: HealthKind = HealthKind.PROCESS
    interval: int = 2_000
    timeout: int = 1_000
    failures: int = 3
    address: str = ""  # kind "tcp": host:port
    url: str = ""  # kind "http": answered with a status below 400
    command: tuple[str, ...] = ()  # kind "command": exit code 0


@dataclass(frozen=True)
class Workload:
    kind: WorkloadKind = WorkloadKind.NONE
    command: tuple[str, ...] = ()  # kind "process"
    start: tuple[str, ...] = ()  # kind "commands"
    stop: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    service: str = ""  # kinds "systemd" and "windows-service"
    working_directory: Path = Path(".")
    environment: Mapping[str, str] = field(default_factory=dict)
    output: Path | None = None  # a file for standard output and error; None: the agent's log
    standby: StandbyKind = StandbyKind.COLD
    stop_timeout: int = 10_000
    version: str | None = None
    health: Health = Health()


@dataclass(frozen=True)
class Hooks:
    on_active: tuple[tuple[str, ...], ...] = ()
    on_standby: tuple[tuple[str, ...], ...] = ()
    on_config_applied: tuple[tuple[str, ...], ...] = ()
    timeout: int = 30_000


@dataclass(frozen=True)
class Tree:
    name: str
    kind: TreeKind
    path: Path  # where it really leads, links resolved
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sync:
    """How trees are kept in sync; `scan_interval` in milliseconds."""

    rate_limit: int = 0  # kB/s; 0: none
    scan_interval: int = 60_000
    archive_size: int = 10_240  # MB
    archive_days: int = 30


@dataclass(frozen=True)
class Admin:
    interface: str = "127.0.0.1"
    port: int = 3003


@dataclass(frozen=True)
class Forward:
    listen: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Config:
    """One validated agent.toml, environment applied."""

    source: Path
    mode: Mode
    name: str
    state_directory: Path
    certificates: Certificates
    pre_shared_key: str | None = field(repr=False)
    server: Server
    connection: Connection
    heartbeat: Heartbeat
    workload: Workload
    hooks: Hooks
    trees: tuple[Tree, ...]
    sync: Sync
    admin: Admin
    forwards: tuple[Forward, ...]
    overrides: Mapping[str, str]  # "server.port" -> the environment variable that set it
