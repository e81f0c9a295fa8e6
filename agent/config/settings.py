"""Every key's value after it was looked at alone: accepted, refused with a finding, or its default.

Walks the tables by the table of keys, and reports everything that is wrong rather than the first thing. Looks at no
file and compares no key with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from agent.config.findings import Finding, nearest_name, nearest_section, shown
from agent.config.positions import Positions
from agent.config.schema import KEYS, SECTIONS, Key, Presence, general_path, keys_of
from agent.config.values import NotAllowedError

T = TypeVar("T")


@dataclass
class Settings:
    """The accepted values by path ("server.port", "tree.0.name"), and what was found wrong on the way.

    `values` holds accepted values and defaults, and nothing for a key whose value was refused. `given` holds the paths
    that the file or the environment set, refused ones too. `counts` says how many elements a repeated table has.
    """

    positions: Positions
    overrides: Mapping[str, str]
    values: dict[str, object] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def take(self, path: str, kind: type[T]) -> T:
        """The value of a key that is known to be accepted, as the type that the table of keys gives it."""
        value = self.values[path]
        assert isinstance(value, kind), path
        return value

    def get(self, path: str, kind: type[T]) -> T | None:
        """The value of a key, or None if it is absent without a default, or was refused."""
        value = self.values.get(path)
        return value if isinstance(value, kind) else None

    def accepted(self, *paths: str) -> bool:
        """Tells whether all of these keys have a value that can be compared."""
        return all(self.values.get(path) is not None for path in paths)

    def refused(self, path: str) -> bool:
        """Tells whether the key was set to something that is already a finding."""
        return path in self.given and path not in self.values

    def report(self, path: str, problem: str, allowed: str = "", nearest: str = "") -> None:
        """Adds a finding at the place where the key was set."""
        variable = self.overrides.get(path, "")
        line = None if variable else self.positions.line(path)
        self.findings.append(Finding(path, problem, allowed, nearest, line, variable))


def read_settings(tables: Mapping[str, object], positions: Positions, overrides: Mapping[str, str]) -> Settings:
    """Looks at every key of the tables. Missing required keys, unknown keys and refused values become findings."""
    settings = Settings(positions, overrides)
    _read_table(settings, "", tables)
    for section in SECTIONS.values():
        if section.repeated:
            settings.counts.setdefault(section.path, 0)
    return settings


def _read_table(settings: Settings, path: str, table: Mapping[str, object]) -> None:
    general = general_path(path)
    for key in keys_of(general):
        if key.name not in table:
            _read_absence(settings, _joined(path, key.name), key)
    for section in SECTIONS.values():
        parent, _, name = section.path.rpartition(".")
        if section.path and parent == general and not section.repeated and name not in table:
            _read_table(settings, _joined(path, name), {})
    for name, value in table.items():
        inner = _joined(path, name)
        key_here = KEYS.get(_joined(general, name))
        if "." in name:
            # A quoted name with a dot in it would read like the path of another key.
            settings.report(inner, "no key has a dot in its name", nearest=nearest_name(inner))
        elif key_here is not None:
            _read_value(settings, inner, key_here, value)
        elif general_path(inner) in SECTIONS and name:
            _read_section(settings, inner, value)
        elif isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value)):
            settings.report(inner, "no table has this name", nearest=nearest_section(inner) or nearest_name(inner))
        else:
            settings.report(inner, f"no key has this name (found {shown(inner, value)})", nearest=nearest_name(inner))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _read_absence(settings: Settings, path: str, key: Key) -> None:
    if key.default is Presence.REQUIRED:
        settings.report(path, "missing", key.kind.allowed)
    else:
        settings.values[path] = None if key.default is Presence.OPTIONAL else key.default


def _read_value(settings: Settings, path: str, key: Key, value: object) -> None:
    settings.given.add(path)
    try:
        settings.values[path] = key.kind.accept(value)
    except NotAllowedError as refusal:
        problem = f"found {shown(path, value)}" + (f" ({refusal})" if str(refusal) else "")
        settings.report(path, problem, key.kind.allowed)


def _read_section(settings: Settings, path: str, value: object) -> None:
    settings.given.add(path)
    if not SECTIONS[path].repeated:
        if isinstance(value, dict):
            _read_table(settings, path, value)
        else:
            settings.report(path, f"found {shown(path, value)}", f"a table, [{path}]")
        return
    if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
        settings.report(path, f"found {shown(path, value)}", f"a table that can be repeated, [[{path}]]")
        return
    settings.counts[path] = len(value)
    for number, element in enumerate(value):
        _read_table(settings, f"{path}.{number}", element)
