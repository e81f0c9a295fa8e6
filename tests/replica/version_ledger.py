"""Keeps account of every version that a pair of trees ever held, so that none can vanish unnoticed.

A version is a file's contents or a link's target at one path; tests write nothing twice, so each is told by its value.
Nothing and a folder hold nothing themselves: they count as one, ABSENT. An edit on a node leads from the version that
stood there to the one that it made; from these steps follows which versions were made on top of which.

At the end, when both trees are the same, a version is accounted for if one of these holds:

* it stands in its place, or what stands there was made on top of it, in one step or many;
* it is in the archive of a node, under its path;
* it stood on one node only, ever, and was edited there. What stood on both was synchronised: an edit on the standby
  alone, which the active node's version replaces, does not make up for its loss on the active node.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ABSENT = None
Value = bytes | str | None
Tree = Mapping[str, Any]


@dataclass
class Account:
    """All that is known of one path."""

    made_on: defaultdict[Value, set[Value]] = field(default_factory=lambda: defaultdict(set))  # version -> later ones
    stood_on: defaultdict[Value, set[str]] = field(default_factory=lambda: defaultdict(set))  # version -> nodes

    def leads_to(self, version: Value, final: Value) -> bool:
        seen, left = {version}, [version]
        while left:
            each = left.pop()
            if each == final:
                return True
            left.extend(self.made_on[each] - seen)
            seen |= self.made_on[each]
        return False


class Ledger:
    """The accounts of all paths."""

    def __init__(self) -> None:
        self._accounts: defaultdict[str, Account] = defaultdict(Account)
        self.story: list[str] = []

    def seen(self, node: str, tree: Tree) -> None:
        """Notes what stands on a node."""
        for path, value in tree.items():
            self._accounts[path].stood_on[value].add(node)

    def edited(self, node: str, before: Tree, after: Tree) -> None:
        """Notes what an edit on a node made of its tree."""
        for path in sorted(before.keys() | after.keys()):
            old, new = before.get(path), after.get(path)
            if old != new:
                self._accounts[path].made_on[old].add(new)
                self.tell(f"{node}: {path}: {shown(old)} -> {shown(new)}")
        self.seen(node, before)
        self.seen(node, after)

    def tell(self, what: str) -> None:
        """Adds a line to the story that is shown when something is missing."""
        self.story.append(what)

    def missing(self, final: Tree, archived: Iterable[tuple[str, Value]]) -> list[str]:
        """Returns the versions that are not accounted for, in words."""
        kept = set(archived)
        found = []
        for path, account in sorted(self._accounts.items()):
            for version, nodes in list(account.stood_on.items()):
                if version is ABSENT or (path, version) in kept or account.leads_to(version, final.get(path)):
                    continue
                edited = bool(account.made_on[version])
                if len(nodes) == 1 and edited:
                    continue
                found.append(
                    f"{path}: {shown(version)} stood on {' and '.join(sorted(nodes))}"
                    f"{', was edited' if edited else ''}, and now there is {shown(final.get(path))}"
                )
        return found


def shown(value: Value) -> str:
    """Returns a version in a few characters."""
    if isinstance(value, bytes):
        words = b" ".join(re.findall(rb"\bv\d+ ", value)).decode()
        return f"{words}({len(value)} bytes)"
    return "nothing" if value is None else f"link to {value}"
