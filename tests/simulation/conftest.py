"""Lets the real keeper and pulse run on simulated clocks and connections."""

from __future__ import annotations

import pytest

from tests.simulation.simulated_agent import use_simulated_edge


@pytest.fixture
def simulated_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    use_simulated_edge(monkeypatch)
