"""What an operator meets at three in the morning: each promise on a real pair."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest

from agent.core.vocabulary import Mode
from tests.real.pair import RECORDER, Node, Pair, free_port, running_pair

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX; the Wine lane has its own pair")


def edit(node: Node, old: str, new: str) -> None:
    text = node.config.read_text()
    assert old in text
    node.config.write_text(text.replace(old, new))


def reasons(node: Node) -> str:
    return " ".join(node.status()["readiness"]["reasons"])


def test_other_node_does_not_start_before_a_planned_stop_is_confirmed(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    for node in pair.nodes:
        edit(node, 'kind = "process"', 'kind = "commands"')
        text = node.config.read_text()
        command = next(line for line in text.splitlines() if line.startswith("command"))
        # Started detached; the stop command fails as long as the folder has a file "stuck".
        start = json.dumps(["sh", "-c", f"{' '.join(RECORDER)} {node.trace} & echo $! > {node.directory}/pid"])
        stop = json.dumps(
            ["sh", "-c", f"cd {node.directory}; test -e stuck && exit 1; test -e pid && kill -9 $(cat pid); rm -f pid"]
        )
        node.config.write_text(text.replace(command, f"start = {start}\nstop = {stop}"))
    try:
        pair.start()
        (pair.primary.directory / "stuck").touch()
        pair.primary.signal(signal.SIGTERM)
        pair.wait_for(lambda: "still waiting" in pair.primary.tail(), "the agent says that it waits", bound_s=40)
        assert pair.backup.status()["role"] == "standby"
        (pair.primary.directory / "stuck").unlink()
        pair.wait_active(pair.backup)
        assert pair.overlap_ns() == 0
    finally:
        (pair.primary.directory / "stuck").unlink(missing_ok=True)
        pair.close()


def test_warm_workload_is_stopped_in_good_order_when_its_agent_ends(tmp_path: Path) -> None:
    script = "trap 'echo flushed > {0}; exit 0' TERM; while :; do sleep 0.05; done"
    pair = Pair(tmp_path, workload_toml='standby = "warm"')
    for node in pair.nodes:
        command = next(line for line in node.config.read_text().splitlines() if line.startswith("command"))
        edit(node, command, f"command = {json.dumps(['sh', '-c', script.format(node.directory / 'said')])}")
    try:
        pair.start()
        assert pair.primary.stop() == 0
        assert (pair.primary.directory / "said").read_text() == "flushed\n"
        pair.wait_active(pair.backup)
    finally:
        pair.close()


def test_node_whose_mode_was_changed_does_not_activate_until_it_met_the_other(tmp_path: Path) -> None:
    with running_pair(tmp_path) as pair:
        pair.backup.stop()
        edit(pair.backup, 'mode = "backup"', 'mode = "primary"')
        edit(pair.backup, f"[server]\nport = {pair.port}", f"[server]\nport = {free_port()}")
        pair.backup.start()
        pair.wait_for(lambda: "mode was changed" in pair.backup.status().get("reason", ""), "the reason")
        assert pair.backup.status()["role"] == "initial-standby"
        assert pair.primary.status()["role"] == "active"
        pair.backup.stop()
        pair.backup.start("--force-activate")
        pair.wait_active(pair.backup)


def test_refused_certificate_is_told_on_both_nodes(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    stranger = Node(tmp_path / "c", "stranger", Mode.BACKUP, 1)
    shutil.copy(stranger.directory / "certs/own.crt", pair.primary.directory / "certs/remote.crt")
    try:
        for node in pair.nodes:
            node.start()
        pair.wait_for(
            lambda: "refuse" in pair.backup.status().get("link", {}).get("last_error", ""), "told at the backup"
        )
        pair.wait_for(
            lambda: "line-4-b" in pair.primary.status().get("link", {}).get("last_error", ""), "told at the primary"
        )
        assert "certificate" in pair.backup.status()["link"]["last_error"]
    finally:
        pair.close()


def test_paired_backup_does_not_take_over_from_a_primary_that_refuses_it(tmp_path: Path) -> None:
    with running_pair(tmp_path) as pair:
        stranger = Node(tmp_path / "c", "stranger", Mode.BACKUP, 1)
        pair.stop_both()
        shutil.copy(stranger.directory / "certs/own.crt", pair.primary.directory / "certs/remote.crt")
        pair.primary.start()
        pair.wait_active(pair.primary)
        pair.backup.start()
        pair.wait_for(lambda: "lives, but" in pair.backup.status().get("reason", ""), "the reason")
        assert pair.backup.status()["role"] == "standby"


def test_readiness_and_failover_see_that_the_other_node_cannot_run_the_workload(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    command = next(line for line in pair.backup.config.read_text().splitlines() if line.startswith("command"))
    edit(pair.backup, command, 'command = ["/no/such/program"]')
    try:
        for node in pair.nodes:
            node.start()
        pair.wait_active(pair.primary)
        pair.wait_for(lambda: "/no/such/program" in reasons(pair.primary), "the primary's readiness")
        with pytest.raises(AssertionError, match="/no/such/program"):
            pair.primary.order("failover")
        assert pair.primary.status()["role"] == "active"
    finally:
        pair.close()


def test_readiness_sees_that_the_nodes_would_not_start_the_same(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    text = pair.backup.config.read_text()
    pair.backup.config.write_text(text[: text.index("[workload]")])
    try:
        for node in pair.nodes:
            node.start()
        pair.wait_for(lambda: bool(pair.primary.status()) and 'kind is "process" here' in reasons(pair.primary), "why")
        assert any("no application" in notice for notice in pair.backup.status()["notices"])
    finally:
        pair.close()


def test_workload_that_failed_while_alone_is_handed_over_when_the_other_node_comes(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    command = next(line for line in pair.primary.config.read_text().splitlines() if line.startswith("command"))
    edit(pair.primary, command, 'command = ["sh", "-c", "exit 3"]')
    edit(pair.primary, "stop_timeout = 2000", "stop_timeout = 2000\n[workload.health]\nfailures = 1\ninterval = 200")
    try:
        pair.primary.start()
        pair.wait_for(lambda: pair.primary.status().get("workload", {}).get("state") == "failed", "it gave up")
        pair.backup.start()
        pair.wait_active(pair.backup)
        assert pair.primary.status()["hold"]
    finally:
        pair.close()
