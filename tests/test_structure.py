"""The shape of the code: imports point one way, the core reaches nothing of the world, every room explains itself."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
AGENT = PROJECT / "agent"
LINES_MAX = {"agent": 400, "tests": 800}  # a table of the cases of one rule may be long

PARTS = frozenset({"link", "replica", "workload", "forward", "admin"})
LEAVES = frozenset({"core", "platform", "config"})
MAY_IMPORT: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "platform": frozenset({"core"}),
    "config": frozenset({"core", "platform"}),
    **dict.fromkeys(PARTS, LEAVES),
    "node": LEAVES | PARTS,
    "demo": LEAVES | {"admin"},
    "cli": LEAVES | PARTS | {"node", "demo"},
    "__main__": frozenset({"cli", "core"}),
}
# Checking a certificate means asking the link's own judgement of it; only when it is asked for, so that the
# configuration can be read without loading TLS.
LAZY_EXCEPTIONS = {("config", "agent.link.identity"), ("config", "agent.link.certificates")}

# What the core may have of the standard library: values, text and arithmetic, nothing that reaches the world.
CORE_MAY_IMPORT = frozenset(
    {
        *("__future__", "abc", "collections", "dataclasses", "enum", "types", "typing"),
        *("bisect", "functools", "heapq", "itertools", "operator"),
        *("fractions", "hashlib", "hmac", "math", "struct", "zlib", "array"),
        *("ipaddress", "re", "string", "textwrap", "unicodedata"),
    }
)
CORE_MAY_IMPORT_OF_OTHERS = frozenset({"msgpack"})

IMPORT_NAMES = {"pyopenssl": "OpenSSL"}  # distributions that are imported by another name


@dataclass(frozen=True)
class Import:
    """One import of one name: from where, of what, and whether it happens only when a function runs."""

    file: Path
    line: int
    module: str
    lazy: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(PROJECT)}:{self.line} imports {self.module}"


def files() -> list[Path]:
    return sorted(AGENT.rglob("*.py"))


def room(file: Path) -> str:
    """Returns the folder of agent/ that a module belongs to, or its own name if it lies in agent/ itself."""
    return file.relative_to(AGENT).parts[0].removesuffix(".py")


def imports_of(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text("utf-8"))
    within_functions = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        lazy = node in within_functions
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, lazy)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            assert node.module is not None
            # "from agent import link" names the room in the list of names.
            if node.module == "agent":
                for alias in node.names:
                    yield Import(file, node.lineno, f"agent.{alias.name}", lazy)
            else:
                yield Import(file, node.lineno, node.module, lazy)


def misplaced(found: Import) -> bool:
    """Tells whether an import points against the arrows."""
    name = found.module.split(".")
    here = room(found.file)
    if name[0] != "agent" or len(name) < 2 or here == "__init__":
        return False
    there = name[1]
    if there == here or not ((AGENT / there).is_dir() or (AGENT / f"{there}.py").exists()):
        return False  # its own room, or a name such as agent.__version__
    if found.lazy and (here, found.module) in LAZY_EXCEPTIONS:
        return False
    return there not in MAY_IMPORT[here]


def test_every_room_has_its_place_in_the_picture() -> None:
    assert {room(file) for file in files()} <= MAY_IMPORT.keys() | {"__init__"}


def test_imports_point_one_way() -> None:
    assert [str(found) for file in files() for found in imports_of(file) if misplaced(found)] == []


def test_the_core_reaches_nothing_of_the_world() -> None:
    allowed = CORE_MAY_IMPORT | CORE_MAY_IMPORT_OF_OTHERS | {"agent"}
    reaching = [
        str(found)
        for file in (AGENT / "core").glob("**/*.py")
        for found in imports_of(file)
        if found.module.split(".")[0] not in allowed
    ]
    assert reaching == []


def test_the_core_calls_nothing_that_opens_files() -> None:
    opening = [
        f"{file.relative_to(PROJECT)}:{node.lineno}"
        for file in (AGENT / "core").glob("**/*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("open", "input", "print", "exec", "eval", "__import__")
    ]
    assert opening == []


def test_the_product_imports_nothing_that_is_not_declared() -> None:
    """What a test tool brings along must not be needed by a user."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.split(r"[^A-Za-z0-9_.-]", text)[0].lower() for text in project["dependencies"]}
    declared = {"agent"} | {IMPORT_NAMES.get(name, name) for name in names}
    foreign = [
        str(found)
        for file in files()
        for found in imports_of(file)
        if (top := found.module.split(".")[0]) not in declared and top not in sys.stdlib_module_names
    ]
    assert foreign == []


@pytest.mark.parametrize("top", ["agent", "tests"])
def test_no_file_is_a_maze(top: str) -> None:
    long = [
        f"{file.relative_to(PROJECT)}: {lines} lines"
        for file in sorted((PROJECT / top).rglob("*.py"))
        if (lines := len(file.read_text("utf-8").splitlines())) > LINES_MAX[top]
    ]
    assert long == []


def test_every_folder_of_the_agent_explains_itself() -> None:
    folders = {AGENT, *(file.parent for file in files())}
    silent = [str(folder.relative_to(PROJECT)) for folder in sorted(folders) if not (folder / "README.md").is_file()]
    assert silent == []


def test_every_module_opens_with_what_it_is() -> None:
    silent = [
        str(file.relative_to(PROJECT))
        for file in [*files(), *sorted((PROJECT / "tests").rglob("*.py"))]
        if ast.get_docstring(ast.parse(file.read_text("utf-8"))) is None
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("file", "source", "refused"),
    [
        ("agent/core/x.py", "import agent.link.tls", True),
        ("agent/core/x.py", "from agent import platform", True),
        ("agent/link/x.py", "def f():\n    from agent.admin import y", True),
        ("agent/link/x.py", "from agent.link.tls import z", False),
        ("agent/link/x.py", "from agent import __version__", False),
        ("agent/config/x.py", "from agent.link.identity import z", True),
        ("agent/config/x.py", "def f():\n    from agent.link.identity import z", False),
        ("agent/config/x.py", "def f():\n    from agent.link.tls import z", True),
        ("agent/node.py", "import agent.cli", True),
    ],
)
def test_the_rule_itself_holds(
    file: str, source: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "AGENT", tmp_path / "agent")
    for name in ("core", "link", "admin", "cli", "config", "platform"):
        (tmp_path / "agent" / name).mkdir(parents=True)
    (tmp_path / file).write_text(source)
    assert any(misplaced(found) for found in imports_of(tmp_path / file)) == refused
