"""Only a folder that the demo made is removed, and what runs in it is stopped before."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.errors import PairAgentError
from agent.demo.agents import DemoAgent
from agent.demo.pair_files import create_pair
from agent.demo.premises import FOLDER_PREFIX, remove_folder, stop_kept


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=tmp_path)).resolve()
    yield made
    remove_folder(made)


def test_a_pair_whose_demo_was_killed_is_ended_with_its_folder(folder: Path) -> None:
    agents = [DemoAgent(node) for node in create_pair(folder).nodes]
    try:
        for agent in agents:
            agent.start()
        stop_kept(folder, lambda: False)
        assert all(agent.exit_code() is not None for agent in agents)
    finally:
        for agent in agents:
            agent.stop(lambda: True)
    assert not folder.exists()


def test_a_folder_that_only_has_the_name_stays(folder: Path) -> None:
    (folder / "node-a").mkdir()
    (folder / "node-a" / "agent.toml").write_text('mode = "primary"\n')
    with pytest.raises(PairAgentError, match="nothing was changed"):
        stop_kept(folder, lambda: False)
    assert (folder / "node-a" / "agent.toml").exists()


def test_a_pair_in_another_folder_stays(folder: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()", str(folder)], stdin=subprocess.PIPE)
    with stranger:
        create_pair(folder)
        stop_kept(folder, lambda: False)
        assert stranger.poll() is None
        assert not folder.exists()
        stranger.communicate(b"\n")
