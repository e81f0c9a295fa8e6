"""What a sink keeps of each tree that it follows, whom it tells, and the two steps around a round that need no state:
making sure that a tree fits the source's, and telling what a round brought."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol

import trio

from agent.core.bulk_messages import Hold, Mark
from agent.core.errors import PairAgentError
from agent.replica.file_tree import TreeRoot
from agent.replica.gathering import Result
from agent.replica.local_trees import LocalTree, LocalTrees

PATHS_MAX = 256


class SinkOwner(Protocol):
    """Whom the sink tells; called in the trio thread, must not block but where it is async."""

    async def permit(self, incomplete: str) -> bool:
        """Asks the agent whether the trees may be changed now."""

    def permission_used(self) -> None:
        """The apply has ended."""

    def complete(self, term: int, merged: bool) -> None:
        """Every tree is whole and as the source's in that term; `merged`: own changes were kept besides."""

    def announce(self, code: str, sentence: str, **fields: object) -> None:
        """Takes an event."""

    def conflicted(self, count: int) -> None:
        """So many paths were written on both nodes."""

    def config_applied(self, tree: str) -> None:
        """A config tree was changed."""


@dataclass
class Following:
    """One tree that is followed."""

    tree: LocalTree
    root: TreeRoot | None = None  # known once it is prepared
    number: int = 0  # of the Follow that counts
    mark: Mark | None = None  # to be applied
    rounds: int = 0  # since following began
    last_changed: int = 0  # entries in the last round
    problem: str = ""
    problem_told: str = ""  # as an event, since the last round that went through
    again_at: float | None = None  # trio's clock
    last_sync_ms: int | None = None  # wall clock
    refusing: dict[str, str] = field(default_factory=dict)  # paths that could not be brought over yet, and why
    refused_total: int = 0
    blocked: frozenset[str] = frozenset()  # of these, those that this node's disk does not take
    told_again: set[str] = field(default_factory=set)  # of these, those that the coming round tries anew
    begun: bool = False  # its incoming changes are being taken

    @property
    def refused(self) -> tuple[tuple[str, str], ...]:
        """The first PATHS_MAX paths that could not be brought over yet, and why."""
        return tuple(self.refusing.items())

    def note_told(self, path: str) -> None:
        """The source tells of this path."""
        if path in self.refusing:
            self.told_again.add(path)

    def note_refused(self, result: Result, *, whole: bool) -> list[tuple[str, str]]:
        """Takes what a round could not bring over, besides what earlier ones could not; returns what is new of it."""
        known, told_again = self.refusing, self.told_again
        before = {} if whole else {path: why for path, why in known.items() if path not in told_again}
        now = dict(islice({**before, **dict(result.refused)}.items(), PATHS_MAX))
        self.refusing, self.told_again = now, set()
        self.refused_total = len(now) + max(0, result.refused_total - len(result.refused))
        self.blocked = frozenset(path for path in now if path in self.blocked or path in result.blocked)
        return [(path, why) for path, why in now.items() if path not in known]


@dataclass
class Listing:
    """A dry run: instead of being applied, rounds are listed."""

    done: trio.Event
    changes: list[dict[str, object]]
    total: int = 0
    size: int = 0
    count_max: int = 0
    waiting: set[str] | None = None
    problem: str = ""


async def prepare(local: LocalTrees, tree: LocalTree, hold: Hold, *, make: bool, believed: bool) -> TreeRoot:
    """Makes sure that the tree fits the source's, and with `make` that it stands here; returns where.

    `believed`: by an operator's order, what stands here is believed even if it seems to be another disk. Raises
    PairAgentError or OSError.
    """
    theirs = next((each for each in hold.trees if each.name == tree.name), None)
    if theirs is None:
        raise PairAgentError("no tree of this name is configured on the other node")
    if theirs.kind != tree.kind.value:
        raise PairAgentError(f'its kind is "{tree.kind.value}" here and "{theirs.kind}" there; set the same on both')
    if theirs.shape == "missing":
        raise PairAgentError("it does not exist on the other node; nothing is taken for deleted")
    single_file = theirs.shape == "file"
    if make:
        await local.make_root(tree, single_file=single_file, believed=believed)
    if tree.unusable:
        raise PairAgentError(tree.unusable)
    root = tree.root
    if root is None:
        root = await trio.to_thread.run_sync(partial(local.place, tree, single_file=single_file))
    if root.single_file != single_file:
        here, there = ("a file", "a folder") if root.single_file else ("a folder", "a file")
        raise PairAgentError(f"{root.path} is {here} here and {there} on the other node; mend one of the paths")
    return root


def tell_what_came(owner: SinkOwner, tree: LocalTree, result: Result, refused: list[tuple[str, str]]) -> None:
    """Tells the events of a round: conflicts, what went to the archive, what is newly `refused`."""
    if result.conflicts_total:
        owner.conflicted(result.conflicts_total)
        named = ", ".join(result.conflicts[:5])
        owner.announce(
            "conflict",
            f"tree {tree.name}: {result.conflicts_total} paths were written on both nodes, and the version that gave "
            f"way is in the archive: {named}",
            tree=tree.name,
            paths=result.conflicts[:PATHS_MAX],
        )
    if result.archived_total:
        named = ", ".join(each.path for each in result.archived[:5])
        owner.announce(
            "archived",
            f"tree {tree.name}: {result.archived_total} versions went to the archive ({result.archived[0].reason}): "
            f"{named}",
            tree=tree.name,
            items=[each.item for each in result.archived[:PATHS_MAX]],
        )
    if refused:
        named = "; ".join(f"{path}: {reason}" for path, reason in refused[:5])
        owner.announce("name-refused", f"tree {tree.name}: {len(refused)} not brought over: {named}", tree=tree.name)
