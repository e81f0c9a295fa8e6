"""What a guardian decides, told step by step, without a process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workload.guardian_machine import Hands, Machine, Phase
from agent.workload.guardian_protocol import Command, ReportVerb, decode, encode
from agent.workload.guardian_reports import Exited, parse_report

SECOND = 1_000_000_000


class Noting(Hands):
    """Hands that write down what they should do."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def launch(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.done.append(f"launch {' '.join(arguments)}")

    def ask_to_end(self) -> None:
        self.done.append("ask")

    def ask_rest_to_end(self) -> None:
        self.done.append("ask rest")

    def kill(self) -> None:
        self.done.append("kill")

    def report(self, verb: ReportVerb, *fields: str | int) -> None:
        self.done.append(" ".join([verb.value, *map(str, fields)]))

    def leave(self) -> None:
        self.done.append("leave")

    def taken(self) -> list[str]:
        done, self.done = self.done, []
        return done


def make(*, commands: bool = False, status: bool = False) -> tuple[Machine, Noting]:
    hands = Noting()
    machine = Machine(hands)
    settings = {"stop_timeout_ms": ["2000"]}
    if commands:
        settings |= {"start": ["up"], "stop": ["down"]} | ({"status": ["there?"]} if status else {})
    else:
        settings |= {"command": ["work"]}
    for name, values in settings.items():
        order(machine, Command.SET, name, *values)
    return machine, hands


def order(machine: Machine, command: Command, *fields: str | int, at: int = 0) -> None:
    machine.handle_line(encode(command, *fields)[:-1], at)


def run(machine: Machine, hands: Noting) -> None:
    order(machine, Command.START, 1)
    machine.handle_launched(77, 0)
    assert hands.taken() == ["launch work", "STARTED 1 77 0"]


def test_a_stop_asks_then_kills_at_its_timeout_and_is_confirmed_when_all_are_dead() -> None:
    machine, hands = make()
    run(machine, hands)
    order(machine, Command.STOP, 2, 500, at=10)
    assert hands.taken() == ["ask"]
    assert machine.next_deadline_ns() == 10 + SECOND // 2
    machine.handle_ended(-15, 20)
    assert hands.taken() == ["ask rest"]
    machine.handle_timer(10 + SECOND // 2)
    assert hands.taken() == ["kill"]
    machine.handle_all_dead(9 * SECOND)
    assert hands.taken() == [f"STOPPED 2 {9 * SECOND}"]
    assert machine.phase is Phase.IDLE


def test_a_lease_kills_when_it_ends_and_not_before_and_a_newer_one_counts() -> None:
    machine, hands = make()
    order(machine, Command.RENEW, 100)
    run(machine, hands)
    assert machine.next_deadline_ns() == 100
    machine.handle_timer(99)
    order(machine, Command.RENEW, 200)
    machine.handle_timer(150)
    assert hands.taken() == []
    machine.handle_timer(200)
    assert hands.taken() == ["kill"]
    machine.handle_all_dead(201)
    assert hands.taken() == ["FENCED 201 the agent did not renew the lease in time"]
    order(machine, Command.START, 2, at=202)
    assert hands.taken() == ["FENCED 202 the lease had ended before the workload was started"]


def test_p6_a_lease_that_ends_during_a_stop_kills_at_once_and_both_are_said() -> None:
    machine, hands = make()
    order(machine, Command.RENEW, 100)
    run(machine, hands)
    order(machine, Command.STOP, 2, 10_000, at=50)
    machine.handle_timer(100)
    assert hands.taken() == ["ask", "kill"]
    machine.handle_all_dead(101)
    assert hands.taken() == ["FENCED 101 the agent did not renew the lease in time", "STOPPED 2 101"]


def test_an_exit_is_reported_only_when_the_rest_is_dead_too() -> None:
    machine, hands = make()
    run(machine, hands)
    machine.handle_ended(3, 5)
    assert hands.taken() == ["kill"]
    machine.handle_all_dead(6)
    assert hands.taken() == ["EXITED 1 3 5"]


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.LAUNCHING, Phase.RUNNING, Phase.ENDING, Phase.KILLING])
def test_p4_when_the_agent_has_gone_all_dies_and_leaving_comes_last(phase: Phase) -> None:
    machine, hands = make()
    if phase is not Phase.IDLE:
        order(machine, Command.START, 1)
    if phase in (Phase.RUNNING, Phase.ENDING, Phase.KILLING):
        machine.handle_launched(77, 0)
    if phase is Phase.ENDING:
        order(machine, Command.STOP, 2, 10_000)
    if phase is Phase.KILLING:
        machine.handle_ended(0, 0)
    assert machine.phase is phase
    hands.taken()
    machine.handle_agent_gone(1)
    machine.handle_agent_gone(1)
    if phase is Phase.IDLE:
        assert hands.taken() == ["leave"]
        return
    assert hands.taken() == ([] if phase is Phase.KILLING else ["kill"])
    machine.handle_all_dead(2)
    assert hands.taken()[-1] == "leave"


def test_a_stop_while_the_program_starts_is_asked_again_when_it_can_hear() -> None:
    machine, hands = make()
    order(machine, Command.START, 1)
    order(machine, Command.STOP, 2, 500)
    machine.handle_launched(77, 0)
    assert hands.taken() == ["launch work", "ask", "ask"]


def test_commands_start_and_stop_and_kill_what_the_stop_left() -> None:
    machine, hands = make(commands=True)
    order(machine, Command.START, 1)
    machine.handle_launched(5, 0)
    machine.handle_ended(0, 7)
    assert hands.taken() == ["launch up", "STARTED 1 0 7"]
    order(machine, Command.STOP, 2, 2_000, at=10)
    machine.handle_ended(0, 20)
    assert hands.taken() == ["launch down", "kill"]
    machine.handle_all_dead(21)
    assert hands.taken() == ["STOPPED 2 21"]


