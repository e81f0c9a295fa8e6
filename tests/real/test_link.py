"""Who gets onto the link of a real pair, and who is told why not; the names tell the rows of FAULTS."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import pytest

from agent.core.vocabulary import Mode
from tests.real.pair import Node, Pair, free_port, running_pair

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX; the Wine lane has its own pair")


def sentences(node: Node, code: str) -> str:
    return "\n".join(event["sentence"] for event in node.events() if event["code"] == code)


def started(pair: Pair) -> Pair:
    for node in pair.nodes:
        node.start()
    pair.wait_for(lambda: all(node.status() for node in pair.nodes), "both agents up")
    return pair


def edit(node: Node, old: str, new: str) -> None:
    text = node.config.read_text()
    assert old in text
    node.config.write_text(text.replace(old, new))


def test_s4_strangers_and_half_open_connections_do_not_keep_the_peer_out(tmp_path: Path) -> None:
    pair = Pair(tmp_path, standby_ms=60_000)
    crowd: list[socket.socket] = []
    try:
        pair.primary.start()
        pair.wait_for(lambda: bool(pair.primary.status()), "the primary up")
        for number in range(700):
            crowd.append(socket.create_connection(("127.0.0.1", pair.port)))
            if number % 3 == 0:
                crowd[-1].sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a ClientHello, and no more
            elif number % 3 == 1:
                crowd[-1].sendall(b"GET / HTTP/1.1\r\n\r\n")
        pair.backup.start()
        pair.wait_in_order()
    finally:
        for each in crowd:
            each.close()
        pair.close()


@pytest.mark.parametrize(
    ("primary_key", "backup_key", "told"),
    [
        ('pre_shared_key = "one-long-key-0123456789"', 'pre_shared_key = "another-key-0123456789"', "keys differ"),
        ('pre_shared_key = "one-long-key-0123456789"', "", "the other has none"),
    ],
)
def test_pre_shared_keys_that_differ_are_told_to_both_and_never_sent(
    tmp_path: Path, primary_key: str, backup_key: str, told: str
) -> None:
    pair = Pair(tmp_path)
    for node, key in zip(pair.nodes, (primary_key, backup_key), strict=True):
        edit(node, "[server]", f"[security]\n{key}\n[server]")
    try:
        started(pair)
        for node in pair.nodes:
            pair.wait_for(lambda node=node: "pre_shared_key" in node.tail() + node.status()["link"]["last_error"], told)
            assert "0123456789" not in node.tail()
        pair.wait_active(pair.primary)
        assert pair.backup.status()["role"] == "standby"
    finally:
        pair.close()


def test_timers_that_contradict_each_other_are_told_with_both_values_on_both_nodes(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    edit(pair.backup, "interval = 100", "interval = 3000")
    edit(pair.backup, "timeout = 1000\n[admin]", "timeout = 9000\n[admin]")
    edit(pair.backup, "connection_timeout = 1000", "connection_timeout = 9000")
    try:
        started(pair)
        for node in pair.nodes:
            pair.wait_for(lambda node=node: "3000 ms" in node.status()["link"]["last_error"], "the values named")
            assert "1000 ms" in node.status()["link"]["last_error"]
    finally:
        pair.close()


def test_d6_peer_of_another_pair_is_refused_on_both_sides_until_it_is_told_to_forget(tmp_path: Path) -> None:
    with running_pair(tmp_path / "one") as one:
        other = Pair(tmp_path / "two")
        try:
            other.start()
            other.stop_both()
            stray = other.backup  # it believes one's primary to be its own, and is trusted there
            edit(stray, f"port = {other.port}\nconnection", f"port = {one.port}\nconnection")
            shutil.copy(one.primary.directory / "certs/own.crt", stray.directory / "certs/remote.crt")
            one.stop_both()
            shutil.copy(stray.directory / "certs/own.crt", one.primary.directory / "certs/remote.crt")
            one.primary.start()
            stray.start()
            for node in (one.primary, stray):
                one.wait_for(
                    lambda node=node: "belongs to pair" in node.status().get("link", {}).get("last_error", ""), "why"
                )
            assert stray.status()["role"] == "standby"
        finally:
            other.close()


def test_s7_second_agent_with_the_peers_identity_is_refused_without_a_role_change(tmp_path: Path) -> None:
    with running_pair(tmp_path) as pair:
        before = [event for event in pair.primary.events() if event["code"] == "role-changed"]
        copy = Node.__new__(Node)
        copy.__dict__ |= pair.backup.__dict__ | {
            "directory": tmp_path / "copy",
            "admin_port": free_port(),
            "process": None,
        }
        shutil.copytree(pair.backup.directory, copy.directory, ignore=shutil.ignore_patterns("lock", "*.log"))
        copy.config, copy.log = copy.directory / "agent.toml", copy.directory / "agent.log"
        edit(copy, f"port = {pair.backup.admin_port}", f"port = {copy.admin_port}")
        copy.start()
        try:
            pair.wait_for(
                lambda: "holds the link" in copy.status().get("link", {}).get("last_error", ""), "the refusal"
            )
            assert copy.status()["role"] == "standby"
            assert [event for event in pair.primary.events() if event["code"] == "role-changed"] == before
            assert pair.backup.status()["link"]["state"] == "up"
        finally:
            assert copy.process is not None
            copy.process.terminate()
            copy.process.wait(20)


def test_s2_new_certificate_pasted_first_on_the_other_side_needs_no_outage(tmp_path: Path) -> None:
    """The primary trusts both certificates; the backup changes to the new one; the primary's workload runs on."""
    with running_pair(tmp_path) as pair:
        fresh = Node(tmp_path / "fresh", pair.backup.name, Mode.BACKUP, 1)
        remote = pair.primary.directory / "certs/remote.crt"
        remote.write_text(remote.read_text() + (fresh.directory / "certs/own.crt").read_text())
        pair.primary.stop()
        pair.primary.start()
        pair.wait_in_order()
        life = pair.primary.status()["workload"]["pid"]
        pair.backup.stop()
        for name in ("own.crt", "own.key"):
            shutil.copy2(fresh.directory / "certs" / name, pair.backup.directory / "certs" / name)
        pair.backup.start()
        pair.wait_in_order()
        assert pair.primary.status()["workload"]["pid"] == life


def test_s9_private_key_readable_by_others_is_refused_with_the_way_out(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    (pair.primary.directory / "certs/own.key").chmod(0o644)
    pair.primary.start()
    assert pair.primary.process is not None
    assert pair.primary.process.wait(20) == 2
    assert "chmod" in pair.primary.tail()
    assert "Traceback" not in pair.primary.tail()
