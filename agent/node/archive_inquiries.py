"""What an operator asks of the archive: what is in it, and to have a version back. Knows no replication."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from agent.core.errors import PairAgentError
from agent.replica.archive import Archive, Item

ARCHIVE_FOLDER = "archive"  # in the state directory
ITEMS_MAX = 1_000

Outcome = tuple[bool, str, dict[str, Any]]


class ArchiveInquiries:
    """Answers for one archive."""

    def __init__(self, archive: Archive, place_of: Callable[[Item], Path]) -> None:
        """`place_of(item)` returns where a version belongs; PairAgentError if it can be put nowhere by itself."""
        self._archive = archive
        self._place_of = place_of

    async def list(self, arguments: Mapping[str, Any]) -> Outcome:
        """Returns (done, sentence, details) for `Action.ARCHIVE_LIST`."""
        return await trio.to_thread.run_sync(self._list, arguments)

    def _list(self, arguments: Mapping[str, Any]) -> Outcome:
        since, after = arguments.get("since"), arguments.get("after")
        moment = None if since is None else _moment(str(since))
        shown: list[dict[str, Any]] = []
        count = size = 0
        passed = after is None
        for item in self._archive.list(arguments.get("tree"), arguments.get("path"), moment):
            if not passed:
                passed = item.name == after
                continue
            count += 1
            size += item.size
            if len(shown) < ITEMS_MAX:
                shown.append(_shown(item))
        if not passed:
            raise PairAgentError(f"there is no {after!r} in the archive any more; list it again from its beginning")
        details = {"items": shown, "bytes": size, "more": count - len(shown)}
        return True, f"{count} versions, {size} bytes", details

    async def restore(self, arguments: Mapping[str, Any]) -> Outcome:
        """Returns (done, sentence, details) for `Action.ARCHIVE_RESTORE`."""
        return await trio.to_thread.run_sync(self._restore, str(arguments["item"]), arguments.get("to"))

    def _restore(self, name: str, to: str | None) -> Outcome:
        item = self._archive.find(name)
        target = Path(to) if to is not None else self._place_of(item)
        before = self._archive.restore(item, target)
        kept = "" if before is None else f"; what stood there is in the archive as {before.name}"
        return True, f"restored to {target}{kept}", {"to": str(target)}


def _shown(item: Item) -> dict[str, Any]:
    return {
        "id": item.name,
        "tree": item.tree,
        "path": item.path,
        "size": item.size,
        "reason": item.reason,
        "archived_at": _iso(item.archived_ms / 1000),
        "mtime": _iso(item.mtime_ns / 1e9),
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PairAgentError(f"{text!r} is no time; write it as 2026-01-31T03:00 or 2026-01-31") from None
    return (moment if moment.tzinfo else moment.astimezone()).timestamp()
