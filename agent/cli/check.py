"""`pair-agent check`: everything that is wrong, before the agent runs."""

from __future__ import annotations

import os
from pathlib import Path

import click

from agent.cli import config_option


@click.command()
@config_option
@click.pass_context
def check(ctx: click.Context, config_path: Path | None) -> None:
    """Look at the configuration, certificates, ports, permissions and clock: all findings at once.

    Changes nothing. The exit code is 2 if there is an error; warnings do not count.

    \b
    Example:
      pair-agent check
      pair-agent check --config /etc/pair-agent/agent.toml
    """
    from agent.config.inspection import inspect_node
    from agent.config.load import find_config_path
    from agent.config.results import Level

    colours = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}
    counts = dict.fromkeys(Level, 0)
    for result in inspect_node(find_config_path(config_path, os.environ), os.environ):
        counts[result.level] += 1
        click.echo(f"{click.style(f'{result.level.value:<7}', fg=colours[result.level])}  {result.sentence}")
    errors, warnings = counts[Level.ERROR], counts[Level.WARNING]
    click.echo(f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    if errors:
        ctx.exit(2)
