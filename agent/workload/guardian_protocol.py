"""The lines between an agent and its guardian: one message per line, a verb and fields separated by tabs.

Fields are text with control and non-ASCII characters escaped as in Python's "unicode_escape", so that a line is ASCII
and a field may hold anything. Both ends are of one release, on one machine: there is no version and no negotiation.

Commands, agent to guardian (its standard input):

    SET name value...             a setting, before the first START (see guardian_machine.Settings)
    RENEW until_ns                the workload may run until then, boot clock; 0: without end
    START number name=value...    start the workload with these environment variables on top
    STOP number timeout_ms        stop it: ask, then kill after the timeout; 0: kill at once

Reports, guardian to agent (its standard output):

    READY pid scheduling          settled; "realtime" or "ordinary"
    STARTED number pid at_ns      the program runs (for start commands: succeeded, pid 0)
    FAILED number sentence        it could not be started; nothing of it is left
    EXITED number code at_ns      it ended by itself, nothing of it is left; code below 0: by that signal
    STOPPED number at_ns          what STOP asked for is confirmed: nothing of it is left
    FENCED at_ns sentence         the lease ended, nothing of it is left
    PROBLEM sentence              a stop command failed and is tried again

Standard error of the guardian carries the workload's output. This module imports next to nothing, because the
guardian does and is to stay small.
"""

from __future__ import annotations

from enum import Enum

SENTENCE_CHARACTERS_MAX = 600
ATOMIC_BYTES_MAX = 4096  # PIPE_BUF: a line up to this length is written whole or not at all


class Command(Enum):
    """What the agent may order."""

    SET = "SET"
    RENEW = "RENEW"
    START = "START"
    STOP = "STOP"


class ReportVerb(Enum):
    """What the guardian may report."""

    READY = "READY"
    STARTED = "STARTED"
    FAILED = "FAILED"
    EXITED = "EXITED"
    STOPPED = "STOPPED"
    FENCED = "FENCED"
    PROBLEM = "PROBLEM"


def encode(verb: Command | ReportVerb, *fields: str | int) -> bytes:
    """Returns the line, its end included."""
    texts = [verb.value, *(str(field) for field in fields)]
    return b"\t".join(text.encode("unicode_escape") for text in texts) + b"\n"


def decode(line: bytes) -> tuple[str, list[str]]:
    """Returns the verb and the fields of a line without its end."""
    verb, *fields = (part.decode("unicode_escape") for part in line.split(b"\t"))
    return verb, fields
