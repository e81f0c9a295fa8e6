"""What an operator asks about the trees: what a synchronisation would change, whether it would succeed, the archive.

Answers are plain values for the API (`agent.admin.control`). Nothing here changes a tree but a restore.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from agent.core.errors import PairAgentError
from agent.node.archive_inquiries import ArchiveInquiries, Outcome
from agent.replica.archive import Item

if TYPE_CHECKING:
    from agent.node.replica_session import Session
    from agent.node.replica_work import Work

CHANGES_MAX = 1_000
LISTING_S = 50.0
SPARE_BYTES = 64 * 1024 * 1024  # that should stay free beyond what comes over


class Inquiries:
    """Answers for one worker."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._archive = ArchiveInquiries(work.archive, self._own_place)

    async def inquire(self, what: str, arguments: Mapping[str, Any]) -> Outcome:
        """Returns (done, sentence, details). Raises PairAgentError or OSError for what cannot be answered."""
        if what == "dry-run":
            return await self._dry_run()
        if what == "test":
            return await self._test()
        if what == "archive-list":
            return await self._archive.list(arguments)
        if what == "archive-restore":
            return await self._archive.restore(arguments)
        raise PairAgentError(f"the replica worker does not know {what!r}")

    async def answer(self, what: str) -> dict[str, Any]:
        """Answers the other node."""
        if what == "dry-run":
            return await self._list_changes()
        if what == "test":
            return {"checks": await self._own_checks(), "free": self._work.free_bytes()}
        raise PairAgentError(f"this node does not know the question {what!r}; update it to the version of the other")

    # -- synchronisation

    def _session(self) -> Session:
        session = self._work.session
        if session is None:
            raise PairAgentError(f"there is no connection for the trees: {self._work.bulk.problem}")
        return session

    @property
    def _receives(self) -> bool:
        """Whether this node is the one that a synchronisation changes."""
        stand = self._work.stand
        return stand.following or not (stand.active or stand.primary)

    async def _dry_run(self) -> Outcome:
        session = self._session()
        details = await (self._list_changes() if self._receives else session.question("dry-run"))
        if problem := details.get("problem"):
            return False, str(problem), {}
        where = "here" if self._receives else "on the other node"
        total, size = details["total"], details["bytes"]
        sentence = f"{total} changes {where}, {size} bytes to be brought over; nothing was changed"
        return True, sentence if total else f"nothing would change {where}", details

    async def _list_changes(self) -> dict[str, Any]:
        sink = self._session().sink
        with trio.move_on_after(LISTING_S):
            listing = await sink.list_changes(CHANGES_MAX)
            return {"changes": listing.changes, "total": listing.total, "bytes": listing.size}
        raise PairAgentError(f"the trees were not compared within {LISTING_S:.0f} s; they may be very large")

    async def _test(self) -> Outcome:
        session = self._session()
        checks = [{"name": "connection", "ok": True, "sentence": "the connection for the trees is up, and verified"}]
        checks += await self._own_checks()
        theirs = await session.question("test")
        checks += [{**each, "name": f"other node: {each['name']}"} for each in theirs.get("checks", [])]
        try:
            compared = await (self._list_changes() if self._receives else session.question("dry-run"))
        except PairAgentError as error:
            compared = {"problem": str(error)}
        problem = str(compared.get("problem", ""))
        total, size = compared.get("total", 0), compared.get("bytes", 0)
        sentence = problem or f"{total} changes would be made, {size} bytes brought over"
        checks.append({"name": "comparison", "ok": not problem, "sentence": sentence})
        told = self._work.free_bytes() if self._receives else theirs.get("free", {})
        free = {str(name): count for name, count in dict(told).items() if isinstance(count, int)}
        if free and min(free.values()) < size + SPARE_BYTES:
            short = min(free, key=lambda name: free[name])
            text = f"tree {short} has {free[short]} bytes free, and {size} are to come"
            checks.append({"name": "space", "ok": False, "sentence": text})
        failed = [each for each in checks if not each["ok"]]
        verdict = (
            "synchronisation would succeed" if not failed else f"synchronisation would fail: {failed[0]['sentence']}"
        )
        return not failed, f"{verdict}; nothing was changed", {"checks": checks}

    async def _own_checks(self) -> list[dict[str, Any]]:
        return await trio.to_thread.run_sync(self._check_trees)

    def _check_trees(self) -> list[dict[str, Any]]:
        checks: list[dict[str, Any]] = []
        free = self._work.free_bytes()
        for name, tree in self._work.local.trees.items():
            label = f"tree {name}"
            if tree.root is None or tree.problem:
                checks.append({"name": label, "ok": self._receives, "sentence": tree.problem})
                continue
            place = tree.root.path.parent if tree.root.single_file else tree.root.path
            if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
                text = f"{place}: this account may not read and write there; give it the right, or run as another"
                checks.append({"name": label, "ok": False, "sentence": text})
                continue
            enough = free.get(name, 0) > SPARE_BYTES
            text = f"{tree.files} files, {tree.size} bytes, {free.get(name, 0)} bytes free"
            if tree.refused_count:
                text += f"; {tree.refused_count} names cannot be replicated"
            checks.append({"name": label, "ok": enough, "sentence": text})
        return checks

    # -- archive

    def _own_place(self, item: Item) -> Path:
        tree = self._work.local.trees.get(item.tree)
        if tree is None or tree.root is None:
            raise PairAgentError(f"tree {item.tree!r} is not configured here any more; say where to with --to")
        if self._work.stand.following:
            raise PairAgentError(
                "this node follows the other's trees and would replace the restored version at once: restore to "
                "another place with --to, and bring it into the tree of the active node"
            )
        root = tree.root
        return root.path if root.single_file else Path(root.path, *item.path.split("/"))
