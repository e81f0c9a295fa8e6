"""Following a synchronisation that runs in the agent, and waiting for answers that take it a while.

Only looks: whatever happens here, Ctrl-C included, the agent goes on with its work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import click

from agent.admin.printable import printable
from agent.cli.client import AgentClient
from agent.cli.lines import count_at, number_at, part, text_at
from agent.cli.progress import shown_progress
from agent.cli.tree_view import progress_step, progress_text
from agent.core.errors import ApiError
from agent.core.vocabulary import SyncState

FOLLOW_INTERVAL_S = 0.3
SILENT_S = 2.0  # what is answered sooner needs no progress
SETTLE_S = 2.0  # after the order, until a status that does not move is believed
LINK_WAIT_S = 60.0  # without the other node; synchronisation then goes on by itself whenever it comes back
COMPARISON_TIMEOUT_S = 3600.0

_OVER = (SyncState.IN_SYNC.value, SyncState.FAILED.value, SyncState.NONE.value)


def follow_sync(client: AgentClient, round_number: float | None) -> dict[str, Any]:
    """Shows the progress of a round until it is over, and returns the status then.

    The status may still be that of the round before. It counts from `round_number` on where the agent tells which
    round its status is about (`sync.round`), else once something moved, or nothing has for `SETTLE_S`. Raises ApiError
    if the agent stops, or the other node stays away.
    """
    begun = time.monotonic()
    waiting_since: float | None = None
    moved = False
    try:
        with shown_progress() as show:
            while True:
                status = _status(client)
                sync = part(status, "sync")
                if sync.get("state") not in _OVER:
                    moved = True
                    show(_looks(sync), progress_step(sync))
                elif _is_of_round(sync, round_number, settled=moved or time.monotonic() - begun >= SETTLE_S):
                    return status
                waiting = sync.get("state") == SyncState.WAITING.value
                waiting_since = (waiting_since or time.monotonic()) if waiting else None
                if waiting_since is not None and time.monotonic() - waiting_since >= LINK_WAIT_S:
                    raise ApiError(_why_waiting(status), agent_running=True)
                time.sleep(FOLLOW_INTERVAL_S)
    except KeyboardInterrupt:
        click.echo("Synchronisation goes on; `pair-agent status --watch` shows it.", err=True)
        raise


def ask_with_progress(client: AgentClient, path: str, doing: str) -> dict[str, Any]:
    """Posts to `path`, and says meanwhile what is done, `doing`, and for how long; the answer, or an ApiError."""
    outcome: list[dict[str, Any]] = []
    failure: list[Exception] = []

    def ask() -> None:
        try:
            outcome.append(client.post(path, {}, timeout_s=COMPARISON_TIMEOUT_S))
        except Exception as error:
            failure.append(error)

    begun = time.monotonic()
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SILENT_S)
    if thread.is_alive():
        with shown_progress() as show:
            while thread.is_alive():
                show(f"{doing}, {int(time.monotonic() - begun)} s", doing)
                thread.join(FOLLOW_INTERVAL_S)
    if failure:
        raise failure[0]
    return outcome[0]


def _status(client: AgentClient) -> dict[str, Any]:
    try:
        return client.get_object("/v1/status")
    except ApiError as error:
        if error.agent_running:
            raise
        raise ApiError(
            f"The agent stopped answering; synchronisation goes on when it runs again. {error}", agent_running=False
        ) from error


def _why_waiting(status: Mapping[str, Any]) -> str:
    if part(status, "link").get("state") != "up":
        return (
            f"The other node has been away for {LINK_WAIT_S:g} s. Synchronisation goes on by itself when it is back; "
            "`pair-agent status --watch` shows it."
        )
    if status.get("maintenance"):
        return "Maintenance is on, so nothing is overwritten: `pair-agent maintenance off` lets it begin."
    return f"The nodes have compared nothing for {LINK_WAIT_S:g} s; `pair-agent readiness` says what is in the way."


def _is_of_round(sync: Mapping[str, Any], round_number: float | None, *, settled: bool) -> bool:
    told = number_at(sync, "round")
    return settled if told is None or round_number is None else told >= round_number


def _looks(sync: Mapping[str, Any]) -> str:
    progress = progress_text(sync)
    if not progress and (files := count_at(sync, "done_files")):
        progress = f"{files} files"
    return printable(f"{text_at(sync, 'state'):<10}{progress}".rstrip())
