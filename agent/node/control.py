"""The running agent as the HTTP API sees it: its status in PRODUCT's shape, and the operator's actions.

Reads the parts, decides nothing: orders go to the roles, verdicts come from `agent.admin.verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import trio

from agent import __version__
from agent.admin.control import Action, Answer, Control
from agent.admin.events import EventLog
from agent.admin.verdict import PairView, readiness, redundancy, service_level
from agent.config.model import Config, WorkloadKind
from agent.core import inputs as told
from agent.core.role_table import Phase
from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND, Mode, Role, WorkloadState
from agent.node.conductor import Conductor
from agent.platform.clock import boottime_ns, wall_ms

PROBE_TIMEOUT_S = 2.0
OUTCOME_SLACK_S = 20.0
MILLISECONDS_PER_SECOND = 1000
FRESH_HEARTBEATS = 2.5  # intervals after which a heartbeat is overdue


class NodeControl(Control):
    """Implements `agent.admin.control.Control` for one running node."""

    def __init__(self, config: Config, conductor: Conductor, events: EventLog, notices: list[str]) -> None:
        self._config = config
        self._conductor = conductor
        self._events = events
        self._notices = notices

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
            "trees": [],
            "sync": {"state": "none", "direction": None, "done_bytes": 0, "total_bytes": 0},
            "readiness": {"ready": verdict.ready, "reasons": list(verdict.reasons)},
            "maintenance": record.maintenance,
            "hold": record.hold or bool(peer and peer.hold),
            "damping_ms": view.damping_ms,
            "clock_difference_ms": link.clock_difference_ms,
            "overrides": dict(config.overrides),
            "notices": [*self._notices, *([self._events.trouble] if self._events.trouble else [])],
        }

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
