"""`interfaces` lists the addresses that [server] interface takes."""

from __future__ import annotations

import json

import pytest

from agent.__main__ import run_command
from agent.config.addresses import Interface


def test_every_address_can_be_written_into_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["interfaces", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"127.0.0.1"} <= {row["address"] for row in rows}
    for row in rows:
        assert set(row) == {"name", "address", "family", "up"}
        assert Interface().accept(row["address"])


def test_the_table_has_one_line_per_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["interfaces"]) == 0
    assert any(line.startswith("127.0.0.1 ") for line in capsys.readouterr().out.splitlines())


def test_config_is_taken_as_every_command_that_looks_at_a_node_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["interfaces", "--config", "no-such.toml"]) == 0
