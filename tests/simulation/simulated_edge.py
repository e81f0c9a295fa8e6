"""What lies between the sessions and the simulated network: connections, dialling and beacons of one agent.

Mirrors `agent.link.connection`, `agent.link.dialler` and `agent.link.beacons`. Sessions, the keeper of the link and the
codec of the beacons are the real ones.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from agent.core import inputs as told
from agent.core.beacon import Beacon, BeaconCodec, BeaconKeys
from agent.core.compatibility import CloseCode
from agent.core.messages import Invite, Refusal, Release, Report, Request
from agent.core.role_table import Phase
from agent.core.session import Ended, Opened, ProbeReturned, Session, SessionEvent, State
from agent.link.beacons import LINKED_INTERVAL_S
from agent.link.connection import Watchers
from agent.link.dialler import EAGER_NS, EAGER_PAUSES_S, Outcome
from tests.simulation.simulated_network import End, Ending
from tests.simulation.timeline import MILLISECOND, SECOND, Alarm

if TYPE_CHECKING:
    from tests.simulation.simulated_agent import Agent

LAST_WORDS_NS = SECOND // 2
TASK_SWITCH_NS = 200_000  # at most, until a task that can run does


class TlsEnd:
    """An end whose handshake is done, and the agent that holds it."""

    def __init__(self, agent: Agent, end: End) -> None:
        self.agent, self.end = agent, end

    def export_keying_material(self, label: bytes, length: int) -> bytes:
        """See `agent.link.tls.TlsStream`."""
        return self.end.export_keying_material(label, length)


class SimulatedConnection:
    """Stands in for `agent.link.connection.Connection`."""

    def __init__(
        self,
        stream: TlsEnd,
        session: Session,
        watchers: Watchers,
        address: str,
        beacon_keys: BeaconKeys,
        bulk_key: bytes,
    ) -> None:
        self._agent, self._end = stream.agent, stream.end
        self._watchers = watchers
        self._met = self._dropped = self._over = self._writing = self._reading = False
        self._timer: Alarm | None = None
        self.session, self.address, self.beacon_keys, self.bulk_key = session, address, beacon_keys, bulk_key
        self.closed = False
        self.when_closed: list[Callable[[], None]] = []

    @types.coroutine
    def run(self) -> Generator[SimulatedConnection, None, None]:
        """Drives the session until it ends; whoever drives this coroutine resumes it when `closed`."""
        self._ring()
        self._end.notify = self._readable
        self._readable()
        self._arm()
        yield self

    def tell(self, message: Invite | Request | Release | Refusal) -> None:
        """See `agent.link.connection.Connection`, here and below."""
        self.session.tell(message)
        self._ring()

    def publish(self, report: Report) -> None:
        self.session.publish(report)
        self._ring()

    def say_goodbye(self, reason: str) -> None:
        self.session.say_goodbye(reason)
        self._part()

    def leave(self, code: CloseCode, sentence: str) -> None:
        self.session.leave(code, sentence)
        self._part()

    def drop(self) -> None:
        self._dropped = True
        self.session.abandon()
        self._part()

    def _part(self) -> None:
        if not self._over:
            self._over = True
            self._agent.soon(self._finish)

    def _dispatch(self, events: Sequence[SessionEvent]) -> None:
        if not self._met and self.session.state in (State.GREETING, State.OPEN):
            self._met = True
            self._watchers.on_met()
        for event in events:
            if not self._dropped and not isinstance(event, ProbeReturned):
                self._watchers.on_event(self, event)  # type: ignore[arg-type]  # it stands in for a Connection
            if isinstance(event, Opened):
                self._arm()
            if isinstance(event, Ended):
                self._part()
        self._ring()

    def _readable(self) -> None:
        if not self._reading:
            self._reading = True
            self._agent.soon(self._read)

    def _read(self) -> None:
        self._reading = False
        if self._over:
            return
        data = self._end.receive()
        if isinstance(data, Ending):
            self._dispatch(self.session.receive_end(data.value))
        elif data:
            self._dispatch(self.session.receive_data(data, self._agent.node.clock.now_ns()))
            if self._end.inbox or self._end.ending:
                self._readable()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancelled = True
        deadline_ns = self.session.next_deadline()
        if deadline_ns is not None and not self._over:
            self._timer = self._agent.at(deadline_ns, self._time)

    def _time(self) -> None:
        if not self._over:
            clock = self._agent.node.clock
            self._dispatch(self.session.handle_timer(clock.now_ns(), clock.wall_ms()))
            self._arm()

    def _ring(self) -> None:
        if not self._writing and not self._over:
            self._writing = True
            self._agent.soon(self._write)

    def _write(self) -> None:
        self._writing = False
        if not self._over:
            self._flush()

    def _flush(self) -> None:
        before_ns = self._agent.node.clock.now_ns()
        if (data := self.session.data_to_send()) and self._end.send(data):
            self._watchers.on_sent(self, before_ns)  # type: ignore[arg-type]  # as above

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancelled = True
        self._flush()
        self._end.notify = lambda: None
        self._end.close()
        self._dispatch(self.session.receive_end("the connection was closed here"))
        self.closed = True
        for each in self.when_closed:
            each()


class SimulatedDialler:
    """The backup's dialling, as a generator that waits for `_result` or for time to pass."""

    def __init__(self, agent: Agent, connection_timeout_ns: int, reconnect_delay_ns: int) -> None:
        self._agent = agent
        self._connection_timeout_ns, self._reconnect_delay_ns = connection_timeout_ns, reconnect_delay_ns
        self._attempts = 0
        self._was_linked = False
        self._timeout: Alarm | None = None
        self.known_address = False
        self._task = self._run()
        agent.soon(lambda: self._go(None))

    def _go(self, result: Outcome | None) -> None:
        self._task.send(result)

    def _run(self) -> Generator[None, Outcome | None, None]:
        agent, eager_until_ns, pause_ns = self._agent, 0, int(EAGER_PAUSES_S[0] * SECOND)
        clock = agent.node.clock
        while True:
            began_ns = clock.now_ns()
            self._dial()
            outcome = yield
            if outcome is Outcome.ENDED and self._was_linked:
                eager_until_ns, pause_ns = clock.now_ns() + EAGER_NS, int(EAGER_PAUSES_S[0] * SECOND)
                continue
            if outcome is not Outcome.ENDED and outcome is not None:
                agent.dial_failed(outcome)
            if outcome is Outcome.NO_ANSWER and clock.now_ns() < eager_until_ns:
                agent.at(clock.now_ns() + pause_ns, lambda: self._go(None))
                pause_ns = min(max(2 * pause_ns, int(EAGER_PAUSES_S[1] * SECOND)), self._reconnect_delay_ns)
            else:
                eager_until_ns = 0
                agent.at(max(clock.now_ns(), began_ns + self._reconnect_delay_ns), lambda: self._go(None))
            yield

    def _dial(self) -> None:
        self._attempts += 1
        attempt, agent = self._attempts, self._agent
        self._timeout = agent.at(
            agent.node.clock.now_ns() + self._connection_timeout_ns, lambda: self._result(attempt, Outcome.NO_ANSWER)
        )
        agent.node.pair.connect(
            lambda: attempt == self._attempts and agent.alive,
            lambda outcome: agent.soon(lambda: self._result(attempt, outcome)),
            lambda end: agent.soon(lambda: self._connected(attempt, end)),
        )

    def _result(self, attempt: int, outcome: Outcome) -> None:
        if attempt == self._attempts:
            self._attempts += 1
            if self._timeout is not None:
                self._timeout.cancelled = True
            self._go(outcome)

    def _connected(self, attempt: int, end: End) -> None:
        if attempt != self._attempts:
            end.close()
            return
        if self._timeout is not None:
            self._timeout.cancelled = True
        self.known_address = True

        def ended(was_linked: bool) -> None:
            self._was_linked = was_linked
            self._result(attempt, Outcome.ENDED)

        self._agent.serve(end, ended, dialled=True)


