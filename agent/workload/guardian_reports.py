"""The guardian's reports as values; see guardian_protocol for the lines."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from agent.workload.guardian_protocol import ReportVerb, decode


@dataclass(frozen=True)
class Ready:
    """The guardian has settled; `scheduling` is "realtime" or "ordinary"."""

    pid: int
    scheduling: str


@dataclass(frozen=True)
class Started:
    """Run `number` runs as process `pid`; None: start commands, which leave no process to name."""

    number: int
    pid: int | None
    at_ns: int


@dataclass(frozen=True)
class Failed:
    """Run `number` could not be started."""

    number: int
    sentence: str


@dataclass(frozen=True)
class Exited:
    """Run `number` ended by itself and nothing of it is left; `code` below 0: by that signal."""

    number: int
    code: int
    at_ns: int

    @property
    def sentence(self) -> str:
        """How it ended, for people."""
        if self.code >= 0:
            return f"it ended with exit code {self.code}"
        try:
            return f"it was ended by signal {signal.Signals(-self.code).name}"
        except ValueError:
            return f"it was ended by signal {-self.code}"


@dataclass(frozen=True)
class Stopped:
    """What STOP `number` asked for is confirmed."""

    number: int
    at_ns: int


@dataclass(frozen=True)
class Fenced:
    """The lease ended and nothing is left."""

    at_ns: int
    sentence: str


@dataclass(frozen=True)
class Problem:
    """Something for the log."""

    sentence: str


@dataclass(frozen=True)
class Output:
    """One line that the workload wrote."""

    line: str


Report: TypeAlias = Ready | Started | Failed | Exited | Stopped | Fenced | Problem | Output


def parse_report(line: bytes) -> Report:
    """Returns the report in a line without its end; raises ValueError if it is none."""
    verb, fields = decode(line)
    try:
        return _PARSERS[ReportVerb(verb)](fields)
    except IndexError as error:
        raise ValueError(f"a guardian's report lacks a field: {line!r}") from error


_PARSERS: dict[ReportVerb, Callable[[list[str]], Report]] = {
    ReportVerb.READY: lambda fields: Ready(int(fields[0]), fields[1]),
    ReportVerb.STARTED: lambda fields: Started(int(fields[0]), int(fields[1]) or None, int(fields[2])),
    ReportVerb.FAILED: lambda fields: Failed(int(fields[0]), fields[1]),
    ReportVerb.EXITED: lambda fields: Exited(int(fields[0]), int(fields[1]), int(fields[2])),
    ReportVerb.STOPPED: lambda fields: Stopped(int(fields[0]), int(fields[1])),
    ReportVerb.FENCED: lambda fields: Fenced(int(fields[0]), fields[1]),
    ReportVerb.PROBLEM: lambda fields: Problem(fields[0]),
}
