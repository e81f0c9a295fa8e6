"""Would failover work right now? The verdict, the OPC UA service level and the redundancy word, from one snapshot.

Pure. `agent.node` fills a `PairView`; nothing here asks, waits or remembers. A reason says what would happen and the
way out. A ready pair may still have reasons: what a failover at this moment would lose, or leave behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from agent.admin.quantities import listed, size_text, span_text
from agent.core.vocabulary import Mode, Role, TreeState, WorkloadState

SERVICE_LEVEL_MAINTENANCE = 0
SERVICE_LEVEL_NO_DATA = 1
SERVICE_LEVEL_STANDBY_NOT_READY = 50
SERVICE_LEVEL_IN_TRANSITION = 100
SERVICE_LEVEL_STANDBY_READY = 199
SERVICE_LEVEL_ALONE = 200
SERVICE_LEVEL_REDUNDANT = 255

DISK_BYTES_LOW = 500_000_000  # less on the standby node's disk is said, although failover would work


class Redundancy(StrEnum):
    """What this node contributes to the pair."""

    PRIMARY_WITH_BACKUP = "PRIMARY_WITH_BACKUP"
    PRIMARY_ONLY = "PRIMARY_ONLY"
    BACKUP_READY = "BACKUP_READY"
    BACKUP_NOT_READY = "BACKUP_NOT_READY"


@dataclass(frozen=True)
class TreeView:
    """One tree: whether the standby node holds it whole, how far it lags behind the active one, and what hinders it."""

    name: str
    complete: bool
    state: TreeState = TreeState.IN_SYNC
    lag_ms: int | None = 0  # age of the oldest change that the standby node has not got; None: unknown
    lag_bytes: int | None = None  # what it has not got; None: unknown
    error: str = ""  # why the tree does not synchronise, a sentence
    refused: int = 0  # entries whose names or kinds cannot be replicated
    free_bytes: int | None = None  # on the standby node's disk under this tree; None: unknown
    needed_bytes: int = 0  # that the rest of the running synchronisation takes there


@dataclass(frozen=True)
class PairView:
    """All that the verdict depends on, as this node sees it."""

    mode: Mode
    role: Role
    linked: bool = False
    link_error: str | None = None  # why there is no link, a sentence
    peer_role: Role | None = None  # None: never heard
    peer_heartbeat_fresh: bool = False
    own_eligible: bool = True
    own_ineligible_reason: str = ""
    peer_eligible: bool = True
    peer_ineligible_reason: str = ""
    workload: WorkloadState | None = None  # on this node; None: kind "none"
    maintenance: bool = False  # on either node
    mismatches: tuple[str, ...] = ()  # sentences: what would go wrong in a failover all the same
    damping_ms: int = 0  # for so long no automatic role change
    trees: tuple[TreeView, ...] = ()


@dataclass(frozen=True)
class Readiness:
    """The verdict; `reasons` are sentences, for a ready pair about what a failover would lose or leave behind.

    `loss` says in one sentence what a failover at this moment would lose, ready or not; "" where there are no trees to
    lose anything of, or no other node.
    """

    ready: bool
    reasons: tuple[str, ...]
    loss: str = ""


def readiness(view: PairView) -> Readiness:
    """Would the other node go on right now if the active one died?"""
    obstacles = tuple(_obstacles(view))
    return Readiness(ready=not obstacles, reasons=obstacles or tuple(_shortcomings(view)), loss=loss(view))


def loss(view: PairView) -> str:
    """What would be lost if the active node died at this moment, as one sentence; "" without trees or a pair."""
    if view.mode is Mode.STAND_ALONE or not view.trees:
        return ""
    died = "If the active node died now,"
    broken = [tree.name for tree in view.trees if not tree.complete]
    if broken:
        return (
            f"{died} nothing could go on with {_trees(broken)}, not whole on {_standby(view)}: "
            "only the active node has all of it."
        )
    lost = [_lost(tree) for tree in view.trees if _is_behind(tree)]
    unknown = [tree.name for tree in view.trees if not _is_behind(tree) and tree.lag_ms is None]
    if lost and unknown:
        return f"{died} {listed(lost)} would be lost, and of {_trees(unknown)} what has not been compared yet."
    if unknown:
        return f"{died} it is not known what {_trees(unknown)} would lose, because the nodes have not compared yet."
    if lost:
        return f"{died} {listed(lost)} would be lost."
    return f"{died} nothing of {_trees([tree.name for tree in view.trees])} would be lost."


def service_level(view: PairView) -> int:
    """The OPC UA ServiceLevel (Part 4, 6.6.2.4.2): 0 maintenance, 1 no data, 2-199 degraded, 200-255 healthy.

    An active node keeps its level during maintenance: its workload runs, and level 0 would send its clients away.
    """
    if view.role is Role.ACTIVE:
        if view.workload in (WorkloadState.STARTING, WorkloadState.STOPPING):
            return SERVICE_LEVEL_IN_TRANSITION
        if view.workload in (WorkloadState.STOPPED, WorkloadState.FAILED):
            return SERVICE_LEVEL_NO_DATA
        return SERVICE_LEVEL_REDUNDANT if readiness(view).ready else SERVICE_LEVEL_ALONE
    if view.maintenance:
        return SERVICE_LEVEL_MAINTENANCE
    if view.role is Role.STANDBY:
        return SERVICE_LEVEL_STANDBY_READY if readiness(view).ready else SERVICE_LEVEL_STANDBY_NOT_READY
    return SERVICE_LEVEL_NO_DATA


def redundancy(view: PairView) -> Redundancy:
    """The pair in one word: a primary says whether its backup could help, a backup whether it could."""
    able = view.linked and view.peer_heartbeat_fresh
    whole = all(tree.complete for tree in view.trees)
    if view.mode is Mode.BACKUP:
        able = able and view.own_eligible and whole
        # A backup that does the work has proved that it can.
        return Redundancy.BACKUP_READY if able or view.role is Role.ACTIVE else Redundancy.BACKUP_NOT_READY
    able = able and view.mode is Mode.PRIMARY and view.peer_eligible and (whole or view.role is not Role.ACTIVE)
    return Redundancy.PRIMARY_WITH_BACKUP if able else Redundancy.PRIMARY_ONLY


def _obstacles(view: PairView) -> Iterator[str]:
    if view.mode is Mode.STAND_ALONE:
        yield (
            "This node is stand-alone: if it dies, nothing takes over. For a pair, set mode to primary here and to "
            "backup on a second node, and exchange their certificates (`pair-agent trust`)."
        )
        return
    if view.maintenance:
        yield "Maintenance is on: if the active node dies, nothing takes over. `pair-agent maintenance off` ends it."
    yield from _link_obstacles(view)
    if not view.linked:
        if view.role is not Role.ACTIVE and not view.own_eligible:
            yield f"Nor can this node become active by itself: {_sentence(view.own_ineligible_reason)}"
        return
    yield from _role_obstacles(view)
    standby = _standby(view)
    if view.role is Role.ACTIVE:
        eligible, reason = view.peer_eligible, view.peer_ineligible_reason
    else:
        eligible, reason = view.own_eligible, view.own_ineligible_reason
    if not eligible:
        why = _sentence(reason) or "It gave no reason; `pair-agent status` there says more."
        yield f"If the active node dies, {standby} stays standby because it is not eligible: {why}"
    yield from view.mismatches
    yield from _tree_obstacles(view)
    if view.damping_ms > 0:
        yield (
            f"There were too many role changes of late: for another {span_text(view.damping_ms)} nothing takes over by "
            "itself. Mend what makes the link come and go (`pair-agent events`), or move the role with "
            "`pair-agent failover`."
        )


def _link_obstacles(view: PairView) -> Iterator[str]:
    if not view.linked:
        cause = f" {_sentence(view.link_error)}" if view.link_error else ""
        check = (
            "whether the other agent runs and reaches [server] port here through the firewalls"
            if view.mode is Mode.PRIMARY
            else "whether the other agent runs, and [connection] host and port here"
        )
        yield f"There is no link to the other node, so it is not known to be able to take over.{cause} Check {check}."
    elif not view.peer_heartbeat_fresh:
        yield (
            "The link is up, but the other node's heartbeats are overdue: it may hang or be cut off. "
            "Look at the network and at the load of both nodes; `pair-agent test heartbeat` measures the way."
        )


def _role_obstacles(view: PairView) -> Iterator[str]:
    active_nodes = (view.role is Role.ACTIVE) + (view.peer_role is Role.ACTIVE)
    if active_nodes == 2:
        yield "Both nodes are active: the backup is about to step down. If it does not, look at `pair-agent events`."
    elif active_nodes == 0:
        yield (
            "Neither node is active at the moment. If that lasts, `pair-agent events` on both nodes says what they "
            "wait for."
        )
    else:
        standby, role = ("The other node", view.peer_role) if view.role is Role.ACTIVE else ("This node", view.role)
        if role is not Role.STANDBY:
            word = "in an unknown role" if role is None else f"{role.value}"
            yield f"{standby} is {word}, and would take over only once it is standby. Wait for it."


def _tree_obstacles(view: PairView) -> Iterator[str]:
    standby = _standby(view)
    for tree in view.trees:
        if not tree.complete:
            yield (
                f"The tree {tree.name} is not complete on {standby}, so it would not start the workload. "
                "Wait for the synchronisation to finish; `pair-agent status --watch` shows it."
            )
        if tree.state is TreeState.FAILED:
            why = _sentence(tree.error) or "`pair-agent events` on both nodes says why."
            yield (
                f"The tree {tree.name} does not synchronise, so a failover would lose ever more of it: {why} "
                "Mend that, then `pair-agent sync`."
            )
        if tree.free_bytes is not None and tree.free_bytes < tree.needed_bytes:
            yield (
                f"The disk under the tree {tree.name} on {standby} has {size_text(tree.free_bytes)} free, and the rest "
                f"of the synchronisation needs {size_text(tree.needed_bytes)}. Make room there, then `pair-agent sync`."
            )


def _shortcomings(view: PairView) -> Iterator[str]:
    """What a failover that works would lose or leave behind, and what will soon keep it from working."""
    if any(_is_behind(tree) or tree.lag_ms is None for tree in view.trees):
        yield loss(view)
    for tree in view.trees:
        if tree.refused > 0:
            entries = "1 entry" if tree.refused == 1 else f"{tree.refused} entries"
            yield (
                f"After a failover the tree {tree.name} would lack {entries} that cannot be replicated. "
                "`pair-agent status` names them; rename them, or leave them out with exclude."
            )
        if tree.free_bytes is not None and tree.free_bytes < DISK_BYTES_LOW:
            yield (
                f"The disk under the tree {tree.name} on {_standby(view)} has only {size_text(tree.free_bytes)} free; "
                "without space, synchronisation stops. Make room there."
            )


def _standby(view: PairView) -> str:
    return "the other node" if view.role is Role.ACTIVE else "this node"


def _is_behind(tree: TreeView) -> bool:
    return bool(tree.lag_ms and tree.lag_ms > 0) or bool(tree.lag_bytes and tree.lag_bytes > 0)


def _lost(tree: TreeView) -> str:
    size = f"{size_text(tree.lag_bytes)}" if tree.lag_bytes else ""
    if not tree.lag_ms:
        return f"{size} of the tree {tree.name}"
    return f"the last {span_text(tree.lag_ms)} of the tree {tree.name}" + (f" ({size})" if size else "")


def _trees(names: list[str]) -> str:
    return f"the tree{'s' if len(names) > 1 else ''} {listed(names)}"


def _sentence(text: str) -> str:
    """`text` from another part, as a sentence of its own between others."""
    stripped = text.strip()
    ended = stripped if stripped.endswith((".", "!", "?")) or not stripped else f"{stripped}."
    return ended[:1].upper() + ended[1:]
