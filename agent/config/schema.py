"""Every key of agent.toml, in one table: what it holds, its default, its meaning in a line.

Validation, environment overrides, the suggestions for misspelt names and the file that `pair-agent init` writes are all
driven by this table, so that they cannot disagree. It says nothing about how keys depend on each other: see
`contradictions.py`.

A path joins the names with dots. A table that the file repeats (`[[tree]]`) is one section here, `tree`; its keys are
`tree.name` in this table and `tree.0.name` where an element is meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from agent.config.addresses import Host, HostPort, Interface, Url
from agent.config.model import HealthKind, StandbyKind, TreeKind, Trust, WorkloadKind
from agent.config.structures import ArgumentList, ArgumentLists, ListOf, TextTable
from agent.config.values import (
    PORT,
    Choice,
    FilePath,
    Flag,
    Integer,
    PathOrPem,
    Secret,
    Text,
    ValueKind,
    milliseconds,
)
from agent.core.vocabulary import Mode, TimeoutPolicy


class Presence(Enum):
    """What the absence of a key without a default means."""

    REQUIRED = "required"
    OPTIONAL = "optional"  # None, or decided elsewhere: host name, the platform's place, by kind


@dataclass(frozen=True)
class Key:
    """One key: `default` is the value as the configuration keeps it, or its Presence; `example` is TOML text."""

    path: str
    kind: ValueKind
    default: object
    doc: str
    example: str = ""
    secret: bool = field(default=False)

    @property
    def section(self) -> str:
        """The path of the table that holds the key; empty for the top of the file."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Section:
    """One table of the file."""

    path: str
    doc: str
    repeated: bool = False


DAY_MS = 86_400_000
_NODE_NAME = Text(1, 64)
_PATTERN = Text(1, 1024)

SECTIONS: Mapping[str, Section] = {
    section.path: section
    for section in (
        Section("", "This node."),
        Section("certificates", "Each a path, or the pasted PEM text itself as a multi-line string ('''...''')."),
        Section("security", "An optional second factor beside the certificates."),
        Section("server", "Where the primary listens for the backup."),
        Section("connection", "How the backup reaches the primary."),
        Section("heartbeat", "How the nodes watch each other. The same on both nodes is best."),
        Section("workload", "The protected application."),
        Section("workload.health", "How the agent knows that the workload is well."),
        Section("hooks", "Programs to run at a change, as argument lists: one at a time, in order."),
        Section("tree", "A folder or file that is kept on both nodes. Repeat the block for more.", repeated=True),
        Section("sync", "How the trees are kept in sync, and how long the archive keeps what was replaced."),
        Section("admin", "The status page and the health endpoints."),
        Section(
            "forward",
            "One local port that always leads to the active node. Repeat the block for more.",
            repeated=True,
        ),
    )
}

