"""One validated configuration comes out, or every finding at once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config.load import announce_inactive_keys, find_config_path, load_config
from agent.config.model import HealthKind, StandbyKind, Sync, Trust, WorkloadKind
from agent.config.schema import KEYS
from agent.core.errors import ConfigurationError
from agent.core.vocabulary import Mode, TimeoutPolicy

from .conftest import COMPLETE, Findings

EVERYTHING = """\
mode = "backup"
name = "line-4-b"
state_directory = "state"
[certificates]
own_certificate = "own.crt"
own_key = "own.key"
remote_certificate = "remote.crt"
trust = "pinned"
enforce_validity = true
[security]
pre_shared_key = "correct horse battery staple"
[server]
port = 4002
interface = "all interfaces"
initial_standby_time = 0
on_initial_standby_timeout = "wait-if-outdated"
[connection]
host = "192.168.10.11"
port = 4003
connection_timeout = 6000
reconnect_delay = 500
[heartbeat]
interval = 900
timeout = 4000
[workload]
kind = "process"
command = ["node-red", "--userDir", "data"]
working_directory = "work"
environment = { TZ = "UTC" }
output = "out.log"
standby = "warm"
stop_timeout = 7000
version = "4.1.0"
[workload.health]
kind = "tcp"
address = "[::1]:1880"
interval = 1500
timeout = 700
failures = 2
[hooks]
on_active = ["notify", "active"]
on_standby = [["a"], ["b", "c"]]
on_config_applied = []
timeout = 1000
[[tree]]
name = "flows"
kind = "config"
path = "flows"
exclude = ["*.tmp", ".git/"]
[[tree]]
name = "data"
kind = "data"
path = "/var/data-of-it"
[sync]
rate_limit = 2000
scan_interval = 30000
archive_size = 500
archive_days = 7
[admin]
interface = "localhost"
port = 3103
[[forward]]
listen = "127.0.0.1:1883"
targets = ["192.168.10.11:1883", "[fd00::1]:1883"]
"""


def test_every_key_of_the_contract_arrives(folder: Path) -> None:
    path = folder / "agent.toml"
    path.write_text(EVERYTHING)
    config = load_config(path, {})
    assert (config.source, config.mode, config.name) == (path, Mode.BACKUP, "line-4-b")
    assert config.state_directory == folder / "state"
    assert config.certificates.own_key is not None
    assert config.certificates.own_key.path == folder / "own.key"
    assert config.certificates.trust is Trust.PINNED
    assert config.certificates.enforce_validity is True
    assert config.pre_shared_key == "correct horse battery staple"
    assert (config.server.port, config.server.interface) == (4002, "All interfaces")
    assert config.server.initial_standby_time == 0
    assert config.server.on_initial_standby_timeout is TimeoutPolicy.WAIT_IF_OUTDATED
    connection = config.connection
    assert (connection.host, connection.port, connection.connection_timeout) == ("192.168.10.11", 4003, 6000)
    assert connection.reconnect_delay == 500
    assert (config.heartbeat.interval, config.heartbeat.timeout) == (900, 4000)
    workload = config.workload
    assert (workload.kind, workload.standby) == (WorkloadKind.PROCESS, StandbyKind.WARM)
    assert workload.command == ("node-red", "--userDir", "data")
    assert (workload.working_directory, workload.output) == (folder / "work", folder / "out.log")
    assert (workload.environment, workload.stop_timeout, workload.version) == ({"TZ": "UTC"}, 7000, "4.1.0")
    assert (workload.health.kind, workload.health.address) == (HealthKind.TCP, "[::1]:1880")
    assert (workload.health.interval, workload.health.timeout, workload.health.failures) == (1500, 700, 2)
    assert config.hooks.on_active == (("notify", "active"),)
    assert config.hooks.on_standby == (("a",), ("b", "c"))
    assert (config.hooks.on_config_applied, config.hooks.timeout) == ((), 1000)
    assert [(tree.name, tree.path) for tree in config.trees] == [
        ("flows", folder / "flows"),
        ("data", folder / "/var/data-of-it"),
    ]
    assert config.trees[0].exclude == ("*.tmp", ".git/")
    assert config.sync == Sync(rate_limit=2000, scan_interval=30_000, archive_size=500, archive_days=7)
    assert (config.admin.interface, config.admin.port) == ("localhost", 3103)
    assert config.forwards[0].targets == ("192.168.10.11:1883", "[fd00::1]:1883")
    assert config.overrides == {}


def test_a_stand_alone_node_needs_one_line(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('mode = "stand-alone"\n')
    config = load_config(path, {})
    assert config.name
    assert config.certificates.own_certificate is None
    assert config.sync == Sync()
    assert config.state_directory.is_absolute()


def test_all_findings_come_at_once_with_line_value_range_and_nearest_name(findings: Findings) -> None:
    found = findings(
        '[server]\nport = 70000\ninterfce = "::"\n[heartbeat]\ninterval = 5000\ntimeout = true\n[conection]\n'
        'host = "x"\n[[tree]]\nname = "a"\nkind = "files"\n'
    )
    assert found == [
        "line 9: server.port: found 70000; allowed: a whole number from 1 to 65535",
        'line 10: server.interfce: no key has this name (found "::"); the nearest valid name is server.interface',
        "line 13: heartbeat.timeout: found true; allowed: a whole number from 20 to 600000 milliseconds",
        "line 14: conection: no table has this name; the nearest valid name is [connection]",
        "line 16: tree.0.path: missing; allowed: a path in quotes, absolute or relative to agent.toml",
        'line 18: tree.0.kind: found "files"; allowed: "config" or "data"',
    ]


def test_the_error_carries_every_finding_with_the_file(folder: Path) -> None:
    path = folder / "agent.toml"
    path.write_text(COMPLETE + "[server]\nport = 0\n[admin]\nport = 0\n")
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, {})
    assert len(caught.value.findings) == 2
    assert all(finding.startswith(str(path)) for finding in caught.value.findings)


@pytest.mark.parametrize("path", [key for key in KEYS if not key.startswith(("tree.", "forward."))])
def test_a_value_of_a_wrong_type_is_a_finding_for_every_key(findings: Findings, path: str) -> None:
    section, _, name = path.rpartition(".")
    lines = [line for line in COMPLETE.splitlines() if not line.startswith(f"{name} =")]
    header = f"[{section}]"
    if not section:
        lines.insert(0, f"{name} = 1979-05-27")
    elif header in lines:
        lines.insert(lines.index(header) + 1, f"{name} = 1979-05-27")
    else:
        lines += [header, f"{name} = 1979-05-27"]
    assert any(f"{path}: found " in sentence for sentence in findings(complete="\n".join(lines)))


@pytest.mark.parametrize(
    ("after", "part"),
    [
        ("[heartbeat]\ninterval = 5000\n", "allowed: timeout more than heartbeat.interval, which is 5000"),
        ("[heartbeat]\ntimeout = 1000\n", "heartbeat.timeout 1000, heartbeat.interval 1000"),
        ("[connection]\nconnection_timeout = 1000\n", "allowed: more than heartbeat.interval, which is 1000"),
        ("[admin]\nport = 3002\n", "admin.port: listens on port 3002, as server.port does"),
        ('[[forward]]\nlisten = "127.0.0.1:3003"\ntargets = ["h:1"]\n', "as admin.port does"),
        (
            '[[forward]]\nlisten = "[::1]:5"\ntargets = ["h:1"]\n'
            '[[forward]]\nlisten = "localhost:5"\ntargets = ["h:1"]\n',
            "forward.1.listen: listens on port 5, as forward.0.listen does",
        ),
        ('[[forward]]\nlisten = "127.0.0.1:5"\ntargets = ["127.0.0.1:5"]\n', "leads in a circle"),
        ('[[forward]]\nlisten = "127.0.0.1:5"\ntargets = []\n', "forward.0.targets: found []"),
        ('trust = "insecure"\n', "security.pre_shared_key: missing"),
        ('trust = "system"\n', "security.pre_shared_key: missing"),
        ('[security]\npre_shared_key = ""\n', "it is empty"),
        ('[security]\npre_shared_key = "  "\n', "it is empty"),
        ('[workload]\nkind = "process"\n', "workload.command: missing"),
        ('[workload]\nkind = "process"\ncommand = []\n', "workload.command: found []"),
        ('[workload]\nkind = "process"\ncommand = "node-red -v"\n', "write each argument as its own text"),
        ('[workload]\ncommand = ["a"]\n', 'workload.kind: missing, and workload.command is set; allowed: "process"'),
        ('[workload]\nkind = "commands"\nstart = ["a"]\n', "workload.stop: missing"),
        ('[workload]\nkind = "systemd"\n', "workload.service: missing"),
        ('[workload]\nkind = "windows-service"\n', "workload.service: missing"),
        ('[workload]\nkind = "systemd"\nservice = "a"\nstart = ["a"]\n', "workload.start: has no place"),
        ('[workload.health]\nkind = "tcp"\n', "workload.health.address: missing"),
        ('[workload.health]\nkind = "http"\nurl = "ftp://user:pw@host/"\n', 'found "ftp://***@host/"'),
        ('[workload.health]\nkind = "http"\n', "workload.health.url: missing"),
        ('[workload.health]\nkind = "command"\n', "workload.health.command: missing"),
        ('[workload.health]\nurl = "http://a/"\n', 'belongs to kind = "http", and the kind is "process"'),
        ('[tree]\nname = "a"\n', "tree: found a table; allowed: a table that can be repeated, [[tree]]"),
        ("server = 5\n", "certificates.server: no key has this name"),
        ('"server.port" = 5\n', "no key has a dot in its name"),
        ("[server]\nport = true\n", "server.port: found true"),
        ("[server]\nport = 3002.0\n", "server.port: found 3002.0"),
    ],
)
def test_contradictions_are_findings(findings: Findings, after: str, part: str) -> None:
    assert any(part in sentence for sentence in findings(after)), findings(after)


def test_a_backup_without_the_primarys_address_is_a_finding(findings: Findings) -> None:
    found = findings(complete=COMPLETE.replace("primary", "backup"))
    assert [sentence for sentence in found if "connection.host: missing" in sentence] == found


@pytest.mark.parametrize("word", ["prmary", "Primary", ""])
def test_an_unknown_mode_names_the_modes(findings: Findings, word: str) -> None:
    (found,) = findings(complete=COMPLETE.replace('"primary"', f'"{word}"'))
    assert found == f'line 1: mode: found "{word}"; allowed: "stand-alone", "primary" or "backup"'


def test_a_workload_can_be_switched_off_by_its_kind_alone(findings: Findings) -> None:
    assert findings('[workload]\nkind = "none"\ncommand = ["a"]\n') == []


@pytest.mark.parametrize(
    "after",
    [
        '[security]\npre_shared_key = ["hunter2"]\n',
        '[security]\npre_shared_kye = "hunter2"\n',
        'pre_shared_key = "hunter2"\n',
        "own_kee = '''hunter2'''\n",
        '[workload]\nkind = "none"\nenvironment = { A = ["hunter2"] }\n',
        '[workload]\nkind = "none"\nenvironment = "hunter2"\n',
        '[server]\npassword = "hunter2"\n',
        '[server]\ninterface = "-----BEGIN PRIVATE KEY-----hunter2"\n',
    ],
)
def test_no_finding_shows_a_secret(findings: Findings, after: str) -> None:
    found = findings(after)
    assert found
    assert "hunter2" not in "\n".join(found)


def test_no_finding_shows_a_secret_where_a_table_belongs(findings: Findings) -> None:
    found = findings(before='security = "hunter2"\n')
    assert "hunter2" not in "\n".join(found)
    assert "security: found a text" in found[0]


def test_the_repr_of_a_configuration_holds_no_secret(folder: Path, identities: dict[str, tuple[str, str]]) -> None:
    path = folder / "agent.toml"
    path.write_text(EVERYTHING)
    shown = repr(load_config(path, {}))
    assert "battery" not in shown
    assert identities["alpha"][0].splitlines()[1] not in shown


def test_a_command_that_asks_an_agent_needs_no_certificates(folder: Path) -> None:
    (folder / "own.key").unlink()
    config = load_config(folder / "agent.toml", {}, with_certificates=False)
    assert config.certificates.own_key is None


def test_keys_of_later_versions_are_announced(folder: Path) -> None:
    path = folder / "agent.toml"
    text = EVERYTHING.replace(
        'kind = "process"\ncommand = ["node-red", "--userDir", "data"]', 'kind = "systemd"\nservice = "a"'
    )
    path.write_text(text)
    assert announce_inactive_keys(load_config(path, {})) == [
        "[[forward]] (1): accepted, not active in this version",
        'workload.kind = "systemd": accepted, not active in this version',
    ]


def test_the_configuration_is_found_in_the_order_of_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config_path(None, {}).parent != tmp_path
    (tmp_path / "agent.toml").touch()
    assert find_config_path(None, {}) == tmp_path / "agent.toml"
    assert find_config_path(None, {"PAIR_AGENT_CONFIG": ""}) == tmp_path / "agent.toml"
    assert find_config_path(None, {"PAIR_AGENT_CONFIG": "b.toml"}) == tmp_path / "b.toml"
    assert find_config_path(Path("c.toml"), {"PAIR_AGENT_CONFIG": "b.toml"}) == tmp_path / "c.toml"


TOML_VALUES = st.recursive(
    st.sampled_from(
        ["0", "-1", "true", '""', '"a"', "[]", "{}", "1.5", "1979-05-27", '"127.0.0.1:5"', "'[::1]:99999'"]
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*KEYS, "nonsense", "tree", "server", "a.b.c"]), TOML_VALUES, max_size=8))
def test_any_toml_ends_in_a_configuration_or_in_findings(folder: Path, values: dict[str, str]) -> None:
    path = folder / "agent.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
    with contextlib.suppress(ConfigurationError):
        load_config(path, {})
