"""Shows which lanes run, and skips or fails the tests of those that cannot (see tests/lanes.py)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.lanes import LANES, is_ci


def pytest_report_header() -> list[str]:
    """Names every lane, and why it is skipped."""
    lines = []
    for lane in LANES:
        lacking = lane.why_missing()
        verdict = "runs" if lacking is None else f"{'FAILS' if is_ci() else 'skipped'}: {lacking}"
        lines.append(f"lane {lane.marker} ({lane.proves}): {verdict}")
    return lines


def pytest_configure(config: pytest.Config) -> None:
    """Registers the lanes as markers, and the profile in which slow machines try fewer examples."""
    settings.register_profile("brief", max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    for lane in LANES:
        config.addinivalue_line("markers", f"{lane.marker}: {lane.proves}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips, or fails in continuous integration, a test whose lane this machine does not have."""
    for lane in LANES:
        if item.get_closest_marker(lane.marker) is None:
            continue
        lacking = lane.why_missing()
        if lacking is None:
            continue
        if is_ci():
            pytest.fail(f"lane {lane.marker} must run in continuous integration: {lacking}", pytrace=False)
        pytest.skip(f"lane {lane.marker}: {lacking}")
