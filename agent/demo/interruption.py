"""Ctrl-C and its kin while the demo runs: noted at once, obeyed at the next pause, never in the middle of a step.

An exception out of a signal handler could strike between the start of a process and the note that it runs; so the
handlers only count, and whoever waits asks. While the demo cleans up it asks for nothing but more haste.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

EXIT_CODE_BASE = 128  # plus the number of the signal, as shells count

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]

Handler = Callable[[int, FrameType | None], Any] | int | None


class InterruptedDemoError(Exception):
    """The demo was told to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class Interruption:
    """Takes the signals while it is entered; made and used on the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._number = 0
        self._noted = threading.Event()
        self._former: dict[int, Handler] = {}

    def __enter__(self) -> Interruption:
        for number in _SIGNALS:
            # `nohup pair-agent demo` outlives its terminal.
            if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def pause(self, seconds: float) -> None:
        """Waits. Raises InterruptedDemoError as soon as a signal has come."""
        if self._noted.wait(seconds):
            raise InterruptedDemoError(self._number)

    def hurry_after(self) -> Callable[[], bool]:
        """Returns what tells whether one more signal has come since this call."""
        before = self.count
        return lambda: self.count > before

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._number = self._number or number
        self._noted.set()