def test_p7_a_start_command_that_fails_is_followed_by_the_stop_command() -> None:
    machine, hands = make(commands=True)
    order(machine, Command.START, 1)
    machine.handle_ended(4, 7)
    assert hands.taken() == ["launch up", "launch down"]
    machine.handle_ended(0, 8)
    machine.handle_all_dead(9)
    assert hands.taken() == ["kill", 'FAILED 1 the start command "up" ended with exit code 4']


def test_a_stop_command_that_fails_is_checked_and_tried_again_until_it_is_true() -> None:
    machine, hands = make(commands=True, status=True)
    order(machine, Command.START, 1)
    machine.handle_ended(0, 0)
    order(machine, Command.RENEW, 100)
    hands.taken()
    machine.handle_timer(100)  # the lease ends
    machine.handle_ended(1, 200)
    assert hands.taken() == ["launch down", "launch there?"]
    machine.handle_ended(0, 300)  # it is
    assert hands.taken()[0].startswith("PROBLEM")
    machine.handle_timer(300 + SECOND)
    assert hands.taken() == ["launch down"]
    machine.handle_timer(300 + 3 * SECOND)  # it hangs
    machine.handle_all_dead(400)
    assert hands.taken() == ["kill", "launch there?"]
    machine.handle_ended(1, 500)  # not any more
    machine.handle_all_dead(600)
    assert hands.taken() == ["kill", "FENCED 600 the agent did not renew the lease in time"]


def test_a_status_command_that_hangs_does_not_stop_the_stopping() -> None:
    machine, hands = make(commands=True, status=True)
    order(machine, Command.START, 1)
    machine.handle_ended(0, 0)
    order(machine, Command.STOP, 2, 2_000)
    machine.handle_ended(1, 0)
    hands.taken()
    machine.handle_timer(2 * SECOND)
    machine.handle_all_dead(3 * SECOND)
    machine.handle_timer(4 * SECOND)
    done = hands.taken()
    assert done[0] == "kill"
    assert done[1].startswith("PROBLEM")
    assert done[2] == "launch down"


def test_before_anything_was_started_a_failing_stop_command_without_a_status_command_is_taken_as_stopped() -> None:
    machine, hands = make(commands=True)
    order(machine, Command.STOP, 1, 2_000)
    machine.handle_ended(1, 5)
    machine.handle_all_dead(6)
    done = hands.taken()
    assert done[0] == "launch down"
    assert done[-1] == "STOPPED 1 6"


STEPS = st.sampled_from(
    ["start", "stop", "stop now", "lease", "no lease", "launched", "launch failed", "ended", "failed", "dead", "timer"]
)


@given(st.booleans(), st.booleans(), st.lists(STEPS, max_size=60), st.integers(0, 60))
def test_whatever_happens_nothing_is_launched_twice_at_once_and_the_end_is_reached(
    commands: bool, status: bool, steps: list[str], agent_gone_after: int
) -> None:
    machine, hands = make(commands=commands, status=status)
    now = 0

    def happen(step: str) -> None:
        if step == "start" and machine.phase is Phase.IDLE and not machine.agent_gone:
            order(machine, Command.START, now, at=now)
        elif step in ("stop", "stop now") and not machine.agent_gone:
            order(machine, Command.STOP, now, 0 if step == "stop now" else 500, at=now)
        elif step in ("lease", "no lease"):
            order(machine, Command.RENEW, now + SECOND if step == "lease" else 0, at=now)
        elif step == "launched":
            machine.handle_launched(7, now)
        elif step == "launch failed" and machine.phase is Phase.LAUNCHING:
            machine.handle_launch_failed("x", now)
        elif step in ("ended", "failed"):
            if machine.phase is not Phase.LAUNCHING or commands:
                machine.handle_ended(0 if step == "ended" else 1, now)
        elif step == "dead" and machine.awaits_death:
            machine.handle_all_dead(now)
        elif step == "timer":
            machine.handle_timer(now)

    for position, step in enumerate(steps):
        now += SECOND // 3
        if position == agent_gone_after:
            machine.handle_agent_gone(now)
        before = machine.phase
        happen(step)
        if "leave" in hands.done:
            return
        if machine.phase is Phase.IDLE and before is not Phase.IDLE:
            assert step == "dead"
    machine.handle_agent_gone(now)
    for _ in range(20):
        now += 200 * SECOND
        for step in ("timer", "dead", "failed", "dead"):
            happen(step if step != "failed" or machine.phase is Phase.CHECKING else "ended")
        if "leave" in hands.done:
            break
    assert hands.done.count("leave") == 1
    assert machine.phase is Phase.IDLE


@given(st.lists(st.text(), max_size=5))
def test_any_text_survives_the_line_between_agent_and_guardian(fields: list[str]) -> None:
    line = encode(Command.SET, *fields)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == ("SET", fields)


def test_undecodable_bytes_of_a_path_survive_it_too() -> None:
    assert decode(encode(Command.SET, b"\xff\n".decode("utf-8", "surrogateescape"))[:-1])[1] == ["\udcff\n"]


def test_a_report_that_is_none_is_refused() -> None:
    assert parse_report(b"EXITED\t1\t-9\t5") == Exited(1, -9, 5)
    for line in (b"", b"EXITED\t1", b"WHAT", b"STARTED\tx\t1\t1"):
        with pytest.raises(ValueError, match=r".+"):
            parse_report(line)
