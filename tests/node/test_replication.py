"""The agent's end of the replica worker: when the trees may be changed, and what a dead worker means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from agent.admin.codes import EventCode
from agent.config.creation import create_node
from agent.config.load import load_config
from agent.config.model import Config, Tree, TreeKind
from agent.core import inputs as told
from agent.core.record import Record
from agent.core.role_table import Phase
from agent.core.roles import Roles
from agent.core.vocabulary import Mode
from agent.node.conductor import role_settings
from agent.node.replication import SETTLE_S, STARTING, Replication
from agent.replica import worker_protocol as say

PAIRED = Record(mode="backup", pair_id=bytes(16), data_term=3, base_term=3)


class Owner:
    """The conductor's part: the roles, and what they were told."""

    def __init__(self, config: Config, record: Record) -> None:
        self.roles = Roles(role_settings(config, force_activate=False), record, 0)
        self.roles.phase = Phase.STANDBY
        self.facts: list[told.Input] = []
        self.events: list[tuple[EventCode, str]] = []
        self.hooks = 0

    def tell(self, fact: told.Input) -> None:
        self.facts.append(fact)

    def event(self, code: EventCode, sentence: str, **fields: Any) -> None:
        self.events.append((code, sentence))

    def config_applied(self) -> None:
        self.hooks += 1


class Scene:
    """A replication whose worker is the test."""

    def __init__(self, tmp_path: Path, record: Record = PAIRED, *, ready: bool = True) -> None:
        tree = Tree("data", TreeKind.DATA, tmp_path / "data")
        create_node(tmp_path, Mode.BACKUP, "line-4-b", "192.0.2.1")
        config = replace(load_config(tmp_path / "agent.toml", {}, with_certificates=False), trees=(tree,))
        self.owner = Owner(config, record)
        self.replication = Replication(config, self.owner)
        self.sent: list[say.Order] = []
        self.replication._send = self.sent.append  # type: ignore[method-assign]  # there is no process
        if ready:
            self.worker_tells(say.Started(1), say.Ready(1, ""))
            self.sent.clear()
            self.owner.facts.clear()

    def worker_tells(self, *tellings: say.Telling) -> None:
        for each in tellings:
            self.replication._take(each)

    def granted(self) -> list[tuple[int, bool]]:
        return [(each.number, each.granted) for each in self.sent if isinstance(each, say.Grant)]


