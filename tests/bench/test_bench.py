"""Every benchmark runs to its end with the fewest trials. What it measures is not judged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.report import Row, table

PROJECT = Path(__file__).resolve().parents[2]
RUN_S_MAX = 240
COPYING_S_MAX = 600


@pytest.mark.long
@pytest.mark.netns
@pytest.mark.keepalived
@pytest.mark.compiler
@pytest.mark.parametrize("name", ["takeover", "silence", "hogs", "overlap", "idle", "strangers"])
def test_benchmark_runs_to_its_end(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", name, "--quick"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "median" in done.stdout
    assert "not measured" not in done.stdout


@pytest.mark.long
@pytest.mark.netns
@pytest.mark.copiers
@pytest.mark.parametrize("name", ["resync", "latency", "bulk-heartbeats", "replica-memory"])
def test_copying_benchmark_runs_to_its_end_and_every_copy_is_right(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", name, "--quick"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=COPYING_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "median" in done.stdout
    assert "not measured" not in done.stdout
    assert "failed:" not in done.stdout, done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="the benchmarks drive Linux")
def test_unknown_benchmark_is_refused_with_the_names_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "takover"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "takeover" in done.stderr


def test_table_shows_median_extremes_and_the_ratio_of_medians() -> None:
    peer = Row("peer", [10.0, 30.0, 20.0])
    lines = table([Row("own", [5.0, 4.0, 9.0], target="7", against=peer), peer, Row("nothing", [])]).splitlines()
    assert lines[1].split() == ["own", "5", "4", "9", "3", "ms", "7", "peer", "0.25"]
    assert lines[2].split() == ["peer", "20", "10", "30", "3", "ms"]
    assert lines[3].split() == ["nothing", "-", "-", "-", "0", "ms"]
