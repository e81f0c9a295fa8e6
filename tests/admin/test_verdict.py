"""The verdict as tables: what each state of the pair means for failover, for OPC UA clients and in one word."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from agent.admin.verdict import PairView, Redundancy, TreeView, readiness, redundancy, service_level
from agent.core.vocabulary import Mode, Role, TreeState, WorkloadState

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
        (
            HEALTHY_PRIMARY,
            {"trees": (TreeView("flows", complete=True, state=TreeState.FAILED, error="the disk is broken"),)},
            "would lose ever more of it: The disk is broken. Mend that",
        ),
        (
            HEALTHY_BACKUP,
            {"trees": (TreeView("flows", complete=True, state=TreeState.FAILED),)},
            "`pair-agent events` on both nodes says why.",
        ),
        (
            HEALTHY_PRIMARY,
            {"trees": (TreeView("flows", complete=True, free_bytes=1000, needed_bytes=2000),)},
            "on the other node has 1.0 kB free, and the rest of the synchronisation needs 2.0 kB.",
        ),
        (
            HEALTHY_BACKUP,
            {"trees": (TreeView("flows", complete=True, free_bytes=0, needed_bytes=1),)},
            "on this node has 0 bytes free",
        ),
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
    trees = (TreeView("flows", complete=True), TreeView("history", complete=True, lag_ms=2500, lag_bytes=1_200_000))
    verdict = readiness(replace(HEALTHY_PRIMARY, trees=trees))
    assert verdict.ready
    assert verdict.reasons == ("If the active node died now, the last 3 s of the tree history (1.2 MB) would be lost.",)


FLOWS = TreeView("flows", complete=True)
HISTORY = TreeView("history", complete=True)


@pytest.mark.parametrize(
    ("trees", "words"),
    [
        ((), ""),
        ((FLOWS,), "nothing of the tree flows would be lost."),
        ((FLOWS, HISTORY), "nothing of the trees flows and history would be lost."),
        ((replace(FLOWS, lag_ms=40),), "the last 40 ms of the tree flows would be lost."),
        ((replace(FLOWS, lag_bytes=1),), "1 byte of the tree flows would be lost."),
        (
            (replace(FLOWS, lag_ms=1), replace(HISTORY, lag_ms=200_000, lag_bytes=5)),
            "the last 1 ms of the tree flows and the last 3 min of the tree history (5 bytes) would be lost.",
        ),
        ((replace(FLOWS, lag_ms=None),), "it is not known what the tree flows would lose"),
        (
            (replace(FLOWS, lag_ms=None), replace(HISTORY, lag_ms=40)),
            "the last 40 ms of the tree history would be lost, and of the tree flows what has not been compared yet.",
        ),
        ((replace(FLOWS, complete=False), replace(HISTORY, lag_ms=40)), "only the active node has all of it."),
    ],
)
def test_what_a_failover_this_second_would_lose_is_one_sentence(trees: tuple[TreeView, ...], words: str) -> None:
    for view in (HEALTHY_PRIMARY, HEALTHY_BACKUP, replace(HEALTHY_PRIMARY, linked=False)):
        said = readiness(replace(view, trees=trees)).loss
        assert said == "" if not words else said.startswith("If the active node died now, ") and words in said
        assert said.count(".") == bool(words)


def test_a_node_without_a_pair_has_nobody_to_lose_anything_to() -> None:
    assert readiness(replace(HEALTHY_PRIMARY, mode=Mode.STAND_ALONE, trees=(FLOWS,))).loss == ""


@pytest.mark.parametrize("view", [HEALTHY_PRIMARY, HEALTHY_BACKUP])
def test_whole_trees_without_a_lag_are_no_concern(view: PairView) -> None:
    verdict = readiness(replace(view, trees=(FLOWS, replace(HISTORY, free_bytes=10**12, needed_bytes=10**9))))
    assert (verdict.ready, verdict.reasons) == (True, ())


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (replace(FLOWS, refused=1), "would lack 1 entry that cannot be replicated"),
        (replace(FLOWS, refused=3), "would lack 3 entries that cannot be replicated"),
        (replace(FLOWS, free_bytes=499_999_999), "has only 500.0 MB free"),
        (replace(FLOWS, lag_ms=None, state=TreeState.COMPARING), "not known what the tree flows would lose"),
        (replace(FLOWS, lag_ms=7_500_000, state=TreeState.BEHIND), "the last 2 h 5 min of the tree flows"),
    ],
)
def test_what_leaves_something_behind_is_said_although_failover_would_work(tree: TreeView, words: str) -> None:
    verdict = readiness(replace(HEALTHY_PRIMARY, trees=(tree,)))
    assert verdict.ready
    (reason,) = verdict.reasons
    assert words in reason
    assert reason.endswith(".")


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
        (HEALTHY_PRIMARY, {"trees": (TreeView("flows", complete=False),)}, Redundancy.PRIMARY_ONLY),
        (HEALTHY_PRIMARY, {"trees": (TreeView("flows", complete=True),)}, Redundancy.PRIMARY_WITH_BACKUP),
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
