"""Asks a workload whether it is well: by its process, a TCP connection, an HTTP request or a command.

One question is one `probe`, bounded in time and in bytes; what the answers are good for is decided in
agent.core.health. Whatever comes back, and whatever goes wrong in asking, the watch goes on.
"""

from __future__ import annotations

import errno
import logging
import os
import ssl
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import trio

from agent.config.model import HealthKind, Workload, WorkloadKind
from agent.platform.clock import boottime_ns
from agent.workload.commands import run_command

_log = logging.getLogger("agent.workload")

_ANSWER_BYTES_MAX = 4_096
_STATUS_DIGITS = 3  # RFC 9112, section 4
_STATUS_FAILURE = 400  # the lowest status that means "not well"
_NANOSECONDS_PER_MILLISECOND = 1_000_000
_MILLISECONDS_PER_SECOND = 1_000
_STALL_FACTOR = 2  # a probe that took this many times its bound was not given the time to end
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})  # of the agent, or of its system


@dataclass(frozen=True)
class Finding:
    """What a probe found: `problem` None is well, else a sentence."""

    problem: str | None
    is_evidence: bool = (
        True  # False: the agent itself was held up or lacked something; nothing is known of the workload
    )


async def probe(workload: Workload, environment: Mapping[str, str]) -> Finding:
    """Asks once and returns after `health.timeout` ms at the latest; `environment` is for commands."""
    health = workload.health
    began_ns = boottime_ns()
    if health.kind is HealthKind.COMMAND:
        finding = await _probe_command(health.command, workload, environment, "health command")
    elif health.kind is HealthKind.PROCESS:
        if workload.kind is not WorkloadKind.COMMANDS or not workload.status:
            return Finding(None)  # that it runs is known already
        finding = await _probe_command(workload.status, workload, environment, "status command")
    else:
        finding = Finding(f"no answer from {health.address or health.url} within {health.timeout} ms")
        with trio.move_on_after(health.timeout / _MILLISECONDS_PER_SECOND):
            if health.kind is HealthKind.TCP:
                finding = await _probe_tcp(health.address)
            else:
                finding = await _probe_http(health.url)
    if finding.problem is not None:
        took_ms = (boottime_ns() - began_ns) // _NANOSECONDS_PER_MILLISECOND
        if took_ms > _STALL_FACTOR * health.timeout + _MILLISECONDS_PER_SECOND:
            return Finding(f"a health check bounded by {health.timeout} ms took {took_ms} ms", is_evidence=False)
    return finding


async def watch(
    workload: Workload, environment: Callable[[], Mapping[str, str]], on_finding: Callable[[str | None], None]
) -> None:
    """Probes every `health.interval` ms, the first time after one, until cancelled; calls with None or a problem."""
    while True:
        await trio.sleep(workload.health.interval / _MILLISECONDS_PER_SECOND)
        surroundings = environment()
        # With the star: a fault may come in one group with the cancellation that ends the watch.
        try:
            finding = await probe(workload, surroundings)
        except* Exception as faults:
            finding = _finding_of(faults)
        if not finding.is_evidence:
            _log.warning("Health: %s; this is the agent's own trouble, so that it does not count.", finding.problem)
            continue
        if finding.problem is not None:
            _log.warning("Health: %s.", finding.problem)
        on_finding(finding.problem)


async def _probe_command(
    arguments: tuple[str, ...], workload: Workload, environment: Mapping[str, str], label: str
) -> Finding:
    problem = await run_command(
        arguments, environment, timeout_ms=workload.health.timeout, working_directory=workload.working_directory
    )
    if problem is None:
        return Finding(None)
    # The words are all that is left of the error; a command that did start never ends with them.
    lacking = any(problem.endswith(f": {os.strerror(code)}") for code in _SHORTAGES)
    return Finding(f"the {label} {problem}", is_evidence=not lacking)


async def _probe_tcp(address: str) -> Finding:
    host, _, port = address.rpartition(":")
    try:
        stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    except OSError as error:
        return Finding(f"no connection to {address}: {_reason(error)}", is_evidence=not _is_shortage(error))
    await trio.aclose_forcefully(stream)
    return Finding(None)


async def _probe_http(url: str) -> Finding:
    try:
        status = await _ask_status(urllib.parse.urlsplit(url))
    except (OSError, trio.BrokenResourceError, ssl.SSLError) as error:
        return Finding(f"no answer from {url}: {_reason(error)}", is_evidence=not _is_shortage(error))
    if status is None:
        return Finding(f"{url} answered with something that is not HTTP")
    return Finding(None if status < _STATUS_FAILURE else f"{url} answered with status {status}")


async def _ask_status(url: urllib.parse.SplitResult) -> int | None:
    """Sends a GET request and returns the status of the answer; the rest of it is left unread."""
    host = url.hostname or ""
    stream: trio.abc.Stream
    if url.scheme == "https":
        stream = await trio.open_ssl_over_tcp_stream(host, url.port or 443, https_compatible=True)
    else:
        stream = await trio.open_tcp_stream(host, url.port or 80)
    path = urllib.parse.quote(url.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = f"?{url.query}" if url.query else ""
    try:
        request = f"GET {path}{query} HTTP/1.1\r\nHost: {url.netloc.rpartition('@')[2]}\r\nUser-Agent: pair-agent\r\n"
        await stream.send_all(f"{request}Accept: */*\r\nConnection: close\r\n\r\n".encode("ascii", "replace"))
        answer = b""
        while b"\n" not in answer and len(answer) < _ANSWER_BYTES_MAX:
            part = await stream.receive_some(_ANSWER_BYTES_MAX - len(answer))
            if not part:
                break
            answer += part
    finally:
        await trio.aclose_forcefully(stream)
    fields = answer.split(b"\n", 1)[0].split()
    if len(fields) < 2 or not fields[0].startswith(b"HTTP/"):
        return None
    status = fields[1]
    return int(status) if len(status) == _STATUS_DIGITS and status.isdigit() else None


def _finding_of(faults: BaseExceptionGroup[Exception]) -> Finding:
    """The last resort for what no probe expected: a problem to be told, never the end of the agent."""
    _log.error("A health check failed because of a fault in the agent.", exc_info=faults)
    first = next(_leaves(faults))
    problem = f"the health check failed: {type(first).__name__}: {first}"
    return Finding(problem, is_evidence=not _is_shortage(faults))


def _is_shortage(error: BaseException) -> bool:
    """Tells whether the agent lacked descriptors or memory for asking, in one of its attempts at least."""
    return any(isinstance(leaf, OSError) and leaf.errno in _SHORTAGES for leaf in _leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yields the errors that a group holds, or that caused a library's own, down to those with no cause."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    elif error.__cause__ is not None:
        yield from _leaves(error.__cause__)
    else:
        yield error


def _reason(error: BaseException) -> str:
    """Returns the system's words, without those of the library around them."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