def test_a_standby_node_may_change_its_trees_and_an_active_one_may_not(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.worker_tells(say.Permission(1, ""))
    scene.owner.roles.phase = Phase.ACTIVE
    scene.worker_tells(say.Permission(2, ""))
    assert scene.granted() == [(1, True), (2, False)]


def test_trees_that_will_be_half_way_are_noted_durably_before_they_may_be_changed(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.worker_tells(say.Permission(1, "bringing over the state of term 5"))
    assert scene.owner.facts == [told.TreesIncomplete("bringing over the state of term 5")]
    scene.replication.update()
    assert scene.granted() == []
    scene.owner.roles.record = replace(PAIRED, incomplete="bringing over the state of term 5")
    scene.replication.update()
    assert scene.granted() == [(1, True)]


def test_before_a_workload_starts_what_was_granted_has_ended(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        scene.worker_tells(say.Permission(1, ""))
        scene.owner.roles.phase = Phase.ACTIVE
        async with trio.open_nursery() as nursery:
            settled = trio.Event()

            async def settle() -> None:
                await scene.replication.settle()
                settled.set()

            nursery.start_soon(settle)
            await trio.testing.wait_all_tasks_blocked()
            assert not settled.is_set()
            scene.worker_tells(say.ApplyEnded(1))
            await settled.wait()

    trio.run(main)


def test_a_worker_that_died_while_it_changed_the_trees_holds_the_workload_until_the_next_has_mended_them(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        scene.worker_tells(say.Permission(1, ""))
        scene.replication._bury("killed")
        assert told.TreesHindered(STARTING) in scene.owner.facts
        async with trio.open_nursery() as nursery:
            settled = trio.Event()

            async def settle() -> None:
                await scene.replication.settle()
                settled.set()

            nursery.start_soon(settle)
            await trio.testing.wait_all_tasks_blocked()
            assert not settled.is_set()
            scene.worker_tells(say.Ready(2, ""))
            await settled.wait()

    trio.run(main)


def test_a_worker_that_died_leaves_no_order_unanswered(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.owner.roles.peer = scene.owner.roles.report
    scene.replication.catch_up(7)
    scene.replication.finish(8)
    scene.replication._bury("killed")
    answered = [(type(each).__name__, each.number) for each in scene.owner.facts if hasattr(each, "number")]
    assert answered == [("CatchUpFailed", 7), ("FinalChangesSent", 8)]


def test_an_answer_to_an_order_given_up_does_not_count(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.replication.catch_up(1)
    scene.replication.catch_up(2)
    scene.worker_tells(say.CaughtUp(1))
    assert told.CaughtUp(1) not in scene.owner.facts


@pytest.mark.parametrize("ready", [True, False])
def test_an_overwrite_needs_nothing_from_the_other_node(tmp_path: Path, ready: bool) -> None:
    scene = Scene(tmp_path, replace(PAIRED, overwrite_due=True), ready=ready)
    scene.owner.facts.clear()
    scene.replication.catch_up(4)
    assert scene.owner.facts == [told.CaughtUp(4)]


def test_who_is_overwritten_next_has_no_final_changes_to_bring_over(tmp_path: Path) -> None:
    """Its primary does not follow it: a failback that waited for that would never come about."""
    scene = Scene(tmp_path, replace(PAIRED, overwrite_due=True))
    scene.owner.roles.peer = scene.owner.roles.report
    scene.replication.finish(4)
    assert scene.owner.facts == [told.FinalChangesSent(4)]
    assert not scene.sent


def test_a_worker_that_does_not_end_what_was_granted_is_killed_before_the_workload_starts(tmp_path: Path) -> None:
    class Process:
        killed = False

        def kill(self) -> None:
            self.killed = True

    async def main() -> None:
        scene, process = Scene(tmp_path), Process()
        scene.replication._process = process  # type: ignore[assignment]  # all that is used of it
        scene.worker_tells(say.Permission(1, ""))
        scene.owner.roles.phase = Phase.ACTIVE
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.replication.settle)
            await trio.sleep(SETTLE_S + 1)
            assert process.killed
            scene.replication._bury("killed")
            scene.worker_tells(say.Ready(2, ""))
        [(_, sentence)] = [each for each in scene.owner.events if each[0] is EventCode.TREES_INCOMPLETE]
        assert "killed" in sentence

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_stands_in_a_trees_place_keeps_the_role_away(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ready=False)
    scene.worker_tells(say.Ready(1, "", "tree data: it is another folder"))
    assert scene.owner.facts[-1] == told.TreesHindered("tree data: it is another folder")
    scene.worker_tells(say.Hindered(""))
    assert scene.owner.facts[-1] == told.TreesHindered("")


def test_a_worker_that_is_starting_is_told_what_to_catch_up_when_it_is_ready(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ready=False)
    scene.replication.catch_up(4)
    assert say.CatchUp(4) not in scene.sent
    scene.worker_tells(say.Ready(1, ""))
    assert say.CatchUp(4) in scene.sent


def test_messages_survive_the_pipe_however_it_is_cut() -> None:
    decoder = say.Decoder()
    orders = [say.CatchUp(3), say.Link(1, b"k" * 32, "host", 3002, True), say.Unlink()]
    received = []
    for byte in b"".join(say.encode(each) for each in orders):
        received += list(decoder.feed(bytes([byte])))
    assert received == orders
