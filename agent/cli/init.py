"""`pair-agent init`: a new node's key, certificate and agent.toml, and what to do next."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from agent.core.vocabulary import Mode


@click.command()
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), required=True, help="What this node is.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default="the current folder",
    help="Where the files are written.",
)
@click.option("--name", help="This node's name.  [default: the host name]")
@click.option("--host", help="The primary's address; for a backup.")
def init(mode: str, directory: Path, name: str | None, host: str | None) -> None:
    """Write a key, a certificate and a commented agent.toml. Nothing is overwritten.

    \b
    Example:
      pair-agent init --mode primary --name line-4-a
      pair-agent init --mode backup --name line-4-b --host 192.168.10.11
    """
    from agent.config.creation import create_node

    chosen = Mode(mode)
    if host is not None and chosen is not Mode.BACKUP:
        raise click.UsageError(f"--host is the primary's address, for --mode backup; this node is {mode}.")
    node = create_node(directory, chosen, name if name is not None else socket.gethostname()[:64], host)
    click.echo(f"Configuration  {node.config_path}")
    click.echo(f"Certificate    {node.certificate_path}")
    click.echo(f"Private key    {node.key_path}  (stays on this node)")
    click.echo(f"Fingerprint    {node.fingerprint}")
    click.echo("")
    click.echo("Next:")
    for number, step in enumerate(_next_steps(chosen, node.config_path, host), start=1):
        click.echo(f"  {number}. {step}")


def _next_steps(mode: Mode, config_path: Path, host: str | None) -> list[str]:
    in_folder = "" if config_path.parent == Path.cwd() else f' --config "{config_path}"'
    steps = [f"Describe the application to protect in [workload] of {config_path}."]
    if mode is Mode.BACKUP and host is None:
        steps.insert(0, f"Set the primary's address: host in [connection] of {config_path}.")
    if mode is not Mode.STAND_ALONE:
        steps.append(f"Copy this node's certificate to the other node:  pair-agent cert show{in_folder}")
        steps.append(f"Paste the other node's certificate here:  pair-agent trust{in_folder}")
    if mode is Mode.PRIMARY:
        steps.append("Open the port of [server] in this node's firewall.")
    steps.append(f"Look for mistakes, then start:  pair-agent check{in_folder}  and  pair-agent run{in_folder}")
    return steps
