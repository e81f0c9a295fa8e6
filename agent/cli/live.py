"""The commands that talk to a running agent: status, readiness, failover, failback, maintenance, events, test.

Options in, one question to the HTTP API, the answer out. Errors rise as PairAgentError; the entry point turns them
into sentences and exit codes.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from agent.cli import config_option, json_option
from agent.cli.client import ActionRefusedError, AgentClient, client_for
from agent.cli.live_follow import (
    act_with_progress,
    follow_events,
    print_event,
    print_lines,
    print_sentence,
    watch_status,
)
from agent.cli.live_view import render_readiness, render_status
from agent.cli.sync import sync_test
from agent.core.errors import ApiError

EVENTS_SHOWN = 20
EVENTS_SHOWN_MAX = 1000
HEARTBEATS_MAX = 100
HEARTBEAT_TIMEOUT_S = 60.0


@click.command()
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Keep showing it until Ctrl-C, also while the agent restarts.")
def status(config_path: Path | None, as_json: bool, watch: bool) -> None:
    """Show role, link, other node, workload, and whether failover would work right now.

    \b
    Example:
      pair-agent status --watch
    """
    client = client_for(config_path)
    if watch:
        watch_status(client, as_json=as_json)
        return
    answer = client.get_object("/v1/status")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        print_lines(render_status(answer, datetime.now(UTC)))


@click.command()
@config_option
@json_option
@click.pass_context
def readiness(ctx: click.Context, config_path: Path | None, as_json: bool) -> None:
    """Tell whether failover would work right now; the exit code is 0 only if it would.

    \b
    Example:
      pair-agent readiness && echo safe to reboot the active node
    """
    answer = client_for(config_path).get_object("/v1/readiness")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        print_lines(render_readiness(answer))
    if answer.get("ready") is not True:
        ctx.exit(1)


@click.command()
@config_option
def failover(config_path: Path | None) -> None:
    """Hand the active role to the backup node: the workload stops on one side before it starts on the other.

    \b
    Example:
      pair-agent failover
    """
    print_sentence(act_with_progress(client_for(config_path), "/v1/failover"))


@click.command()
@config_option
def failback(config_path: Path | None) -> None:
    """Hand the active role back to the primary node.

    \b
    Example:
      pair-agent failback
    """
    print_sentence(act_with_progress(client_for(config_path), "/v1/failback"))


@click.command()
@config_option
@click.argument("switch", metavar="on|off", type=click.Choice(["on", "off"]))
def maintenance(config_path: Path | None, switch: str) -> None:
    """Switch automatic role changes off (maintenance on) for work on the pair, and back on afterwards.

    \b
    Example:
      pair-agent maintenance on
    """
    print_sentence(
        client_for(config_path).post("/v1/maintenance", {"on": switch == "on"}, timeout_s=HEARTBEAT_TIMEOUT_S)
    )


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--follow", is_flag=True, help="Go on with new events until Ctrl-C, also while the agent restarts.")
@click.option(
    "--limit",
    type=click.IntRange(1, EVENTS_SHOWN_MAX),
    default=EVENTS_SHOWN,
    show_default=True,
    help="How many of the newest events to show.",
)
def events(config_path: Path | None, as_json: bool, follow: bool, limit: int) -> None:
    """Show what happened on this node, the newest last.

    \b
    Example:
      pair-agent events --follow
    """
    client = client_for(config_path)
    newest = client.get_events(f"limit={limit}")
    for event in newest:
        print_event(event, as_json=as_json)
    if follow:
        follow_events(client, after=newest[-1]["sequence"] if newest else 0, as_json=as_json)


@click.group()
def test() -> None:
    """Try something against the live other node, changing nothing.

    \b
    Example:
      pair-agent test heartbeat
      pair-agent test sync
    """


test.add_command(sync_test)


@test.command()
@config_option
@click.option("--count", type=click.IntRange(1, HEARTBEATS_MAX), default=5, show_default=True, help="How many to send.")
@click.option(
    "--pause-ms", type=click.IntRange(0, 60_000), default=200, show_default=True, help="Pause between two of them."
)
@click.pass_context
def heartbeat(ctx: click.Context, config_path: Path | None, count: int, pause_ms: int) -> None:
    """Send heartbeats to the other node and show each round trip; roles and timers stay as they are.

    \b
    Example:
      pair-agent test heartbeat --count 10
    """
    client = client_for(config_path)
    round_trips_ms: list[float] = []
    for number in range(1, count + 1):
        if number > 1:
            time.sleep(pause_ms / 1000)
        took_ms = _one_round_trip(client)
        if took_ms is None:
            click.echo(f"{number:>3}  lost")
        else:
            round_trips_ms.append(took_ms)
            click.echo(f"{number:>3}  {took_ms:.2f} ms")
    lost = count - len(round_trips_ms)
    click.echo(f"{count} sent, {len(round_trips_ms)} answered, {lost} lost.{_spread(round_trips_ms)}")
    if lost:
        ctx.exit(1)


def _one_round_trip(client: AgentClient) -> float | None:
    try:
        details = client.post("/v1/test/heartbeat", {"count": 1}, timeout_s=HEARTBEAT_TIMEOUT_S)["details"]
    except ActionRefusedError as refused:
        # With a round trip in it, the answer means that this heartbeat was lost; without, that none could be sent.
        if "round_trips_ms" not in refused.details:
            raise
        details = refused.details
    except (KeyError, TypeError):
        details = {}
    try:
        took_ms = details["round_trips_ms"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise ApiError(
            "The agent's answer has no round trip in it; the agent and this command may be of different versions.",
            agent_running=True,
        ) from error
    return None if took_ms is None else float(took_ms)


def _spread(round_trips_ms: list[float]) -> str:
    if not round_trips_ms:
        return " Nothing came back: look at the link with `pair-agent status`."
    mean_ms = sum(round_trips_ms) / len(round_trips_ms)
    return f" Shortest {min(round_trips_ms):.2f} ms, mean {mean_ms:.2f} ms, longest {max(round_trips_ms):.2f} ms."
