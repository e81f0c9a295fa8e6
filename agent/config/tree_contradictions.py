"""Trees that cannot be kept in sync as they are configured, each setting being allowed alone.

Trees are compared by the paths that they really lead to, so this module asks the file system for links, and for
nothing else: whether a tree is there and may be read is what `pair-agent check` looks at (`tree_inspection.py`).
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from agent.config.credentials import OWN_CERTIFICATE, OWN_KEY, REMOTE_CERTIFICATE, credential_path
from agent.config.findings import shown
from agent.config.settings import Settings
from agent.core.tree_names import refusal_of_name

TREES_MAX = 64

_KEPT_CREDENTIALS = (
    (OWN_KEY, "this node's private key"),
    (OWN_CERTIFICATE, "this node's own certificate"),
    (REMOTE_CERTIFICATE, "the certificates that this node trusts"),
)
_WINDOWS_SEPARATOR = re.compile(r"\\[\w.]")


def real_tree_path(path: Path) -> Path:
    """Where a tree's path really leads: absolute, links resolved, also for a path that does not exist."""
    return Path(os.path.realpath(path))


def report_tree_contradictions(settings: Settings, source: Path, state_directory: Path) -> None:
    """Reports them to `settings`. Paths are relative to the folder of `source`."""
    count = settings.counts["tree"]
    if count > TREES_MAX:
        settings.report("tree", f"found {count} of them", f"at most {TREES_MAX}")
        return
    _check_names(settings)
    _check_paths(settings, source, state_directory)
    _check_patterns(settings)


def _check_names(settings: Settings) -> None:
    seen: dict[str, int] = {}
    for number in range(settings.counts["tree"]):
        key = f"tree.{number}.name"
        name = settings.get(key, str)
        if name is None:
            continue
        # The archive keeps trees in folders of their names, and on Windows those ignore case.
        first = seen.setdefault(name.casefold(), number)
        if first != number:
            settings.report(key, f'"{name}" is the name of an earlier tree', "a name of its own")
        elif refusal := refusal_of_name(name):
            settings.report(key, refusal)


def _check_paths(settings: Settings, source: Path, state_directory: Path) -> None:
    kept_apart = [
        (what, _comparable(path))
        for credential, what in _KEPT_CREDENTIALS
        if (path := credential_path(settings, credential, source)) is not None
    ]
    kept_apart.append(("the agent's own configuration", _comparable(source)))
    state = _comparable(state_directory)
    seen: list[tuple[str, str]] = []
    for number in range(settings.counts["tree"]):
        key = f"tree.{number}.path"
        value = settings.get(key, str)
        if value is None:
            continue
        real = _comparable(source.parent / value)
        if _contains(real, state) or _contains(state, real):
            settings.report(key, f"{real} overlaps state_directory {state}", "a folder apart from it")
        for what, kept in kept_apart:
            if _contains(real, kept):
                problem = f"{real} holds {what}, {kept}, which would be copied to the other node"
                settings.report(key, problem, "a folder apart from it")
                break
        for other, other_path in seen:
            if real == other_path:
                settings.report(key, f"{real} is already the path of {other}")
            elif _contains(real, other_path) or _contains(other_path, real):
                settings.report(key, f"{real} overlaps {other_path}, the path of {other}")
        seen.append((f"tree.{number} ({settings.get(f'tree.{number}.name', str)})", real))


def _comparable(path: Path) -> str:
    return os.path.normcase(real_tree_path(path))


def _contains(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _check_patterns(settings: Settings) -> None:
    for number in range(settings.counts["tree"]):
        key = f"tree.{number}.exclude"
        for pattern in settings.get(key, tuple) or ():
            if problem := _pattern_problem(pattern):
                allowed = "gitignore patterns, such as *.tmp, .git/ or /cache/"
                settings.report(key, f"the pattern {shown(key, pattern)} {problem}", allowed)


def _pattern_problem(pattern: str) -> str:
    """Why a gitignore pattern cannot mean what its author wants; empty if it can."""
    from pathspec import GitIgnoreSpec

    if _WINDOWS_SEPARATOR.search(pattern):
        return "has a backslash between names; write / on every system"
    if pattern.startswith("#"):
        return r"is a comment; write \# for a name that begins so"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            (compiled,) = GitIgnoreSpec.from_lines([pattern]).patterns
    except (ValueError, re.error):
        return "is no gitignore pattern"
    return "matches nothing" if compiled.include is None else ""
