"""The agent asks for the descriptors it needs, takes no more than that, and says when they are refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agent.platform.descriptors import DESCRIPTORS_NEEDED, descriptor_limit, raise_descriptor_limit

RAISE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from agent.platform.descriptors import descriptor_limit, raise_descriptor_limit
sentence = raise_descriptor_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE), descriptor_limit(), sentence)
"""


def raised(soft: int, hard: int) -> str:
    """What a process of its own, where the limits may be lowered for good, has and says after raising them."""
    source = RAISE.format(soft=soft, hard=hard)
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_low_soft_limit_is_raised_as_far_as_needed() -> None:
    assert raised(256, 4096) == f"{DESCRIPTORS_NEEDED} 4096 {DESCRIPTORS_NEEDED} None"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_limit_that_suffices_is_left_alone() -> None:
    assert raised(2048, 4096) == "2048 4096 2048 None"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_low_hard_limit_is_used_up_and_told_of() -> None:
    limits, sentence = raised(200, 256).split(" the ", 1)
    assert limits == "256 256 256"
    assert "256 files and connections" in sentence
    assert "LimitNOFILE" in sentence


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere there is a limit")
def test_windows_has_no_limit_to_raise() -> None:
    assert descriptor_limit() is None
    assert raise_descriptor_limit() is None
