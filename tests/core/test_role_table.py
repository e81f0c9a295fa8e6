"""The table of phases: all that happens is a row of it, every row happens, and the picture shows it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core import inputs as told
from agent.core import role_ground
from agent.core.inputs import LinkLoss
from agent.core.messages import Invite, Release, Request
from agent.core.role_diagram import mermaid
from agent.core.role_ground import RoleGround
from agent.core.role_table import ROLE_OF, TRANSITIONS, Cause, Phase
from agent.core.vocabulary import Mode, Role
from tests.core import test_roles_trees as trees
from tests.core.role_scene import PRIMARY_RECORD, Scene, active_primary, standby_backup
from tests.core.test_roles_handover import refusal
from tests.simulation import starts
from tests.simulation.exploration import Bounds, Exploration
from tests.simulation.pair_model import Pair

CORE = Path(role_ground.__file__).parent
Row = tuple[Phase, Cause, Phase]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Row]]:
    """The rows that role machines go along during a test."""
    seen: set[Row] = set()
    enter = RoleGround._enter

    def noting(self: RoleGround, phase: Phase, cause: Cause, reason: str, now_ns: int) -> None:
        seen.add((self.phase, cause, phase))
        enter(self, phase, cause, reason, now_ns)

    monkeypatch.setattr(RoleGround, "_enter", noting)
    return seen


def beside_one_that_stops() -> Scene:
    scene = Scene(Mode.PRIMARY).started()
    scene.linked(Role.STOPPING, 2)
    assert scene.phase is Phase.AWAITING_PEER
    return scene


def catching_up() -> Scene:
    scene = standby_backup()
    scene.asked(Invite(planned=True, hold=True, reason="failover"))
    assert scene.phase is Phase.CATCHING_UP
    return scene


def requesting() -> Scene:
    scene = catching_up()
    scene.caught_up()
    return scene


def switching_back() -> Scene:
    scene = Scene(Mode.PRIMARY).started()
    scene.linked(Role.ACTIVE, 2)
    scene.reported(Role.ACTIVE, 2)
    assert scene.phase is Phase.CATCHING_UP
    return scene


def a_hold_is_reported() -> None:
    beside_one_that_stops().reported(Role.ACTIVE, 2, hold=True)


def a_primary_is_released_before_it_asked() -> None:
    beside_one_that_stops().asked(Release(2, hold=False, reason="given"))


def a_catch_up_fails() -> None:
    catching_up().catch_up_failed()


def a_primary_loses_the_link_before_it_is_up_to_date() -> None:
    scene = trees.primary(trees.OUTDATED).started()
    scene.linked(Role.ACTIVE, 2)
    scene.reported(Role.ACTIVE, 2)
    scene.catch_up_failed()
    scene.lost(LinkLoss.CLOSED)


def a_backup_is_up_to_date_beside_nobody_active() -> None:
    scene = catching_up()
    scene.reported(Role.STANDBY, 1)
    scene.caught_up()


def a_backup_is_released_while_it_catches_up() -> None:
    catching_up().asked(Release(1, hold=False, reason="given"))


def a_request_stays_without_an_answer() -> None:
    requesting().after(60)


def a_release_comes_after_all() -> None:
    scene = requesting()
    scene.after(16)
    assert scene.phase is Phase.STANDBY
    scene.asked(Release(1, hold=True, reason="given"))


def a_taker_is_frozen() -> None:
    for scene in (catching_up(), requesting(), switching_back()):
        scene.tell(told.Frozen("it did not run for 9 s"))
    scene = switching_back()
    scene.caught_up()
    scene.tell(told.Frozen("it did not run for 9 s"))


def maintenance_ends_beside_nobody_active() -> None:
    record = replace(PRIMARY_RECORD, maintenance=True, maintenance_revision=1)
    scene = Scene(Mode.PRIMARY, record).started()
    scene.linked()
    scene.tell(told.MaintenanceOrdered(False))


def a_release_is_refused() -> None:
    scene = active_primary()
    scene.asked(Request(planned=True, hold=True, reason="failover"))
    scene.stopped_and_sent()
    scene.asked(refusal(release_term=scene.roles.record.term))


def a_stop_is_ordered_before_the_start() -> None:
    Scene(Mode.PRIMARY).tell(told.StopOrdered())


def a_stand_alone_node_starts() -> None:
    Scene(Mode.STAND_ALONE).started()


def a_rival_is_heard() -> None:
    scene = active_primary()
    scene.lost(LinkLoss.SILENCE)
    for _ in range(20):
        scene.after(1)
        scene.tell(told.PeerHeard(active=True, hears=False))


def trees_become_usable() -> None:
    for scene in (trees.hindered_backup(LinkLoss.GOODBYE), trees.postponed_primary()):
        scene.tell(trees.USABLE)
    for record in (trees.PRIMARY, trees.OUTDATED):
        scene = trees.primary(record).started()
        scene.tell(trees.HINDERED)
        scene.linked(Role.STANDBY, record.term, eligible=False)
        scene.tell(trees.USABLE)


def final_changes_are_stuck() -> None:
    scene = trees.active_backup()
    scene.asked(trees.SWITCHBACK)
    scene.tell(told.WorkloadEnded())
    scene.sent("the disk is full")


RARE: list[Callable[[], None]] = [
    a_hold_is_reported,
    a_primary_is_released_before_it_asked,
    a_catch_up_fails,
    a_primary_loses_the_link_before_it_is_up_to_date,
    a_backup_is_up_to_date_beside_nobody_active,
    a_backup_is_released_while_it_catches_up,
    a_request_stays_without_an_answer,
    a_release_comes_after_all,
    a_taker_is_frozen,
    maintenance_ends_beside_nobody_active,
    a_release_is_refused,
    a_stop_is_ordered_before_the_start,
    a_stand_alone_node_starts,
    a_rival_is_heard,
    trees_become_usable,
    final_changes_are_stuck,
]
WALKS: list[tuple[Callable[[], Pair], int, set[str]]] = [
    (starts.new, 0, set()),
    (starts.both_down_primary_outdated, 0, set()),
    (starts.steady, 2, {"stop", "failover"}),
    (starts.steady, 2, {"reset", "failover"}),
    (starts.held, 2, {"reset", "failback"}),
    (starts.held, 1, {"stop", "freeze", "partition", "power"}),
    (starts.primary_dead, 1, {"stop", "reset", "maintenance on"}),
    (starts.steady, 1, {"crash", "freeze", "partition", "power", "workload gave up"}),
]


# No way leads along these now: a primary in initial standby that is linked waits for a peer that stops, and for nothing
# else.
SPARE: set[Row] = {
    (Phase.AWAITING_PEER, Cause.TREES_USABLE, Phase.CATCHING_UP),
    (Phase.AWAITING_PEER, Cause.TREES_USABLE, Phase.STANDBY),
}


def test_every_row_of_the_table_happens(rows: set[Row]) -> None:
    for start, faults, kinds in WALKS:
        Exploration(start, Bounds(faults, frozenset(kinds), ways=())).run()
    for scenario in RARE:
        scenario()
    assert sorted(f"{b.name} {c.name} {a.name}" for b, c, a in TRANSITIONS - SPARE - rows) == []
    assert not SPARE & rows


def test_a_change_that_is_no_row_is_refused() -> None:
    scene = active_primary()
    with pytest.raises(AssertionError, match="no row"):
        scene.roles._enter(Phase.STARTING, Cause.ORDERED, "", 0)


def test_the_phase_is_changed_in_one_place_only() -> None:
    changing = []
    for file in CORE.glob("*.py"):
        for function in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Attribute) and node.attr == "phase" and isinstance(node.ctx, ast.Store):
                        changing.append(f"{file.name} {function.name}")
    assert sorted(changing) == ["role_ground.py __init__", "role_ground.py _enter"]


def test_every_phase_can_be_reached_and_every_one_but_the_last_can_be_left() -> None:
    assert {after for _, _, after in TRANSITIONS} == set(Phase) - {Phase.STARTING}
    assert {before for before, _, _ in TRANSITIONS} == set(Phase) - {Phase.STOPPED}


def test_every_phase_shows_as_a_role() -> None:
    assert set(Phase) - set(ROLE_OF) == {Phase.CATCHING_UP, Phase.REQUESTING}


def test_a_workload_only_ever_starts_by_entering_active_and_stops_by_leaving_it() -> None:
    assert {after for before, _, after in TRANSITIONS if before is Phase.ACTIVE} == {Phase.STEPPING_DOWN}
    assert all(before is not Phase.STEPPING_DOWN for before, _, after in TRANSITIONS if after is Phase.ACTIVE)


def test_every_cause_leads_somewhere() -> None:
    assert {cause for _, cause, _ in TRANSITIONS} == set(Cause)


def test_the_picture_shows_every_row() -> None:
    picture = mermaid()
    for before, cause, after in TRANSITIONS:
        (arrow,) = [
            line for line in picture.splitlines() if line.strip().startswith(f"{before.name} --> {after.name}:")
        ]
        assert cause.value in arrow.partition(": ")[2].split(", ")


def test_the_readme_shows_the_picture_of_the_table() -> None:
    assert mermaid() in (CORE.parent / "README.md").read_text("utf-8")