class SimulatedBeacons:
    """Stands in for `agent.link.beacons.Beacons`."""

    def __init__(self, agent: Agent, interval_ns: int, patience_ns: int) -> None:
        self._agent, self._interval_ns, self._patience_ns = agent, interval_ns, patience_ns
        self._codec: BeaconCodec | None = None
        self._heard_ns: int | None = None
        self._next: Alarm | None = None
        self._knows_where = agent.node.dials
        self._hurried = False

    def begin(self, keys: BeaconKeys) -> None:
        """See `agent.link.beacons.Beacons`."""
        self._codec = BeaconCodec(keys)
        self._heard_ns = None
        self.hurry()

    def hurry(self) -> None:
        """See `agent.link.beacons.Beacons`."""
        if not self._hurried:
            self._hurried = True
            self._agent.soon(self._send)

    def receive(self, datagram: bytes) -> None:
        """Takes a datagram."""
        beacon = None if self._codec is None else self._codec.decode_untrusted(datagram)
        if beacon is None:
            return
        self._heard_ns = self._agent.node.clock.now_ns()
        self._knows_where = True
        if not beacon.linked:
            self._agent.tell(told.PeerHeard(beacon.active, beacon.hears))

    def _send(self) -> None:
        self._hurried = False
        if self._next is not None:
            self._next.cancelled = True
        agent, now_ns = self._agent, self._agent.node.clock.now_ns()
        linked = agent.keeper.link is not None
        if self._codec is not None and self._knows_where:
            hears = self._heard_ns is not None and now_ns - self._heard_ns < self._patience_ns
            active = agent.roles.phase is Phase.ACTIVE
            agent.node.pair.beacon(
                agent.node, self._codec.encode(Beacon(active, linked, hears, agent.roles.record.active_term))
            )
        pause_ns = int(LINKED_INTERVAL_S * SECOND) if linked else self._interval_ns
        self._next = agent.at(now_ns + max(pause_ns, MILLISECOND), self._send)
