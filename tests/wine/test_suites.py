"""The code runs on Windows: every module is imported, and the tests of the parts are run, by Windows' own Python."""

from __future__ import annotations

import pytest

from tests.wine.install import PROJECT
from tests.wine.windows_python import WindowsPython

pytestmark = pytest.mark.wine

# What touches Windows' disks; sessions of two workers are the same Python everywhere, and slow under Wine.
FILES_OF_PARTS = {
    "replica": ("scanning", "contents", "index", "index_file", "index_round", "steps", "staging", "archive")
}
PART_SECONDS_MAX = 420  # the trees write many thousands of files
PARTS = ("platform", "config", "admin", "cli", "link", "workload", "replica")

IMPORT = """
import importlib, sys
failed = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed.append(f"{name}: {type(error).__name__}: {error}")
print(sys.platform, "imports", len(sys.argv) - 1)
print("\\n".join(failed))
sys.exit(bool(failed))
"""


def modules() -> list[str]:
    """Returns the name of every module of the product, except those that are for Linux by their name."""
    files = sorted((PROJECT / "agent").rglob("*.py"))
    names = [".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name for name in names if not name.endswith(("_linux", "_posix", ".__main__"))]


def test_every_module_is_imported_by_windows(windows: WindowsPython) -> None:
    done = windows.run("-c", IMPORT, *modules())
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("win32 imports")


def files_of(part: str) -> list[str]:
    """Returns the tests of a part, as arguments for pytest."""
    names = FILES_OF_PARTS.get(part)
    return [f"tests/{part}"] if names is None else [f"tests/{part}/test_{name}.py" for name in names]


@pytest.mark.parametrize("part", PARTS)
def test_the_tests_of_a_part_pass_on_windows(windows: WindowsPython, part: str) -> None:
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not long and not netns",
        "-W",
        "ignore",
        "--hypothesis-profile",
        "brief",
    ]
    done = windows.run("-m", "pytest", *options, *files_of(part), timeout_seconds=PART_SECONDS_MAX)
    if not done.stdout:  # Wine itself fell over before Python said its first word
        done = windows.run("-m", "pytest", *options, *files_of(part), timeout_seconds=PART_SECONDS_MAX)
    print(done.stdout)
    assert done.returncode == 0, f"the tests of {part} fail on Windows"
    assert " passed" in done.stdout