_KEYS = (
    Key("mode", Choice(Mode), Presence.REQUIRED, "What this node is in the pair.", '"primary"'),
    Key("name", _NODE_NAME, Presence.OPTIONAL, "This node's name; without it, the host name.", '"line-4-a"'),
    Key(
        "state_directory",
        FilePath(),
        Presence.OPTIONAL,
        "Where the agent keeps its own state; without it, the platform's place.",
        '"state"',
    ),
    Key(
        "certificates.own_certificate",
        PathOrPem("this node's certificate"),
        Presence.OPTIONAL,
        "This node's certificate.",
        '"certs/own.crt"',
    ),
    Key(
        "certificates.own_key",
        PathOrPem("this node's private key"),
        Presence.OPTIONAL,
        "The private key of it; it never leaves this node.",
        '"certs/own.key"',
        secret=True,
    ),
    Key(
        "certificates.remote_certificate",
        PathOrPem("the other node's certificate"),
        Presence.OPTIONAL,
        "The other node's certificate, written by `pair-agent trust`; several at once allow a rotation without outage.",
        '"certs/remote.crt"',
    ),
    Key(
        "certificates.trust",
        Choice(Trust),
        Trust.PINNED,
        'How the other node is known: "pinned" by exactly that certificate; the other two need a pre-shared key.',
    ),
    Key(
        "certificates.enforce_validity",
        Flag(),
        False,
        "Refuse a pinned certificate that has expired; otherwise there is a warning only.",
    ),
    Key(
        "security.pre_shared_key",
        Secret(),
        Presence.OPTIONAL,
        "A key that both nodes hold; `pair-agent key generate` makes one.",
        '"the same long random text on both nodes"',
        secret=True,
    ),
    Key("server.port", PORT, 3002, "The one port to open in the firewall."),
    Key(
        "server.interface",
        Interface(),
        "0.0.0.0",
        'An address of this node (`pair-agent interfaces`), "localhost", "0.0.0.0", "::" or "All interfaces".',
    ),
    Key(
        "server.initial_standby_time",
        milliseconds(0, DAY_MS),
        10_000,
        "How long the primary waits at its start for the backup to connect, in milliseconds.",
    ),
    Key(
        "server.on_initial_standby_timeout",
        Choice(TimeoutPolicy),
        TimeoutPolicy.ACTIVATE,
        'What then: "activate", "wait", or "wait-if-outdated": wait only if the other node was active after this one.',
    ),
    Key("connection.host", Host(), Presence.OPTIONAL, "The primary's address or host name.", '"192.168.10.11"'),
    Key("connection.port", PORT, 3002, "The primary's port."),
    Key(
        "connection.connection_timeout",
        milliseconds(20, 600_000),
        5_000,
        "The backup takes over after this time without a valid response, in milliseconds.",
    ),
    Key(
        "connection.reconnect_delay",
        milliseconds(10, 600_000),
        1_000,
        "The pause between two attempts to connect, in milliseconds.",
    ),
    Key("heartbeat.interval", milliseconds(10, 60_000), 1_000, "The time between two heartbeats, in milliseconds."),
    Key(
        "heartbeat.timeout",
        milliseconds(20, 600_000),
        5_000,
        "The other node counts as gone after this time of silence, in milliseconds; it must exceed the interval.",
    ),
    Key(
        "workload.kind",
        Choice(WorkloadKind),
        WorkloadKind.NONE,
        'What the workload is: "process" needs command; "commands" needs start and stop; the services need service.',
        '"process"',
    ),
    Key(
        "workload.command",
        ArgumentList(),
        (),
        'Kind "process": the program and its arguments.',
        '["node-red", "--userDir", "data"]',
    ),
    Key("workload.start", ArgumentList(), (), 'Kind "commands": starts the workload.', '["app-control", "start"]'),
    Key("workload.stop", ArgumentList(), (), 'Kind "commands": stops it.', '["app-control", "stop"]'),
    Key(
        "workload.status",
        ArgumentList(),
        (),
        'Kind "commands", optional: exit code 0 while it runs.',
        '["app-control", "status"]',
    ),
    Key(
        "workload.service",
        Text(1, 256),
        "",
        'Kinds "systemd" and "windows-service": the name of the service.',
        '"node-red"',
    ),
    Key("workload.working_directory", FilePath(), ".", "Where commands run."),
    Key(
        "workload.environment",
        TextTable(),
        {},
        "Environment variables of the workload, besides those of the agent.",
        '{ TZ = "UTC" }',
    ),
    Key(
        "workload.output",
        FilePath(),
        Presence.OPTIONAL,
        "A file for what the workload prints; without it, the agent's log.",
        '"workload.log"',
    ),
    Key(
        "workload.standby",
        Choice(StandbyKind),
        StandbyKind.COLD,
        'On the standby node: "cold", stopped; "warm", running and told its role.',
    ),
    Key(
        "workload.stop_timeout",
        milliseconds(100, 3_600_000),
        10_000,
        "The workload is killed if it has not stopped after this time, in milliseconds.",
    ),
    Key(
        "workload.version",
        Text(1, 64),
        Presence.OPTIONAL,
        "The version of the workload, compared with the other node's.",
        '"4.1.0"',
    ),
    Key(
        "workload.health.kind",
        Choice(HealthKind),
        HealthKind.PROCESS,
        '"process": it runs; "tcp" needs address; "http" needs url; "command" needs command.',
    ),
    Key(
        "workload.health.interval",
        milliseconds(100, 3_600_000),
        2_000,
        "The time between two questions, in milliseconds.",
    ),
    Key("workload.health.timeout", milliseconds(50, 600_000), 1_000, "The time for an answer, in milliseconds."),
    Key(
        "workload.health.failures",
        Integer(1, 1000),
        3,
        "After this many failures in a row the workload is restarted; then the other node takes over. "
        "After each start there is a grace of 5 x failures x interval (30 s by default), in which a check that has not "
        "succeeded yet does not count.",
    ),
    Key(
        "workload.health.address",
        HostPort(),
        "",
        'Kind "tcp": well if it accepts a connection here.',
        '"127.0.0.1:1880"',
    ),
    Key(
        "workload.health.url",
        Url(),
        "",
        'Kind "http": well if it answers with a status below 400.',
        '"http://127.0.0.1:1880/health"',
    ),
    Key(
        "workload.health.command",
        ArgumentList(),
        (),
        'Kind "command": well if the exit code is 0.',
        '["app-control", "health"]',
    ),
    Key("hooks.on_active", ArgumentLists(), (), "This node became active.", '[["notify", "active"]]'),
    Key("hooks.on_standby", ArgumentLists(), (), "This node became standby.", '[["notify", "standby"]]'),
    Key(
        "hooks.on_config_applied",
        ArgumentLists(),
        (),
        "Configuration from the other node was applied.",
        '[["notify", "configuration"]]',
    ),
    Key(
        "hooks.timeout",
        milliseconds(100, 3_600_000),
        30_000,
        "A hook that runs longer is killed, in milliseconds.",
    ),
    Key(
        "tree.name",
        Text(
            1,
            64,
            r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?",
            "1 to 64 letters, digits, dots, dashes, underscores; a dot neither first nor last",
        ),
        Presence.REQUIRED,
        "The same name on both nodes; the paths may differ.",
        '"flows"',
    ),
    Key("tree.kind", Choice(TreeKind), Presence.REQUIRED, "What the tree holds.", '"config"'),
    Key("tree.path", FilePath(), Presence.REQUIRED, "The folder or file on this node.", '"/etc/node-red"'),
    Key(
        "tree.exclude",
        ListOf(_PATTERN, 'a list of gitignore patterns, such as ["*.tmp", ".git/"]'),
        (),
        "What is left out: gitignore patterns.",
        '["*.tmp", ".git/"]',
    ),
    Key(
        "sync.rate_limit",
        Integer(0, 10_000_000, "kB/s"),
        0,
        "The most that synchronisation sends, in kB per second; 0 is no limit.",
    ),
    Key(
        "sync.scan_interval",
        milliseconds(1_000, DAY_MS),
        60_000,
        "The time between full scans, which find what the system's notifications missed, in milliseconds.",
    ),
    Key(
        "sync.archive_size",
        Integer(1, 100_000_000, "MB"),
        10_240,
        "The archive removes its oldest items beyond this size, in MB.",
    ),
    Key("sync.archive_days", Integer(1, 36_500, "days"), 30, "The archive keeps an item for so many days."),
    Key("admin.interface", Interface(), "127.0.0.1", "Where the page and the endpoints are served."),
    Key("admin.port", PORT, 3003, "Their port."),
    Key("forward.listen", HostPort(), Presence.REQUIRED, "The local port.", '"127.0.0.1:1883"'),
    Key(
        "forward.targets",
        ListOf(HostPort(), 'a list of host:port, such as ["192.168.10.11:1883", "192.168.10.12:1883"]', length_min=1),
        Presence.REQUIRED,
        "The service on each node.",
        '["192.168.10.11:1883", "192.168.10.12:1883"]',
    ),
)

KEYS: Mapping[str, Key] = {key.path: key for key in _KEYS}


def keys_of(section: str) -> list[Key]:
    """The keys of one table, in the order of the file."""
    return [key for key in _KEYS if key.section == section]


def general_path(path: str) -> str:
    """The path without the numbers of repeated tables: "tree.0.name" is "tree.name"."""
    return re.sub(r"^(tree|forward)\.[0-9]{1,4}(?=\.|$)", r"\1", path)
