"""`pair-agent interfaces`: the addresses of this node."""

from __future__ import annotations

import json

import click

from agent.cli import unused_config_option


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of {name, address, family, up}.")
@unused_config_option
def interfaces(as_json: bool) -> None:
    """List the addresses of this node, for [server] interface.

    \b
    Example:
      pair-agent interfaces
      pair-agent interfaces --json
    """
    from agent.config.local_addresses import node_addresses

    addresses = node_addresses()
    if as_json:
        rows = [{"name": a.name, "address": a.address, "family": a.family, "up": a.up} for a in addresses]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max((len(a.address) for a in addresses), default=0)
    for a in addresses:
        click.echo(f"{a.address:<{width}}  {a.family}  {'up  ' if a.up else 'down'}  {a.name}")
