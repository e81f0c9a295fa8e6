"""The status of an agent as lines for people: pure text out of the answer of `/v1/status`.

Asks nobody and prints nothing. The status comes from a process that may be older, newer or told nonsense by its peer:
a missing value shows as unknown, and every text is made printable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.admin.printable import printable

_LABEL_WIDTH = 12
_SIZE_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Line:
    """One line of the view; `alarming` ones are shown in a warning colour where there are colours."""

    text: str
    alarming: bool = False


def render_status(status: Mapping[str, Any], now: datetime) -> list[Line]:
    """The whole view; `now` turns times into ages."""
    return [Line(printable(line.text), line.alarming) for line in _status_lines(status, now)]


def render_readiness(readiness: Mapping[str, Any]) -> list[Line]:
    """The verdict as a sentence, and its reasons."""
    return [Line(printable(line.text), line.alarming) for line in _readiness_lines(readiness)]


def render_event(event: Mapping[str, Any]) -> str:
    """One event on one line."""
    time, code, sentence = (str(event.get(key, "?")) for key in ("time", "code", "sentence"))
    return printable(f"{time}  {code:<25} {sentence}")


def summarize(status: Mapping[str, Any]) -> str:
    """What changes when something happens, on one line; equal for two answers between which nothing did."""
    parts = [
        f"{_text(status, 'name')} ({_text(status, 'mode')}) is {_text(status, 'role')}, term {_text(status, 'term')}",
        f"link {_text(status, 'link', 'state')}",
        f"other node {_text(status, 'peer', 'role')}",
        f"workload {_text(status, 'workload', 'state')}",
    ]
    if status.get("maintenance"):
        parts.append("maintenance on")
    parts.append("failover would work" if _part(status, "readiness").get("ready") else "failover would not work")
    return printable("; ".join(parts))


def _status_lines(status: Mapping[str, Any], now: datetime) -> Iterator[Line]:
    yield Line(f"{_text(status, 'name')} ({_text(status, 'mode')}) is {_text(status, 'role')}")
    yield _labelled("because", f"{_text(status, 'reason')} (term {_text(status, 'term')}{_since(status, now)})")
    link = _part(status, "link")
    yield _labelled("link", _link(link, now), alarming=link.get("state") == "down")
    peer = _part(status, "peer")
    if peer.get("name") or peer.get("role"):
        yield _labelled("other node", _peer(peer))
    workload = _part(status, "workload")
    yield _labelled("workload", _workload(workload), alarming=workload.get("state") == "failed")
    trees = status.get("trees")
    for tree in trees if isinstance(trees, list) else []:
        if isinstance(tree, dict):
            yield _labelled("tree", _tree(tree))
    yield from _sync_lines(_part(status, "sync"))
    level = f"service level {_text(status, 'service_level')}"
    yield _labelled("redundancy", f"{_text(status, 'redundancy')}, {level}")
    if status.get("maintenance"):
        yield _labelled("maintenance", "on: no automatic role change", alarming=True)
    yield from _readiness_lines(_part(status, "readiness"))
    notices = status.get("notices")
    for notice in notices if isinstance(notices, list) else []:
        yield _labelled("notice", str(notice), alarming=True)


def _readiness_lines(readiness: Mapping[str, Any]) -> Iterator[Line]:
    ready = readiness.get("ready") is True
    reasons = readiness.get("reasons")
    if ready:
        yield _labelled("failover", "would work right now")
    else:
        yield _labelled("failover", "would NOT work right now", alarming=True)
    for reason in reasons if isinstance(reasons, Sequence) and not isinstance(reasons, str) else ():
        yield _labelled("", f"- {reason}")


def _link(link: Mapping[str, Any], now: datetime) -> str:
    text = _text(link, "state")
    if link.get("address"):
        text += f", {link['address']}"
    if isinstance(link.get("rtt_ms"), int | float):
        text += f", round trip {link['rtt_ms']:.1f} ms"
    text += _since(link, now)
    if link.get("last_error") and link.get("state") != "up":
        text += f": {link['last_error']}"
    return text


def _peer(peer: Mapping[str, Any]) -> str:
    if peer.get("role") is None:
        return f"{_text(peer, 'name')}, not connected, last known term {_text(peer, 'term')}"
    text = f"{_text(peer, 'name')} ({_text(peer, 'mode')}) is {_text(peer, 'role')}, term {_text(peer, 'term')}"
    if peer.get("agent_version"):
        text += f", agent {peer['agent_version']}"
    if peer.get("workload_version"):
        text += f", workload {peer['workload_version']}"
    return text


def _workload(workload: Mapping[str, Any]) -> str:
    text = _text(workload, "state")
    if workload.get("pid") is not None:
        text += f", process {workload['pid']}"
    if workload.get("restarts"):
        text += f", restarted {workload['restarts']} times"
    if workload.get("last_error") and workload.get("state") != "running":
        text += f": {workload['last_error']}"
    return text


def _tree(tree: Mapping[str, Any]) -> str:
    text = f"{_text(tree, 'name')} ({_text(tree, 'kind')}): {_text(tree, 'state')}"
    if tree.get("files") is not None:
        text += f", {tree['files']} files, {_size(tree.get('bytes'))}"
    if tree.get("lag_ms"):
        text += f", {tree['lag_ms']} ms behind"
    return text


def _sync_lines(sync: Mapping[str, Any]) -> Iterator[Line]:
    if sync.get("state") in (None, "none", "idle"):
        return
    text = f"{sync['state']} {_text(sync, 'direction')}".rstrip(" -")
    if sync.get("total_bytes"):
        text += f", {_size(sync.get('done_bytes'))} of {_size(sync['total_bytes'])}"
    yield _labelled("sync", text)


def _labelled(label: str, text: str, *, alarming: bool = False) -> Line:
    return Line(f"  {label:<{_LABEL_WIDTH}}{text}", alarming)


def _part(status: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = status.get(key)
    return value if isinstance(value, dict) else {}


def _text(status: Mapping[str, Any], *keys: str) -> str:
    value: Any = status
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return "-" if value is None else str(value)


def _since(part: Mapping[str, Any], now: datetime) -> str:
    since = part.get("since")
    if not isinstance(since, str):
        return ""
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        return f", since {since}"
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return f", for {_age((now - moment).total_seconds())}"


def _age(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 2 * 3600:
        return f"{whole // 60} min"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days"


def _size(count: Any) -> str:
    if not isinstance(count, int | float):
        return "-"
    value = float(count)
    for unit in _SIZE_UNITS:
        if value < 1000 or unit == _SIZE_UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
