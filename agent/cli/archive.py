"""`pair-agent archive`: what gave way to the other node's version, listed and brought back."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agent.admin.printable import printable
from agent.admin.quantities import listed, size_text
from agent.cli import config_option, json_option
from agent.cli.archive_selection import (
    Filters,
    Found,
    Restoration,
    find_items,
    nearest_tree,
    newest_of_each,
    plan_restore,
    time_of,
    trees_written,
)
from agent.cli.client import ActionRefusedError, AgentClient, client_for
from agent.cli.lines import count_at, objects, plural, size_at, text_at
from agent.cli.live_follow import print_sentence
from agent.cli.progress import shown_progress
from agent.core.errors import ApiError, PairAgentError
from agent.core.vocabulary import Role

RESTORE_TIMEOUT_S = 600.0
SHOWN_BEFORE_ASKING = 10
LINE_CHARACTERS_MAX = 4000  # a path may appear twice in it, the second time within the id
_STEP = 100  # restored items that deserve a line where there is no terminal


def _moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return time_of(value, datetime.now(UTC))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no time; allowed is 90m, 2h, 3d (ago), 2025-03-01 or 2025-03-01T10:00:00Z"
        ) from None


def _filter_options(function: Any) -> Any:
    for option in (
        click.option("--since", callback=_moment, metavar="TIME", help="Archived since: 90m, 2h, 3d (ago), or a time."),
        click.option("--path", "pattern", metavar="PATTERN", help='Paths in the tree that match, such as "*.json".'),
        click.option("--tree", metavar="NAME", help="What was in this tree."),
    ):
        function = option(function)
    return function


@click.group()
def archive() -> None:
    """Show and bring back what this node alone had, and what gave way to the other node's version.

    \b
    Example:
      pair-agent archive list
      pair-agent archive restore ID
    """


@archive.command("list")
@config_option
@json_option
@_filter_options
def list_items(
    config_path: Path | None, as_json: bool, tree: str | None, pattern: str | None, since: datetime | None
) -> None:
    """List what is in this node's archive. The other node has its own.

    \b
    Example:
      pair-agent archive list
      pair-agent archive list --tree flows --path "*.json" --since 2h
    """
    client = client_for(config_path)
    filters = Filters(tree, pattern, since)
    found = _found(client, filters)
    if as_json:
        click.echo(json.dumps({"items": list(found.items), "bytes": found.size_bytes, "more": found.more}, indent=2))
        return
    if not found.items:
        click.echo("The archive is empty: nothing gave way that this node alone had.")
        return
    for item in found.items:
        click.echo(_item_line(item))
    click.echo(
        f"{plural(len(found.items) + found.more, 'item')}, {size_text(found.size_bytes)}. "
        "`pair-agent archive restore ID` brings one back."
    )
    if found.more:
        click.echo(f"{found.more} of them are not shown; narrow it with --tree, --path or --since.")


@archive.command()
@config_option
@json_option
@_filter_options
@click.option("--to", metavar="PATH", help="Write there: the file itself, or a folder for several; made if needed.")
@click.option("--yes", is_flag=True, help="Do not ask before writing into a tree.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.pass_context
def restore(
    ctx: click.Context,
    config_path: Path | None,
    as_json: bool,
    tree: str | None,
    pattern: str | None,
    since: datetime | None,
    to: str | None,
    yes: bool,
    ids: tuple[str, ...],
) -> None:
    """Bring items back: where they were, or elsewhere with --to. What stands there goes to the archive first.

    Choose by ID, or by --tree, --path and --since: then of each path the version that was archived last.

    \b
    Example:
      pair-agent archive restore ID
      pair-agent archive restore ID --to /tmp/flows-as-it-was.json
      pair-agent archive restore --tree flows --since 2h --to /tmp/before-the-overwrite
      pair-agent archive restore --tree flows --path "lib/*" --yes
    """
    filters = Filters(tree, pattern, since)
    if bool(ids) == (not filters.is_empty):
        raise click.UsageError(
            "Say what to restore: either IDs (`pair-agent archive list` shows them), or --tree, --path, --since."
        )
    if to == "":
        raise click.UsageError("--to is empty; name a file or a folder.")
    client = client_for(config_path)
    found = _found(client, filters)
    if found.more and not ids:
        raise PairAgentError(
            f"{found.more + len(found.items)} items are too many at once; narrow it with --tree, --path or --since."
        )
    items = _named(found, ids) if ids else newest_of_each(found.items)
    plan = plan_restore(items, to)
    if not yes:
        _ask(client, plan, older=0 if ids else len(found.items) - len(items))
    done, failed = _restore(client, plan, as_json)
    if as_json:
        click.echo(json.dumps({"restored": done, "failed": failed}, indent=2))
    if failed:
        ctx.exit(1)


def _found(client: AgentClient, filters: Filters) -> Found:
    """What matches; nothing at all is an error if something was asked for."""
    found = find_items(client, filters)
    if found.items or filters.is_empty:
        return found
    if filters.tree is not None:
        known = {text_at(tree, "name") for tree in objects(client.get_object("/v1/status"), "trees")}
        if filters.tree not in known:
            known |= {text_at(item, "tree") for item in find_items(client, Filters()).items}
            if filters.tree not in known:
                raise click.BadParameter(nearest_tree(filters.tree, known), param_hint="'--tree'")
    raise PairAgentError("Nothing in the archive matches; `pair-agent archive list` shows all of it.")


def _named(found: Found, ids: tuple[str, ...]) -> list[dict[str, Any]]:
    by_id = {text_at(item, "id"): item for item in found.items}
    unknown = [identity for identity in ids if identity not in by_id]
    if unknown:
        raise PairAgentError(
            printable(f"The archive has no item {listed(unknown)}; `pair-agent archive list` shows the IDs.")
        )
    return [by_id[identity] for identity in dict.fromkeys(ids)]


def _ask(client: AgentClient, plan: list[Restoration], *, older: int) -> None:
    """Asks before anything is written into a tree. Raises PairAgentError if the answer is no."""
    trees = trees_written(plan, client.target.trees)
    if not trees:
        return
    for restoration in plan[:SHOWN_BEFORE_ASKING]:
        click.echo(_item_line(restoration.item), err=True)
    if len(plan) > SHOWN_BEFORE_ASKING:
        click.echo(f"and {len(plan) - SHOWN_BEFORE_ASKING} more", err=True)
    if older:
        click.echo(f"{plural(older, 'older version')} of these paths stay in the archive.", err=True)
    names = printable(f"{'trees' if len(trees) > 1 else 'tree'} {listed(trees)}")
    if client.get_object("/v1/status").get("role") == Role.ACTIVE.value:
        concern = f"This node is active: the workload may be using the {names} at this moment."
    else:
        concern = (
            f"This node is not active: what is written into the {names} here is replaced by the next synchronisation. "
            "Restore on the active node, or elsewhere with --to."
        )
    click.echo(concern, err=True)
    if sys.stdin is None or not sys.stdin.isatty():
        raise PairAgentError("There is nobody to ask. Repeat with --yes to write there, or with --to PATH elsewhere.")
    if not click.confirm(f"Write {plural(len(plan), 'file')} into the {names}?", err=True):
        raise PairAgentError("Not restored; nothing changed.")


def _restore(
    client: AgentClient, plan: list[Restoration], as_json: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    answer: dict[str, Any] = {}
    with shown_progress() as show:
        for number, restoration in enumerate(plan, start=1):
            item, to = restoration.item, None if restoration.to is None else str(restoration.to)
            told = {"id": item.get("id"), "tree": item.get("tree"), "path": item.get("path"), "to": to}
            if len(plan) > 1:
                show(f"restoring {number} of {len(plan)}", f"{number // _STEP}")
            try:
                answer = client.post(
                    "/v1/archive/restore", {"item": item.get("id"), "to": to}, timeout_s=RESTORE_TIMEOUT_S
                )
            except ActionRefusedError as refused:
                failed.append({**told, "sentence": str(refused)})
            except ApiError as error:
                raise ApiError(
                    f"{error} {number - 1} of {len(plan)} were restored before.", agent_running=error.agent_running
                ) from error
            else:
                done.append(told)
    for failure in failed:
        click.echo(f"{_place(failure)}: {failure['sentence']}", err=True)
    if not as_json and done:
        if len(plan) == 1:
            print_sentence(answer)
        else:
            size = sum(count_at(restoration.item, "size") for restoration in plan)
            click.echo(f"Restored {len(done)} of {len(plan)}" + ("." if failed else f", {size_text(size)}."))
    return done, failed


def _place(item: Any) -> str:
    path = item.get("path")
    return printable(f"{text_at(item, 'tree')}: {path}" if path else text_at(item, "tree"))


def _item_line(item: Any) -> str:
    when, reason = f"{text_at(item, 'archived_at'):<24}", f"{text_at(item, 'reason'):<10}"
    line = f"{when}  {reason} {size_at(item, 'size'):>10}  {_place(item)}  [{text_at(item, 'id')}]"
    return printable(line, characters_max=LINE_CHARACTERS_MAX)
