"""The agent's end of the replica worker: starts it, tells it what the roles decided, and brings back what it found.

The worker does all that takes time (scanning, hashing, TLS in bulk, flushing) in a process of its own, so that no
heartbeat waits for it. This module decides three things, because only here both sides are known: whether this node
follows the other's trees, whether the trees may be changed at this instant, and what a worker that died means.

Invariants: while this node is active, or about to be, nothing is granted, and before a workload is started everything
that was granted has ended; a worker that is not ready keeps the node from becoming active.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import trio

from agent.admin.codes import EventCode, event_code
from agent.admin.control import Answer
from agent.config.model import Config
from agent.core import inputs as told
from agent.core.role_table import Phase
from agent.core.roles import Roles
from agent.core.tree_versions import TreeVersion
from agent.core.vocabulary import Mode, Role
from agent.platform.piped_process import PipedProcess
from agent.platform.socket_passing import SocketGiver
from agent.replica import worker_protocol as say
from agent.workload.environment import inherited_environment

log = logging.getLogger("agent.node")

STARTING = "its replica worker is starting"
RESTART_PAUSES_S = (0.1, 0.5, 2.0, 10.0)
STEADY_S = 60.0  # a worker that lived so long died by something new
STOP_S = 10.0
SETTLE_S = 30.0
BEGIN_S = 10.0
INQUIRY_S = 120.0
PROGRAM = Path(__file__).with_name("replica_worker.py")
ACTIVE_PHASES = (Phase.ACTIVE, Phase.STEPPING_DOWN, Phase.FINISHING)


class ReplicationOwner(Protocol):
    """Whom the replication tells and asks; called in the trio thread, must not block."""

    @property
    def roles(self) -> Roles:
        """The role machine, to look at."""

    def tell(self, fact: told.Input) -> None:
        """Takes an input for the roles."""

    def event(self, code: EventCode, sentence: str, **fields: Any) -> None:
        """Takes an event for the log."""

    def config_applied(self) -> None:
        """A config tree was changed here."""


class Replication:
    """The trees of one node, seen from its agent; without trees it does nothing."""

    def __init__(self, config: Config, owner: ReplicationOwner) -> None:
        self._config = config
        self._owner = owner
        self._process: PipedProcess | None = None
        self._giver: SocketGiver | None = None
        self._worker_pid = 0
        self._ready = False
        self._began = trio.Event()  # the first worker is ready, or cannot be
        self._granted: set[int] = set()
        self._wanted: dict[int, say.Permission] = {}  # permissions that wait for the roles to have stored something
        self._interrupted = False  # a worker died while it changed the trees: the next one finishes that
        self._offers: list[int] = []  # that wait for being noted
        self._settled = trio.Event()
        self._link: say.Link | None = None
        self._link_number = 0
        self._stand: say.Stand | None = None
        self._inquiries: dict[int, Callable[[Answer], None]] = {}
        self._inquiry_number = 0
        self._orders: dict[str, int] = {}  # catch-up and finish that are not answered: by name
        self.snapshot: Mapping[str, Any] = {}
        self.changed = trio.Event()

    @property
    def enabled(self) -> bool:
        """Whether this node has trees to replicate."""
        return bool(self._config.trees) and self._config.mode is not Mode.STAND_ALONE

    # -- what the conductor orders

    def linked(self, key: bytes, host: str, port: int) -> None:
        """The link came up; `key` is exported from it, host and port are where the backup finds the primary."""
        self._link_number += 1
        self._link = say.Link(self._link_number, key, host, port, dial=self._config.mode is Mode.BACKUP)
        self._send(self._link)

    def unlinked(self) -> None:
        """The link is gone."""
        if self._link is not None:
            self._link = None
            self._send(say.Unlink())

    def handed(self, accepted: socket.socket, received: bytes, address: str) -> None:
        """Takes a connection that is meant for the worker; owns the socket."""
        with accepted:
            if self._giver is None or not self._worker_pid or self._link is None:
                return
            token = self._giver.give(accepted, self._worker_pid)
            if token is not None:
                self._send(say.Handover(received, token, address))

    def update(self) -> None:
        """Tells the worker what the roles make of this node; called after every fact they were given."""
        if not self.enabled:
            return
        stand = self._current_stand()
        if stand != self._stand:
            self._stand = stand
            self._send(stand)
        record = self._owner.roles.record
        if record.offered_term == record.data_term:
            while self._offers:
                self._send(say.Grant(self._offers.pop(), True))
        for number, permission in list(self._wanted.items()):
            if not permission.incomplete or self._owner.roles.record.incomplete:
                del self._wanted[number]
                self._answer_permission(permission)

    def catch_up(self, number: int) -> None:
        """Carries out the effect CatchUp."""
        record = self._owner.roles.record
        if not self.enabled or record.overwrite_due:
            self._owner.tell(told.CaughtUp(number))  # nothing is to come from the other node
        else:
            self._orders["catch-up"] = number  # a worker that is starting is told when it is ready
            if self._ready:
                self._send(say.CatchUp(number))

    def finish(self, number: int) -> None:
        """Carries out the effect SendFinalChanges."""
        roles = self._owner.roles
        if (
            not self.enabled or roles.peer is None or roles.record.overwrite_due
        ):  # due: what is here is overwritten next
            self._owner.tell(told.FinalChangesSent(number))
        elif not self._ready:
            self._owner.tell(told.FinalChangesSent(number, STARTING))
        else:
            self._orders["finish"] = number
            self._send(say.Finish(number))

    async def settle(self) -> None:
        """Returns when nothing changes the trees any more; from then on nothing is granted, for this node is active."""
        self.update()
        for way_out in ("its worker is killed, and another one finishes that", "the workload starts all the same"):
            with trio.move_on_after(SETTLE_S):
                while self._granted or self._interrupted:
                    await self._settled.wait()
                return
            sentence = f"the trees are still being changed after {SETTLE_S:.0f} s; {way_out}"
            self._owner.event(EventCode.TREES_INCOMPLETE, sentence)
            if self._process is not None:
                self._process.kill()

    # -- what an operator asks

    def synchronise(self, number: int, *, full: bool) -> None:
        """Compares the trees anew; `sync.round` in the status is `number` from then on."""
        self._send(say.Synchronise(number, full))

    async def inquire(self, what: str, arguments: Mapping[str, Any]) -> Answer:
        """Asks the worker; see `worker_protocol.Inquire`."""
        if not self._ready:
            return Answer(False, f"the trees cannot be looked at now: {self._owner.roles.trees_obstacle or STARTING}")
        self._inquiry_number += 1
        number, answers, answered = self._inquiry_number, [], trio.Event()

        def take(answer: Answer) -> None:
            answers.append(answer)
            answered.set()

        self._inquiries[number] = take
        self._send(say.Inquire(number, what, dict(arguments)))
        with trio.move_on_after(INQUIRY_S):
            await answered.wait()
        self._inquiries.pop(number, None)
        return answers[0] if answers else Answer(False, f"no answer within {INQUIRY_S:.0f} s")

    # -- the worker's life

    async def begun(self) -> None:
        """Returns when the first worker is ready, or has shown that it cannot be, or takes too long.

        An agent that met the other node before would give the role away for want of a worker.
        """
        if self.enabled:
            with trio.move_on_after(BEGIN_S):
                await self._began.wait()

    async def run(self) -> None:
        """Keeps a worker running until cancelled."""
        if not self.enabled:
            return
        failures = 0
        while True:
            began = trio.current_time()
            trouble = await self._live()
            failures = 0 if trio.current_time() - began > STEADY_S else failures + 1
            self._bury(trouble)
            await trio.sleep(RESTART_PAUSES_S[min(failures, len(RESTART_PAUSES_S)) - 1])

    async def _live(self) -> str:
        """Runs one worker until it has ended; returns why."""
        giver = SocketGiver()
        arguments: list[str | Path] = [sys.executable, PROGRAM, giver.argument, str(os.getpid())]
        try:
            process = await trio.to_thread.run_sync(
                PipedProcess, arguments, inherited_environment(), list(giver.inherited)
            )
        except OSError as error:
            giver.close()
            return f"it cannot be started: {error}"
        giver.child_started()
        self._process, self._giver = process, giver
        self._send(say.SetUp(pickle.dumps(self._config)))
        last_words: list[str] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process.flush)
                nursery.start_soon(self._read_log, process, last_words)
                await self._read(process)
                with trio.move_on_after(0.5):
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
        finally:
            self._send(say.Quit())
            self._process = None
            with trio.CancelScope(shield=True):
                process.close_commands()
                with trio.move_on_after(STOP_S) as scope:
                    await process.wait()
                if scope.cancelled_caught:
                    process.kill()
                    await process.wait()
                process.close()
                giver.close()
        return last_words[-1] if last_words else f"it ended with code {await process.wait()}"

    async def _read(self, process: PipedProcess) -> None:
        decoder = say.Decoder()
        sender, receiver = trio.open_memory_channel[bytes](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.read_reports, sender)
            async for data in receiver:
                for telling in decoder.feed(data):
                    self._take(telling)

    async def _read_log(self, process: PipedProcess, last_words: list[str]) -> None:
        sender, receiver = trio.open_memory_channel[bytes](0)
        rest = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.read_output, sender)
            async for data in receiver:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    text = line.decode("utf-8", "replace").strip()
                    if text:
                        last_words[:] = [text]
                        log.warning("replica worker: %s", text)

    def _bury(self, trouble: str) -> None:
        """Takes in that the worker is gone: whatever it was doing is half done until the next one is ready."""
        self._ready, self._worker_pid, self._stand = False, 0, None
        self._began.set()
        self._interrupted = self._interrupted or bool(self._granted)
        self._wanted.clear()
        self._offers.clear()
        self._granted.clear()
        self._owner.event(EventCode.TREE_TROUBLE, f"the replica worker ended and is started again: {trouble}")
        self._owner.tell(told.TreesHindered(STARTING))
        for name, number in self._orders.items():
            self._fail(name, number, "the replica worker ended")
        self._orders.clear()
        for answer in self._inquiries.values():
            answer(Answer(False, "the replica worker ended; try again"))

    def _fail(self, name: str, number: int, reason: str) -> None:
        catching_up = name == "catch-up"
        self._owner.tell(told.CatchUpFailed(number, reason) if catching_up else told.FinalChangesSent(number, reason))

    # -- what the worker tells

    def _take(self, telling: say.Telling) -> None:
        match telling:
            case say.Started():
                self._worker_pid = telling.pid
            case say.Ready():
                self._ready = not telling.trouble
                self._began.set()
                self._interrupted = self._interrupted and bool(telling.trouble)
                self._settle_event()
                self._owner.tell(told.TreesHindered(telling.trouble or telling.hindered))
                self._stand = None
                if self._link is not None:
                    self._send(self._link)
                self.update()
                if self._ready and (number := self._orders.get("catch-up")) is not None:
                    self._send(say.CatchUp(number))
            case say.Hindered():
                self._owner.tell(told.TreesHindered(telling.reason))
            case say.Permission():
                self._permission(telling)
            case say.ApplyEnded():
                self._granted.discard(telling.number)
                self._settle_event()
            case say.Complete():
                self._owner.tell(told.TreesComplete(telling.term, telling.merged))
            case say.Followed():
                self._owner.tell(told.PeerFollows(telling.term))
            case say.Offering():
                peer = TreeVersion(telling.data_term, telling.alone, telling.base_term, telling.offered_term)
                self._offers.append(telling.number)
                self._owner.tell(told.TreesOffered(peer))
            case say.CaughtUp():
                if self._orders.pop("catch-up", None) == telling.number:
                    self._owner.tell(told.CaughtUp(telling.number))
            case say.CatchUpFailed():
                if self._orders.pop("catch-up", None) == telling.number:
                    self._owner.tell(told.CatchUpFailed(telling.number, telling.reason))
            case say.Finished():
                if self._orders.pop("finish", None) == telling.number:
                    self._owner.tell(told.FinalChangesSent(telling.number, telling.undelivered))
            case say.Happened():
                self._owner.event(event_code(telling.code), telling.sentence, **telling.fields)
            case say.ConfigApplied():
                self._owner.config_applied()
            case say.Snapshot():
                self.snapshot = telling.status
                changed, self.changed = self.changed, trio.Event()
                changed.set()
            case say.Answered():
                if take := self._inquiries.get(telling.number):
                    take(Answer(telling.done, telling.sentence, telling.details))

    def _permission(self, asked: say.Permission) -> None:
        """Grants what may be done now; what leaves the trees half way is first made durable by the roles."""
        if asked.incomplete and self._may_change:
            self._wanted[asked.number] = asked
            self._owner.tell(told.TreesIncomplete(asked.incomplete))
        else:
            self._answer_permission(asked)

    def _answer_permission(self, asked: say.Permission) -> None:
        granted = self._may_change
        if granted:
            self._granted.add(asked.number)
        self._send(say.Grant(asked.number, granted))

    @property
    def _may_change(self) -> bool:
        return self._owner.roles.phase not in (*ACTIVE_PHASES, Phase.STOPPED, Phase.STARTING)

    def _settle_event(self) -> None:
        if not self._granted and not self._interrupted:
            settled, self._settled = self._settled, trio.Event()
            settled.set()

    def _current_stand(self) -> say.Stand:
        roles = self._owner.roles
        record, peer, phase = roles.record, roles.peer, roles.phase
        primary = self._config.mode is Mode.PRIMARY
        source_there = peer is not None and peer.role in (Role.ACTIVE, Role.STOPPING)
        following = phase in (Phase.CATCHING_UP, Phase.REQUESTING) or (
            source_there and phase in (Phase.STANDBY, Phase.AWAITING_PEER)
        )
        if record.overwrite_due and (primary or record.maintenance):
            following = False  # the primary's trees stay; and an operator may look first
        return say.Stand(
            following=following and peer is not None,
            overwrite=record.overwrite_due,
            primary=primary,
            active=phase in ACTIVE_PHASES,
            data_term=record.data_term,
            alone=record.data_alone,
            base_term=record.base_term,
            offered_term=record.offered_term,
        )

    def _send(self, order: say.Order) -> None:
        if self._process is not None:
            self._process.write(say.encode(order), droppable=False)
