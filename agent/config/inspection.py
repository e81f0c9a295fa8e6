"""What `pair-agent check` looks at: the configuration, and whether this node can do what it says.

Collects everything rather than stopping at the first fault, and goes on with what can be understood of a faulty
configuration. Changes nothing: a port is opened and closed at once, a probe file or folder for the state is removed.
"""

from __future__ import annotations

import datetime
import errno
import os
import queue
import shutil
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.config.addresses import split_host_port
from agent.config.credentials import OWN_CERTIFICATE, REMOTE_CERTIFICATE
from agent.config.load import Examination, announce_inactive_keys, examine_config
from agent.config.local_addresses import node_addresses
from agent.config.model import Credential, WorkloadKind
from agent.config.ports import is_of_own_agent, listener_of
from agent.config.results import Level, Result
from agent.config.settings import Settings
from agent.config.tree_inspection import inspect_trees
from agent.core.errors import ConfigurationError, PairAgentError, StateError
from agent.core.vocabulary import Mode

EXPIRY_WARNING_DAYS = 30
CLOCK_YEAR_MIN = 2024
PRE_SHARED_KEY_LENGTH_RECOMMENDED = 16
NAME_LOOKUP_TIMEOUT_S = 5.0
PROBE_BYTES = 4096

# Windows refuses a port that another program has for itself as if permission were missing.
_PORT_TAKEN = frozenset({errno.EADDRINUSE, getattr(errno, "WSAEACCES", errno.EADDRINUSE)})


def inspect_node(path: Path, environ: Mapping[str, str]) -> Iterator[Result]:
    """Yields every result for the configuration at `path`; nothing is raised for a fault that was found."""
    try:
        examination = examine_config(path, environ)
    except ConfigurationError as error:
        yield from (Result(Level.ERROR, finding) for finding in error.findings)
        yield from _inspect_clock()
        return
    yield from _inspect_configuration(examination)
    yield from _inspect_certificates(examination)
    yield from _inspect_secret(examination)
    yield from _inspect_ports(examination.settings, examination.state_directory)
    yield from _inspect_host(examination.settings)
    yield from _inspect_state_directory(examination)
    yield from inspect_trees(examination)
    yield from _inspect_commands(examination, environ)
    yield from _inspect_clock()


def _inspect_configuration(examination: Examination) -> Iterator[Result]:
    for finding in examination.findings:
        yield Result(Level.ERROR, f"{examination.source.name}: {finding.sentence()}")
    if examination.config is not None:
        config = examination.config
        yield Result(Level.OK, f"{examination.source}: mode {config.mode.value}, name {config.name}")
        for line in announce_inactive_keys(config):
            yield Result(Level.WARNING, line)
    for key, variable in examination.settings.overrides.items():
        yield Result(Level.WARNING, f"{key} is set by the environment variable {variable}, whatever the file says")


def _inspect_certificates(examination: Examination) -> Iterator[Result]:
    certificates = examination.certificates
    named = ((OWN_CERTIFICATE, certificates.own_certificate), (REMOTE_CERTIFICATE, certificates.remote_certificate))
    for key, credential in named:
        if credential is not None:
            yield from _inspect_validity(key, credential, strict=certificates.enforce_validity)
    if certificates.own_key is not None and not any(f.key == "certificates.own_key" for f in examination.findings):
        yield Result(Level.OK, "certificates.own_key: belongs to the certificate, and only its owner can read it")


def _inspect_validity(key: str, credential: Credential, *, strict: bool) -> Iterator[Result]:
    from agent.link.certificates import validity_finding
    from agent.link.identity import certificate_name, fingerprint, read_certificates_untrusted

    now = datetime.datetime.now(datetime.UTC)
    for certificate in read_certificates_untrusted(credential.pem):
        named = f"{key}: {certificate_name(certificate)}, SHA-256 {fingerprint(certificate)},"
        left = certificate.not_valid_after_utc - now
        if problem := validity_finding(certificate, now):
            yield Result(Level.ERROR if strict else Level.WARNING, f"{named} {problem}")
        elif left.days < EXPIRY_WARNING_DAYS:
            until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
            yield Result(Level.WARNING, f"{named} is valid until {until}, {left.days} days; renew it in time")
        else:
            yield Result(Level.OK, f"{named} is valid until {certificate.not_valid_after_utc:%Y-%m-%d}")


