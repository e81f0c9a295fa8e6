"""Watching a running agent: the status again and again, the events as they come, the progress of a handover.

Survives the agent being restarted, and says so. Ends when interrupted. Knows how to show, not what anything means.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from agent.admin.printable import printable
from agent.cli.client import AgentClient
from agent.cli.lines import Line
from agent.cli.live_view import render_event, render_status, summarize
from agent.core.errors import ApiError

POLL_INTERVAL_S = 1.0
PROGRESS_INTERVAL_S = 0.3
EVENT_WAIT_MS = 20_000
EVENTS_AT_ONCE = 1000
ACTION_TIMEOUT_S = 300.0


def watch_status(client: AgentClient, *, as_json: bool) -> None:
    """Shows the status until interrupted: in place on a terminal, else one line for each change."""
    status = client.get_object("/v1/status")
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            _watch_as_json(client, status)
        elif sys.stdout.isatty():
            _watch_in_place(client, status)
        else:
            _watch_as_lines(client, status)


def follow_events(client: AgentClient, *, after: int, as_json: bool) -> None:
    """Prints events with a number above `after` as they come, until interrupted."""
    absent = False
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                events = client.get_events(
                    f"after={after}&limit={EVENTS_AT_ONCE}&wait_ms={EVENT_WAIT_MS}",
                    timeout_s=EVENT_WAIT_MS / 1000 + 5,
                )
            except ApiError as error:
                if error.agent_running:
                    raise
                if not absent:
                    click.echo("The agent does not answer any more; waiting for it.", err=True)
                absent = True
                time.sleep(POLL_INTERVAL_S)
                continue
            if absent:
                click.echo("The agent answers again.", err=True)
                absent = False
            for event in events:
                print_event(event, as_json=as_json)
                after = event["sequence"]


def print_event(event: Mapping[str, Any], *, as_json: bool) -> None:
    """One event on one line."""
    click.echo(json.dumps(event) if as_json else render_event(event))


def act_with_progress(client: AgentClient, path: str) -> Any:
    """Posts to `path` and prints the events that come meanwhile to standard error; the answer, or ApiError."""
    newest = client.get_events("limit=1")
    after = newest[-1]["sequence"] if newest else 0
    outcome: list[Any] = []
    failure: list[Exception] = []

    def post() -> None:
        try:
            outcome.append(client.post(path, {}, timeout_s=ACTION_TIMEOUT_S))
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(PROGRESS_INTERVAL_S)
            after = _print_new_events(client, after)
    except KeyboardInterrupt:
        click.echo("The agent goes on with it; `pair-agent status --watch` shows how.", err=True)
        raise
    _print_new_events(client, after)
    if failure:
        raise failure[0]
    return outcome[0]


def print_sentence(answer: Any) -> None:
    """What the agent says it did."""
    click.echo(printable(str(answer.get("sentence", "Done."))))


def print_lines(lines: list[Line]) -> None:
    """Lines of a view, the alarming ones in yellow where there are colours."""
    for line in lines:
        click.echo(click.style(line.text, fg="yellow") if line.alarming else line.text)


def _print_new_events(client: AgentClient, after: int) -> int:
    # Progress only: if it fails, the action's own answer says what is the matter.
    with contextlib.suppress(ApiError):
        for event in client.get_events(f"after={after}&limit={EVENTS_AT_ONCE}"):
            click.echo(render_event(event), err=True)
            after = event["sequence"]
    return after


def _next_status(client: AgentClient) -> dict[str, Any] | None:
    """The status after the next interval, None if no agent answers."""
    time.sleep(POLL_INTERVAL_S)
    try:
        return client.get_object("/v1/status")
    except ApiError as error:
        if error.agent_running:
            raise
        return None


def _watch_as_json(client: AgentClient, status: dict[str, Any] | None) -> None:
    while True:
        if status is not None:
            click.echo(json.dumps(status))
        status = _next_status(client)


def _watch_as_lines(client: AgentClient, status: dict[str, Any] | None) -> None:
    shown = ""
    while True:
        line = "the agent does not answer; waiting for it" if status is None else summarize(status)
        if line != shown:
            click.echo(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}  {line}")
            shown = line
        status = _next_status(client)


def _watch_in_place(client: AgentClient, status: dict[str, Any] | None) -> None:
    from rich.live import Live
    from rich.text import Text

    lines: list[Line] = []
    with Live(auto_refresh=False, screen=False) as live:
        while True:
            now = datetime.now(UTC)
            if status is None:
                first = Line(
                    f"{now:%H:%M:%SZ}  The agent does not answer; waiting for it. It last said:", alarming=True
                )
            else:
                first = Line(f"{now:%H:%M:%SZ}  Ctrl-C ends.")
                lines = render_status(status, now)
            view = Text()
            for line in [first, *lines]:
                view.append(line.text + "\n", style="yellow" if line.alarming else "")
            live.update(view, refresh=True)
            status = _next_status(client)
