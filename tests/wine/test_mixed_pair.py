"""Whole pairs of Windows and Linux, in both arrangements: takeover, planned stop, switchback; one workload only."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.pair import Node, Pair
from tests.wine.mixed_pair import LinuxNode, WindowsNode
from tests.wine.windows_python import WindowsPython

pytestmark = pytest.mark.wine

TIMEOUT_MS = 3_000  # a start of Windows' Python beside everything else takes a second under Wine

START_SECONDS_MAX = 60.0


@contextmanager
def running(directory: Path, windows: WindowsPython, *, windows_is_primary: bool) -> Iterator[Pair]:
    on_windows = functools.partial(WindowsNode, windows)
    make = (on_windows, LinuxNode) if windows_is_primary else (LinuxNode, on_windows)
    pair = Pair(directory, interval_ms=300, timeout_ms=TIMEOUT_MS, standby_ms=10_000, make=make)
    try:
        # Windows first, and until it answers: on a busy machine its start takes longer than everything after it.
        for node in sorted(pair.nodes, key=lambda node: not isinstance(node, WindowsNode)):
            node.start()
            pair.wait_for(lambda node=node: bool(node.status()), f"{node.name} answering", START_SECONDS_MAX)
        pair.wait_in_order()
        ran(pair, pair.primary, 1)
        yield pair
    finally:
        pair.close()


def ran(pair: Pair, node: Node, times: int) -> None:
    """Waits until the workload of `node` has left the trace of so many lives: it runs, not only its process."""
    pair.wait_for(lambda: len(node.spans()) == times, f"{times} lives of the workload on {node.name}")


def only_one_ran(pair: Pair) -> None:
    """I1: no two at once, and no term used twice."""
    assert pair.overlap_ns() == 0
    terms = [span.term for node in pair.nodes for span in node.spans()]
    assert len(terms) == len(set(terms))


@pytest.mark.parametrize("windows_is_primary", [True, False], ids=["windows-primary", "windows-backup"])
def test_a_planned_stop_hands_over_and_the_primary_takes_its_place_back(
    tmp_path: Path, windows: WindowsPython, windows_is_primary: bool
) -> None:
    with running(tmp_path, windows, windows_is_primary=windows_is_primary) as pair:
        assert pair.primary.stop() == 0
        pair.wait_active(pair.backup)
        ran(pair, pair.backup, 1)
        taken = pair.backup.status()
        assert "goodbye" in taken["reason"]

        pair.primary.start()
        pair.wait_in_order()
        ran(pair, pair.primary, 2)
        assert pair.primary.status()["term"] > taken["term"]
        only_one_ran(pair)


def test_linux_takes_over_when_windows_loses_power(tmp_path: Path, windows: WindowsPython) -> None:
    with running(tmp_path, windows, windows_is_primary=True) as pair:
        assert isinstance(pair.primary, WindowsNode)
        pair.primary.lose_power()
        pair.wait_active(pair.backup)
        ran(pair, pair.backup, 1)
        pair.primary.start()
        pair.wait_in_order()
        ran(pair, pair.primary, 2)
        only_one_ran(pair)


def test_windows_takes_over_when_the_linux_agent_is_killed(tmp_path: Path, windows: WindowsPython) -> None:
    with running(tmp_path, windows, windows_is_primary=False) as pair:
        pair.primary.kill()
        pair.wait_active(pair.backup)
        ran(pair, pair.backup, 1)
        pair.primary.start()
        pair.wait_in_order()
        ran(pair, pair.primary, 2)
        only_one_ran(pair)


def test_p4_a_killed_agent_on_windows_takes_its_workload_with_it(tmp_path: Path, windows: WindowsPython) -> None:
    with running(tmp_path, windows, windows_is_primary=True) as pair:
        pair.primary.kill()
        pair.wait_active(pair.backup)
        ran(pair, pair.backup, 1)
        only_one_ran(pair)
