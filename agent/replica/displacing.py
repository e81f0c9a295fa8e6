"""What a round displaces: brought to the archive if it must be, then replaced or removed; given back if that fails.

Between the steps of `applying` and the single changes of `placing`. A version is kept when its step says so, and also
when what stands is not what the step was planned for: somebody changed it here meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from agent.replica.archive import Archive
from agent.replica.file_tree import TreeRoot, fingerprint_of
from agent.replica.placing import Placing
from agent.replica.staging import Staging
from agent.replica.standing import Standing, has_contents, is_folder, is_of_one_path, status_of
from agent.replica.steps import Archived, Step, StepKind

CHANGED_MEANWHILE: Final = "changed meanwhile"  # why something is archived that no plan knew of


class Displacing:
    """Displaces within one root, for one run over the steps of a round."""

    def __init__(
        self, root: TreeRoot, standing: Standing, staging: Staging, placing: Placing, archive: Archive
    ) -> None:
        self._tree = root.name
        self._standing = standing
        self._staging = staging
        self._placing = placing
        self._archive = archive
        self._archived: list[Archived] = []  # not told yet

    def told(self) -> list[Archived]:
        """Returns what went to the archive since the last call."""
        if not self._archived:
            return []
        told, self._archived = self._archived, []
        return told

    def keep_first(self, step: Step) -> None:
        """Archives what the step will displace, if that must be; durable after `Archive.flush`. Raises OSError."""
        if step.kind is StepKind.ARCHIVE_STAGED:
            self.keep_staged(step, at_once=False)
        elif step.kind is not StepKind.ATTRIBUTES:
            status = self._standing.status(step.place)
            if status is not None and not self._is_done(step, status):
                self._keep_standing(step, status, at_once=False)

    def keep_staged(self, step: Step, at_once: bool = True) -> None:
        """Archives the staged file of a step, with the attributes that it would have in its place. Raises OSError."""
        staged = self._staging.path(step.staged)
        status = status_of(staged)
        if status is not None and step.entry is not None:
            if stat.S_ISREG(status.st_mode):
                self._placing.dress(step.place, staged, status, step.entry, self._standing.status(step.place))
            self._keep(step.path, staged, step.reason or "conflict", at_once)

    def give_way(self, step: Step, status: os.stat_result, action: Callable[[], None]) -> None:
        """Calls `action`, which ends the file or link that stands, once this is kept if it must be. Raises OSError."""
        reason = self._keep_standing(step, status, at_once=True)
        try:
            action()
        except OSError as error:
            if reason and is_of_one_path(error):
                self._archived.clear()
                self._archive.take_back(self._tree, step.path, self._standing.path(step.place), reason)
            raise

    def make_folders_above(self, step: Step) -> None:
        """Makes sure that all above a step's place are real folders; what bars the way is archived. Raises OSError."""
        folder = step.place.rpartition("/")[0]
        if self._placing.has_root and self._standing.is_real_folder(folder):
            return
        self._placing.make_root()
        names = folder.split("/") if folder else []
        for depth in range(1, len(names) + 1):
            place = "/".join(names[:depth])
            status = self._standing.status(place)
            if status is not None and is_folder(status):
                continue
            if status is not None:
                if has_contents(status):
                    self._keep(place, self._standing.path(place), CHANGED_MEANWHILE, at_once=True)
                self._placing.remove(place)
            self._placing.make_plain_folder(place)

    def clear_folder(self, step: Step) -> None:
        """Removes the folder at a step's place; what is still in it, because no step removed it, is archived.

        Raises OSError.
        """
        if not step.place:
            raise OSError(errno.EISDIR, "a folder stands in the place of the tree's file")
        for place, status in self._placing.contents(step.place):
            if has_contents(status):
                self._keep(place, self._standing.path(place), CHANGED_MEANWHILE, at_once=False)
        self._archive.flush()
        for place, status in self._placing.contents(step.place):
            if is_folder(status):
                self._placing.remove_folder(place)
            else:
                self._placing.remove(place)
        self._placing.remove_folder(step.place)
        self._standing.forget()

    def _is_done(self, step: Step, status: os.stat_result) -> bool:
        """True if what stands is what the step puts there: nothing is to be kept then."""
        if step.kind is StepKind.PUT_FILE:
            # Only looked at where it matters: what stands is as planned far more often than not.
            planned = not step.archive and fingerprint_of(status) == step.expected
            return planned or status_of(self._staging.path(step.staged)) is None
        if step.kind is StepKind.MAKE_LINK:
            return self._placing.is_link_of(step, status)
        return step.kind is StepKind.REMOVE and not self._standing.is_spelled_so(step.place)

    def _keep_standing(self, step: Step, status: os.stat_result, at_once: bool) -> str:
        """Archives the file or link that stands, if it must be; returns the reason it is kept for, "" if it is not."""
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            return ""  # what a folder holds has its own steps; sockets and the like hold nothing
        if not step.archive and fingerprint_of(status) == step.expected:
            return ""
        self._placing.require_unlocked(step.place, status)
        reason = step.reason or "replaced" if step.archive else CHANGED_MEANWHILE
        self._keep(step.path, self._standing.path(step.place), reason, at_once)
        return reason

    def _keep(self, path: str, source: str, reason: str, at_once: bool) -> None:
        """Archives a version and notes it; `at_once`: makes it durable, unless it was kept before, which is durable."""
        item, is_new = self._archive.keep(self._tree, path, source, reason)
        if is_new or not at_once:
            self._archived.append(Archived(path, item.name, reason))
        if is_new and at_once:
            self._archive.flush()
