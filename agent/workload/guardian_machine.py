"""What a guardian decides, on every platform: when to start, ask, kill, confirm and leave. Pure; `Hands` does.

It knows no process, no pipe and no clock: it is told what happened and when, and calls its hands, which never call
back from within a call.

    IDLE --START--> LAUNCHING --> RUNNING --STOP--> ENDING --timeout--> KILLING --all dead--> IDLE
                                     |                  `----all dead--------------------------^
                                     `--lease ended, agent gone, exited--> KILLING

With kind "commands" the way back leads through the stop command instead of ENDING: STOP_COMMAND, on failure CHECKING
(the status command says whether something runs) and PAUSING, then STOP_COMMAND again.

Invariants: IDLE is entered only when nothing of the workload is left; no report of an end before that; once the agent
is gone nothing is started, and `leave` comes last, from IDLE.
"""

from __future__ import annotations

from enum import Enum

from agent.workload.guardian_protocol import SENTENCE_CHARACTERS_MAX, Command, ReportVerb, decode

START_COMMAND_TIMEOUT_NS = 120_000_000_000
STOP_COMMAND_PAUSE_NS = 1_000_000_000
_NANOSECONDS_PER_MILLISECOND = 1_000_000


class Hands:
    """What a platform must be able to do."""

    def launch(self, arguments: list[str], environment: dict[str, str]) -> None:
        """Starts a program; `handle_launched` or `handle_launch_failed` follows, later `handle_ended`."""
        raise NotImplementedError

    def ask_to_end(self) -> None:
        """Asks the program launched last, and its group, to end."""
        raise NotImplementedError

    def ask_rest_to_end(self) -> None:
        """Asks what a program that has ended left behind to end."""
        raise NotImplementedError

    def kill(self) -> None:
        """Begins to kill everything that was ever launched; `handle_all_dead` follows."""
        raise NotImplementedError

    def report(self, verb: ReportVerb, *fields: str | int) -> None:
        """Tells the agent, if it still listens."""
        raise NotImplementedError

    def leave(self) -> None:
        """Ends the guardian: the last call."""
        raise NotImplementedError


class Settings:
    """What SET lines made known; see config.model.Workload for the meaning."""

    def __init__(self) -> None:
        self.command: list[str] = []  # kind "process"; empty: kind "commands"
        self.start: list[str] = []
        self.stop: list[str] = []
        self.status: list[str] = []
        self.environment: dict[str, str] = {}
        self.working_directory = "."
        self.output = ""  # path of a file; empty: standard error of the guardian
        self.stop_timeout_ns = 0
        self.sockets: list[str] = []  # Windows: listening sockets to hold open, in hexadecimal

    def assign(self, name: str, values: list[str]) -> None:
        """Takes one SET line; raises ValueError for an unknown name."""
        if name in ("command", "start", "stop", "status"):
            setattr(self, name, values)
        elif name == "environment":
            self.environment = _variables(values)
        elif name == "working_directory":
            self.working_directory = values[0]
        elif name == "output":
            self.output = values[0]
        elif name == "stop_timeout_ms":
            self.stop_timeout_ns = int(values[0]) * _NANOSECONDS_PER_MILLISECOND
        elif name == "socket":
            self.sockets.append(values[0])
        else:
            raise ValueError(f"unknown setting {name!r}")


class Phase(Enum):
    """Where the machine stands; see the picture above."""

    IDLE = "idle"
    LAUNCHING = "launching"
    RUNNING = "running"
    ENDING = "ending"
    KILLING = "killing"
    STOP_COMMAND = "stop command"
    CHECKING = "checking"
    PAUSING = "pausing"


class AfterKilling(Enum):
    """What the death of everything is good for."""

    FINISH = "finish"
    STOP = "run the stop command"
    CHECK = "see whether the stop command did it after all"
    PAUSE = "wait, then run the stop command again"


