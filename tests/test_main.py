"""A command ends in a sentence and an exit code, never in a traceback."""

from __future__ import annotations

import subprocess
import sys

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
        if isinstance(inner, click.Group):
            continue
        assert f"{path}" in (inner.help or ""), path
        assert "Example" in (inner.help or ""), path


def test_a_reader_who_leaves_early_is_no_error_message() -> None:
    if sys.platform == "win32":
        pytest.skip("the pipe is closed by a POSIX shell here; Windows reports it as a plain OSError")
    process = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m agent --help | true'], capture_output=True, text=True, check=False
    )
    assert process.stderr == ""
