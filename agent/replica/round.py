"""One round at the sink: what the source told is compared, fetched, made durable and put in place as one.

Until the apply is granted nothing of the tree is touched; from the journal's commit on, a crash anywhere ends in the
whole round (`agent.replica.recovery`). A round that fails before that leaves the tree as it was, and what it has staged
to the next one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import trio

from agent.config.model import TreeKind
from agent.core.bulk_messages import Mark
from agent.core.errors import PairAgentError
from agent.core.tree_plan import Deed, PlanMode
from agent.replica.applying import ArchiveError, apply
from agent.replica.archive import Archive
from agent.replica.file_tree import TreeRoot
from agent.replica.gathering import PAGE, Gathering, Result, partial_key
from agent.replica.index import Row
from agent.replica.local_trees import LocalTrees
from agent.replica.obstacles import obstacles
from agent.replica.staging import Staging
from agent.replica.steps import Applied, Archived, Blocked, Outcome


class StuckError(PairAgentError):
    """The tree is half way, and only carrying the journal out again can mend that."""


DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Round(Gathering):
    """One round of one tree; see the module."""

    async def run(self, mode: PlanMode, mark: Mark, incomplete: str) -> Result:
        """Carries the round out.

        Raises OSError when the disk fails or is full, PairAgentError for what else keeps the round from being begun;
        what was staged is kept.
        """
        # A disk that was not mounted, a wrong path, a slip of the hand: none of them may take the last copy along.
        self.most_goes = 2 * mark.files < self._tree.files
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.receiver.run)
                await self._plan(mode)
                nursery.cancel_scope.cancel()
            await self._keep_steps()
            await trio.to_thread.run_sync(self._staging.flush, self._names)
            if self._tree.kind is TreeKind.CONFIG and self.result.refused:
                path, reason = self.result.refused[0]
                raise PairAgentError(f"{path}: {reason}; a config tree changes as one, so nothing of it was changed")
            await self._put_in_place(mark, incomplete)
        except BaseException as error:
            only = _only_error(error) if isinstance(error, BaseExceptionGroup) else error
            with trio.CancelScope(shield=True):
                # What lies half in the way of everything else is not worth to be kept.
                await self._leave(keep=not (isinstance(only, OSError) and only.errno in DISK_FULL))
            if only is not None and only is not error:
                raise only from error
            raise
        finally:
            self._staging.close()
        return self.result

    async def listing(self, mode: PlanMode, count_max: int) -> tuple[list[dict[str, object]], int, int]:
        """Returns what the round would do: the first `count_max`, how many in all, and how many bytes come over."""
        found: list[dict[str, object]] = []
        total = size = 0
        plan = self._local.index.plan(self._tree.name, mode)
        while page := await self._local.pages(plan, PAGE):
            for want, row, decision in page:
                if decision.deed in (Deed.NOTHING, Deed.ADOPT, Deed.KEEP):
                    continue
                total += 1
                fetched = decision.deed in (Deed.FETCH, Deed.CONFLICT) and want.entry is not None
                size += want.entry.size if fetched and want.entry is not None else 0
                if len(found) < count_max:
                    found.append(
                        {
                            "tree": self._tree.name,
                            "path": want.path,
                            "deed": _deed_word(decision.deed, row),
                            "bytes": want.entry.size if want.entry is not None else 0,
                            "archived": decision.archive,
                        }
                    )
        self._staging.close()
        return found, total, size

    # -- putting in place

    async def _put_in_place(self, mark: Mark, incomplete: str) -> None:
        index, name = self._local.index, self._tree.name
        position = (mark.index, mark.seq)
        if not self.result.changed:
            await self._local.in_index(index.finish_apply, name, [], position)
            return
        blocked = await self._local.in_index(lambda: list(obstacles(self._root, index.steps(name))))
        for each in blocked if self._tree.kind is TreeKind.CONFIG else ():
            self.result.refuse(each.path, each.reason)
            raise PairAgentError(f"{each.path}: {each.reason}; a config tree changes as one, so nothing was changed")
        await self._local.require_same_root(self._tree)
        if not await self._errands.permit(incomplete):
            self.result.granted = False
            return
        try:
            with trio.CancelScope(shield=True):  # what has begun is ended: it is short, and granted only once
                async with self._tree.lock:
                    await self._local.in_index(index.begin_apply, name, position)
                    await self._local.in_index(self._apply, position)
                    await trio.to_thread.run_sync(self._staging.clean)
                    self._tree.files, self._tree.size = await self._local.in_index(index.totals, name)
        finally:
            self._errands.permission_used()

    def _apply(self, position: tuple[bytes, int]) -> None:
        name = self._tree.name
        try:
            carry_out(self._local, name, self._root, self._staging, self._archive, position, self._note_outcome)
        except ArchiveError:
            self._local.index.drop_round(name)  # nothing was changed yet
            raise
        except OSError as error:
            raise StuckError(
                f"tree {name}: the disk failed while the changes were put in place: {error.strerror or error}; they "
                "are finished as soon as it works again"
            ) from error

    def _note_outcome(self, outcome: Outcome) -> None:
        if isinstance(outcome, Blocked):
            self.result.refuse(outcome.path, outcome.reason)
            if len(self.result.blocked) < PAGE:
                self.result.blocked.add(outcome.path)
        elif isinstance(outcome, Archived):
            self.result.archived_total += 1
            if len(self.result.archived) < PAGE:
                self.result.archived.append(outcome)

    async def _leave(self, *, keep: bool) -> None:
        """Keeps what was staged for the next round, of a big file only to `keep`; the tree itself was not touched."""
        index, name = self._local.index, self._tree.name
        try:
            useless = [] if keep else self.receiver.beginnings
            left = await trio.to_thread.run_sync(partial(self.receiver.leave, keep=keep))
            for beginning in useless:
                await trio.to_thread.run_sync(self._staging.discard, beginning)
                await self._local.in_index(index.forget_staged_file, name, beginning)
            if left is not None:
                wanted, beginning = left
                if wanted.partial:  # what it was made of, and more
                    await trio.to_thread.run_sync(self._staging.discard, wanted.partial)
                    await self._local.in_index(index.forget_staged_file, name, wanted.partial)
                await self._local.in_index(index.note_staged, name, beginning, partial_key(wanted.step.path))
            await self._keep_steps()
            if name not in await self._local.in_index(index.applying_trees):
                await self._local.in_index(index.drop_round, name)
        except OSError:
            return  # the disk failed; what is staged is found out of date, and removed, by the next round


def carry_out(
    local: LocalTrees,
    name: str,
    root: TreeRoot,
    staging: Staging,
    archive: Archive,
    position: tuple[bytes, int] | None,
    note: Callable[[Outcome], None],
) -> None:
    """Carries out the journal of a tree, now or after a crash, and moves the results into the index; in a thread.

    Raises OSError when the disk fails; the journal stays then.
    """
    index = local.index
    outcomes = apply(root, lambda: index.steps(name), staging, archive, local.disk)

    def results() -> Iterator[Applied]:
        for outcome in outcomes:
            note(outcome)
            if isinstance(outcome, Applied):
                yield outcome

    index.finish_apply(name, results(), position)


def _only_error(group: BaseExceptionGroup[BaseException]) -> OSError | PairAgentError | None:
    """Returns what made a nursery fail, if that is one error which the caller knows."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        if len(first.exceptions) > 1:
            return None
        first = first.exceptions[0]
    return first if isinstance(first, OSError | PairAgentError) else None


def _deed_word(deed: Deed, row: Row | None) -> str:
    if deed is Deed.FETCH or deed is Deed.MAKE_FOLDER or deed is Deed.MAKE_LINK:
        return "create" if row is None else "replace"
    return {Deed.REMOVE: "remove", Deed.ATTRIBUTES: "attributes", Deed.CONFLICT: "conflict"}.get(deed, deed.value)
