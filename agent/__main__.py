"""The entry point of the command `pair-agent`: runs a command and turns whatever it raises into a sentence.

No traceback reaches a user. The details of an internal error are shown only if PAIR_AGENT_DEBUG is set to 1.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from typing import TextIO

import click

from agent.cli import cli
from agent.core.errors import ApiError, ConfigurationError, CredentialError, PairAgentError

DONE = 0
FAILED = 1
WRONG_USAGE_OR_CONFIGURATION = 2
AGENT_NOT_RUNNING = 3
INTERRUPTED = 130  # 128 + SIGINT, as shells count

_DETAILS = "With PAIR_AGENT_DEBUG=1 in the environment it shows the details."


def main() -> None:
    """Runs the command that the arguments name, and exits with its exit code."""
    raise SystemExit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; SystemExit is the only exception that passes."""
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A name in another script must not end a command on a terminal with few letters.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # click returns the exit code of `ctx.exit`; commands themselves return nothing.
        code = cli.main(args=arguments, prog_name="pair-agent", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as error:
        return _exit_code(error)
    finally:
        if not _takes_output(sys.stderr):
            _abandon(sys.stderr)


def _replace_closed_streams() -> None:
    """Puts the null device where whoever started the command closed a stream; Python has None there."""
    # In the order of their descriptors, so that none of these is taken by a file that is opened later.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (stays open to the end)


def _exit_code(error: BaseException) -> int:
    """Prints what went wrong as sentences, and returns the exit code that says it."""
    if isinstance(error, BaseExceptionGroup):
        return _exit_code_of_group(error)
    if isinstance(error, click.Abort):
        interrupted = isinstance(error.__cause__ or error.__context__, KeyboardInterrupt)
        return INTERRUPTED if interrupted else _say("Stopped: nobody answered the question.", FAILED)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
        _abandon(sys.stdout)
        return FAILED
    if isinstance(error, PairAgentError):
        return _say(str(error), _code_of(error))
    if os.environ.get("PAIR_AGENT_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, OSError):
        return _say(_sentence_of(error), FAILED)
    sentence = f"Internal error ({type(error).__name__}): this is a fault of pair-agent, please report it. "
    return _say(sentence + _DETAILS, FAILED)


def _exit_code_of_group(group: BaseExceptionGroup[BaseException]) -> int:
    """Tasks fail together; the errors meant for the operator speak first, then an interruption, then our own faults."""
    for kind in (PairAgentError, click.ClickException, KeyboardInterrupt, BaseException):
        errors = _leaves(group.subgroup(kind))
        if errors:
            unexpected = [error for error in _leaves(group) if not _expected(error)]
            if unexpected and _expected(errors[0]):
                _exit_code(unexpected[0])
            return max(_exit_code(error) for error in errors[: 1 if kind is BaseException else None])
    return FAILED


def _expected(error: BaseException) -> bool:
    return isinstance(error, PairAgentError | click.ClickException | click.Abort | KeyboardInterrupt)


def _leaves(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [] if error is None else [error]


def _code_of(error: PairAgentError) -> int:
    if isinstance(error, ConfigurationError | CredentialError):
        return WRONG_USAGE_OR_CONFIGURATION
    if isinstance(error, ApiError) and not error.agent_running:
        return AGENT_NOT_RUNNING
    return FAILED


def _say(sentence: str, code: int) -> int:
    with contextlib.suppress(OSError):
        click.echo(sentence, err=True)
    return code


def _sentence_of(error: OSError) -> str:
    """Says what the system refused: a file, the output, or the current folder, which the error does not name."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{error.filename}: {reason}. {_DETAILS}"
    if _came_while_printing(error) or not _takes_output(sys.stdout):
        _abandon(sys.stdout)
        return f"standard output cannot be written: {reason}."
    try:
        os.getcwd()
    except FileNotFoundError:
        return "The current folder does not exist any more; change to another one."
    except OSError:
        return f"The current folder cannot be used: {reason}. Change to another one."
    return f"The system refused: {reason}. {_DETAILS}"


def _came_while_printing(error: OSError) -> bool:
    # A stream without a buffer loses what it could not write: asking it again would tell nothing.
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").partition(".")[0] in ("click", "rich")


def _takes_output(stream: TextIO) -> bool:
    """Tells whether what was written can leave; what could not leave once is tried again."""
    try:
        stream.flush()
    except OSError:
        return False
    return True


def _abandon(stream: TextIO) -> None:
    # Nobody takes what is written there; the interpreter must not fail again when it flushes at the end.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
