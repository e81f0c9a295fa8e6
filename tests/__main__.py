"""Runs everything that a change has to pass: style, types for both platforms, and all tests that this machine can run.

    python -m tests [pytest's arguments]      without the marker `long`, unless -m says otherwise

Each step says how it went; a failed one does not keep the next from running. The last line is pytest's summary, the
exit code 0 only if every step passed. Lanes that this machine cannot run are named with the reason (tests/lanes.py).
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).parent.parent
ONE_TEST_SECONDS_MAX = 300

STEPS = (
    ("style", ("ruff", "check", ".")),
    ("layout", ("ruff", "format", "--check", ".")),
    ("types on Linux", ("mypy", "--platform", "linux")),
    ("types on Windows", ("mypy", "--platform", "win32")),
)
# A test that hangs is shown with the stacks of all threads and ends the run: nobody waits for it for ever.
PYTEST = (
    "pytest",
    *("-o", f"faulthandler_timeout={ONE_TEST_SECONDS_MAX}"),
    *("-o", "faulthandler_exit_on_timeout=true"),
)


def passes(name: str, command: tuple[str, ...]) -> bool:
    """Runs one check, says how it went, and shows its output if it failed."""
    print(f"{name} ({' '.join(command)}): ", end="", flush=True)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    print(f"{'passed' if done.returncode == 0 else 'FAILED'} in {time.monotonic() - start:.1f} s", flush=True)
    if done.returncode != 0:
        print(done.stdout.decode("utf-8", "replace"), flush=True)
    return done.returncode == 0


def main() -> int:
    """Runs all steps; returns 0 only if all passed."""
    failed = [name for name, command in STEPS if not passes(name, command)]
    if failed:
        print(f"FAILED before the tests: {', '.join(failed)}", flush=True)
    selection = () if "-m" in sys.argv else ("-m", "not long")
    tests = subprocess.run(
        [sys.executable, "-m", *PYTEST, *selection, *sys.argv[1:]], cwd=PROJECT, stdin=subprocess.DEVNULL, check=False
    )
    return tests.returncode or bool(failed)


if __name__ == "__main__":
    sys.exit(main())
