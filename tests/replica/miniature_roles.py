"""One node of a pair as far as its trees are concerned: a worker, and the part of its agent's roles that it meets.

What a node notes of its version, and when, is the table of `agent.core.tree_versions`. Knows nothing of when something
happens: that is the business of `history`.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from agent.core.tree_versions import TreeVersion, followed, merged, offered, went_on_alone, written
from agent.replica.worker_protocol import Stand
from tests.replica.interrupted_disk import Crash
from tests.replica.meddling import Meddler
from tests.replica.two_workers import Worker, contents_of
from tests.replica.version_ledger import Ledger

NOBODY = Stand(False, False, False, False, 0, False, 0)


class Node(Worker):
    """A worker with the part of its agent that concerns its trees. All but `active` is durable."""

    def __init__(self, folder: Path, ledger: Ledger, *, primary: bool) -> None:
        self.name = "primary" if primary else "backup"
        self.primary = primary
        self.ledger = ledger
        self.version = TreeVersion()
        self.term = 0  # the highest known
        self.active_term = 0
        self.incomplete = False
        self.overwrite_due = False
        self.active = False
        self.up = True
        self.changing = False  # a round is being put in place
        self.peer: Node | None = None
        self.linked = False
        self.nursery: trio.Nursery | None = None
        self.meddler: Meddler | None = None
        super().__init__(folder, NOBODY)

    def open(self) -> None:
        super().open()
        if self.index.was_lost:
            self.ledger.tell(f"{self.name}: its index was damaged")
            self.index.acknowledge_loss()
        self.mortality.watch(self.index)
        self.disk.meanwhile = self._meanwhile

    def _meanwhile(self, name: str, arguments: tuple[object, ...]) -> None:
        if self.meddler is not None:
            self.meddler.meanwhile(self, name, arguments)

    @property
    def may_become_active(self) -> bool:
        never_copied = self.version.data_term == 0 and not self.active_term
        return self.up and not self.incomplete and (self.primary or not (self.overwrite_due or never_copied))

    def archived_versions(self) -> list[tuple[str, Any]]:
        """Returns what lies in the archive: path and value."""
        found = []
        for tree in (self.folder / "state" / "archive").glob("*/data*"):
            found += [(path, value) for path, value in contents_of(tree).items() if value is not None]
        return found

    def modes(self) -> dict[str, int]:
        """Returns the permission bits of all that has any."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # a round is putting something in place
            paths = {name: self.data / name for name in self.contents()}
            return {name: path.stat().st_mode & 0o777 for name, path in paths.items() if not path.is_symlink()}
        return {}

    def activate(self) -> None:
        assert self.peer is not None
        self.term = max(self.term, self.peer.term if self.linked else 0) + 1
        self.term += self.term % 2 != self.primary
        self.active_term = self.term
        self.version = written(self.version, self.term)
        self.active = True
        self.ledger.tell(f"{self.name}: active in term {self.term}")
        self.tell_stand()

    def stop(self) -> None:
        self.active = False
        self.ledger.tell(f"{self.name}: not active any more")
        self.tell_stand()

    def lose_link(self) -> None:
        self.linked = False
        if self.active:
            self.version = went_on_alone(self.version)
        self.tell_stand()

    def tell_stand(self) -> None:
        """Tells the worker what the roles make of this node, and the other worker the version if that is news."""
        before, version = self.stand, self.version
        following = self.linked and not self.active and self.follows
        if self.overwrite_due and self.primary:
            following = False
        self.stand = Stand(
            following,
            self.overwrite_due,
            self.primary,
            self.active,
            version.data_term,
            version.alone,
            version.base_term,
            version.offered_term,
        )
        if self.session is not None and self.stand != before:
            self.session.stand(self.stand)
            if replace(before, following=False, overwrite=False, active=False) != replace(
                self.stand, following=False, overwrite=False, active=False
            ):
                assert self.nursery is not None
                self.nursery.start_soon(self._tell_hold)

    @property
    def follows(self) -> bool:
        """Whether the other node's trees are to come here: it is active, or it was so last."""
        peer = self.peer
        assert peer is not None
        return peer.active or (self.primary and peer.active_term > self.active_term)

    async def _tell_hold(self) -> None:
        try:
            if self.session is not None:
                await self.session.tell_hold()
        except (trio.BrokenResourceError, trio.ClosedResourceError, Crash):
            pass

    # -- what the worker asks and tells

    async def permit(self, incomplete: str) -> bool:
        await trio.lowlevel.checkpoint()
        if self.active or not self.up:
            return False
        self.changing = True
        self.incomplete = self.incomplete or bool(incomplete)
        return True

    def permission_used(self) -> None:
        self.changing = False
        self.ledger.seen(self.name, self.contents())

    def complete(self, term: int, merged_: bool) -> None:
        source = TreeVersion(term)
        self.ledger.tell(f"{self.name}: has everything of term {term}{' and its own' if merged_ else ''}")
        self.version = merged(source) if merged_ else followed(source)
        self.incomplete = False
        self.overwrite_due = self.overwrite_due and not self.primary
        self.tell_stand()

    def followed(self, term: int) -> None:
        if self.linked and term == self.version.data_term:
            assert self.peer is not None
            self.ledger.tell(f"{self.name}: the other has everything of term {term}")
            self.version = followed(self.version)
            self.overwrite_due = False
            self.tell_stand()
            if self.primary:  # reported over the link
                self.peer.overwrite_due = False
                self.peer.tell_stand()

    async def offer(self, peer: TreeVersion) -> None:
        await trio.lowlevel.checkpoint()
        self.version = offered(self.version, peer)
        self.tell_stand()

    def announce(self, code: str, sentence: str, **fields: object) -> None:
        self.ledger.tell(f"{self.name}: {code}: {sentence}")

    def conflicted(self, count: int) -> None:
        self.ledger.tell(f"{self.name}: {count} conflicts")
