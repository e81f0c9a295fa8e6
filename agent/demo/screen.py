"""Where the demo is seen: both nodes live on a terminal, plain lines elsewhere.

Knows nothing of what happens; it is told. What was said stays on the screen, the live part beneath it goes at the end.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from agent.admin.printable import printable
from agent.core.vocabulary import Role
from agent.demo.result import Result
from agent.platform.clock import boottime_ns

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

_STAGE_WIDTH = 11


@dataclass(frozen=True)
class NodeView:
    """One node as it is seen now: `status` as its API gives it, None while it does not answer; `files` in its tree."""

    name: str
    mode: str
    running: bool
    status: Mapping[str, Any] | None
    files: int

    def word(self, *keys: str) -> str:
        """A value of the status by its keys, "-" where there is none."""
        value: Any = self.status
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return "-" if value is None else printable(str(value))


class Screen:
    """Plain lines, one for each thing that happened, with the seconds since the start."""

    def __init__(self) -> None:
        self._began_ns = boottime_ns()

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def say(self, stage: str, sentence: str, *, alarming: bool = False) -> None:
        """Adds one line that stays."""
        line = f"{self._seconds():5.1f} s  {stage:<{_STAGE_WIDTH}} {printable(sentence)}"
        click.echo(click.style(line, fg="yellow") if alarming else line)

    def show(self, views: Sequence[NodeView], doing: str) -> None:
        """Shows how the nodes are now, where that can be shown."""

    def close(self) -> None:
        """Ends the live part; called again it does nothing."""

    def show_result(self, result: Result) -> None:
        """Adds the table and the verdict."""
        width = max(len(label) for label, _ in result.rows)
        click.echo("")
        for label, value in result.rows:
            click.echo(f"  {label:<{width}}  {value}")
        click.echo("")
        click.echo(result.verdict)

    def _seconds(self) -> float:
        return (boottime_ns() - self._began_ns) / 1e9


class LiveScreen(Screen):
    """The same lines on a terminal, with both nodes beneath them as they are now."""

    def __init__(self, console: Console) -> None:
        from rich.spinner import Spinner

        super().__init__()
        self._console = console
        self._spinner = Spinner("line", style="cyan")
        self._live: Live | None = None

    def say(self, stage: str, sentence: str, *, alarming: bool = False) -> None:
        from rich.text import Text

        line = Text(f"{self._seconds():5.1f} s  ", style="dim")
        line.append(f"{stage:<{_STAGE_WIDTH}} ", style="bold red" if alarming else "bold cyan")
        line.append(printable(sentence), style="yellow" if alarming else "default")
        self._console.print(line)

    def show(self, views: Sequence[NodeView], doing: str) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self._picture(views, doing), refresh=True)

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError):  # a terminal that has gone
                live.stop()

    def show_result(self, result: Result) -> None:
        from rich.table import Table

        table = Table("measured", "", title=None, show_header=False)
        for label, value in result.rows:
            table.add_row(label, value)
        self._console.print()
        self._console.print(table)
        self._console.print(result.verdict, style="bold green" if result.worked else "bold red", markup=False)

    def _picture(self, views: Sequence[NodeView], doing: str) -> Group:
        from rich.console import Group
        from rich.table import Table

        table = Table("node", "mode", "role", "term", "link", "application", "files", "trees")
        for view in views:
            table.add_row(*self._cells(view))
        self._spinner.update(text=f" {doing}   (Ctrl-C ends and cleans up)")
        return Group("", table, self._spinner)

    @staticmethod
    def _cells(view: NodeView) -> Iterator[str]:
        role = view.word("role")
        colour = {Role.ACTIVE.value: "bold green", Role.STANDBY.value: "cyan"}.get(role, "yellow")
        yield f"[bold]{view.name}[/]"
        yield view.mode
        if view.running:
            yield f"[{colour}]{role}[/]" if view.status is not None else "[yellow]starting[/]"
        else:
            yield "[bold red]dead[/]"
        yield view.word("term")
        round_trip = view.word("link", "rtt_ms")
        yield view.word("link", "state") + (f", {round_trip} ms" if round_trip != "-" else "")
        yield view.word("workload", "state")
        yield str(view.files)
        yield view.word("sync", "state")


def make_screen() -> Screen:
    """Returns the live screen on a terminal that can show it, else the plain one."""
    if sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        if console.is_terminal and not console.is_dumb_terminal:
            return LiveScreen(console)
    return Screen()
