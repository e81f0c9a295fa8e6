"""`pair-agent sync` and `pair-agent test sync`: the trees synchronised now, or what that would do and need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from agent.admin.printable import printable
from agent.cli import config_option, json_option
from agent.cli.client import ActionRefusedError, AgentClient, client_for
from agent.cli.lines import number_at, objects, part, text_at
from agent.cli.live_follow import print_lines
from agent.cli.sync_follow import ask_with_progress, follow_sync
from agent.cli.sync_view import render_changes, render_checks, render_outcome
from agent.core.errors import ConfigurationError, PairAgentError
from agent.core.vocabulary import SyncState

START_TIMEOUT_S = 60.0


@click.command()
@config_option
@click.option("--full", is_flag=True, help="Compare the contents of all files, not only sizes and times; slow.")
@click.option("--dry-run", is_flag=True, help="Say what would change and what would go to the archive; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: machine-readable; the keys are stable.")
def sync(config_path: Path | None, full: bool, dry_run: bool, as_json: bool) -> None:
    """Synchronise the trees now, on either node, and show the progress until they are in sync.

    The node whose trees are newer is copied to the other; what would be lost there goes to the archive. The agents do
    this by themselves whenever it is needed. Ctrl-C ends the view, not the synchronisation.

    \b
    Example:
      pair-agent sync
      pair-agent sync --full          also finds contents that changed without a trace
      pair-agent sync --dry-run
    """
    if full and dry_run:
        raise click.UsageError("--dry-run compares sizes, times and known contents; give it without --full.")
    if as_json and not dry_run:
        raise click.UsageError("--json belongs to --dry-run; `pair-agent status --json` shows the progress.")
    client = client_for(config_path)
    _refuse_without_trees(client)
    if dry_run:
        _show_dry_run(client, as_json)
        return
    answer = client.post("/v1/sync", {"full": full}, timeout_s=START_TIMEOUT_S)
    click.echo(printable(text_at(answer, "sentence")), err=True)
    status = follow_sync(client, number_at(part(answer, "details"), "round"))
    _show_outcome(status)


@click.command("sync")
@config_option
@json_option
@click.pass_context
def sync_test(ctx: click.Context, config_path: Path | None, as_json: bool) -> None:
    """Tell whether a synchronisation would succeed: connects, compares, looks at permissions and free space.

    Changes nothing. The exit code is 0 only if it would succeed.

    \b
    Example:
      pair-agent test sync
    """
    client = client_for(config_path)
    _refuse_without_trees(client)
    try:
        answer = ask_with_progress(client, "/v1/test/sync", "Testing the synchronisation")
        details, sentence, done = part(answer, "details"), text_at(answer, "sentence"), True
    except ActionRefusedError as refused:
        if not objects(refused.details, "checks"):
            raise
        details, sentence, done = refused.details, str(refused), False
    done = done and all(check.get("ok") is True for check in objects(details, "checks"))
    if as_json:
        report = {"ok": done, "sentence": sentence, "checks": objects(details, "checks")}
        click.echo(json.dumps(report, indent=2))
    else:
        print_lines(render_checks(details))
        click.echo(printable(sentence))
    if not done:
        ctx.exit(1)


def _refuse_without_trees(client: AgentClient) -> None:
    if client.get_object("/v1/status").get("trees") == []:
        raise ConfigurationError(
            [
                f"The agent has no trees, so there is nothing to synchronise. Add a [[tree]] to {client.target.config} "
                "on both nodes, let `pair-agent check` look at it, and restart the agents."
            ]
        )


def _show_dry_run(client: AgentClient, as_json: bool) -> None:
    answer = ask_with_progress(client, "/v1/sync/dry-run", "Comparing the trees of both nodes")
    details = part(answer, "details")
    if as_json:
        click.echo(json.dumps(details, indent=2))
        return
    sentence = printable(str(answer.get("sentence") or ""))
    print_lines(render_changes(details, sentence))


def _show_outcome(status: dict[str, Any]) -> None:
    synchronisation = part(status, "sync")
    if synchronisation.get("state") == SyncState.IN_SYNC.value:
        print_lines(render_outcome(status))
        return
    error = synchronisation.get("error")
    why = printable(str(error)) if error else "`pair-agent events` says why."
    raise PairAgentError(f"Synchronisation failed: {why}")
