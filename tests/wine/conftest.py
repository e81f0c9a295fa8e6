"""Gives the tests of the Wine lane one Windows Python, built at most once for each set of dependencies."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lanes import is_ci
from tests.wine.install import install
from tests.wine.windows_python import WindowsPython

FOLDER_VARIABLE = (
    "TEST_WINE_FOLDER"  # not PAIR_AGENT_...: those are settings of the product, and unknown ones are errors
)


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowsPython]:
    """The Windows Python in the folder that TEST_WINE_FOLDER names, kept for the next run; or a temporary one."""
    named = os.environ.get(FOLDER_VARIABLE)
    root = Path(named).absolute() if named else tmp_path_factory.mktemp("wine")
    try:
        install(root)
    except subprocess.CalledProcessError as error:
        reason = f"no Windows Python could be built: {' '.join(error.cmd)}: {error.stderr or error.stdout}"
        if is_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    python = WindowsPython(root)
    python.start()
    yield python
    python.stop()
