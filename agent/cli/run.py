"""`pair-agent run`: the agent, in the foreground."""

from __future__ import annotations

import logging
import os
import sys
from datetime import datetime
from pathlib import Path

import click

from agent.cli import config_option


class _LineFormatter(logging.Formatter):
    """One line a record: local time with its offset, so that the logs of two nodes can be laid side by side."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        return f"{time} {record.levelname:<7} {record.getMessage()}"


@click.command()
@config_option
@click.option(
    "--force-activate",
    is_flag=True,
    help="Become active at once, whatever the other node may hold. For the last node that is left.",
)
@click.option("--verbose", is_flag=True, help="Log details too.")
def run(config_path: Path | None, force_activate: bool, verbose: bool) -> None:
    """Run the agent in the foreground until Ctrl-C, which hands over to the other node first.

    \b
    Example:
      pair-agent run --config /etc/pair-agent/agent.toml
    """
    from agent.config.load import find_config_path, load_config
    from agent.node.run import RunOptions
    from agent.node.run import run as run_agent

    config = load_config(find_config_path(config_path, os.environ), os.environ)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    if force_activate:
        logging.getLogger("agent.node").warning(
            "--force-activate: this node becomes active now; what only the other node holds is missing here, and if "
            "the other node is active too, both run until they see each other"
        )
    run_agent(config, RunOptions(force_activate=force_activate))
