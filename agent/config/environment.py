"""The environment's overrides: PAIR_AGENT_ and the path of a key, joined by two underscores.

Lays the values over the tables of the file before anything is validated, so that both go through the same checks.
Knows the table of keys; refuses to judge values beyond reading their text by the kind of the key.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from agent.config.document import CONFIG_VARIABLE
from agent.config.findings import Finding, nearest_name, shown
from agent.config.schema import KEYS, SECTIONS, general_path
from agent.config.values import NotAllowedError

PREFIX = "PAIR_AGENT_"
# What the agent hands to workloads and hooks; a command run from there inherits it. Those two that are also keys, MODE
# and NAME, then say what the file says.
WORKLOAD_VARIABLES = frozenset(f"{PREFIX}{name}" for name in ("ROLE", "TERM", "MODE", "NAME", "PEER", "ROLE_FILE"))
DEBUG_VARIABLE = "PAIR_AGENT_DEBUG"
_NOT_KEYS = (WORKLOAD_VARIABLES | {CONFIG_VARIABLE, DEBUG_VARIABLE}) - {f"{PREFIX}MODE", f"{PREFIX}NAME"}
_ENVIRONMENT_KEY = "workload.environment"


@dataclass(frozen=True)
class Overlay:
    """The tables with the environment's values in them; `overrides` maps a path to the variable that set it."""

    tables: dict[str, object]
    overrides: dict[str, str]
    findings: list[Finding]


def variable_name(path: str) -> str:
    """The environment variable of a key: "server.port" is PAIR_AGENT_SERVER__PORT."""
    return PREFIX + path.upper().replace(".", "__")


def overlay_environment(tables: Mapping[str, object], environ: Mapping[str, str]) -> Overlay:
    """Lays every PAIR_AGENT_ variable over a copy of the tables; what cannot be laid is a finding."""
    overlay = Overlay(copy.deepcopy(dict(tables)), {}, [])
    names = [name for name in environ if name.startswith(PREFIX) and name not in _NOT_KEYS]
    for name in sorted(names, key=_in_order):
        path = _path_of(name)
        key = KEYS.get(general_path(path))
        if key is None and not path.startswith(f"{_ENVIRONMENT_KEY}."):
            overlay.findings.append(Finding("", "no key has this name", nearest=_nearest_variable(name), variable=name))
            continue
        text = environ[name]
        try:
            value = text if key is None else key.kind.from_text(text)
        except NotAllowedError as refusal:
            problem = f"found {shown(path, text)}" + (f" ({refusal})" if str(refusal) else "")
            overlay.findings.append(Finding(path, problem, key.kind.allowed if key else "", variable=name))
            continue
        if problem := _place(overlay.tables, path, value):
            overlay.findings.append(Finding(path, problem, variable=name))
        else:
            overlay.overrides[path] = name
    return overlay


def _in_order(name: str) -> list[tuple[int, str]]:
    """Sorts element 2 of a repeated table before element 10, and a table before its entries."""
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in name.split("__")]


def _path_of(name: str) -> str:
    """The path that a variable stands for, whether or not it is a key. Names that are not in capitals match nothing."""
    words = name.removeprefix(PREFIX)
    prefix = variable_name(_ENVIRONMENT_KEY) + "__"
    if name.startswith(prefix) and len(name) > len(prefix):
        # The names of variables are the user's own: capitals and underscores in them stay.
        return f"{_ENVIRONMENT_KEY}.{name.removeprefix(prefix)}"
    if words != words.upper() or "." in words:
        return ""
    return words.replace("__", ".").lower()


def _nearest_variable(name: str) -> str:
    path = _path_of(name.upper())
    first, _, rest = path.partition(".")
    repeated = first in SECTIONS and SECTIONS[first].repeated
    number, _, last = rest.partition(".")
    if repeated and number.isdigit():
        near = nearest_name(f"{first}.{number}.{last}")
        return variable_name(near.replace(f"{first}.", f"{first}.{number}.", 1)) if near else ""
    if near := nearest_name(path):
        return variable_name(near)
    names = [variable_name(key) for key in KEYS]
    return next(iter(difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.6)), "")


def _place(tables: dict[str, object], path: str, value: object) -> str:
    """Puts the value at its path, making the tables on the way; returns what stands in the way, or nothing."""
    if path.startswith(f"{_ENVIRONMENT_KEY}."):
        steps = [*_ENVIRONMENT_KEY.split("."), path.removeprefix(f"{_ENVIRONMENT_KEY}.")]
    else:
        steps = path.split(".")
    if general_path(path) == path and path.partition(".")[0] in SECTIONS and SECTIONS[steps[0]].repeated:
        return f"a repeated table needs the number of its element, such as {variable_name(f'{steps[0]}.0.{steps[-1]}')}"
    here: dict[str, object] = tables
    position = 0
    while position < len(steps) - 1:
        step = steps[position]
        position += 1
        if general_path(".".join(steps[: position + 1])) != ".".join(steps[: position + 1]):
            elements = here.setdefault(step, [])
            number = int(steps[position])
            position += 1
            if not isinstance(elements, list):
                return f"the file's {step} is no list of tables"
            if number > len(elements):
                return f"there is no element {number}: the elements count from 0, and there are {len(elements)}"
            if number == len(elements):
                elements.append({})
            inner = elements[number]
        else:
            inner = here.setdefault(step, {})
        if not isinstance(inner, dict):
            return f"the file's {step} is no table"
        here = inner
    here[steps[-1]] = value
    return ""
