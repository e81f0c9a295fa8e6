"""What `pair-agent check` says about the trees: whether they are there, and whether this account may read and write.

Looks at the root of each tree only; whether everything below it may be read is seen when it is synchronised
(`pair-agent test sync`). Nothing is written into a tree, not even a probe: the workload may watch it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from agent.config.load import Examination
from agent.config.results import Level, Result
from agent.config.tree_contradictions import real_tree_path
from agent.core.vocabulary import Mode


def inspect_trees(examination: Examination) -> Iterator[Result]:
    """Yields the results for every tree whose path could be read in the file."""
    settings = examination.settings
    for number in range(settings.counts["tree"]):
        value = settings.get(f"tree.{number}.path", str)
        if value is not None:
            name = settings.get(f"tree.{number}.name", str)
            label = f"tree.{number}.path ({name}):" if name else f"tree.{number}.path:"
            yield _inspect_tree(label, examination.source.parent / value, settings.get("mode", Mode))


def _inspect_tree(label: str, path: Path, mode: Mode | None) -> Result:
    real = real_tree_path(path)
    led = f"{real}, where {path} leads," if os.path.islink(path) else f"{real}"
    try:
        found = real.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _inspect_absent(label, real, led, mode)
    except OSError as error:
        return Result(Level.ERROR, f"{label} {led} cannot be looked at: {_reason(error)}; {_WAY_OUT}")
    try:
        if stat.S_ISDIR(found.st_mode):
            with os.scandir(real) as entries:
                next(entries, None)
        elif stat.S_ISREG(found.st_mode):
            real.open("rb").close()
        else:
            return Result(Level.ERROR, f"{label} {led} is neither a folder nor a file; name one of these")
    except OSError as error:
        return Result(Level.ERROR, f"{label} {led} cannot be read: {_reason(error)}; {_WAY_OUT}")
    # A file is replaced as a whole, by a new one made beside it.
    folder = real if stat.S_ISDIR(found.st_mode) else real.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return Result(Level.ERROR, f"{label} this account may not write in {folder}; {_WAY_OUT}")
    kind = "a folder" if folder == real else "a file"
    return Result(Level.OK, f"{label} {led} is {kind} that this account may read and write")


def _inspect_absent(label: str, real: Path, led: str, mode: Mode | None) -> Result:
    existing = next((parent for parent in real.parents if os.path.lexists(parent)), real)
    if not os.path.isdir(existing):
        return Result(Level.ERROR, f"{label} {led} cannot be made, because {existing} is no folder; name another path")
    if mode is not Mode.BACKUP:
        return Result(
            Level.WARNING,
            f"{label} {led} does not exist, so there is nothing to keep on both nodes; make it, or correct the path",
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        return Result(Level.ERROR, f"{label} {led} does not exist, and may not be made in {existing}; {_WAY_OUT}")
    return Result(Level.OK, f"{label} {led} does not exist yet; the first synchronisation makes it")


_WAY_OUT = "let this account read and write there, or name another path"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
