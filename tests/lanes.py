"""The lanes: groups of tests that need more of a machine than Python, and whether this machine has it.

A lane is a pytest marker. Where something is missing its tests are skipped with the reason, so that everybody can run
the suite; with CI=true in the environment they fail instead, so that nothing goes unproved without being noticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Lane:
    """One group of tests: its marker, what it proves, and what tells a sentence about what is missing, or None."""

    marker: str
    proves: str
    why_missing: Callable[[], str | None]


def is_ci() -> bool:
    """Tells whether a missing lane is a failure here."""
    return os.environ.get("CI", "").lower() in ("true", "1")


@cache
def missing_for_namespaces() -> str | None:
    """Returns why no network namespaces can be made here; tried, because containers often forbid it to root too."""
    if sys.platform == "win32":
        return "network namespaces exist on Linux only"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool, package in (("ip", "iproute2"), ("tc", "iproute2")):
        if shutil.which(tool) is None:
            return f"needs {tool} (Debian: apt-get install {package})"
    name = f"pair-agent-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=True)
    return None


def missing_for_wine() -> str | None:
    """Returns why no Windows Python can be run here."""
    if sys.platform == "win32":
        return "runs on Linux, under Wine; on Windows itself the other tests are the proof"
    from tests.wine.install import why_impossible

    return why_impossible()


def missing_tool(tool: str, package: str) -> Callable[[], str | None]:
    """Returns the check of a lane that needs one program."""
    return lambda: None if shutil.which(tool) else f"needs {tool} (Debian: apt-get install {package})"


def missing_copiers() -> str | None:
    """Returns why the copying benchmarks cannot run beside others."""
    needed = {"rsync": "rsync", "stunnel4": "stunnel4", "syncthing": "syncthing"}
    return next((why for tool, package in needed.items() if (why := missing_tool(tool, package)())), None)


LANES = (
    Lane("netns", "network faults between real nodes", missing_for_namespaces),
    Lane("keepalived", "comparison with keepalived", missing_tool("keepalived", "keepalived")),
    Lane("copiers", "comparison with rsync and Syncthing", missing_copiers),
    Lane("openssl", "the link against OpenSSL's own command line", missing_tool("openssl", "openssl")),
    Lane("compiler", "faults injected into system calls", missing_tool("gcc", "gcc libc6-dev")),
    Lane("wine", "the code on Windows' Python, and pairs of Windows and Linux", missing_for_wine),
)
