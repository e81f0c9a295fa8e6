"""From agent.toml and the environment to one validated `Config`, or to every finding at once.

The order is fixed: read the file, lay the environment over it, look at every key alone, read the certificates, compare
the settings with each other, build the value. A fault in one step does not hide those of the next, as long as there is
a TOML file to look at. Nothing here is changed on disk.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.config.contradictions import report_contradictions
from agent.config.credentials import read_certificates
from agent.config.document import find_config_path, read_document
from agent.config.environment import overlay_environment
from agent.config.findings import Finding
from agent.config.model import (
    Admin,
    Certificates,
    Config,
    Connection,
    Forward,
    Health,
    HealthKind,
    Heartbeat,
    Hooks,
    Server,
    StandbyKind,
    Sync,
    Tree,
    TreeKind,
    Workload,
    WorkloadKind,
)
from agent.config.settings import Settings, read_settings
from agent.config.tree_contradictions import real_tree_path
from agent.core.errors import ConfigurationError
from agent.core.vocabulary import Mode, TimeoutPolicy

__all__ = ["Examination", "announce_inactive_keys", "examine_config", "find_config_path", "load_config"]


@dataclass(frozen=True)
class Examination:
    """What one look at a configuration found.

    `config` is None if there are findings. `settings` holds what every key was set to, and `certificates` what could be
    read of them, findings or not: enough for the commands that mend a configuration.
    """

    source: Path
    settings: Settings
    certificates: Certificates
    state_directory: Path
    findings: tuple[Finding, ...]
    config: Config | None


def load_config(path: Path, environ: Mapping[str, str], *, with_certificates: bool = True) -> Config:
    """Returns the validated configuration.

    `with_certificates` False leaves the files of certificates and key alone and their fields None: for commands that
    ask a running agent, which may be run by someone who cannot read the key. Raises ConfigurationError with one
    sentence per finding.
    """
    examination = examine_config(path, environ, with_certificates=with_certificates)
    if examination.config is None:
        raise ConfigurationError([f"{path}: {finding.sentence()}" for finding in examination.findings])
    return examination.config


def examine_config(path: Path, environ: Mapping[str, str], *, with_certificates: bool = True) -> Examination:
    """Looks at the whole configuration. Raises ConfigurationError only if there is no TOML file to look at."""
    source = path.absolute()
    document = read_document(source)
    overlay = overlay_environment(document.tables, environ)
    settings = read_settings(overlay.tables, document.positions, overlay.overrides)
    settings.findings.extend(overlay.findings)
    certificates = read_certificates(settings, source) if with_certificates else Certificates(None, None, None)
    state_directory = _state_directory(settings, source)
    report_contradictions(settings, source, state_directory)
    findings = tuple(sorted(settings.findings, key=lambda finding: (finding.line is None, finding.line or 0)))
    config = None if findings else _build(settings, source, certificates, state_directory)
    return Examination(source, settings, certificates, state_directory, findings, config)


def announce_inactive_keys(config: Config) -> list[str]:
    """Names the settings that are accepted and checked, and have no effect in this version, one line each."""
    lines = []
    if config.forwards:
        lines.append(f"[[forward]] ({len(config.forwards)}): accepted, not active in this version")
    if config.workload.kind in (WorkloadKind.SYSTEMD, WorkloadKind.WINDOWS_SERVICE):
        lines.append(f'workload.kind = "{config.workload.kind.value}": accepted, not active in this version')
    return lines


def _state_directory(settings: Settings, source: Path) -> Path:
    value = settings.get("state_directory", str)
    if value is not None:
        return source.parent / value
    from agent.platform.places import default_state_directory

    return default_state_directory()


def _build(settings: Settings, source: Path, certificates: Certificates, state_directory: Path) -> Config:
    take = settings.take
    return Config(
        source=source,
        mode=take("mode", Mode),
        name=settings.get("name", str) or socket.gethostname(),
        state_directory=state_directory,
        certificates=certificates,
        pre_shared_key=settings.get("security.pre_shared_key", str),
        server=Server(
            port=take("server.port", int),
            interface=take("server.interface", str),
            initial_standby_time=take("server.initial_standby_time", int),
            on_initial_standby_timeout=take("server.on_initial_standby_timeout", TimeoutPolicy),
        ),
        connection=Connection(
            host=settings.get("connection.host", str) or "",
            port=take("connection.port", int),
            connection_timeout=take("connection.connection_timeout", int),
            reconnect_delay=take("connection.reconnect_delay", int),
        ),
        heartbeat=Heartbeat(interval=take("heartbeat.interval", int), timeout=take("heartbeat.timeout", int)),
        workload=_build_workload(settings, source),
        hooks=Hooks(
            on_active=take("hooks.on_active", tuple),
            on_standby=take("hooks.on_standby", tuple),
            on_config_applied=take("hooks.on_config_applied", tuple),
            timeout=take("hooks.timeout", int),
        ),
        trees=tuple(
            Tree(
                name=take(f"tree.{number}.name", str),
                kind=take(f"tree.{number}.kind", TreeKind),
                path=real_tree_path(source.parent / take(f"tree.{number}.path", str)),
                exclude=take(f"tree.{number}.exclude", tuple),
            )
            for number in range(settings.counts["tree"])
        ),
        sync=Sync(
            rate_limit=take("sync.rate_limit", int),
            scan_interval=take("sync.scan_interval", int),
            archive_size=take("sync.archive_size", int),
            archive_days=take("sync.archive_days", int),
        ),
        admin=Admin(interface=take("admin.interface", str), port=take("admin.port", int)),
        forwards=tuple(
            Forward(listen=take(f"forward.{number}.listen", str), targets=take(f"forward.{number}.targets", tuple))
            for number in range(settings.counts["forward"])
        ),
        overrides=dict(settings.overrides),
    )


def _build_workload(settings: Settings, source: Path) -> Workload:
    take = settings.take
    output = settings.get("workload.output", str)
    return Workload(
        kind=take("workload.kind", WorkloadKind),
        command=take("workload.command", tuple),
        start=take("workload.start", tuple),
        stop=take("workload.stop", tuple),
        status=take("workload.status", tuple),
        service=take("workload.service", str),
        working_directory=source.parent / take("workload.working_directory", str),
        environment=take("workload.environment", dict),
        output=None if output is None else source.parent / output,
        standby=take("workload.standby", StandbyKind),
        stop_timeout=take("workload.stop_timeout", int),
        version=settings.get("workload.version", str),
        health=Health(
            kind=take("workload.health.kind", HealthKind),
            interval=take("workload.health.interval", int),
            timeout=take("workload.health.timeout", int),
            failures=take("workload.health.failures", int),
            address=take("workload.health.address", str),
            url=take("workload.health.url", str),
            command=take("workload.health.command", tuple),
        ),
    )
