"""The status of an agent as lines for people: pure text out of the answer of `/v1/status`.

Asks nobody and prints nothing. The status comes from a process that may be older, newer or told nonsense by its peer:
a missing value shows as unknown, and every text is made printable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from agent.admin.printable import printable
from agent.cli.lines import Line, age_at, labelled, part, text_at
from agent.cli.tree_view import sync_lines, sync_summary, tree_lines


def render_status(status: Mapping[str, Any], now: datetime) -> list[Line]:
    """The whole view; `now` turns times into ages."""
    return [line.made_printable() for line in _status_lines(status, now)]


def render_readiness(readiness: Mapping[str, Any]) -> list[Line]:
    """The verdict as a sentence, and its reasons."""
    return [line.made_printable() for line in _readiness_lines(readiness)]


def render_event(event: Mapping[str, Any]) -> str:
    """One event on one line."""
    time, code, sentence = (str(event.get(key, "?")) for key in ("time", "code", "sentence"))
    return printable(f"{time}  {code:<25} {sentence}")


def summarize(status: Mapping[str, Any]) -> str:
    """What changes when something happens, on one line; equal for two answers between which nothing did."""
    parts = [
        f"{_who(status)}, term {text_at(status, 'term')}",
        f"link {text_at(status, 'link', 'state')}",
        f"other node {text_at(status, 'peer', 'role')}",
        f"workload {text_at(status, 'workload', 'state')}",
    ]
    if status.get("maintenance"):
        parts.append("maintenance on")
    if synchronisation := sync_summary(status):
        parts.append(synchronisation)
    parts.append("failover would work" if part(status, "readiness").get("ready") else "failover would not work")
    return printable("; ".join(parts))


def _status_lines(status: Mapping[str, Any], now: datetime) -> Iterator[Line]:
    yield Line(_who(status))
    yield labelled("because", f"{text_at(status, 'reason')} (term {text_at(status, 'term')}{_since(status, now)})")
    link = part(status, "link")
    yield labelled("link", _link(link, now), alarming=link.get("state") == "down")
    peer = part(status, "peer")
    if peer.get("name") or peer.get("role"):
        yield labelled("other node", _peer(peer))
    workload = part(status, "workload")
    yield labelled("workload", _workload(workload), alarming=workload.get("state") == "failed")
    yield from tree_lines(status, now)
    yield from sync_lines(status)
    level = f"service level {text_at(status, 'service_level')}"
    yield labelled("redundancy", f"{text_at(status, 'redundancy')}, {level}")
    if status.get("maintenance"):
        yield labelled("maintenance", "on: no automatic role change", alarming=True)
    yield from _readiness_lines(part(status, "readiness"))
    notices = status.get("notices")
    for notice in notices if isinstance(notices, list) else []:
        yield labelled("notice", str(notice), alarming=True)


def _readiness_lines(readiness: Mapping[str, Any]) -> Iterator[Line]:
    ready = readiness.get("ready") is True
    reasons = readiness.get("reasons")
    if ready:
        yield labelled("failover", "would work right now")
    else:
        yield labelled("failover", "would NOT work right now", alarming=True)
    sentences = list(reasons) if isinstance(reasons, Sequence) and not isinstance(reasons, str) else []
    loss = readiness.get("loss")
    if loss and loss not in sentences:
        sentences.append(loss)
    for sentence in sentences:
        yield labelled("", f"- {sentence}")


def _who(node: Mapping[str, Any]) -> str:
    return f"{text_at(node, 'name')} ({text_at(node, 'mode')}) is {text_at(node, 'role')}"


def _link(link: Mapping[str, Any], now: datetime) -> str:
    text = text_at(link, "state")
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
        return f"{text_at(peer, 'name')}, not connected, last known term {text_at(peer, 'term')}"
    text = f"{_who(peer)}, term {text_at(peer, 'term')}"
    if peer.get("agent_version"):
        text += f", agent {peer['agent_version']}"
    if peer.get("workload_version"):
        text += f", workload {peer['workload_version']}"
    return text


def _workload(workload: Mapping[str, Any]) -> str:
    text = text_at(workload, "state")
    if workload.get("pid") is not None:
        text += f", process {workload['pid']}"
    if workload.get("restarts"):
        text += f", restarted {workload['restarts']} times"
    if workload.get("last_error") and workload.get("state") != "running":
        text += f": {workload['last_error']}"
    return text


def _since(described: Mapping[str, Any], now: datetime) -> str:
    since = described.get("since")
    if not isinstance(since, str):
        return ""
    age = age_at(described, "since", now)
    return f", since {since}" if age is None else f", for {age}"
