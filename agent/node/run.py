"""Runs one node: makes every part from the configuration, starts them in one nursery and ends them in order.

The order is the promise: whatever could refuse (a second agent, a damaged state, a readable key, a taken port) does so
before anything is started, and the workload's guardian inherits the listening sockets before anybody can connect.
"""

from __future__ import annotations

import gc
import logging
import signal
import socket
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from agent import __version__
from agent.admin.api import open_admin_listener, serve_admin
from agent.admin.codes import EventCode
from agent.admin.events import EventLog
from agent.admin.token import load_or_create_token
from agent.config.load import announce_inactive_keys
from agent.config.model import Config, Trust, WorkloadKind
from agent.core import inputs as told
from agent.core.errors import CredentialError, PairAgentError, StateError, WorkloadError
from agent.core.vocabulary import Mode
from agent.link.dialler import Dialler, Outcome, Target
from agent.link.identity import Identity, load_identity, validity_warnings
from agent.link.listener import Listener
from agent.link.tls import TlsStream
from agent.node.conductor import Conductor
from agent.node.control import NodeControl
from agent.node.record_store import EVENTS_FILE, RecordStore
from agent.platform.descriptors import raise_descriptor_limit
from agent.platform.locks import DirectoryLock
from agent.platform.permissions import readable_by_others
from agent.platform.priority import Level, raise_priority
from agent.platform.sockets import open_listener
from agent.workload.events import WorkloadIdentity
from agent.workload.leftover import clean_up_leftover
from agent.workload.supervisor import Supervisor

log = logging.getLogger("agent.node")

STOP_SLACK_S = 15.0
REFUSALS_PER_EVENT_S = 10.0
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


@dataclass(frozen=True)
class RunOptions:
    """What the command line adds to the configuration."""

    force_activate: bool = False


async def run_node(config: Config, options: RunOptions) -> None:
    """Runs the node until it is stopped. Raises PairAgentError, with nothing left running, when it cannot."""
    _make_directory(config)
    with DirectoryLock(config.state_directory):
        events = EventLog(config.state_directory / EVENTS_FILE)
        notices = announce_inactive_keys(config)
        await _Node(config, options, events, notices).run()


