"""The command line: a table of commands, each in a module that is imported when the command is used.

Commands hold no logic: they read arguments, ask the part that knows, and print. A command fails by raising; what a
user sees of that, and the exit code, is decided in `agent.__main__`. Nothing heavy is imported here, so that
`--version` and `--help` answer at once.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from agent import __version__

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class LazyCommand:
    """Where a command lives ("module:attribute") and what it does, in the words of the overview."""

    target: str
    summary: str


COMMANDS = {
    "init": LazyCommand("agent.cli.init:init", "Write a key, a certificate and a commented agent.toml"),
    "cert": LazyCommand("agent.cli.cert:cert", "Show this node's own certificate, ready to copy"),
    "trust": LazyCommand("agent.cli.trust:trust", "Trust the other node's certificate"),
    "check": LazyCommand("agent.cli.check:check", "Find everything that is wrong before the agent runs"),
    "run": LazyCommand("agent.cli.run:run", "Run the agent in the foreground"),
    "status": LazyCommand("agent.cli.live:status", "Show what is going on"),
    "readiness": LazyCommand("agent.cli.live:readiness", "Tell whether failover would work right now"),
    "failover": LazyCommand("agent.cli.live:failover", "Hand the active role to the other node"),
    "failback": LazyCommand("agent.cli.live:failback", "Hand the active role back to the primary"),
    "maintenance": LazyCommand("agent.cli.live:maintenance", "Switch automatic role changes off or on"),
    "events": LazyCommand("agent.cli.live:events", "Show what happened"),
    "test": LazyCommand("agent.cli.live:test", "Test the live link or the synchronisation, changing nothing"),
    "sync": LazyCommand("agent.cli.sync:sync", "Synchronise the trees now, or say what that would change"),
    "archive": LazyCommand("agent.cli.archive:archive", "Show and bring back what synchronisation replaced"),
    "interfaces": LazyCommand("agent.cli.interfaces:interfaces", "List the addresses of this node"),
    "key": LazyCommand("agent.cli.key:key", "Make a strong pre-shared key"),
    "demo": LazyCommand("agent.cli.demo:demo", "Run a whole pair on this machine"),
}


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else "; `pair-agent --help` lists the commands."
            ctx.fail(f"no command is called {name!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


def config_option(function: F) -> F:
    """Adds --config to a command; the function gets it as `config_path`, a Path or None (then the usual places)."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The agent.toml to use. Without it: PAIR_AGENT_CONFIG, ./agent.toml, the platform's place.",
    )(function)


def json_option(function: F) -> F:
    """Adds --json to a command; the function gets it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Machine-readable; the keys are stable.")(function)


def unused_config_option(function: F) -> F:
    """Adds --config to a command that reads no agent.toml, so that scripts can give it to all alike."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        help="Taken as by the other commands; this one reads no agent.toml.",
    )(function)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `pair-agent init --help`, or see it all work with `pair-agent demo`.",
)
@click.version_option(__version__, prog_name="pair-agent")
def cli() -> None:
    """Redundancy for any application: one agent on each of two nodes.

    The agents decide which node is active, start the protected application there and stop it on the other, and keep
    its files the same on both.

    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 agent not running.
    """
