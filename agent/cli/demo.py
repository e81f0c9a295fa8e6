"""`pair-agent demo`: a whole pair on this machine, a failover and the way back, before your eyes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agent.cli.client import AgentClient

ASK_TIMEOUT_S = 1.0


@click.command()
@click.option("--keep", is_flag=True, help="Leave the pair running, and print how to talk to it.")
@click.option(
    "--stop",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="End a pair that was kept, or whose demo was killed, and remove its folder.",
)
@click.pass_context
def demo(ctx: click.Context, keep: bool, folder: Path | None) -> None:
    """Run a pair on this machine: two agents link up over TLS, the active one is killed, the backup takes over.

    Then the primary comes back and gets the role back. The protected application writes readings to disk all the
    while, and what is measured at the end is measured from them. Takes less than a minute, needs no rights and no
    configuration, listens on the loopback interface only and leaves nothing behind, also after Ctrl-C.

    The exit code is 0 only if takeover and switchback were seen and no two applications ran at once.

    \b
    Example:
      pair-agent demo
      pair-agent demo --keep
    """
    if folder is not None:
        if keep:
            raise click.UsageError("--keep leaves a new pair running, --stop ends a former one: use one of them.")
        _stop(folder)
        return
    from agent.demo.run import run_demo
    from agent.demo.screen import make_screen

    ctx.exit(run_demo(_ask, make_screen(), keep=keep))


def _stop(folder: Path) -> None:
    from agent.demo.interruption import Interruption
    from agent.demo.premises import stop_kept

    with Interruption() as interruption:
        stop_kept(folder, interruption.hurry_after())
    click.echo(f"Both agents are stopped, {folder} is removed.")


def _ask(config_path: Path, path: str) -> Any:
    return _client(config_path).get(path, timeout_s=ASK_TIMEOUT_S)


@cache
def _client(config_path: Path) -> AgentClient:
    from agent.cli.client import AgentClient, find_target

    # The user's environment is about another agent.
    return AgentClient(find_target(config_path, {}))