def _inspect_secret(examination: Examination) -> Iterator[Result]:
    key = "security.pre_shared_key"
    secret = examination.settings.get(key, str)
    if secret is None:
        return
    weak = len(secret) < PRE_SHARED_KEY_LENGTH_RECOMMENDED
    if weak:
        yield Result(Level.WARNING, f"{key} is short and may be guessed; `pair-agent key generate` makes a strong one")
    if key not in examination.settings.overrides:
        from agent.platform.permissions import readable_by_others

        try:
            exposure = readable_by_others(examination.source)
        except StateError as error:
            exposure = str(error)
        if exposure:
            yield Result(Level.WARNING, f"{key} is in a file that is not private: {exposure}")
            return
    if not weak:
        yield Result(Level.OK, f"{key}: set")


def _listeners(settings: Settings) -> Iterator[tuple[str, str, int]]:
    """Key, interface and port of everything that this node listens on."""
    for section in ("server", "admin"):
        if section == "server" and settings.get("mode", Mode) is not Mode.PRIMARY:
            continue
        interface, port = settings.get(f"{section}.interface", str), settings.get(f"{section}.port", int)
        if interface is not None and port is not None:
            yield f"{section}.port", interface, port
    for number in range(settings.counts["forward"]):
        listen = settings.get(f"forward.{number}.listen", str)
        if listen is not None and (endpoint := split_host_port(listen)) is not None:
            yield f"forward.{number}.listen", *endpoint


def _inspect_ports(settings: Settings, state_directory: Path) -> Iterator[Result]:
    from agent.platform.sockets import open_listener

    for key, interface, port in _listeners(settings):
        try:
            for listener in open_listener(interface, port):
                listener.close()
        except PairAgentError as error:
            holder = listener_of(port)
            taken = isinstance(error.__cause__, OSError) and error.__cause__.errno in _PORT_TAKEN
            if taken and is_of_own_agent(holder, state_directory):
                yield Result(Level.OK, f"{key}: {port} on {interface} is used by this node's running agent")
            elif holder is not None and holder.is_agent:
                yield Result(Level.WARNING, f"{key}: port {port} is in use by a running agent (process {holder.pid})")
            else:
                by = f" It is held by {holder.name} (process {holder.pid})." if holder is not None else ""
                yield Result(Level.ERROR, f"{key}: {error}{by}{_known_addresses(interface)}")
        else:
            yield Result(Level.OK, f"{key}: {port} on {interface} is free")


def _known_addresses(interface: str) -> str:
    addresses = [address.address for address in node_addresses()]
    if interface in (*addresses, "localhost", "0.0.0.0", "::", "All interfaces"):
        return ""
    return f" This node has {', '.join(addresses)}."


