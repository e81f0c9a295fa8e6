"""How the guardian on Linux starts, asks, kills and buries: fork, exec, signals and waitpid.

What may block (changing the folder, opening the output file, exec) happens in the child; the guardian itself touches no
disk. While nothing runs, one child is kept that has gone all the way but for that, so that a start costs an exec only.
It is kept in that time alone: while something runs or dies, every child is the workload's, and `waitpid` saying that
there is none is the proof that nothing is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import sys
import time

if sys.platform == "win32":
    raise ImportError("there is another guardian for Windows")

from agent.workload.guardian_machine import Hands, Machine
from agent.workload.guardian_protocol import SENTENCE_CHARACTERS_MAX, Command, ReportVerb, decode, encode
from agent.workload.process_tree import descendants

_REPORTS, _OUTPUT = 1, 2  # descriptors
_READ_BYTES = 65_536
_OUTPUT_FILE_MODE = 0o640
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

# Changed in the guardian; Python itself ignores SIGPIPE and SIGXFSZ.
IGNORED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_CHANGED_SIGNALS = (*IGNORED_SIGNALS, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)


class PosixHands(Hands):
    """Starts, watches and kills the guardian's descendants."""

    def __init__(self, libc: ctypes.CDLL) -> None:
        self.machine = Machine(self)
        self.exec_watch: int | None = None  # readable once exec has succeeded (end of file) or failed (a sentence)
        self.deaf_agent = False
        self._libc = libc
        self._main: int | None = None  # the program launched last, until it is reaped
        self._null = os.open(os.devnull, os.O_RDWR)
        self._environment = dict(os.environ)
        self._killing = False
        self._spare: tuple[int, int, int] | None = None  # process id, watch, pipe for its order
        self._step = self._folder = self._output = ""  # in a child on its way to exec
        self._arguments: list[str] = []

    @property
    def killing(self) -> bool:
        return self._killing

    def launch(self, arguments: list[str], environment: dict[str, str]) -> None:
        if self.exec_watch is not None:
            os.close(self.exec_watch)
        try:
            pid, self.exec_watch, order = self._spare or self._fork_spare()
        except OSError as error:
            self.exec_watch, watch_write = os.pipe()  # read like what a child says
            os.write(watch_write, f"no process could be made: {error.strerror}".encode())
            os.close(watch_write)
            return
        self._main, self._spare, self._killing = pid, None, False
        settings = self.machine.settings
        variables = (f"{name}={value}" for name, value in environment.items())
        places = (settings.working_directory, settings.output)
        with contextlib.suppress(BrokenPipeError):  # killed by someone: seen like any other end
            os.write(order, encode(Command.START, *places, len(arguments), *arguments, *variables))
        os.close(order)

    def keep_spare(self) -> None:
        """Makes the next start quick; called while nothing runs."""
        if self._spare is None:
            with contextlib.suppress(OSError):  # then the start tries again, and reports it
                self._spare = self._fork_spare()

    def _fork_spare(self) -> tuple[int, int, int]:
        """Forks a child that waits for its order; returns its id, its watch and the pipe for the order."""
        order_read, order_write = os.pipe()
        watch, watch_write = os.pipe()
        guardian = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            for descriptor in (order_read, order_write, watch, watch_write):
                os.close(descriptor)
            raise
        if pid == 0:
            try:
                os.close(order_write)
                self._become(order_read, guardian)
            except BaseException as error:
                os.write(watch_write, self._launch_sentence(error))
            finally:
                os._exit(127)
        _hurry(pid)
        os.close(order_read)
        os.close(watch_write)
        return pid, watch, order_write

    def _become(self, order_read: int, guardian: int) -> None:
        """Turns the forked child into the program; returns never, raises OSError if it cannot."""
        os.setsid()
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guardian:  # it died before the kernel was told
            os._exit(127)
        for number in _CHANGED_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.dup2(self._null, 0)
        order = b""
        while not order.endswith(b"\n"):
            part = os.read(order_read, _READ_BYTES)
            if not part:  # not needed any more
                os._exit(0)
            order += part
        _, (self._folder, self._output, count, *fields) = decode(order[:-1])
        self._arguments, variables = fields[: int(count)], fields[int(count) :]
        for name, _, value in (variable.partition("=") for variable in variables):
            self._environment[name] = value
        self._step = "working directory"
        os.chdir(self._folder)
        self._step = "output file"
        output = _OUTPUT
        if self._output:
            output = os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _OUTPUT_FILE_MODE)
        os.dup2(output, 1)
        os.dup2(output, 2)
        self._step = "command"
        _execute(self._arguments, self._environment)

    def _launch_sentence(self, error: BaseException) -> bytes:
        program = (self._arguments or [""])[0]
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error)
        if self._step == "working directory":
            sentence = f'the working directory "{self._folder}" cannot be used: {reason}'
        elif self._step == "output file":
            sentence = f'the output file "{self._output}" cannot be opened: {reason}'
        elif number in (errno.ENOENT, errno.ENOTDIR):
            seen = f'no such file, seen from "{self._folder}"' if "/" in program else "it is not in PATH"
            sentence = f'the command "{program}" was not found: {seen}'
        elif number == errno.ENOEXEC:
            sentence = f'the command "{program}" is no program: a script needs a first line like "#!/bin/sh"'
        else:
            sentence = f'the command "{program}" could not be started: {reason}'
        return sentence[:SENTENCE_CHARACTERS_MAX].encode("utf-8", "replace")

    def ask_to_end(self) -> None:
        if self._main is not None:
            _signal_group(self._main, signal.SIGTERM)

    def ask_rest_to_end(self) -> None:
        for pid in descendants(os.getpid()):
            _signal(pid, signal.SIGTERM)

    def kill(self) -> None:
        self._killing = True
        if self._main is not None:
            # On a busy machine an ordinary process waits for a processor even to die.
            _hurry(self._main)
            _signal_group(self._main, signal.SIGKILL)

    def kill_descendants(self) -> None:
        """Kills all that can be seen; repeated until none is left, because killed parents may leave new orphans."""
        for pid in descendants(os.getpid()):
            _signal(pid, signal.SIGKILL)

    def handle_exec_watch(self, now_ns: int) -> None:
        """Reads how exec went; called when `exec_watch` is readable."""
        assert self.exec_watch is not None
        sentence = os.read(self.exec_watch, _READ_BYTES).decode("utf-8", "replace")
        os.close(self.exec_watch)
        self.exec_watch = None
        if sentence:
            self._main = None  # its end means nothing any more
            self.machine.handle_launch_failed(sentence, now_ns)
        elif self._main is not None:
            _hurry_no_more(self._main)  # only until it was the program
            self.machine.handle_launched(self._main, now_ns)

    def reap(self) -> bool:
        """Takes note of every child that ended; returns whether none is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._killing = False
                return True
            if pid == 0:
                return False
            if self._spare is not None and pid == self._spare[0]:
                self._drop_spare()
            if pid == self._main:
                self._main = None
                self.machine.handle_ended(os.waitstatus_to_exitcode(status), boottime_ns())

    def report(self, verb: ReportVerb, *fields: str | int) -> None:
        try:
            os.write(_REPORTS, encode(verb, *fields))
        except OSError:
            # The agent has gone, or has not read thousands of reports: then it does not listen and never will.
            self.deaf_agent = True

    def leave(self) -> None:
        if self._spare is not None:
            pid = self._spare[0]
            _signal(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os._exit(0)

    def _drop_spare(self) -> None:
        if self._spare is not None:
            for descriptor in self._spare[1:]:
                os.close(descriptor)
        self._spare = None


def boottime_ns() -> int:
    """The clock of agent.platform.clock, which is too large to import here."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _hurry(pid: int) -> None:
    """Lets a process run like the guardian, so that it need not wait for a processor on a busy machine."""
    with contextlib.suppress(OSError):  # it has gone, or the right is missing: then it takes its turn
        os.sched_setscheduler(pid, os.sched_getscheduler(0), os.sched_getparam(0))


def _hurry_no_more(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


def _signal_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except OSError:  # just after fork it leads no group yet
        _signal(leader, number)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):  # ended meanwhile
        os.kill(pid, number)


def _execute(arguments: list[str], environment: dict[str, str]) -> None:
    """Executes the program, searched in PATH; raises OSError, of all that were found the most telling one."""
    program = arguments[0]
    folders = [""] if "/" in program else environment.get("PATH", os.defpath).split(os.pathsep)
    telling: OSError | None = None
    for folder in folders:
        try:
            os.execve(os.path.join(folder, program), arguments, environment)
        except OSError as error:
            if telling is None or error.errno not in (errno.ENOENT, errno.ENOTDIR):
                telling = error
    raise telling or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
