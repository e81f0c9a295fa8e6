"""How long work shows itself: in place on a terminal, else a line at each step; always on standard error.

Knows nothing of what is shown. A line that would only repeat the one before is left out.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

Show = Callable[[str, str], None]  # what it looks like now, and the coarse step that deserves a line of its own


@contextlib.contextmanager
def shown_progress() -> Iterator[Show]:
    """Gives the function that shows progress until the block ends; on a terminal the last state stays there."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(stderr=True), auto_refresh=False) as live:
            yield lambda text, step: live.update(Text(text), refresh=True)
        return
    said = ""

    def say(text: str, step: str) -> None:
        nonlocal said
        if step != said:
            click.echo(text, err=True)
            said = step

    yield say
