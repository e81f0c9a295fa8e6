"""The trees, their synchronisation and the archive as lines of the status: pure text.

Asks nobody and prints nothing; a missing value shows as unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from agent.admin.printable import printable
from agent.admin.quantities import age_text, size_text, span_text
from agent.cli.lines import (
    Line,
    age_at,
    count_at,
    labelled,
    number_at,
    objects,
    part,
    plural,
    size_at,
    text_at,
)
from agent.core.vocabulary import SyncDirection, SyncState, TreeState

REFUSED_SHOWN_MAX = 5  # of each tree; `status --json` has more
BAR_CHARACTERS = 20
STEP_PERCENT = 10  # of progress that is worth a line of its own where there is no terminal

_MOVING = (SyncState.COMPARING, SyncState.COPYING)
_WORDS = {SyncState.IN_SYNC.value: "in sync", TreeState.IN_SYNC.value: "in sync"}
_DIRECTIONS = {SyncDirection.TO_PEER.value: "to the other node", SyncDirection.FROM_PEER.value: "from the other node"}


def tree_lines(status: Mapping[str, Any], now: datetime) -> Iterator[Line]:
    """A line for each tree, and one for each name that is refused in it."""
    for tree in objects(status, "trees"):
        state = text_at(tree, "state")
        alarming = state in (TreeState.INCOMPLETE.value, TreeState.FAILED.value)
        yield labelled("tree", _tree(tree, now), alarming=alarming)
        refused = objects(tree, "refused")
        for each in refused[:REFUSED_SHOWN_MAX]:
            reason = text_at(each, "reason")
            yield labelled("", f"- not replicated: {text_at(each, 'path')}: {reason}", alarming=True)
        further = max(count_at(tree, "refused_total"), len(refused)) - min(len(refused), REFUSED_SHOWN_MAX)
        if further > 0:
            yield labelled("", f"- not replicated: {further} more (`pair-agent status --json`)", alarming=True)


def sync_lines(status: Mapping[str, Any]) -> Iterator[Line]:
    """Synchronisation as a whole with its progress, and the archive."""
    sync = part(status, "sync")
    state = sync.get("state")
    if state not in (None, SyncState.NONE.value):
        text = f"{_word(str(state))} {_direction(sync)}".rstrip()
        if state == SyncState.FAILED.value:
            text += f": {text_at(sync, 'error')}"
        compressing = sync.get("compressing")
        if isinstance(compressing, bool):
            text += f", compression {'on' if compressing else 'off'}"
        yield labelled("sync", text, alarming=state == SyncState.FAILED.value)
        if state in _MOVING and (progress := progress_text(sync)):
            yield labelled("", progress)
    gap_ms = number_at(sync, "last_gap_ms")
    if gap_ms is not None:
        yield labelled("handover", f"the last one left {span_text(int(gap_ms))} without a running workload")
    archive = part(status, "archive")
    if count_at(archive, "items"):
        text = f"{plural(count_at(archive, 'items'), 'item')}, {size_at(archive, 'bytes')}"
        if conflicts := count_at(archive, "conflicts"):
            text += f", {plural(conflicts, 'conflict')} (`pair-agent archive list`)"
        yield labelled("archive", text)


def progress_text(sync: Mapping[str, Any]) -> str:
    """How far a synchronisation is: a bar, bytes, files, rate and time left; "" if nothing is known of that."""
    fraction = _fraction(sync)
    if fraction is None:
        return ""
    filled = int(fraction * BAR_CHARACTERS)
    bar = "#" * filled + "-" * (BAR_CHARACTERS - filled)
    words = [f"[{bar}] {int(fraction * 100):3d} %"]
    if count_at(sync, "total_bytes"):
        words.append(f"{size_at(sync, 'done_bytes')} of {size_at(sync, 'total_bytes')}")
    if total_files := count_at(sync, "total_files"):
        words.append(f"{count_at(sync, 'done_files')} of {plural(total_files, 'file')}")
    if rate := number_at(sync, "rate"):
        words.append(f"{size_text(rate)}/s")
    seconds_left = number_at(sync, "seconds_left")
    words.append("time left not known yet" if seconds_left is None else f"{age_text(seconds_left)} left")
    return printable(", ".join(words))


def progress_step(sync: Mapping[str, Any]) -> str:
    """What is worth a line of its own: the state, and the progress in coarse steps; equal in between."""
    state = str(sync.get("state"))
    fraction = _fraction(sync)
    if state not in _MOVING or fraction is None:
        return printable(_word(state))
    return printable(f"{_word(state)} {int(fraction * 100) // STEP_PERCENT * STEP_PERCENT} %")


def sync_summary(status: Mapping[str, Any]) -> str | None:
    """Synchronisation in a few words that change when something happens; None if there is nothing to say of it."""
    sync = part(status, "sync")
    if sync.get("state") in (None, SyncState.NONE.value):
        return None
    broken = [
        f"tree {text_at(tree, 'name')} {text_at(tree, 'state')}"
        for tree in objects(status, "trees")
        if tree.get("state") in (TreeState.INCOMPLETE.value, TreeState.FAILED.value)
    ]
    return ", ".join([f"trees {progress_step(sync)}", *broken])


def _tree(tree: Mapping[str, Any], now: datetime) -> str:
    text = f"{text_at(tree, 'name')} ({text_at(tree, 'kind')}): {_word(text_at(tree, 'state'))}"
    if tree.get("files") is not None:
        text += f", {tree['files']} files, {size_at(tree, 'bytes')}"
    behind = []
    if lag_ms := count_at(tree, "lag_ms"):
        behind.append(span_text(lag_ms))
    if count_at(tree, "lag_bytes"):
        behind.append(size_at(tree, "lag_bytes"))
    if behind:
        text += f", {' and '.join(behind)} behind"
    if age := age_at(tree, "last_sync", now):
        text += f", last in sync {age} ago"
    if tree.get("error"):
        text += f": {tree['error']}"
    return text


def _fraction(sync: Mapping[str, Any]) -> float | None:
    """The part that is done, 0 to 1: of the bytes, or of the files where there is nothing to copy."""
    for unit in ("bytes", "files"):
        done, total = number_at(sync, f"done_{unit}"), number_at(sync, f"total_{unit}")
        if total is not None and total > 0:
            return min(max(0.0, (done or 0) / total), 1.0)
    return None


def _word(state: str) -> str:
    return _WORDS.get(state, state)


def _direction(sync: Mapping[str, Any]) -> str:
    direction = sync.get("direction")
    if not isinstance(direction, str) or sync.get("state") == SyncState.IN_SYNC.value:
        return ""
    return _DIRECTIONS.get(direction, direction)
