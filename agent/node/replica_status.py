"""The trees as `status --json` shows them: made from memory, at once."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.core.bulk_messages import Progress

if TYPE_CHECKING:
    from agent.node.replica_session import Session
    from agent.node.replica_work import Work

REFUSED_SHOWN = 20


def snapshot(work: Work) -> dict[str, Any]:
    """Returns the tables `trees`, `sync` and `archive` of the status."""
    session = work.session
    trees = [_tree(work, session, name) for name in work.local.trees]
    items, size = work.archive_totals
    return {
        "trees": trees,
        "sync": _sync(work, session, trees),
        "archive": {"items": items, "bytes": size, "conflicts": work.conflicts},
        "free_bytes": _standby_free(work, session),
    }


def _standby_free(work: Work, session: Session | None) -> int | None:
    """Returns the least free space on the node that receives."""
    if session is not None and session.source.serving:
        return session.source.free_bytes
    return min(work.free_bytes().values(), default=None)


def _tree(work: Work, session: Session | None, name: str) -> dict[str, Any]:
    tree = work.local.trees[name]
    refused = [{"path": _text(each.path), "reason": each.reason} for each in tree.refused[:REFUSED_SHOWN]]
    refused_total, error, last_sync, lag_ms, lag_bytes = tree.refused_count, tree.problem, None, None, None
    state = "unknown" if not tree.scanned else "waiting"
    following = None if session is None else session.sink.trees.get(name)
    if following is not None and session is not None:
        refused += [{"path": path, "reason": reason} for path, reason in following.refused[:REFUSED_SHOWN]]
        refused_total += following.refused_total
        error = following.problem or error
        last_sync = None if following.last_sync_ms is None else _iso(following.last_sync_ms)
        copying = session.sink.copying == name
        state = "copying" if copying else "in-sync" if following.rounds else "comparing"
        lag_ms, lag_bytes = (0, 0) if state == "in-sync" else (None, None)
    elif session is not None and session.source.serving:
        lag_ms, in_sync = session.source.lag(name)
        lag_bytes = session.source.lag_bytes(name)
        state = "in-sync" if in_sync else "behind" if session.source.in_sync else "copying"
        last = session.source.last_applied_ms(name)
        last_sync = None if last is None else _iso(last)
        if trouble := session.source.trouble(name):
            error = error or f"the other node cannot take it: {trouble}"
        refused += [{"path": path, "reason": reason} for path, reason in session.source.refused(name)[:REFUSED_SHOWN]]
        refused_total += len(session.source.refused(name))
    if error and not (following is None and not tree.scanned):
        state = "failed"
    return {
        "name": name,
        "kind": tree.kind.value,
        "state": state,
        "files": tree.files,
        "bytes": tree.size,
        "lag_ms": lag_ms,
        "lag_bytes": lag_bytes,
        "last_sync": last_sync,
        "refused": refused[:REFUSED_SHOWN],
        "refused_total": refused_total,
        "error": error,
    }


def _sync(work: Work, session: Session | None, trees: list[dict[str, Any]]) -> dict[str, Any]:
    failed = next((tree for tree in trees if tree["state"] == "failed"), None)
    error = "" if failed is None else f"tree {failed['name']}: {failed['error']}"
    status: dict[str, Any] = {
        "state": "waiting",
        "round": work.round,
        "direction": None,
        "done_bytes": 0,
        "total_bytes": 0,
        "done_files": 0,
        "total_files": 0,
        "seconds_left": None,
        "rate": None,
        "compressing": False,
        "error": error or ("" if session is not None else work.bulk.problem if work.bulk.link else ""),
    }
    if session is None:
        return status
    progress: Progress | None = None
    states = {tree["state"] for tree in trees}
    if session.sink.following:
        status["direction"] = "from-peer"
        progress = session.sink.progress
        in_sync = session.sink.complete_term is not None and states <= {"in-sync", "copying"}
    elif session.source.serving:
        status["direction"] = "to-peer"
        progress = None if session.source.in_sync else session.peer_progress
        in_sync = session.source.in_sync
    else:
        return status
    status["state"] = "failed" if failed else "in-sync" if in_sync else "copying" if progress else "comparing"
    statistics = session.stream.statistics
    status["compressing"] = statistics.compressing
    status["rate"] = round(statistics.bytes_per_second) or None
    if progress is not None:
        status["done_bytes"], status["total_bytes"] = progress.done_bytes, progress.total_bytes
        status["done_files"], status["total_files"] = progress.done_files, progress.total_files
        left = session.left_s(progress)
        status["seconds_left"] = None if left is None else round(left)
    return status


def _text(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _iso(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Pace:
    """Estimates how long a round still takes, from how far it came."""

    def __init__(self) -> None:
        self._total = (-1, -1)
        self._began = 0.0

    def left_s(self, progress: Progress) -> float | None:
        """Returns seconds; None: too early to tell."""
        total = (progress.total_files, progress.total_bytes)
        if total != self._total:
            self._total, self._began = total, time.monotonic()
        spent = time.monotonic() - self._began
        shares = [
            done / whole
            for done, whole in (
                (progress.done_bytes, progress.total_bytes),
                (progress.done_files, progress.total_files),
            )
            if whole
        ]
        share = min(shares, default=0.0)
        return spent / share - spent if share > 0.01 and spent > 0.5 else None
