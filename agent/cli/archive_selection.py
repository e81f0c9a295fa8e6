"""Which items of the archive are meant, and where they would be restored to: asked of the agent, decided as values.

Prints nothing and restores nothing. What the agent says of paths is not trusted to stay within a folder.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from agent.admin.printable import printable
from agent.cli.client import AgentClient
from agent.cli.lines import count_at, objects, part, text_at
from agent.core.errors import PairAgentError

LIST_TIMEOUT_S = 60.0
ITEMS_MAX = 100_000

_AGO = re.compile(r"([0-9]{1,6})\s*([smhd])")
_SECONDS_OF_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Filters:
    """What narrows the archive down; None leaves everything in."""

    tree: str | None = None
    path: str | None = None  # an fnmatch pattern within the tree
    since: datetime | None = None

    @property
    def is_empty(self) -> bool:
        return self == Filters()


@dataclass(frozen=True)
class Found:
    """The items that match, at most `ITEMS_MAX`, `more` not among them, and the bytes of all."""

    items: tuple[dict[str, Any], ...]
    size_bytes: int
    more: int


@dataclass(frozen=True)
class Restoration:
    """One item, and the absolute path to write, None for where it was."""

    item: Mapping[str, Any]
    to: Path | None


def time_of(text: str, now: datetime) -> datetime:
    """The moment that an operator's "2h" (ago), "2025-03-01" or "2025-03-01T10:00:00Z" means; UTC if it names no zone.

    Raises ValueError.
    """
    if ago := _AGO.fullmatch(text.strip()):
        try:
            return now - timedelta(seconds=int(ago[1]) * _SECONDS_OF_UNIT[ago[2]])
        except OverflowError:
            raise ValueError(text) from None
    moment = datetime.fromisoformat(text.strip())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def find_items(client: AgentClient, filters: Filters) -> Found:
    """Asks the agent for everything that matches, answer by answer."""
    wanted = {"tree": filters.tree, "path": filters.path}
    if filters.since is not None:
        wanted["since"] = filters.since.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    query = {name: value for name, value in wanted.items() if value is not None}
    items: dict[str, dict[str, Any]] = {}
    while True:
        suffix = f"?{urlencode(query)}" if query else ""
        details = part(client.get_object(f"/v1/archive{suffix}", timeout_s=LIST_TIMEOUT_S), "details")
        page = {text_at(item, "id"): item for item in objects(details, "items") if item.get("id")}
        new = [identity for identity in page if identity not in items]
        items |= page
        if not new or not count_at(details, "more") or len(items) >= ITEMS_MAX:
            return Found(tuple(items.values()), count_at(details, "bytes"), count_at(details, "more"))
        query["after"] = new[-1]


def nearest_tree(name: str, known: Iterable[str]) -> str:
    """What to say of a tree that nobody has: the nearest name, and all of them."""
    names = sorted(set(known))
    if not names:
        return f"no tree is called {name!r}; there are no trees"
    by_key = {each.casefold(): each for each in names}
    near = difflib.get_close_matches(name.casefold(), by_key, n=1)
    meant = f"; did you mean {by_key[near[0]]!r}?" if near else ";"
    return printable(f"no tree is called {name!r}{meant} The trees are {', '.join(names)}.")


def newest_of_each(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each path the version that was archived last, in the order of trees and paths."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for item in items:
        place = (text_at(item, "tree"), text_at(item, "path"))
        if place not in newest or text_at(item, "archived_at") > text_at(newest[place], "archived_at"):
            newest[place] = item
    return [newest[place] for place in sorted(newest)]


def plan_restore(items: list[dict[str, Any]], to: str | None) -> list[Restoration]:
    """Where each item goes. `to` is the file itself for one item, unless it is a folder or ends like one; else a
    folder, in which each item gets the name of its tree and its path there. Raises PairAgentError."""
    if to is None:
        return [Restoration(item, None) for item in items]
    place = Path(os.path.abspath(to))
    if len(items) > 1:
        if place.exists() and not place.is_dir():
            raise PairAgentError(f"{place} is a file; to restore {len(items)} items, name a folder with --to")
        return [Restoration(item, _below(place, text_at(item, "tree"), str(item.get("path") or ""))) for item in items]
    (item,) = items
    if place.is_dir() or to.endswith(("/", os.sep)):
        name = str(item.get("path") or "").rpartition("/")[2] or text_at(item, "tree")
        return [Restoration(item, _below(place, name, ""))]
    return [Restoration(item, place)]


def trees_written(restorations: list[Restoration], trees: Iterable[tuple[str, Path]]) -> list[str]:
    """The names of the trees that a restoration would write into."""
    known = list(trees)
    names = set()
    for restoration in restorations:
        if restoration.to is None:
            names.add(text_at(restoration.item, "tree"))
            continue
        real = os.path.normcase(os.path.realpath(restoration.to))
        for name, path in known:
            root = os.path.normcase(path)
            if real == root or real.startswith(root.rstrip(os.sep) + os.sep):
                names.add(name)
    return sorted(names)


def _below(folder: Path, name: str, path: str) -> Path:
    place = Path(os.path.abspath(folder.joinpath(name, *path.split("/"))))
    if place == folder or not place.is_relative_to(folder):
        raise PairAgentError(printable(f"The archive has an item {name}/{path}, which is no path within a folder"))
    return place
