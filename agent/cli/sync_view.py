"""What a synchronisation did, would change, or needs, as lines for people: pure text out of the agent's answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent.cli.lines import Line, count_at, objects, part, plural, size_at, text_at

ARCHIVED_MARK = "archive"
_DEED_WIDTH = 10
_SIZE_WIDTH = 10


def render_changes(details: Mapping[str, Any], sentence: str) -> list[Line]:
    """The answer of a dry run: what the agent says, per tree and path what would change, and what would be archived."""
    return [line.made_printable() for line in _change_lines(details, sentence)]


def render_checks(details: Mapping[str, Any]) -> list[Line]:
    """The answer of a test: one line for each thing that was looked at."""
    lines = []
    for check in objects(details, "checks"):
        passed = check.get("ok") is True
        text = f"{'ok' if passed else 'FAILED':<7} {text_at(check, 'name')}: {text_at(check, 'sentence')}"
        lines.append(Line(text, alarming=not passed).made_printable())
    return lines


def render_outcome(status: Mapping[str, Any]) -> list[Line]:
    """What both nodes hold after a synchronisation, and what could not be replicated."""
    trees = objects(status, "trees")
    files, size = sum(count_at(tree, "files") for tree in trees), sum(count_at(tree, "bytes") for tree in trees)
    total = {"bytes": size}
    lines = [Line(f"In sync: {plural(len(trees), 'tree')}, {plural(files, 'file')}, {size_at(total, 'bytes')}.")]
    refused = sum(max(count_at(tree, "refused_total"), len(objects(tree, "refused"))) for tree in trees)
    if refused:
        names = "1 entry is" if refused == 1 else f"{refused} entries are"
        lines.append(Line(f"{names} not replicated; `pair-agent status` says which and why.", alarming=True))
    if conflicts := count_at(part(status, "archive"), "conflicts"):
        holds = plural(conflicts, "version")
        lines.append(Line(f"The archive holds {holds} of files that both nodes changed: `pair-agent archive list`."))
    return [line.made_printable() for line in lines]


def _change_lines(details: Mapping[str, Any], sentence: str) -> Iterator[Line]:
    changes = objects(details, "changes")
    total = max(count_at(details, "total"), len(changes))
    if sentence or not total:
        yield Line(sentence or "Nothing would change: both nodes hold the same.")
    tree = None
    for change in sorted(changes, key=lambda each: (text_at(each, "tree"), text_at(each, "path"))):
        if text_at(change, "tree") != tree:
            tree = text_at(change, "tree")
            yield Line(tree)
        size = size_at(change, "bytes") if count_at(change, "bytes") else ""
        path = text_at(change, "path") or "(the file itself)"
        mark = f"  -> {ARCHIVED_MARK}" if change.get("archived") is True else ""
        yield Line(f"  {text_at(change, 'deed'):<{_DEED_WIDTH}} {size:>{_SIZE_WIDTH}}  {path}{mark}")
    if not total:
        return
    if total > len(changes):
        yield Line(f"and {total - len(changes)} more")
    archived = sum(change.get("archived") is True for change in changes)
    unsure = " at least" if total > len(changes) else ""
    yield Line(
        f"{plural(total, 'change')}, {size_at(details, 'bytes')} to copy;{unsure} {archived} "
        f"{'version goes' if archived == 1 else 'versions go'} to the archive."
    )
