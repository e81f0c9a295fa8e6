"""A pair of one node on Windows' Python and one on this machine's: tests/real's pair with other starts and ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.real.pair import WAIT_S, Node
from tests.wine.windows_python import WindowsPython, windows_path

RECORDER = Path(__file__).with_name("recorder.py")


class LinuxNode(Node):
    """A node on this machine whose workload stamps its trace with the clock that Windows has too."""

    @property
    def recorder(self) -> list[str]:
        return [sys.executable, "-I", "-S", str(RECORDER), str(self.trace)]


class WindowsNode(Node):
    """A node on Windows' Python: its agent, its guardian and its workload are Windows processes."""

    def __init__(self, windows: WindowsPython, *arguments: Any, **options: Any) -> None:
        self._windows = windows
        self._copier: threading.Thread | None = None
        super().__init__(*arguments, **options)

    @property
    def recorder(self) -> list[str]:
        return [self._windows.executable, "-I", "-S", windows_path(RECORDER), windows_path(self.trace)]

    def start(self, *options: str, environment: Mapping[str, str] = {}) -> None:
        arguments = ("-m", "agent", "run", "--config", windows_path(self.config), *options)
        self.process = self._windows.popen(*arguments, environment=environment)
        self._copier = threading.Thread(target=self._copy_output, args=(self.process,), daemon=True)
        self._copier.start()

    def stop(self) -> int:
        """Stops the agent in good order, as Ctrl-C does, and returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(WAIT_S)

    def lose_power(self) -> None:
        """Ends everything that runs on Windows at once, as if the machine lost power."""
        self._windows.crash()
        assert self.process is not None
        self.process.wait(WAIT_S)

    def _copy_output(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with self.log.open("ab", buffering=0) as log:
            for line in process.stdout:
                log.write(line)