class Machine:
    """Fed with lines and happenings, `now_ns` on the boot clock."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self.settings = Settings()
        self.phase = Phase.IDLE
        self.agent_gone = False
        self._lease_until_ns = 0
        self._deadline_ns: int | None = None  # of the phase
        self._after_killing = AfterKilling.FINISH
        self._number = 0  # of the run
        self._environment: dict[str, str] = {}
        self._stop_number: int | None = None  # STOPPED is owed for it
        self._outcome: tuple[ReportVerb, tuple[str | int, ...]] | None = None  # owed before STOPPED
        self._ever_stopped = False  # kind "commands": what runs before the first stop is not known

    @property
    def awaits_death(self) -> bool:
        """Whether `handle_all_dead` is waited for."""
        return self.phase in (Phase.ENDING, Phase.KILLING)

    def next_deadline_ns(self) -> int | None:
        """Returns when `handle_timer` is due at the latest; None: nothing is timed."""
        deadlines = [] if self._deadline_ns is None else [self._deadline_ns]
        if self._lease_until_ns and self.phase in _LEASED:
            deadlines.append(self._lease_until_ns)
        return min(deadlines, default=None)

    def handle_line(self, line: bytes, now_ns: int) -> None:
        """Takes one command; raises ValueError if it is none."""
        verb, fields = decode(line)
        command = Command(verb)
        if command is Command.RENEW:
            self._lease_until_ns = int(fields[0])
        elif command is Command.START:
            self._start(int(fields[0]), _variables(fields[1:]), now_ns)
        elif command is Command.STOP:
            self._stop(int(fields[0]), int(fields[1]) * _NANOSECONDS_PER_MILLISECOND, now_ns)
        else:
            self.settings.assign(fields[0], fields[1:])

    def handle_agent_gone(self, now_ns: int) -> None:
        """The agent ended or closed its end: the workload must not outlive it."""
        if self.agent_gone:
            return
        self.agent_gone = True
        if self.phase is Phase.IDLE:
            self._hands.leave()
        else:
            self._end_now(now_ns)

    def handle_launched(self, pid: int, now_ns: int) -> None:
        """The program launched last runs as process `pid`."""
        if self.phase is Phase.LAUNCHING and self.settings.command:
            self.phase = Phase.RUNNING
            self._hands.report(ReportVerb.STARTED, self._number, pid, now_ns)
        elif self.phase is Phase.ENDING:
            self._hands.ask_to_end()  # it may have been asked when it could not hear yet

    def handle_launch_failed(self, sentence: str, now_ns: int) -> None:
        """The program launched last never ran."""
        if self.phase is Phase.LAUNCHING:
            self._outcome = (ReportVerb.FAILED, (self._number, sentence[:SENTENCE_CHARACTERS_MAX]))
            self._kill(AfterKilling.FINISH if self.settings.command else AfterKilling.STOP)
        elif self.phase is Phase.STOP_COMMAND:
            self._stop_command_failed(sentence, now_ns)
        elif self.phase is Phase.CHECKING:
            self._pause(sentence, now_ns)
        elif self.phase is Phase.ENDING:
            self._kill(AfterKilling.FINISH)

    def handle_ended(self, code: int, now_ns: int) -> None:
        """The program launched last ended with `code`, below 0 by that signal; others it started may be left."""
        if self.phase is Phase.LAUNCHING:
            self._start_command_ended(code, now_ns)
        elif self.phase is Phase.RUNNING and self.settings.command:
            self._outcome = (ReportVerb.EXITED, (self._number, code, now_ns))
            self._kill(AfterKilling.FINISH)
        elif self.phase is Phase.ENDING:
            self._hands.ask_rest_to_end()
        elif self.phase is Phase.STOP_COMMAND:
            if code == 0:
                self._kill(AfterKilling.FINISH)
            else:
                self._stop_command_failed(f"the stop command {_said(self.settings.stop, code)}", now_ns)
        elif self.phase is Phase.CHECKING:
            if code != 0:
                self._kill(AfterKilling.FINISH)
            else:
                self._pause("the stop command failed and the status command says that it still runs", now_ns)

    def handle_all_dead(self, now_ns: int) -> None:
        """No process is left of all that were launched."""
        if not self.awaits_death:
            return
        if self.phase is Phase.ENDING or self._after_killing is AfterKilling.FINISH:
            self._finish(now_ns)
        elif self._after_killing is AfterKilling.STOP:
            self._run_stop_command(now_ns)
        elif self._after_killing is AfterKilling.CHECK:
            self._stop_command_failed("the stop command did not end in time and was killed", now_ns)
        else:
            self._pause("the status command did not end in time and was killed", now_ns)

    def handle_timer(self, now_ns: int) -> None:
        """Looks at lease and deadlines; whoever calls it has read all commands that were waiting."""
        if self._lease_until_ns and now_ns >= self._lease_until_ns and self.phase in _LEASED:
            if self._outcome is None:
                self._outcome = (ReportVerb.FENCED, ())
            self._end_now(now_ns)
        if self._deadline_ns is None or now_ns < self._deadline_ns:
            return
        if self.phase is Phase.ENDING:
            self._kill(AfterKilling.FINISH)
        elif self.phase is Phase.LAUNCHING:
            self._outcome = (ReportVerb.FAILED, (self._number, "the start command did not end in time and was killed"))
            self._kill(AfterKilling.STOP)
        elif self.phase is Phase.STOP_COMMAND:
            self._kill(AfterKilling.CHECK)
        elif self.phase is Phase.CHECKING:
            self._kill(AfterKilling.PAUSE)
        elif self.phase is Phase.PAUSING:
            self._run_stop_command(now_ns)

    def _start(self, number: int, environment: dict[str, str], now_ns: int) -> None:
        if self.agent_gone or self.phase is not Phase.IDLE:
            raise ValueError(f"START while {self.phase.value}")
        self._number, self._environment = number, environment
        if self._lease_until_ns and now_ns >= self._lease_until_ns:
            self._hands.report(ReportVerb.FENCED, now_ns, "the lease had ended before the workload was started")
            return
        self.phase = Phase.LAUNCHING
        if self.settings.command:
            self._launch(self.settings.command)
        else:
            self._deadline_ns = now_ns + START_COMMAND_TIMEOUT_NS
            self._ever_stopped = True
            self._launch(self.settings.start)

    def _launch(self, arguments: list[str]) -> None:
        self._hands.launch(arguments, {**self.settings.environment, **self._environment})

    def _start_command_ended(self, code: int, now_ns: int) -> None:
        if self.settings.command:
            raise ValueError("a program ended that was not launched")
        self._deadline_ns = None
        if code == 0:
            self.phase = Phase.RUNNING
            self._hands.report(ReportVerb.STARTED, self._number, 0, now_ns)
        else:
            self._outcome = (
                ReportVerb.FAILED,
                (self._number, f"the start command {_said(self.settings.start, code)}"),
            )
            self._run_stop_command(now_ns)

    def _stop(self, number: int, timeout_ns: int, now_ns: int) -> None:
        self._stop_number = number
        if self.phase is Phase.IDLE:
            if self.settings.command or self._ever_stopped:
                self._finish(now_ns)
            else:
                self._run_stop_command(now_ns)
        elif not self.settings.command or timeout_ns == 0:
            self._end_now(now_ns)
        elif self.phase in (Phase.LAUNCHING, Phase.RUNNING):
            self.phase = Phase.ENDING
            self._deadline_ns = now_ns + timeout_ns
            self._hands.ask_to_end()

    def _end_now(self, now_ns: int) -> None:
        """Ends the workload in the shortest way that is certain; what is ending already just goes on."""
        if self.settings.command:
            if self.phase is not Phase.KILLING:
                self._kill(AfterKilling.FINISH)
        elif self.phase is Phase.LAUNCHING:
            self._kill(AfterKilling.STOP)
        elif self.phase is Phase.RUNNING:
            self._run_stop_command(now_ns)

    def _kill(self, after: AfterKilling) -> None:
        self.phase, self._after_killing, self._deadline_ns = Phase.KILLING, after, None
        self._hands.kill()

    def _run_stop_command(self, now_ns: int) -> None:
        self.phase = Phase.STOP_COMMAND
        self._deadline_ns = now_ns + self.settings.stop_timeout_ns
        self._launch(self.settings.stop)

    def _stop_command_failed(self, sentence: str, now_ns: int) -> None:
        if self.settings.status:
            self.phase = Phase.CHECKING
            self._deadline_ns = now_ns + self.settings.stop_timeout_ns
            self._launch(self.settings.status)
        elif not self._ever_stopped:
            # Nothing was started yet, and stopping what does not run may well be an error to a stop command.
            self._hands.report(ReportVerb.PROBLEM, f"{sentence}; taken as stopped, because nothing was started yet")
            self._kill(AfterKilling.FINISH)
        else:
            self._pause(sentence, now_ns)

    def _pause(self, sentence: str, now_ns: int) -> None:
        self.phase = Phase.PAUSING
        self._deadline_ns = now_ns + STOP_COMMAND_PAUSE_NS
        self._hands.report(ReportVerb.PROBLEM, f"{sentence[:SENTENCE_CHARACTERS_MAX]}; it is tried again")

    def _finish(self, now_ns: int) -> None:
        self.phase, self._deadline_ns, self._ever_stopped = Phase.IDLE, None, True
        outcome, self._outcome = self._outcome, None
        stop_number, self._stop_number = self._stop_number, None
        if outcome is not None:
            verb, fields = outcome
            if verb is ReportVerb.FENCED:
                fields = (now_ns, "the agent did not renew the lease in time")
            self._hands.report(verb, *fields)
        if stop_number is not None:
            self._hands.report(ReportVerb.STOPPED, stop_number, now_ns)
        if self.agent_gone:
            self._hands.leave()


_LEASED = (Phase.LAUNCHING, Phase.RUNNING, Phase.ENDING)


def _variables(assignments: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (assignment.partition("=") for assignment in assignments)}


def _said(arguments: list[str], code: int) -> str:
    how = f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"
    return f'"{arguments[0]}" {how}'
