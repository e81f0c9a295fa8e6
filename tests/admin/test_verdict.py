"""The verdict as tables: what each state of the pair means for failover, for OPC UA clients and in one word."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from agent.admin.verdict import PairView, Redundancy, TreeView, readiness, redundancy, service_level
from agent.core.vocabulary import Mode, Role, WorkloadState

HEALTHY_PRIMARY = PairView(
    mode=Mode.PRIMARY,
    role=Role.ACTIVE,
    linked=True,
    peer_role=Role.STANDBY,
    peer_heartbeat_fresh=True,
    workload=WorkloadState.RUNNING,
)
HEALTHY_BACKUP = PairView(
    mode=Mode.BACKUP,
    role=Role.STANDBY,
    linked=True,
    peer_role=Role.ACTIVE,
    peer_heartbeat_fresh=True,
    workload=WorkloadState.STOPPED,
)
AFTER_FAILOVER = replace(HEALTHY_BACKUP, role=Role.ACTIVE, peer_role=Role.STANDBY, workload=WorkloadState.RUNNING)


@pytest.mark.parametrize("view", [HEALTHY_PRIMARY, HEALTHY_BACKUP, AFTER_FAILOVER])
def test_a_healthy_pair_is_ready_and_has_nothing_to_say(view: PairView) -> None:
    assert readiness(view).ready
    assert readiness(view).reasons == ()


@pytest.mark.parametrize(
    ("view", "changes", "words"),
    [
        (HEALTHY_PRIMARY, {"mode": Mode.STAND_ALONE, "linked": False}, "stand-alone"),
        (HEALTHY_PRIMARY, {"maintenance": True}, "maintenance off"),
        (HEALTHY_BACKUP, {"maintenance": True}, "maintenance off"),
        (HEALTHY_PRIMARY, {"linked": False}, "There is no link"),
        (HEALTHY_PRIMARY, {"linked": False, "link_error": "It refused us."}, " It refused us. Check"),
        (HEALTHY_PRIMARY, {"linked": False, "link_error": "it refused us"}, " It refused us. Check"),
        (HEALTHY_BACKUP, {"linked": False}, "[connection] host and port"),
        (HEALTHY_PRIMARY, {"peer_heartbeat_fresh": False}, "overdue"),
        (HEALTHY_PRIMARY, {"peer_role": Role.ACTIVE}, "Both nodes are active"),
        (HEALTHY_PRIMARY, {"peer_role": Role.STARTING}, "The other node is starting"),
        (HEALTHY_PRIMARY, {"peer_role": None}, "unknown role"),
        (HEALTHY_PRIMARY, {"role": Role.INITIAL_STANDBY}, "Neither node is active"),
        (HEALTHY_BACKUP, {"role": Role.STOPPING}, "This node is stopping"),
        (HEALTHY_PRIMARY, {"peer_eligible": False, "peer_ineligible_reason": "It was never paired."}, "never paired"),
        (HEALTHY_PRIMARY, {"peer_eligible": False}, "It gave no reason"),
        (HEALTHY_BACKUP, {"own_eligible": False, "own_ineligible_reason": "The first copy runs."}, "this node stays"),
        (HEALTHY_PRIMARY, {"trees": (TreeView("flows", complete=False),)}, "flows is not complete on the other node"),
        (HEALTHY_BACKUP, {"trees": (TreeView("flows", complete=False),)}, "flows is not complete on this node"),
        (HEALTHY_BACKUP, {"damping_ms": 30_001}, "for another 31 s"),
    ],
)
def test_each_obstacle_is_a_sentence_and_makes_the_pair_not_ready(
    view: PairView, changes: dict[str, Any], words: str
) -> None:
    verdict = readiness(replace(view, **changes))
    assert not verdict.ready
    assert any(words in reason for reason in verdict.reasons)
    assert all(reason[0].isupper() and reason.endswith(".") and "\n" not in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("view", "changes"),
    [
        (HEALTHY_PRIMARY, {"own_eligible": False}),
        (HEALTHY_BACKUP, {"peer_eligible": False}),
        (HEALTHY_PRIMARY, {"workload": WorkloadState.FAILED}),
        (HEALTHY_PRIMARY, {"workload": None}),
    ],
)
def test_what_concerns_the_active_side_only_is_no_obstacle(view: PairView, changes: dict[str, Any]) -> None:
    assert readiness(replace(view, **changes)).ready


def test_a_ready_pair_says_what_a_failover_would_lose() -> None:
    trees = (TreeView("flows", complete=True), TreeView("history", complete=True, lag_ms=2500))
    verdict = readiness(replace(HEALTHY_PRIMARY, trees=trees))
    assert verdict.ready
    assert verdict.reasons == ("If the active node died now, the tree history would lose its last 3 s.",)


@pytest.mark.parametrize(
    ("view", "changes", "level"),
    [
        (HEALTHY_PRIMARY, {}, 255),
        (HEALTHY_PRIMARY, {"workload": None}, 255),
        (HEALTHY_PRIMARY, {"linked": False}, 200),
        (HEALTHY_PRIMARY, {"maintenance": True}, 200),
        (HEALTHY_PRIMARY, {"mode": Mode.STAND_ALONE, "linked": False}, 200),
        (HEALTHY_PRIMARY, {"workload": WorkloadState.STARTING}, 100),
        (HEALTHY_PRIMARY, {"workload": WorkloadState.STOPPING}, 100),
        (HEALTHY_PRIMARY, {"workload": WorkloadState.FAILED}, 1),
        (HEALTHY_PRIMARY, {"workload": WorkloadState.STOPPED}, 1),
        (AFTER_FAILOVER, {}, 255),
        (HEALTHY_BACKUP, {}, 199),
        (HEALTHY_BACKUP, {"own_eligible": False}, 50),
        (HEALTHY_BACKUP, {"maintenance": True}, 0),
        (HEALTHY_BACKUP, {"role": Role.STARTING}, 1),
        (HEALTHY_BACKUP, {"role": Role.STOPPING}, 1),
        (HEALTHY_PRIMARY, {"role": Role.INITIAL_STANDBY}, 1),
    ],
)
def test_the_service_level_sends_opc_ua_clients_to_the_right_node(
    view: PairView, changes: dict[str, Any], level: int
) -> None:
    assert service_level(replace(view, **changes)) == level


@pytest.mark.parametrize(
    ("view", "changes", "word"),
    [
        (HEALTHY_PRIMARY, {}, Redundancy.PRIMARY_WITH_BACKUP),
        (HEALTHY_PRIMARY, {"linked": False}, Redundancy.PRIMARY_ONLY),
        (HEALTHY_PRIMARY, {"peer_heartbeat_fresh": False}, Redundancy.PRIMARY_ONLY),
        (HEALTHY_PRIMARY, {"peer_eligible": False}, Redundancy.PRIMARY_ONLY),
        (HEALTHY_PRIMARY, {"mode": Mode.STAND_ALONE}, Redundancy.PRIMARY_ONLY),
        (HEALTHY_BACKUP, {}, Redundancy.BACKUP_READY),
        (HEALTHY_BACKUP, {"linked": False}, Redundancy.BACKUP_NOT_READY),
        (HEALTHY_BACKUP, {"own_eligible": False}, Redundancy.BACKUP_NOT_READY),
        (HEALTHY_BACKUP, {"trees": (TreeView("flows", complete=False),)}, Redundancy.BACKUP_NOT_READY),
        (AFTER_FAILOVER, {"linked": False}, Redundancy.BACKUP_READY),
    ],
)
def test_the_pair_in_one_word(view: PairView, changes: dict[str, Any], word: Redundancy) -> None:
    assert redundancy(replace(view, **changes)) is word


def test_no_combination_is_ready_without_one_active_and_one_standby_node() -> None:
    for mode, role, peer_role, linked, fresh, workload, maintenance in product(
        Mode, Role, [None, *Role], (True, False), (True, False), [None, *WorkloadState], (True, False)
    ):
        view = PairView(
            mode=mode,
            role=role,
            peer_role=peer_role,
            linked=linked,
            peer_heartbeat_fresh=fresh,
            workload=workload,
            maintenance=maintenance,
        )
        verdict = readiness(view)
        assert verdict.ready == (not verdict.reasons)
        if verdict.ready:
            assert linked
            assert fresh
            assert {role, peer_role} == {Role.ACTIVE, Role.STANDBY}
        level = service_level(view)
        assert (level >= 200) == (role is Role.ACTIVE and workload in (None, WorkloadState.RUNNING))
        assert 0 <= level <= 255
        assert redundancy(view).value.startswith("BACKUP" if mode is Mode.BACKUP else "PRIMARY")
