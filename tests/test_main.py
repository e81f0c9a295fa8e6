"""A command ends in a sentence and an exit code, never in a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import click
import pytest

from agent.__main__ import run_command
from agent.cli import COMMANDS, cli
from agent.core.errors import ApiError, ConfigurationError, CredentialError, PairAgentError, WorkloadError


def run_raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs a command that raises."""

    def raise_it() -> None:
        raise error

    command = click.Command("raise", callback=raise_it)
    monkeypatch.setattr("agent.cli.LazyGroup.get_command", lambda group, context, name: command)
    monkeypatch.setitem(COMMANDS, "raise", COMMANDS["check"])
    return run_command(["raise"])


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (PairAgentError("it failed"), 1, "it failed"),
        (WorkloadError("it failed"), 1, "it failed"),
        (ConfigurationError(["one", "two"]), 2, "one\ntwo"),
        (CredentialError("no key"), 2, "no key"),
        (ApiError("nobody there", agent_running=False), 3, "nobody there"),
        (ApiError("refused", agent_running=True), 1, "refused"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("secret details"), 1, "Internal error (ZeroDivisionError)"),
        (RecursionError(), 1, "Internal error"),
        (ExceptionGroup("tasks", [ExceptionGroup("inner", [ConfigurationError(["deep"])])]), 2, "deep"),
        (BaseExceptionGroup("tasks", [KeyboardInterrupt(), KeyboardInterrupt()]), 130, ""),
        (ExceptionGroup("tasks", [ZeroDivisionError(), PairAgentError("it failed")]), 1, "it failed"),
        (BrokenPipeError(), 1, ""),
        (PermissionError(errno.EACCES, "Permission denied", "/state/record"), 1, "/state/record: Permission denied"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "Too many open files"),
        (OSError("odd"), 1, "odd"),
        (ExceptionGroup("tasks", [OSError(errno.ENOSPC, "No space left", "f")]), 1, "f: No space left"),
    ],
)
def test_what_a_command_raises_decides_sentence_and_exit_code(
    error: BaseException, code: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(error, BrokenPipeError):
        # Its way out closes the real standard output; only the decision is looked at here.
        monkeypatch.setattr("agent.__main__.os.dup2", lambda *descriptors: None)
    assert run_raising(error, monkeypatch) == code
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert bool(printed.err.strip()) == bool(sentence)
    assert "Traceback" not in printed.err
    assert "secret details" not in printed.err


def test_details_of_an_internal_error_come_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAIR_AGENT_DEBUG", "1")
    assert run_raising(ZeroDivisionError("the detail"), monkeypatch) == 1
    assert "the detail" in capsys.readouterr().err


def test_a_misspelt_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["stats"]) == 2
    assert "did you mean `status`?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_nothing_heavy_is_imported_for_version_and_help(arguments: list[str]) -> None:
    code = (
        "import sys; from agent.__main__ import run_command; run_command(sys.argv[1:]);"
        "print(sorted({'trio', 'cryptography', 'OpenSSL', 'psutil', 'tomli', 'rich', 'starlette'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


def _commands(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            found += _commands(inner, f"{path} {name}")
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    for path, inner in _commands(command, f"pair-agent {name}"):
        assert f"{path}" in (inner.help or ""), path
        assert "Example" in (inner.help or ""), path


def test_a_reader_who_leaves_early_is_no_error_message() -> None:
    if sys.platform == "win32":
        pytest.skip("the pipe is closed by a POSIX shell here; Windows reports it as a plain OSError")
    process = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m agent --help | true'], capture_output=True, text=True, check=False
    )
    assert process.stderr == ""


def run_in_shell(line: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line `line`, in which "$@" stands for the program and its arguments."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    program = [sys.executable, "-m", "agent", *arguments]
    return subprocess.run(
        ["sh", "-c", line, "sh", *program], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the stream")
@pytest.mark.parametrize(("line", "code"), [('"$@" >&-', 0), ('"$@" 2>&-', 0), ('"$@" <&- >&- 2>&-', 0)])
def test_closed_streams_end_no_command(line: str, code: int, tmp_path: Path) -> None:
    for arguments in (["key", "generate"], ["--version"]):
        ended = run_in_shell(line, tmp_path, *arguments)
        assert (ended.returncode, ended.stderr) == (code, "")


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the stream")
def test_an_error_without_a_stream_to_say_it_keeps_its_exit_code(tmp_path: Path) -> None:
    assert run_in_shell('"$@" 2>&-', tmp_path, "check", "--config", "none.toml").returncode == 2
    assert run_in_shell('"$@" <&- >&- 2>&-', tmp_path, "no-such-command").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux'")
def test_an_output_that_takes_nothing_is_named_with_its_reason(tmp_path: Path) -> None:
    lines = ['PYTHONUNBUFFERED= "$@" >/dev/full', 'PYTHONUNBUFFERED=1 "$@" >/dev/full']
    for line, arguments in product(lines, (["key", "generate"], ["--version"], ["interfaces"])):
        ended = run_in_shell(line, tmp_path, *arguments)
        assert ended.returncode == 1
        assert ended.stderr == f"standard output cannot be written: {os.strerror(errno.ENOSPC)}.\n"
    assert run_in_shell('"$@" 2>/dev/full', tmp_path, "no-such-command").returncode == 2
    assert run_in_shell('"$@" 2>/dev/full', tmp_path, "cert", "show", "--config", "none.toml").returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove the current folder of a process")
def test_a_current_folder_that_was_removed_is_called_so(tmp_path: Path) -> None:
    for arguments in (["check"], ["status"], ["init", "--mode", "primary"]):
        (tmp_path / "gone").mkdir()
        ended = run_in_shell('cd gone && rmdir ../gone && "$@"', tmp_path, *arguments)
        assert ended.returncode == 1
        assert ended.stderr == "The current folder does not exist any more; change to another one.\n"


def test_what_was_wrong_with_a_file_comes_with_its_details_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAIR_AGENT_DEBUG", "1")
    assert run_raising(PermissionError(errno.EACCES, "denied", "file"), monkeypatch) == 1
    assert "Traceback" in capsys.readouterr().err