class _Node:
    def __init__(self, config: Config, options: RunOptions, events: EventLog, notices: list[str]) -> None:
        self._config = config
        self._events = events
        self._notices = notices
        self._identity = None if config.mode is Mode.STAND_ALONE else _trusted_identity(config)
        # A guardian that is still killing what a dead agent left holds that agent's port.
        clean_up_leftover(config.state_directory)
        self._admin_sockets = open_admin_listener(config.admin)
        self._sockets: list[socket.socket] = []
        if config.mode is Mode.PRIMARY:
            self._sockets = open_listener(config.server.interface, config.server.port)
        self._store = RecordStore(config.state_directory)
        record = self._store.load(config.mode, lambda lost: self._note(EventCode.STATE_DAMAGED, lost))
        self._token = load_or_create_token(config.state_directory)
        self._conductor = Conductor(config, record, self._store, events, force=options.force_activate)
        self._conductor.supervisor = Supervisor(
            config.workload,
            config.hooks,
            state_directory=config.state_directory,
            identity=WorkloadIdentity(config.mode, config.name, lambda: self._conductor.roles.record.peer_name),
            report=self._conductor.workload_event,
            inherited_sockets=self._sockets,
        )
        self._hurried = False
        self._refusals = 0
        self._refusals_told = -REFUSALS_PER_EVENT_S

    async def run(self) -> None:
        config, conductor = self._config, self._conductor
        self._tell_beginning()
        async with trio.open_nursery() as outer:
            outer.start_soon(self._events.run)
            async with trio.open_nursery() as nursery:
                await nursery.start(conductor.supervisor.run)
                nursery.start_soon(conductor.pulse.run)
                nursery.start_soon(conductor.replication.run)
                await nursery.start(self._serve_admin)
                await conductor.replication.begun()
                nursery.start_soon(self._obey_signals, nursery.cancel_scope)
                if config.mode is Mode.PRIMARY:
                    nursery.start_soon(self._listen)
                elif config.mode is Mode.BACKUP:
                    nursery.start_soon(self._dial)
                # A full collection would stop the agent for longer than the shortest timeouts; what is here now stays.
                gc.collect()
                gc.freeze()
                await conductor.run()
                await conductor.supervisor.shut_down()
                nursery.cancel_scope.cancel()
            self._events.append(EventCode.AGENT_STOPPED, "the agent stopped")
            outer.cancel_scope.cancel()
        self._store.close()
        if self._hurried:
            raise WorkloadError(
                "the agent was told twice to stop and ended at once: nobody waited for the workload's end, and the "
                "other node was not told"
            )

    async def _serve_admin(self, task_status: trio.TaskStatus[None]) -> None:
        control = NodeControl(self._config, self._conductor, self._events, self._notices)
        await serve_admin(
            control, self._config.admin, self._token, listeners=self._admin_sockets, task_status=task_status
        )

    def _tell_beginning(self) -> None:
        config = self._config
        sentence = f"pair-agent {__version__} runs as {config.mode.value} {config.name!r}"
        self._events.append(EventCode.AGENT_STARTED, sentence, version=__version__, mode=config.mode.value)
        for key, variable in config.overrides.items():
            self._note(
                EventCode.ENVIRONMENT_OVERRIDE, f"{variable} in the environment overrides {key} of {config.source}"
            )
        if self._identity is not None:
            for warning in validity_warnings(self._identity, datetime.now(UTC)):
                self._note(EventCode.CERTIFICATE_EXPIRING, warning)
            if config.certificates.trust is not Trust.PINNED:
                self._notices.append(
                    f'certificates.trust = "{config.certificates.trust.value}": whoever knows the pre-shared key can '
                    'join this pair; set it to "pinned" and paste the certificates'
                )
        if config.workload.kind is WorkloadKind.NONE:
            self._notices.append('[workload] kind is "none": the roles move, but no application is started or stopped')
        for notice in self._notices:
            log.warning("%s", notice)
        for refused in filter(None, (raise_priority(Level.REALTIME), raise_descriptor_limit())):
            self._notices.append(refused)
            log.warning("%s", refused)

    def _note(self, code: EventCode, sentence: str) -> None:
        self._events.append(code, sentence)
        self._notices.append(sentence)

    async def _listen(self) -> None:
        async def serve(stream: TlsStream, address: str) -> None:
            await self._conductor.keeper.run_stream(stream, address, dialled=False)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._conductor.beacons.listen, self._sockets)
            nursery.start_soon(
                Listener(
                    self._sockets,
                    self._own_identity,
                    on_stream=serve,
                    on_refused=self._refused,
                    on_bulk=self._conductor.replication.handed,
                ).run
            )

    async def _dial(self) -> None:
        connection = self._config.connection
        target = Target(connection.host, connection.port, connection.connection_timeout, connection.reconnect_delay)

        async def serve(stream: TlsStream, address: str) -> bool:
            return await self._conductor.keeper.run_stream(stream, address, dialled=True)

        dialler = Dialler(target, self._own_identity, on_stream=serve, on_failed=self._dial_failed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._conductor.beacons.dial, lambda: dialler.known_address)
            nursery.start_soon(dialler.run)

    def _own_identity(self) -> Identity:
        assert self._identity is not None
        return self._identity

    def _refused(self, address: str, sentence: str) -> None:
        """Tells of refused strangers without letting a flood of them flood the log."""
        self._refusals += 1
        self._conductor.keeper.note_refusal(sentence)
        if trio.current_time() - self._refusals_told < REFUSALS_PER_EVENT_S:
            return
        self._refusals_told = trio.current_time()
        more = f" ({self._refusals} refused since the agent started)" if self._refusals > 1 else ""
        self._events.append(EventCode.PEER_REFUSED, f"{address}: {sentence}{more}", refused=self._refusals)

    def _dial_failed(self, outcome: Outcome, sentence: str) -> None:
        keeper = self._conductor.keeper
        keeper.note_failure(sentence)
        if outcome is Outcome.REFUSED and keeper.linked_before:
            self._conductor.tell(told.PeerProvenGone())
        elif outcome is Outcome.REJECTED:
            self._conductor.tell(told.ContactRefused(sentence))

    async def _obey_signals(self, everything: trio.CancelScope) -> None:
        with trio.open_signal_receiver(*SIGNALS) as received:
            async for number in received:
                log.info("%s: stopping; once more stops at once", signal.Signals(number).name)
                break
            self._conductor.tell(told.StopOrdered())
            # Without a bound: until its end is confirmed the workload may run, and the other must not start its own.
            while True:
                with trio.move_on_after(self._config.workload.stop_timeout / 1000 + STOP_SLACK_S):
                    async for _ in received:
                        self._hurried = True
                        everything.cancel()
                        return
                log.warning("still waiting for the workload's end; another signal ends the agent without it")


def _make_directory(config: Config) -> None:
    directory = config.state_directory
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StateError(
            f"the state directory {directory} cannot be made: a file stands there or above it; set state_directory to "
            "another folder, or move the file"
        ) from error
    except OSError as error:
        raise StateError(
            f"the state directory {directory} cannot be made: {error.strerror}; let this account write there, or set "
            "state_directory to another folder"
        ) from error


def _trusted_identity(config: Config) -> Identity:
    key = config.certificates.own_key
    if key is not None and key.path is not None and (finding := readable_by_others(key.path)):
        raise CredentialError(finding)
    return load_identity(config.certificates)


def run(config: Config, options: RunOptions) -> None:
    """Runs the node in this thread; see `run_node`."""
    try:
        trio.run(run_node, config, options)
    except BaseExceptionGroup as group:
        expected = group.subgroup(PairAgentError)
        if expected is None:
            raise
        raise _first(expected) from group


def _first(group: BaseExceptionGroup[PairAgentError]) -> PairAgentError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
