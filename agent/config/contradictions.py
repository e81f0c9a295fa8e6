"""Settings that are each allowed and cannot stand together.

Compares accepted values with each other and with the mode; a value that was refused alone is compared with nothing. The
trees are compared by the paths that they really lead to, so this module asks the file system for links, and for
nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.config.addresses import ALL_INTERFACES, split_host_port
from agent.config.credentials import OWN_KEY, credential_path
from agent.config.model import HealthKind, Trust, WorkloadKind
from agent.config.settings import Settings
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
    _check_tree_names(settings)
    _check_tree_paths(settings, source, state_directory)


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


def _check_tree_names(settings: Settings) -> None:
    seen: dict[str, int] = {}
    for number in range(settings.counts["tree"]):
        name = settings.get(f"tree.{number}.name", str)
        if name is None:
            continue
        # The archive keeps trees in folders of their names, and on Windows those ignore case.
        first = seen.setdefault(name.casefold(), number)
        if first != number:
            settings.report(f"tree.{number}.name", f'"{name}" is the name of an earlier tree', "a name of its own")


def _real(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _contains(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _check_tree_paths(settings: Settings, source: Path, state_directory: Path) -> None:
    own_key = credential_path(settings, OWN_KEY, source)
    kept_apart = [("the agent's own configuration", _real(source))]
    if own_key is not None:
        kept_apart.append(("this node's private key", _real(own_key)))
    state = _real(state_directory)
    seen: list[tuple[str, str]] = []
    for number in range(settings.counts["tree"]):
        key = f"tree.{number}.path"
        value = settings.get(key, str)
        if value is None:
            continue
        path = _real(source.parent / value)
        if _contains(path, state) or _contains(state, path):
            settings.report(key, f"{path} overlaps state_directory {state}", "a folder apart from it")
        for what, kept in kept_apart:
            if _contains(path, kept):
                settings.report(key, f"{path} holds {what}, {kept}; that stays on its node", "a folder apart from it")
        for other, other_path in seen:
            if path == other_path:
                settings.report(key, f"{path} is already the path of {other}")
            elif _contains(path, other_path) or _contains(other_path, path):
                settings.report(key, f"{path} overlaps {other_path}, the path of {other}")
        seen.append((f"tree.{number} ({settings.get(f'tree.{number}.name', str)})", path))
