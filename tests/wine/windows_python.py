"""Runs the Windows Python that `install` built: to its end, or as a process beside the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.wine.install import PROJECT, WINE, WINESERVER, wine_environment

RUN_SECONDS_MAX = 200
CRASH_SECONDS_MAX = 10.0


def windows_path(path: Path) -> str:
    """Returns how Windows' Python names a file of this machine."""
    return "Z:" + str(path.absolute()).replace("/", "\\")


class WindowsPython:
    """The Windows Python in `root`, with the project importable; `start` first, `stop` at the end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._keeper: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Keeps Wine's services running, so that each further start takes a tenth of a second and not seconds."""
        self._keeper = self.popen("-c", "import sys; print('up', flush=True); sys.stdin.read()")
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline().strip() != b"up":
            raise OSError("the Windows Python does not start")

    def stop(self) -> None:
        """Ends every process of this Wine prefix, and of no other."""
        subprocess.run([str(WINESERVER), "-k"], env=wine_environment(self._root), check=False, timeout=30)
        if self._keeper is not None:
            self._keeper.communicate(timeout=30)

    def crash(self) -> None:
        """Ends the whole of Windows at once, as a loss of power does, and starts it again.

        SIGKILL of one process would not do: Wine's server may keep the connections of the dead one open.
        """
        subprocess.run([str(WINESERVER), "-k9"], env=wine_environment(self._root), check=False, timeout=30)
        for process in self._started:
            process.kill()
        deadline = time.monotonic() + CRASH_SECONDS_MAX
        while pids := self._pids():  # one of them may have been about to start another
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise OSError(f"these processes outlive SIGKILL: {pids}")
            time.sleep(0.01)
        assert self._keeper is not None
        self._keeper.communicate(timeout=30)
        self.start()

    @property
    def executable(self) -> str:
        """What Windows calls this Python."""
        return windows_path(self._root / "python" / "python.exe")

    def _pids(self) -> list[int]:
        """Returns the processes that run under Wine with this prefix."""
        mark = f"WINEPREFIX={wine_environment(self._root)['WINEPREFIX']}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                is_wine = "/wine/" in str((process / "exe").readlink())
                if is_wine and mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found

    def popen(
        self, *arguments: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts Python with pipes for all three streams, because under Wine 8.0 it cannot start on regular files.

        The process id is the Windows process's own as Linux sees it: SIGKILL is its sudden death.
        """
        process = subprocess.Popen(
            [str(WINE), str(self._root / "python" / "python.exe"), *arguments],
            env=self._environment(environment),
            cwd=folder or PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._started = [*(each for each in self._started if each.poll() is None), process]
        return process

    def run(self, *arguments: str, timeout_seconds: float = RUN_SECONDS_MAX) -> subprocess.CompletedProcess[str]:
        """Runs Python to its end and returns its code and its output, errors included; raises TimeoutExpired."""
        with self.popen(*arguments) as process:
            try:
                output, _ = process.communicate(timeout=timeout_seconds)
            except subprocess.TimeoutExpired as error:
                process.kill()
                output, _ = process.communicate()
                print(output.decode("utf-8", "replace"), file=sys.stderr)
                raise error
        text = output.decode("utf-8", "replace").replace("\r\n", "\n")
        return subprocess.CompletedProcess(process.args, process.returncode, text)

    def _environment(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        environment = wine_environment(self._root)
        environment["PYTHONPATH"] = windows_path(PROJECT)
        environment["PYTHONUTF8"] = "1"
        return environment | dict(extra or {})
