"""Carries out the steps of a round: the same code for the first run and for rolling forward after a crash.

Knows the tree's root, the staging folder and the archive; no index and no peer. Every step tells from the disk whether
it was done before: a staged file that is gone was put in place, a link that holds its text was made. Order:

1. What must be kept goes to the archive and is made durable, before anything in the tree changes.
2. Removals, folders, files, links, attributes. A file appears by one rename, so a reader sees the old one or the new.
3. Every name is made durable; only then does the iterator end, and the journal may be dropped.

What somebody changed here since the steps were planned is archived before it is displaced, planned or not. A path that
is locked or forbidden is reported by name, and the rest goes on. A disk in trouble (no space, I/O error) ends the
iterator with its OSError, and the steps stay to be rolled forward; as `ArchiveError` if nothing has been changed yet.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from agent.core.errors import PairAgentError
from agent.core.tree_entries import Entry
from agent.replica.archive import Archive
from agent.replica.archive_files import COARSE_NS
from agent.replica.contents import Changed, digest_of
from agent.replica.displacing import Displacing
from agent.replica.file_system import FileSystem, settable_time
from agent.replica.file_tree import Fingerprint, TreeRoot, fingerprint_of
from agent.replica.placing import Placing
from agent.replica.staging import Staging
from agent.replica.standing import Patience, Standing, is_folder, is_of_one_path, status_of
from agent.replica.steps import Applied, Blocked, Outcome, Step, StepKind

Steps = Callable[[], Iterable[Step]]  # gives the same steps each time it is called, in any order

_UNKNOWN: Final = Fingerprint(0, 0, 0, 0)  # of no file: the next scan will find the path changed


class ArchiveError(PairAgentError):
    """What must be kept could not be; the tree was not changed, so that a round in its first run can be given up."""


def apply(
    root: TreeRoot,
    steps: Steps,
    staging: Staging,
    archive: Archive,
    files: FileSystem | None = None,
    patience: Patience | None = None,
) -> Iterator[Outcome]:
    """Carries out `steps` and yields what came of each; exhausted, everything is on the disk. Blocks.

    Yields one Applied or Blocked for each step except ARCHIVE_STAGED, and an Archived for each version kept (again for
    one that was kept before a crash, if it still stood). Raises ArchiveError, or OSError (see above).
    """
    files = files if files is not None else FileSystem()
    return _Round(root, steps, staging, archive, files, patience or Patience()).run()


class _Round:
    """One run over the steps of a round."""

    def __init__(
        self, root: TreeRoot, steps: Steps, staging: Staging, archive: Archive, files: FileSystem, patience: Patience
    ) -> None:
        self._steps = steps
        self._tree = root.name
        self._staging = staging
        self._archive = archive
        self._standing = Standing(root)
        self._placing = Placing(root, self._standing, staging, files, patience)
        self._displacing = Displacing(root, self._standing, staging, self._placing, archive)
        self._late: list[Step] = []  # folders: to be removed, or given permission bits that would lock us out
        self._held: set[str] = set()  # folders that a blocked step keeps from being removed

    def run(self) -> Iterator[Outcome]:
        with self._placing:
            kinds: Counter[StepKind] = Counter()
            yield from self._keep_first(kinds)
            for kind in StepKind:
                if kinds[kind]:
                    self._standing.forget()
                    yield from self._carry_out(kind)
            self._placing.flush()
        self._archive.close_batches(self._tree)

    def _keep_first(self, kinds: Counter[StepKind]) -> Iterator[Outcome]:
        """Archives all that the steps will displace, and counts the steps."""
        for step in self._steps():
            kinds[step.kind] += 1
            if not step.archive and step.expected is None and step.kind is not StepKind.ARCHIVE_STAGED:
                continue
            try:
                self._displacing.keep_first(step)
            except OSError as error:
                if not is_of_one_path(error):  # of one path: its turn comes, and then it is reported
                    raise ArchiveError(f'tree "{self._tree}": {step.path} cannot be archived: {error}') from error
            yield from self._displacing.told()
        try:
            self._archive.flush()
        except OSError as error:
            raise ArchiveError(f'tree "{self._tree}": the archive cannot be written: {error}') from error

    def _carry_out(self, kind: StepKind) -> Iterator[Outcome]:
        action = {
            StepKind.REMOVE: self._remove,
            StepKind.MAKE_FOLDER: self._make_folder,
            StepKind.PUT_FILE: self._put_file,
            StepKind.ARCHIVE_STAGED: self._archive_staged,
            StepKind.MAKE_LINK: self._make_link,
            StepKind.ATTRIBUTES: self._set_attributes,
        }[kind]
        for step in self._steps():
            if step.kind is kind:
                outcome = self._try(step, action)
                yield from self._displacing.told()
                if outcome is not None:
                    yield outcome
        # Deepest first: what is above them must be reachable until then.
        late, self._late = sorted(self._late, key=lambda step: step.place.count("/"), reverse=True), []
        finish = self._remove_folder if kind is StepKind.REMOVE else self._finish_folder
        for step in late:
            outcome = self._try(step, finish)
            if outcome is not None:
                yield outcome

    def _try(self, step: Step, action: Callable[[Step], Outcome | None]) -> Outcome | None:
        try:
            outcome = action(step)
        except OSError as error:
            if not is_of_one_path(error):
                raise
            outcome = Blocked(step.path, error.strerror or str(error))
        if isinstance(outcome, Blocked):
            self._hold(step.place)
        return outcome

    def _hold(self, place: str) -> None:
        while place := place.rpartition("/")[0]:
            self._held.add(place)

    # -- the kinds of steps

    def _remove(self, step: Step) -> Outcome | None:
        status = self._standing.status(step.place)
        if status is None or not self._standing.is_spelled_so(step.place):
            return Applied(step.path, None, None, step.place)
        if is_folder(status):
            self._late.append(step)
            return None
        self._displacing.give_way(step, status, partial(self._placing.remove, step.place))
        return Applied(step.path, None, None, step.place)

    def _remove_folder(self, step: Step) -> Outcome:
        if step.place in self._held:
            return Blocked(step.path, "something in this folder could not be removed")
        # One that holds what is not replicated stays, as it would stay for rsync.
        self._placing.remove_folder_if_empty(step.place)
        return Applied(step.path, None, None, step.place)

    def _make_folder(self, step: Step) -> Outcome | None:
        assert step.entry is not None
        self._displacing.make_folders_above(step)
        status = self._standing.status(step.place)
        if status is not None and not is_folder(status):
            self._displacing.give_way(step, status, partial(self._placing.remove, step.place))
            status = None
        if self._placing.make_folder(step.place, step.entry, status):
            return self._applied(step)
        self._late.append(step)
        return None

    def _finish_folder(self, step: Step) -> Outcome:
        assert step.entry is not None
        self._placing.set_folder_mode(step.place, step.entry)
        return self._applied(step)

    def _put_file(self, step: Step) -> Outcome:
        assert step.entry is not None
        staged = self._staging.path(step.staged)
        of_staged = status_of(staged)
        status = self._standing.status(step.place)
        if of_staged is None:
            return self._put_before(step, status)
        self._displacing.make_folders_above(step)
        if status is not None and is_folder(status):
            self._displacing.clear_folder(step)
            status = None
        if status is not None and self._placing.was_put_across(step.place, status, staged, of_staged):
            self._staging.discard(step.staged)
            return self._applied(step)
        self._placing.dress(step.place, staged, of_staged, step.entry, status)
        if status is None:
            self._placing.put(step.place, staged)
        else:
            self._displacing.give_way(step, status, partial(self._placing.put, step.place, staged))
        return self._put_as_staged(step, step.entry, of_staged)

    def _put_as_staged(self, step: Step, entry: Entry, of_staged: os.stat_result) -> Applied:
        """What to say of a file that was put a moment ago: whatever somebody wrote into it since is for the scan."""
        outcome = self._applied(step)
        now = outcome.fingerprint
        times = (of_staged.st_mtime_ns, settable_time(entry.mtime_ns))
        if now is not None and now.size == entry.size and now.mtime_ns in times:
            return outcome
        return Applied(step.path, entry, _UNKNOWN, step.place)

    def _put_before(self, step: Step, status: os.stat_result | None) -> Outcome:
        """What to say of a staged file that is gone: it was put in place before a crash, or it is lost."""
        assert step.entry is not None
        if status is None or fingerprint_of(status) == step.expected:
            return Blocked(step.path, "its new contents vanished from the staging folder")
        as_put = stat.S_ISREG(status.st_mode) and status.st_size == step.entry.size
        if as_put and abs(status.st_mtime_ns - step.entry.mtime_ns) < COARSE_NS:
            with contextlib.suppress(Changed, OSError):
                # Size and time prove nothing here: somebody may have written into it in the meantime.
                digest, fingerprint = digest_of(self._standing.path(step.place))
                if digest == step.entry.digest:
                    return Applied(step.path, step.entry, fingerprint, step.place)
        return Applied(step.path, step.entry, _UNKNOWN, step.place)

    def _archive_staged(self, step: Step) -> None:
        self._displacing.keep_staged(step)  # once more: a failure at the beginning must not lose it
        self._staging.discard(step.staged)

    def _make_link(self, step: Step) -> Outcome:
        assert step.entry is not None
        self._displacing.make_folders_above(step)
        status = self._standing.status(step.place)
        if status is not None and is_folder(status):
            self._displacing.clear_folder(step)
            status = None
        if status is None:
            self._placing.make_link(step.place, step.entry.target)
        elif not self._placing.is_link_of(step, status):
            self._displacing.give_way(
                step, status, partial(self._placing.replace_by_link, step.place, step.entry.target)
            )
        return self._applied(step)

    def _set_attributes(self, step: Step) -> Outcome | None:
        assert step.entry is not None
        status = self._standing.status(step.place)
        if status is None:
            return Blocked(step.path, "it was removed on this node meanwhile")
        if is_folder(status):
            self._late.append(step)
            return None
        expected = step.expected
        unchanged = expected is not None and (status.st_size, status.st_ino) == (expected.size, expected.inode)
        # The time may be the new one already, and setting anything changes ctime: done before a crash.
        times = () if expected is None else (expected.mtime_ns, step.entry.mtime_ns)
        if not stat.S_ISREG(status.st_mode) or not unchanged or status.st_mtime_ns not in times:
            return Blocked(step.path, "it was changed on this node meanwhile")
        self._placing.set_attributes(step.place, status, step.entry)
        return self._applied(step)

    def _applied(self, step: Step) -> Applied:
        status = status_of(self._standing.path(step.place))
        return Applied(step.path, step.entry, fingerprint_of(status) if status else _UNKNOWN, step.place)
