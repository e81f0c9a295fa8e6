"""The running agent as the HTTP API sees it: its status in PRODUCT's shape, and the operator's actions.

Reads the parts, decides nothing: orders go to the roles, verdicts come from `agent.admin.verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from agent import __version__
from agent.admin.control import Action, Answer, Control
from agent.admin.events import EventLog
from agent.admin.verdict import PairView, TreeView, readiness, redundancy, service_level
from agent.config.model import Config, WorkloadKind
from agent.core import inputs as told
from agent.core.errors import PairAgentError
from agent.core.role_table import Phase
from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND, Mode, Role, TreeState, WorkloadState
from agent.node.archive_inquiries import ARCHIVE_FOLDER, ArchiveInquiries
from agent.node.conductor import Conductor
from agent.platform.clock import boottime_ns, wall_ms
from agent.replica.archive import Archive, Item

PROBE_TIMEOUT_S = 2.0
OUTCOME_SLACK_S = 20.0
MILLISECONDS_PER_SECOND = 1000
FRESH_HEARTBEATS = 2.5  # intervals after which a heartbeat is overdue

_INQUIRIES = {
    Action.SYNC_DRY_RUN: "dry-run",
    Action.TEST_SYNC: "test",
    Action.ARCHIVE_LIST: "archive-list",
    Action.ARCHIVE_RESTORE: "archive-restore",
}
_NO_ARCHIVE = {"items": 0, "bytes": 0, "conflicts": 0}
_NO_SYNC: dict[str, Any] = {
    "state": "none",
    "direction": None,
    "done_bytes": 0,
    "total_bytes": 0,
    "done_files": 0,
    "total_files": 0,
    "seconds_left": None,
    "rate": None,
    "compressing": False,
    "error": "",
}
_UNKNOWN_TREE: dict[str, Any] = {
    "files": 0,
    "bytes": 0,
    "lag_ms": None,
    "lag_bytes": None,
    "last_sync": None,
    "refused": [],
    "refused_total": 0,
    "error": "",
}


class NodeControl(Control):
    """Implements `agent.admin.control.Control` for one running node."""

    def __init__(self, config: Config, conductor: Conductor, events: EventLog, notices: list[str]) -> None:
        self._config = config
        self._conductor = conductor
        self._events = events
        self._notices = notices
        self._rounds = 0

    def events(self) -> EventLog:
        """The event log of this agent."""
        return self._events

    def status(self) -> dict[str, Any]:
        """The whole status, at once, from memory."""
        now_ns = boottime_ns()
        config, roles, keeper = self._config, self._conductor.roles, self._conductor.keeper
        record, link, peer, hello = roles.record, keeper.status, roles.peer, roles.peer_hello
        workload = self._conductor.supervisor.status
        view = self._view(now_ns)
        verdict = readiness(view)
        return {
            "mode": config.mode.value,
            "name": config.name,
            "role": roles.role.value,
            "term": record.term,
            "reason": roles.reason,
            "since": _iso(wall_ms() - (now_ns - roles.since_ns) // NANOSECONDS_PER_MILLISECOND),
            "agent_version": __version__,
            "service_level": service_level(view),
            "redundancy": redundancy(view).value,
            "link": {
                "state": "none" if config.mode is Mode.STAND_ALONE else "up" if link.linked else "down",
                "address": link.address,
                "rtt_ms": None if link.round_trip_ns is None else round(link.round_trip_ns / 1e6, 3),
                "since": None
                if link.since_ns is None
                else _iso(wall_ms() - (now_ns - link.since_ns) // NANOSECONDS_PER_MILLISECOND),
                "last_error": link.last_error,
            },
            "peer": {
                "name": hello.name if hello else record.peer_name,
                "mode": hello.mode.value if hello else None,
                "role": peer.role.value if peer else None,
                "term": peer.active_term if peer else record.peer_active_term,
                "agent_version": hello.agent_version if hello else None,
                "workload_version": hello.workload_version if hello else None,
            },
            "workload": {
                "state": workload.state.value,
                "pid": workload.pid,
                "restarts": workload.restarts,
                "healthy": workload.healthy,
                "last_error": workload.last_error,
            },
            **self._trees(),
            "readiness": {"ready": verdict.ready, "reasons": list(verdict.reasons), "loss": verdict.loss},
            "maintenance": record.maintenance,
            "hold": roles.report.hold or bool(peer and peer.hold),
            "damping_ms": view.damping_ms,
            "clock_difference_ms": link.clock_difference_ms,
            "overrides": dict(config.overrides),
            "notices": [*self._notices, *([self._events.trouble] if self._events.trouble else [])],
        }

    def _trees(self) -> dict[str, Any]:
        """The tables `trees`, `sync` and `archive`, from the replica worker's last word."""
        replication, snapshot = self._conductor.replication, dict(self._conductor.replication.snapshot)
        if not replication.enabled:
            snapshot = {}
        trees = snapshot.get("trees") or [
            {"name": tree.name, "kind": tree.kind.value, "state": "unknown"} | _UNKNOWN_TREE
            for tree in self._config.trees
        ]
        sync = {**_NO_SYNC, **snapshot.get("sync", {}), "last_gap_ms": self._conductor.last_gap_ms}
        if replication.enabled and sync["state"] == "none":
            sync["state"] = "waiting"
        return {"trees": trees, "sync": sync, "archive": snapshot.get("archive", _NO_ARCHIVE)}

    def _tree_views(self) -> tuple[TreeView, ...]:
        tables, snapshot = self._trees(), self._conductor.replication.snapshot
        sync = tables["sync"]
        receiving = sync["direction"] == "from-peer"
        roles = self._conductor.roles
        standby_here = roles.phase not in (Phase.ACTIVE, Phase.STEPPING_DOWN, Phase.FINISHING)
        own_whole = not (roles.record.incomplete or (roles.record.overwrite_due and self._config.mode is Mode.BACKUP))
        whole = own_whole if standby_here else roles.peer is None or roles.peer.eligible
        if not self._conductor.replication.enabled:
            return ()
        return tuple(
            TreeView(
                name=tree["name"],
                complete=whole,
                state=TreeState(tree["state"]),
                lag_ms=tree["lag_ms"],
                lag_bytes=tree["lag_bytes"],
                error=tree["error"],
                refused=tree["refused_total"],
                free_bytes=snapshot.get("free_bytes"),
                needed_bytes=max(0, sync["total_bytes"] - sync["done_bytes"]) if receiving else 0,
            )
            for tree in tables["trees"]
        )

    def _view(self, now_ns: int) -> PairView:
        config, roles, link = self._config, self._conductor.roles, self._conductor.keeper.link
        peer, obstacle = roles.peer, roles.obstacle
        overdue_ns = (
            FRESH_HEARTBEATS
            * NANOSECONDS_PER_MILLISECOND
            * (link.session.peer.interval_ms if link and link.session.peer else 0)
        )
        eligible = peer is not None and peer.eligible and not peer.workload_failed
        return PairView(
            mode=config.mode,
            role=roles.role,
            linked=peer is not None,
            link_error=self._conductor.keeper.status.last_error or None,
            peer_role=peer.role if peer else None,
            peer_heartbeat_fresh=link is not None and now_ns - link.session.last_received_ns <= overdue_ns,
            own_eligible=not obstacle and not roles.workload_failed,
            own_ineligible_reason=obstacle or ("Its workload failed here." if roles.workload_failed else ""),
            peer_eligible=eligible,
            peer_ineligible_reason="" if peer is None else peer.obstacle or "Its workload failed there.",
            workload=None if config.workload.kind is WorkloadKind.NONE else self._conductor.supervisor.status.state,
            maintenance=roles.record.maintenance,
            mismatches=tuple(self._mismatches()),
            damping_ms=roles.damped_ns(now_ns) // NANOSECONDS_PER_MILLISECOND,
            trees=self._tree_views(),
        )

    def _mismatches(self) -> Iterator[str]:
        """What would go wrong in a failover although both nodes may become active."""
        roles, config = self._conductor.roles, self._config
        if roles.peer is None or roles.peer_hello is None:
            return
        other, own_kind, kind = roles.peer_hello.name, config.workload.kind.value, roles.peer_hello.workload_kind
        if kind and kind != own_kind:
            yield (
                f'The nodes would not start the same: [workload] kind is "{own_kind}" here and "{kind}" on {other}. '
                "Set the same workload in both agent.toml."
            )
        if roles.concern:
            yield f"If this node became active, its workload would fail: {roles.concern}."
        if roles.peer.eligible and roles.peer.obstacle:
            yield f"If {other} became active, the workload would fail there: {roles.peer.obstacle}."

    async def act(self, action: Action, arguments: Mapping[str, Any]) -> Answer:
        """Does `action` and returns once its outcome is known or its bound has passed."""
        match action:
            case Action.FAILOVER:
                return await self._hand_over(told.FailoverOrdered(), to=Mode.BACKUP)
            case Action.FAILBACK:
                return await self._hand_over(told.FailbackOrdered(), to=Mode.PRIMARY)
            case Action.MAINTENANCE:
                answer = await self._conductor.order(told.MaintenanceOrdered(bool(arguments["on"])))
                return Answer(answer.accepted, answer.sentence)
            case Action.TEST_HEARTBEAT:
                return await self._test_heartbeat(int(arguments["count"]))
            case Action.SYNC | Action.SYNC_DRY_RUN | Action.TEST_SYNC | Action.ARCHIVE_LIST | Action.ARCHIVE_RESTORE:
                return await self._about_trees(action, arguments)

    async def _about_trees(self, action: Action, arguments: Mapping[str, Any]) -> Answer:
        replication = self._conductor.replication
        archive = action in (Action.ARCHIVE_LIST, Action.ARCHIVE_RESTORE)
        if archive and not replication.enabled:
            return await self._about_archive(action, arguments)
        if not self._config.trees:
            return Answer(False, "no tree is configured: add a [[tree]] to agent.toml on both nodes")
        if not replication.enabled:
            return Answer(False, "this node is stand-alone: there is no other node to keep its trees in step with")
        if not archive and self._conductor.keeper.link is None:
            why = self._conductor.keeper.status.last_error or "not connected yet"
            return Answer(False, f"there is no link to the other node: {why}")
        if action is Action.SYNC:
            self._rounds += 1
            replication.synchronise(self._rounds, full=bool(arguments["full"]))
            return Answer(True, "synchronisation has begun", {"round": self._rounds})
        return await replication.inquire(_INQUIRIES[action], arguments)

    async def _about_archive(self, action: Action, arguments: Mapping[str, Any]) -> Answer:
        """The archive of a node that replicates nothing now."""

        def nowhere(item: Item) -> Path:
            raise PairAgentError(f"tree {item.tree!r} is not kept in step here; say where to with --to")

        archive = ArchiveInquiries(Archive(self._config.state_directory / ARCHIVE_FOLDER), nowhere)
        work = archive.list if action is Action.ARCHIVE_LIST else archive.restore
        try:
            done, sentence, details = await work(arguments)
        except (PairAgentError, OSError) as error:
            return Answer(False, str(error))
        return Answer(done, sentence, details)

    async def _hand_over(self, order: told.Input, *, to: Mode) -> Answer:
        conductor, roles = self._conductor, self._conductor.roles
        answer = await conductor.order(order)
        if not answer.accepted:
            return Answer(False, answer.sentence)
        taking = self._config.mode is to
        stopping_ms = self._config.workload.stop_timeout + (roles.peer_hello.stop_timeout_ms if roles.peer_hello else 0)

        def done() -> bool:
            if taking:
                return roles.phase is Phase.ACTIVE and roles.workload is WorkloadState.RUNNING
            peer = roles.peer
            moved = roles.phase is Phase.STANDBY and peer is not None and peer.role is Role.ACTIVE
            return moved and peer is not None and peer.workload is WorkloadState.RUNNING

        def failed() -> bool:
            if roles.phase is Phase.ACTIVE and roles.workload is WorkloadState.FAILED:
                return True
            if roles.peer is not None and roles.peer.workload_failed:
                return True
            return roles.phase is Phase.STANDBY if taking else roles.phase is Phase.ACTIVE and not roles.inviting

        with trio.move_on_after(stopping_ms / MILLISECONDS_PER_SECOND + OUTCOME_SLACK_S):
            await self._until(lambda: done() or failed())
        if done():
            now_active = (
                self._config.name if taking else roles.peer_hello.name if roles.peer_hello else "the other node"
            )
            return Answer(True, f"{now_active} is active in term {roles.record.term}")
        return Answer(False, f"the role did not move: {roles.reason}")

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._conductor.changed.wait()

    async def _test_heartbeat(self, count: int) -> Answer:
        keeper = self._conductor.keeper
        link = keeper.link
        if link is None:
            return Answer(
                False, f"there is no link to the other node: {keeper.status.last_error or 'not connected yet'}"
            )
        round_trips_ms: list[float | None] = []
        for _ in range(count):
            round_trip_ns = await link.probe(PROBE_TIMEOUT_S)
            round_trips_ms.append(None if round_trip_ns is None else round(round_trip_ns / 1e6, 3))
        answered = [each for each in round_trips_ms if each is not None]
        sentence = f"{len(answered)} of {count} heartbeats came back"
        if answered:
            sentence += f", {min(answered):.3f} to {max(answered):.3f} ms"
        return Answer(True, sentence, {"round_trips_ms": round_trips_ms})


def _iso(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / MILLISECONDS_PER_SECOND, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
