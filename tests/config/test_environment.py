"""The environment always wins, and says so; what it cannot mean is a finding."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config.environment import variable_name
from agent.config.load import load_config
from agent.config.schema import KEYS
from agent.core.errors import ConfigurationError
from agent.core.vocabulary import Mode

from .conftest import COMPLETE, Findings


def test_the_environment_wins_over_the_file_and_is_recorded(folder: Path) -> None:
    path = folder / "agent.toml"
    path.write_text(
        COMPLETE + '[server]\nport = "wrong in the file"\n[[tree]]\nname = "a"\nkind = "data"\npath = "a"\n'
    )
    environ = {
        "PAIR_AGENT_SERVER__PORT": "4002",
        "PAIR_AGENT_CERTIFICATES__ENFORCE_VALIDITY": "True",
        "PAIR_AGENT_WORKLOAD__KIND": "process",
        "PAIR_AGENT_WORKLOAD__COMMAND": '["a", "b c"]',
        "PAIR_AGENT_WORKLOAD__ENVIRONMENT": '{ A = "1", B = "2" }',
        "PAIR_AGENT_WORKLOAD__ENVIRONMENT__Own_Name": "x",
        "PAIR_AGENT_HOOKS__ON_ACTIVE": "[['a'], ['b']]",
        "PAIR_AGENT_TREE__0__PATH": "elsewhere",
        "PAIR_AGENT_TREE__1__NAME": "second",
        "PAIR_AGENT_TREE__1__KIND": "config",
        "PAIR_AGENT_TREE__1__PATH": "second",
        "PAIR_AGENT_NAME": "renamed",
    }
    config = load_config(path, environ)
    assert config.server.port == 4002
    assert config.name == "renamed"
    assert config.certificates.enforce_validity is True
    assert config.workload.command == ("a", "b c")
    assert config.workload.environment == {"A": "1", "B": "2", "Own_Name": "x"}
    assert config.hooks.on_active == (("a",), ("b",))
    assert [(tree.name, tree.path) for tree in config.trees] == [
        ("a", folder / "elsewhere"),
        ("second", folder / "second"),
    ]
    assert config.overrides["server.port"] == "PAIR_AGENT_SERVER__PORT"
    assert config.overrides["tree.0.path"] == "PAIR_AGENT_TREE__0__PATH"
    assert config.overrides["workload.environment.Own_Name"] == "PAIR_AGENT_WORKLOAD__ENVIRONMENT__Own_Name"


def test_the_mode_can_come_from_the_environment(folder: Path) -> None:
    config = load_config(folder / "agent.toml", {"PAIR_AGENT_MODE": "stand-alone"})
    assert config.mode is Mode.STAND_ALONE


def test_every_key_has_its_variable(findings: Findings) -> None:
    for path in KEYS:
        name = variable_name(path.replace("tree.", "tree.0.").replace("forward.", "forward.0."))
        assert not any("no key has this name" in sentence for sentence in findings(environ={name: "1"}))


def test_what_the_agent_hands_to_its_workload_is_no_finding(findings: Findings) -> None:
    names = ("ROLE", "TERM", "PEER", "ROLE_FILE", "CONFIG", "DEBUG")
    assert findings(environ={f"PAIR_AGENT_{name}": "x" for name in names}) == []
    assert findings(environ={"PAIR_AGENT_MODE": "primary", "PAIR_AGENT_NAME": "alpha", "OTHER__X": "1"}) == []


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("PAIR_AGENT_SERVER__PROT", "1", "the nearest valid name is PAIR_AGENT_SERVER__PORT"),
        ("PAIR_AGENT_SERVR__PORT", "1", "the nearest valid name is PAIR_AGENT_SERVER__PORT"),
        ("PAIR_AGENT_server__port", "1", "the nearest valid name is PAIR_AGENT_SERVER__PORT"),
        ("PAIR_AGENT_TREE__0__PAHT", "1", "the nearest valid name is PAIR_AGENT_TREE__0__PATH"),
        ("PAIR_AGENT_MODEE", "primary", "the nearest valid name is PAIR_AGENT_MODE"),
        ("PAIR_AGENT_TREE__PATH", "x", "such as PAIR_AGENT_TREE__0__PATH"),
        ("PAIR_AGENT_TREE__3__PATH", "x", "there is no element 3"),
        ("PAIR_AGENT_TREE__99999999__PATH", "x", "no key has this name"),
        ("PAIR_AGENT_SERVER__PORT", "", 'found ""'),
        ("PAIR_AGENT_SERVER__PORT", "3002.5", 'found "3002.5"'),
        ("PAIR_AGENT_SERVER__PORT", "٣٠٠٢", "allowed: a whole number"),
        ("PAIR_AGENT_SERVER__PORT", "70000", "environment PAIR_AGENT_SERVER__PORT: server.port: found 70000"),
        ("PAIR_AGENT_CERTIFICATES__ENFORCE_VALIDITY", "yes", "allowed: true or false"),
        ("PAIR_AGENT_WORKLOAD__COMMAND", "node-red -v", "written as JSON or as a TOML value"),
        ("PAIR_AGENT_WORKLOAD__COMMAND", '[""]\nx = 1', "the program is empty"),
        ("PAIR_AGENT_SECURITY__PRE_SHARED_KEY", "", "it is empty"),
    ],
)
def test_what_cannot_be_meant_is_a_finding(findings: Findings, name: str, text: str, part: str) -> None:
    found = findings(environ={name: text})
    assert any(name in sentence and part in sentence for sentence in found), found


def test_a_variable_for_a_key_inside_something_that_is_no_table(findings: Findings) -> None:
    found = findings(before="server = 5\n", environ={"PAIR_AGENT_SERVER__PORT": "1"})
    assert any("the file's server is no table" in sentence for sentence in found)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.lists(
            st.sampled_from(["SERVER", "PORT", "TREE", "0", "1", "PATH", "WORKLOAD", "ENVIRONMENT", "", "a.b", "É"]),
            max_size=4,
        ).map(lambda parts: "PAIR_AGENT_" + "__".join(parts)),
        st.text(max_size=8) | st.sampled_from(['["a"]', "{}", "1", "[" * 5000]),
        max_size=4,
    )
)
def test_any_environment_ends_in_a_configuration_or_in_findings(folder: Path, environ: dict[str, str]) -> None:
    with contextlib.suppress(ConfigurationError):
        load_config(folder / "agent.toml", environ)
