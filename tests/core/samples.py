"""Sample messages, and for every annotation of a message's field what belongs in it and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from hypothesis import strategies as st

from agent.core.messages import (
    COUNTER_MAX,
    DURATION_MS_MAX,
    INTEGER_MAX,
    PROOF_BYTES,
    SHAPES,
    TEXT_CHARACTERS_MAX,
    TOKEN_BYTES,
    Authenticate,
    Close,
    Goodbye,
    Heartbeat,
    Hello,
    Invite,
    Message,
    Probe,
    ProbeEcho,
    Refusal,
    Release,
    Report,
    ReportChanged,
    Request,
)
from agent.core.vocabulary import Mode, Role, WorkloadState

REPORT = Report(
    role=Role.STANDBY,
    term=0,
    active_term=0,
    eligible=True,
    obstacle="",
    workload_failed=False,
    hold=False,
    maintenance=False,
    maintenance_revision=0,
    workload=WorkloadState.STOPPED,
)
ACTIVE = replace(REPORT, role=Role.ACTIVE, term=3, active_term=3)
PRIMARY = Hello(
    name="line-4-a",
    mode=Mode.PRIMARY,
    agent_version="0.1.0",
    workload_version="4.1.0",
    instance=b"p" * TOKEN_BYTES,
    connection_number=1,
    pair_id=b"",
    pair_nonce=b"P" * TOKEN_BYTES,
    term_lane=1,
    interval_ms=1000,
    timeout_ms=5000,
    takeover_ms=5000,
    stop_timeout_ms=10_000,
    wall_clock_ms=1_700_000_000_000,
    report=replace(REPORT, role=Role.INITIAL_STANDBY),
)
BACKUP = replace(
    PRIMARY,
    name="line-4-b",
    mode=Mode.BACKUP,
    instance=b"b" * TOKEN_BYTES,
    pair_nonce=b"B" * TOKEN_BYTES,
    term_lane=0,
    report=REPORT,
)
MESSAGES: tuple[Message, ...] = (
    Authenticate(1, 1, b"x" * PROOF_BYTES),
    PRIMARY,
    Heartbeat(1, 0, 0, 1, REPORT),
    ReportChanged(REPORT),
    Invite(True, False, "failover ordered"),
    Request(False, False, "the primary is back"),
    Release(7, False, "handed over"),
    Refusal("maintenance is on", 0),
    Goodbye("its agent was stopped"),
    Close("protocol", "a sentence"),
    Probe(5),
    ProbeEcho(5),
)

_NEVER: tuple[Any, ...] = (None, 1.0, float("nan"), [], {}, [1], {"a": 1})
_NO_INTEGERS: tuple[Any, ...] = (*_NEVER, "1", b"1", True, -1)
_NO_BYTES: tuple[Any, ...] = (*_NEVER, "x" * TOKEN_BYTES, 0, False, b"x", b"x" * 15, b"x" * 17, b"x" * 33, b"x" * 2000)
WRONG_BY_ANNOTATION: dict[str, tuple[Any, ...]] = {
    "int": (*_NO_INTEGERS, INTEGER_MAX + 1, 2**64 - 1),
    "DurationMs": (*_NO_INTEGERS, DURATION_MS_MAX + 1, INTEGER_MAX),
    "Lane": (*_NO_INTEGERS, 2, INTEGER_MAX),
    "Counter": (*_NO_INTEGERS, COUNTER_MAX + 1, INTEGER_MAX),
    "bool": (*_NEVER, 0, 1, "true", b"\x01"),
    "str": (*_NEVER, 0, True, b"text", "x" * (TEXT_CHARACTERS_MAX + 1)),
    "Token": (*_NO_BYTES, b"", b"x" * PROOF_BYTES),
    "TokenOrEmpty": (*_NO_BYTES, b"x" * PROOF_BYTES),
    "ProofOrEmpty": (*_NO_BYTES, b"x" * TOKEN_BYTES),
    "Mode": (*_NEVER, 0, True, "", "PRIMARY", "master", b"primary"),
    "Role": (*_NEVER, 0, True, "", "ACTIVE", "leader", b"active"),
    "WorkloadState": (*_NEVER, 0, True, "", "RUNNING", "up", b"running"),
    "Report": (*(wrong for wrong in _NEVER if not isinstance(wrong, dict)), 0, True, "active", b"", [REPORT.term]),
}

# Printable text: what decoding leaves as it is.
_TEXT = st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=TEXT_CHARACTERS_MAX)
_STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(0, INTEGER_MAX),
    "DurationMs": st.integers(0, DURATION_MS_MAX),
    "Lane": st.integers(0, 1),
    "Counter": st.integers(0, COUNTER_MAX),
    "bool": st.booleans(),
    "str": _TEXT,
    "Token": st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES),
    "TokenOrEmpty": st.sampled_from([b"", b"i" * TOKEN_BYTES]),
    "ProofOrEmpty": st.sampled_from([b"", b"i" * PROOF_BYTES]),
    "Mode": st.sampled_from(Mode),
    "Role": st.sampled_from(Role),
    "WorkloadState": st.sampled_from(WorkloadState),
}


def _any_of(shape: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(shape, **{each.name: _STRATEGIES[str(each.type)] for each in fields(shape)})


any_report: st.SearchStrategy[Report] = _any_of(Report)
_STRATEGIES["Report"] = any_report
any_message: st.SearchStrategy[Message] = st.one_of([_any_of(shape) for shape in SHAPES.values()])


def every_field() -> Iterator[tuple[Message, str, str]]:
    """Yields each message with each of its fields' name and annotation."""
    for message in MESSAGES:
        for each in fields(message):
            yield message, each.name, str(each.type)
