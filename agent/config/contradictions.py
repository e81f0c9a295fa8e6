"""Settings that are each allowed and cannot stand together.

Compares accepted values with each other and with the mode; a value that was refused alone is compared with nothing.
Asks nothing of the world; what trees need of it is in `tree_contradictions.py`.
"""

from __future__ import annotations

from pathlib import Path

from agent.config.addresses import ALL_INTERFACES, split_host_port
from agent.config.model import HealthKind, Trust, WorkloadKind
from agent.config.settings import Settings
from agent.config.tree_contradictions import report_tree_contradictions
from agent.core.vocabulary import Mode

_WORKLOAD_KEYS: dict[WorkloadKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # kind: (needed, possible)
    WorkloadKind.PROCESS: (("command",), ()),
    WorkloadKind.COMMANDS: (("start", "stop"), ("status",)),
    WorkloadKind.SYSTEMD: (("service",), ()),
    WorkloadKind.WINDOWS_SERVICE: (("service",), ()),
    WorkloadKind.NONE: ((), ()),
}
_HEALTH_KEYS: dict[HealthKind, tuple[str, ...]] = {
    HealthKind.PROCESS: (),
    HealthKind.TCP: ("address",),
    HealthKind.HTTP: ("url",),
    HealthKind.COMMAND: ("command",),
}
_WILDCARDS = ("0.0.0.0", "::", ALL_INTERFACES)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def report_contradictions(settings: Settings, source: Path, state_directory: Path) -> None:
    """Reports every contradiction to `settings`. Paths are relative to the folder of `source`."""
    _check_mode(settings)
    _check_security(settings)
    _check_times(settings)
    _check_ports(settings)
    _check_workload(settings)
    _check_health(settings)
    report_tree_contradictions(settings, source, state_directory)


def _check_mode(settings: Settings) -> None:
    host = "connection.host"
    missing = host in settings.values and not settings.accepted(host)
    if settings.get("mode", Mode) is Mode.BACKUP and missing:
        settings.report(host, 'missing; mode = "backup" dials the primary', "the primary's address or host name")


def _check_security(settings: Settings) -> None:
    trust = settings.get("certificates.trust", Trust)
    key = "security.pre_shared_key"
    if trust in (Trust.SYSTEM, Trust.INSECURE) and key in settings.values and not settings.accepted(key):
        settings.report(
            key,
            f'missing; certificates.trust = "{trust.value}" needs it (`pair-agent key generate` makes one)',
        )


def _check_times(settings: Settings) -> None:
    interval = settings.get("heartbeat.interval", int)
    timeout = settings.get("heartbeat.timeout", int)
    connection_timeout = settings.get("connection.connection_timeout", int)
    if interval is None:
        return
    limit = f"more than heartbeat.interval, which is {interval}"
    if timeout is not None and timeout <= interval:
        place = "heartbeat.timeout" if "heartbeat.timeout" in settings.given else "heartbeat.interval"
        settings.report(place, f"found heartbeat.timeout {timeout}, heartbeat.interval {interval}", f"timeout {limit}")
    concerned = settings.get("mode", Mode) is Mode.BACKUP or "connection.connection_timeout" in settings.given
    if concerned and connection_timeout is not None and connection_timeout <= interval:
        settings.report("connection.connection_timeout", f"found {connection_timeout}", limit)


def _overlap(first: tuple[str, int], second: tuple[str, int]) -> bool:
    (host, port), (other, other_port) = first, second
    if port != other_port:
        return False
    if host == other or host in _WILDCARDS or other in _WILDCARDS:
        return True
    return "localhost" in (host, other) and host in _LOOPBACK and other in _LOOPBACK


def _check_ports(settings: Settings) -> None:
    listeners: list[tuple[str, tuple[str, int]]] = []
    sections = ("server", "admin") if settings.get("mode", Mode) is Mode.PRIMARY else ("admin",)
    for section in sections:
        if settings.accepted(f"{section}.interface", f"{section}.port"):
            endpoint = (settings.take(f"{section}.interface", str), settings.take(f"{section}.port", int))
            listeners.append((f"{section}.port", endpoint))
    for number in range(settings.counts["forward"]):
        listen = settings.get(f"forward.{number}.listen", str)
        if listen is not None and (forwarded := split_host_port(listen)) is not None:
            listeners.append((f"forward.{number}.listen", forwarded))
    for position, (key, endpoint) in enumerate(listeners):
        for other, other_endpoint in listeners[:position]:
            if _overlap(endpoint, other_endpoint):
                problem = f"listens on port {endpoint[1]}, as {other} does"
                settings.report(key, problem, f"a port that {other} does not use")
    for number in range(settings.counts["forward"]):
        listen = settings.get(f"forward.{number}.listen", str)
        targets = settings.get(f"forward.{number}.targets", tuple) or ()
        if listen in targets:
            settings.report(f"forward.{number}.targets", f"leads in a circle: it holds its own listen address {listen}")
        if len(set(targets)) != len(targets):
            settings.report(f"forward.{number}.targets", "holds the same address twice")


def _check_workload(settings: Settings) -> None:
    kind = settings.get("workload.kind", WorkloadKind)
    own_names = ("command", "start", "stop", "status", "service")
    given = [name for name in own_names if f"workload.{name}" in settings.given]
    if kind is None:
        return
    if "workload.kind" not in settings.given:
        if given:
            fitting = [k.value for k, (needed, _) in _WORKLOAD_KEYS.items() if given[0] in needed] or ["commands"]
            words = " or ".join(f'"{word}"' for word in fitting)
            settings.report("workload.kind", f"missing, and workload.{given[0]} is set", words)
        return
    if kind is WorkloadKind.NONE:
        # Switching the workload off for a while must not need more than this one key.
        return
    needed, possible = _WORKLOAD_KEYS[kind]
    for name in needed:
        if f"workload.{name}" not in settings.given:
            settings.report(f"workload.{name}", f'missing; workload.kind = "{kind.value}" needs it')
    for name in given:
        if name not in needed + possible:
            settings.report(
                f"workload.{name}",
                f'has no place where workload.kind = "{kind.value}"',
                "with this kind: " + ", ".join(needed + possible),
            )


def _check_health(settings: Settings) -> None:
    kind = settings.get("workload.health.kind", HealthKind)
    if kind is None:
        return
    for owner, names in _HEALTH_KEYS.items():
        for name in names:
            path = f"workload.health.{name}"
            if owner is kind and path not in settings.given:
                settings.report(path, f'missing; workload.health.kind = "{kind.value}" needs it')
            if owner is not kind and path in settings.given:
                settings.report(path, f'belongs to kind = "{owner.value}", and the kind is "{kind.value}"')
