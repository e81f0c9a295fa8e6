"""Asks a workload whether it is well: by its process, a TCP connection, an HTTP request or a command.

One question is one `probe`, bounded in time; what the answers are good for is decided in agent.core.health.
"""

from __future__ import annotations

import logging
import ssl
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from agent.config.model import HealthKind, Workload, WorkloadKind
from agent.platform.clock import boottime_ns
from agent.workload.commands import run_command

_log = logging.getLogger("agent.workload")

_ANSWER_BYTES_MAX = 4_096
_STATUS_FAILURE = 400  # the lowest status that means "not well"
_NANOSECONDS_PER_MILLISECOND = 1_000_000
_MILLISECONDS_PER_SECOND = 1_000
_STALL_FACTOR = 2  # a probe that took this many times its bound was not given the time to end


@dataclass(frozen=True)
class Finding:
    """What a probe found: `problem` None is well, else a sentence."""

    problem: str | None
    is_evidence: bool = True  # False: the agent itself was held up, so that it says nothing about the workload


async def probe(workload: Workload, environment: Mapping[str, str]) -> Finding:
    """Asks once and returns after `health.timeout` ms at the latest; `environment` is for commands."""
    health = workload.health
    began_ns = boottime_ns()
    if health.kind is HealthKind.COMMAND:
        problem = await _probe_command(health.command, workload, environment, "health command")
    elif health.kind is HealthKind.PROCESS:
        if workload.kind is not WorkloadKind.COMMANDS or not workload.status:
            return Finding(None)  # that it runs is known already
        problem = await _probe_command(workload.status, workload, environment, "status command")
    else:
        problem = f"no answer from {health.address or health.url} within {health.timeout} ms"
        with trio.move_on_after(health.timeout / _MILLISECONDS_PER_SECOND):
            if health.kind is HealthKind.TCP:
                problem = await _probe_tcp(health.address)
            else:
                problem = await _probe_http(health.url)
    if problem is not None:
        took_ms = (boottime_ns() - began_ns) // _NANOSECONDS_PER_MILLISECOND
        if took_ms > _STALL_FACTOR * health.timeout + _MILLISECONDS_PER_SECOND:
            return Finding(f"a health check bounded by {health.timeout} ms took {took_ms} ms", is_evidence=False)
    return Finding(problem)


async def watch(
    workload: Workload, environment: Callable[[], Mapping[str, str]], on_finding: Callable[[str | None], None]
) -> None:
    """Probes every `health.interval` ms, the first time after one, until cancelled; calls with None or a problem."""
    while True:
        await trio.sleep(workload.health.interval / _MILLISECONDS_PER_SECOND)
        finding = await probe(workload, environment())
        if not finding.is_evidence:
            _log.warning("Health: %s; the agent itself was held up, so that it does not count.", finding.problem)
            continue
        if finding.problem is not None:
            _log.warning("Health: %s.", finding.problem)
        on_finding(finding.problem)


async def _probe_command(
    arguments: tuple[str, ...], workload: Workload, environment: Mapping[str, str], label: str
) -> str | None:
    problem = await run_command(
        arguments, environment, timeout_ms=workload.health.timeout, working_directory=workload.working_directory
    )
    return None if problem is None else f"the {label} {problem}"


async def _probe_tcp(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    try:
        stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    except OSError as error:
        return f"no connection to {address}: {_reason(error)}"
    await trio.aclose_forcefully(stream)
    return None


async def _probe_http(url: str) -> str | None:
    try:
        status = await _ask_status(urllib.parse.urlsplit(url))
    except (OSError, trio.BrokenResourceError, ssl.SSLError) as error:
        return f"no answer from {url}: {_reason(error)}"
    if status is None:
        return f"{url} answered with something that is not HTTP"
    return None if status < _STATUS_FAILURE else f"{url} answered with status {status}"


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
            part = await stream.receive_some(_ANSWER_BYTES_MAX)
            if not part:
                break
            answer += part
    finally:
        await trio.aclose_forcefully(stream)
    fields = answer.split(b"\n", 1)[0].split()
    if len(fields) < 2 or not fields[0].startswith(b"HTTP/") or not fields[1].isdigit():
        return None
    return int(fields[1])


def _reason(error: BaseException) -> str:
    """Returns the system's words, without those of the library around them."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