def _inspect_host(settings: Settings) -> Iterator[Result]:
    host = settings.get("connection.host", str)
    if host is None or settings.get("mode", Mode) is not Mode.BACKUP:
        return
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answers.put(", ".join(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except (OSError, UnicodeError):
            answers.put("")

    # The system's resolver takes as long as it likes; a daemon thread may be left behind with it.
    threading.Thread(target=look_up, daemon=True).start()
    try:
        addresses = answers.get(timeout=NAME_LOOKUP_TIMEOUT_S)
    except queue.Empty:
        yield Result(
            Level.ERROR, f"connection.host: no answer about the name {host} within {NAME_LOOKUP_TIMEOUT_S:g} s"
        )
        return
    if addresses:
        yield Result(Level.OK, f"connection.host: {host}" + (f" is {addresses}" if addresses != host else ""))
    else:
        yield Result(
            Level.ERROR, f"connection.host: the name {host} leads to no address; correct it, or write an address"
        )


def _inspect_state_directory(examination: Examination) -> Iterator[Result]:
    directory = examination.state_directory
    way_out = "name another folder, or let this account write there"
    try:
        existing, is_folder = _nearest_existing(directory)
    except OSError as error:
        yield Result(
            Level.ERROR, f"state_directory: {directory} cannot be looked at: {error.strerror or error}; {way_out}"
        )
        return
    if not is_folder:
        yield Result(
            Level.ERROR, f"state_directory: {existing} is a file, not a folder; name another folder, or move the file"
        )
        return
    is_there = existing == directory
    if problem := _write_problem(existing, as_folder=not is_there):
        failed = "cannot be written" if is_there else f"cannot be made in {existing}"
        yield Result(Level.ERROR, f"state_directory: {directory} {failed}: {problem}; {way_out}")
    elif is_there:
        yield Result(Level.OK, f"state_directory: {directory} is writable")
    else:
        yield Result(Level.OK, f"state_directory: {directory} does not exist yet and will be made")


def _nearest_existing(path: Path) -> tuple[Path, bool]:
    """Returns `path` or the nearest above it that is there, and whether it is a folder. Raises OSError."""
    while True:
        try:
            return path, stat.S_ISDIR(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            if path == path.parent:
                raise
            path = path.parent


def _write_problem(folder: Path, *, as_folder: bool) -> str | None:
    """Returns what keeps this account from making a file, or a folder, in `folder`; None if nothing does."""
    probe = folder / f".check-{os.getpid()}"
    try:
        if as_folder:
            probe.mkdir()
            probe.rmdir()
            return None
        with probe.open("xb") as file:
            try:
                file.write(b"\0" * PROBE_BYTES)
                file.flush()
            finally:
                file.close()
                probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _inspect_commands(examination: Examination, environ: Mapping[str, str]) -> Iterator[Result]:
    settings, folder = examination.settings, examination.source.parent
    kind = settings.get("workload.kind", WorkloadKind)
    if kind is WorkloadKind.NONE:
        yield Result(Level.WARNING, 'workload.kind is "none": this node protects no application')
    working_directory = folder / (settings.get("workload.working_directory", str) or ".")
    commands = (
        [f"workload.{name}" for name in ("command", "start", "stop", "status")] if kind is not WorkloadKind.NONE else []
    )
    commands.append("workload.health.command")
    programs = [(key, arguments[0]) for key in commands if (arguments := settings.get(key, tuple))]
    for name in ("on_active", "on_standby", "on_config_applied"):
        programs += [(f"hooks.{name}", arguments[0]) for arguments in settings.get(f"hooks.{name}", tuple) or ()]
    if not programs:
        return
    if not working_directory.is_dir():
        yield Result(Level.ERROR, f"workload.working_directory: {working_directory} is no folder")
    environment = settings.get("workload.environment", dict) or {}
    search_path = environment.get("PATH", environ.get("PATH"))
    for key, program in programs:
        has_folder = os.path.dirname(program) != ""
        found = shutil.which(str(working_directory / program) if has_folder else program, path=search_path)
        if found is None:
            where = f"in {working_directory}" if has_folder else "on the PATH"
            yield Result(Level.ERROR, f"{key}: no program {program} {where}")
        else:
            yield Result(Level.OK, f"{key}: {found}")


def _inspect_clock() -> Iterator[Result]:
    now = datetime.datetime.now(datetime.UTC)
    if now.year < CLOCK_YEAR_MIN:
        yield Result(Level.ERROR, f"clock: it says {now:%Y-%m-%d %H:%M} UTC, which cannot be; set it, better by NTP")
    else:
        yield Result(Level.OK, f"clock: {now:%Y-%m-%d %H:%M} UTC")
