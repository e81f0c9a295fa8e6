"""A pair that lives through a random history: edits, failovers, crashes, partitions, full disks, damaged indexes.

What happens is drawn from one seed, and who becomes active is decided as the roles decide it; how far a round has got
by then is up to the machine, so the same seed need not end the same way twice.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import trio

from agent.core.errors import PairAgentError
from tests.replica.interrupted_disk import Crash
from tests.replica.meddling import Meddler
from tests.replica.miniature_roles import Node
from tests.replica.random_edits import Editor
from tests.replica.two_workers import Joined, comes_true
from tests.replica.version_ledger import Ledger


class Pair:
    """Both nodes and the link between them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = Random(seed)
        self.ledger = Ledger()
        self.primary = Node(folder / "primary", self.ledger, primary=True)
        self.backup = Node(folder / "backup", self.ledger, primary=False)
        self.primary.peer, self.backup.peer = self.backup, self.primary
        self.nodes = (self.primary, self.backup)
        number = [0]
        self._editor = Editor(self.random, number)
        self._meddler = Meddler(Random(seed), Editor(Random(seed), number))
        self._joined: Joined | None = None
        self._nursery: trio.Nursery | None = None

    @property
    def linked(self) -> bool:
        return self.primary.linked

    async def live(self, steps: int) -> None:
        """Lives through a history, and checks at its end that nothing is missing."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for node in self.nodes:
                node.nursery = nursery
            self._scribble(self.primary, self.random.randint(0, 8))
            if self.random.random() < 0.2:
                self._scribble(self.backup, 3)
            self.primary.overwrite_due = self.backup.overwrite_due = True  # as when a pair is made
            await self.meet()
            for _ in range(steps):
                name = self.random.choices(list(HAPPENINGS), list(HAPPENINGS.values()))[0]
                self.ledger.tell(f"-- {name}")
                await getattr(self, name)()
                await self._bury_the_dead()
            self.ledger.tell("-- the end")
            await self.make_peace()
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    # -- what happens

    def _scribble(self, node: Node, edits: int) -> None:
        for _ in range(edits):
            before = node.contents()
            self._editor.edit(node.data)
            self.ledger.edited(node.name, before, node.contents())

    async def _scan(self, node: Node) -> None:
        if node.up:
            try:
                await node.changed()
            except Crash:
                await self._bury_the_dead()

    async def write(self) -> None:
        for node in self.nodes:
            if node.active and not node.changing:
                self._scribble(node, self.random.randint(1, 5))
                if self.random.random() < 0.7:
                    await self._scan(node)

    async def meddle(self) -> None:
        """Somebody edits where nobody should."""
        node = self.random.choice(self.nodes)
        if not node.changing:
            self._scribble(node, self.random.randint(1, 3))
            if self.random.random() < 0.7:
                await self._scan(node)

    async def wait(self) -> None:
        await trio.sleep(self.random.choice((0, 0.001, 0.01, 0.05, 0.2)))

    async def rest(self) -> None:
        """Waits until both are the same, if nothing is in the way."""
        for node in self.nodes:
            await self._scan(node)
        await comes_true(lambda: not self.linked or self.in_step, within_s=1.0)

    @property
    def in_sync(self) -> bool:
        return self.primary.active and self.in_step

    @property
    def in_step(self) -> bool:
        """Whether a standby has what the active node has."""
        source = next((node for node in self.nodes if node.active), None)
        if source is None or source.session is None or source.peer is None:
            return False
        return source.session.source.in_sync and source.contents() == source.peer.contents()

    async def part(self) -> None:
        """The link and all else between the nodes is gone; the standby takes over, or does not."""
        await self._unlink()
        for node in self.nodes:
            if not node.active and node.may_become_active and not node.changing and self.random.random() < 0.6:
                node.activate()

    async def lose_connection(self) -> None:
        """Only the bulk connection breaks, and is made again."""
        if self._joined is not None:
            self._joined.connection.break_off()
            await self._joined.over.wait()
            await self._join()

    async def meet(self) -> None:
        if self.linked or not all(node.up for node in self.nodes):
            return
        self.ledger.tell("linked")
        for node in self.nodes:
            node.linked = True
        if any(node.overwrite_due for node in self.nodes):
            for node in self.nodes:
                node.overwrite_due = True
        term = max(node.term for node in self.nodes)
        for node in self.nodes:
            node.term = term
        if self.primary.active and self.backup.active:
            self.backup.stop()
        await self._join()
        await self.decide()

    async def decide(self) -> None:
        """What linked roles do if neither is active: the primary becomes so, when it has what the backup wrote last."""
        primary, backup = self.nodes
        if not self.linked or primary.active or backup.active:
            return
        if primary.follows and not primary.overwrite_due:
            primary.tell_stand()
            await comes_true(lambda: primary.session is None or primary.session.sink.caught_up, within_s=5.0)
            caught_up = primary.session is not None and primary.session.sink.caught_up
            if caught_up and primary.may_become_active and not primary.changing:
                primary.activate()
        elif primary.may_become_active and not primary.changing:
            primary.activate()
        elif backup.may_become_active and not backup.changing:
            backup.activate()
        for node in self.nodes:
            node.tell_stand()

    async def hand_over(self) -> None:
        source = next((node for node in self.nodes if node.active), None)
        if not self.linked or source is None or source.session is None:
            return
        sink = source.peer
        assert sink is not None
        if source is self.primary and not sink.may_become_active:
            return
        if source is self.backup and self.primary.overwrite_due:
            source.stop()
            self.primary.activate()  # an operator's failback: its trees are to replace the backup's
            source.tell_stand()
            return
        if not source.session.source.in_sync:
            return
        source.ledger.tell(f"{source.name}: hands over")
        source.active = False  # its workload has ended; the agent still counts as active until all is sent
        outcome: list[str] = []
        source.session.source.finish(1 + self.random.randrange(1000), outcome.append)
        told = await comes_true(lambda: bool(outcome), within_s=15.0)
        assert told, "what became of the final changes was never told"
        if outcome == [""] and sink.may_become_active and not sink.changing and self.linked:
            source.tell_stand()
            sink.activate()
        elif source.up:
            source.activate()
        for node in self.nodes:
            node.tell_stand()

    async def crash(self) -> None:
        """A node dies, now or within its next steps; the other one takes over, or does not."""
        node = self.random.choice(self.nodes)
        if not node.up:
            return
        if self.random.random() < 0.7:
            node.mortality.left = self.random.choice((0, 1, 3, 10, 30, 100))
            if node.active and not node.changing:
                self._scribble(node, 2)
            await self._scan(node)
            await comes_true(lambda: node.mortality.dead, within_s=0.3)
        await self._die(node)

    async def _bury_the_dead(self) -> None:
        for node in self.nodes:
            if node.up and node.mortality.dead:
                await self._die(node)

    async def _die(self, node: Node) -> None:
        peer = node.peer
        assert peer is not None
        if not node.up:
            return
        node.up = False
        node.ledger.tell(f"{node.name}: dies")
        node.active = False
        power_lost = self.random.random() < 0.3
        if power_lost:
            node.ledger.tell("  with its power")
        await node.crash(power_lost=power_lost)
        if self.random.random() < 0.05:
            (node.folder / "state" / "index.db").write_bytes(b"damaged" * 1000)
        node.changing = False
        await self._unlink()
        if peer.up and peer.may_become_active and not peer.active and self.random.random() < 0.7:
            await comes_true(lambda: not peer.changing, within_s=15.0)
            if not peer.mortality.dead:
                peer.activate()

    async def revive(self) -> None:
        for node in self.nodes:
            if not node.up:
                await self._revive(node)

    async def _revive(self, node: Node) -> None:
        if self.random.random() < 0.2:
            self._scribble(node, 2)
        node.open()
        if self.random.random() < 0.2:
            node.mortality.left = self.random.randrange(12)
        try:
            await trio.to_thread.run_sync(node.recover)
        except Crash:
            await node.crash()
            node.ledger.tell(f"{node.name}: dies while it recovers")
            node.open()
            await trio.to_thread.run_sync(node.recover)
        node.mortality.left = None
        node.up = True
        node.ledger.tell(f"{node.name}: lives again")
        self.ledger.seen(node.name, node.contents())
        await node.changed()
        if not self.linked and node.may_become_active and self.random.random() < 0.3:
            node.activate()  # nobody came within the initial standby

    async def interfere(self) -> None:
        """Somebody edits while a round is put in place, or holds files, or fills the disk; or stops doing so."""
        for node in self.nodes:
            node.meddler = self._meddler if node.meddler is None else None
        self._meddler.choose()

    async def compare_all(self) -> None:
        for node in self.nodes:
            if node.session is not None:
                node.session.restart(full=True)

    async def order_overwrite(self) -> None:
        """A pair is made anew of what each of them holds."""
        if self.random.random() < 0.3 and not self.primary.incomplete:
            await self._unlink()
            self.primary.overwrite_due = self.backup.overwrite_due = True

    # -- the link

    async def _join(self) -> None:
        assert self._nursery is not None
        try:
            for node in self.nodes:
                await node.changed()
        except Crash:
            return
        self._joined = Joined(*self.nodes)
        for node in self.nodes:
            node.tell_stand()
        self._joined.begin(self._nursery)

    async def _unlink(self) -> None:
        if not self.linked:
            return
        self.ledger.tell("not linked")
        if self._joined is not None:
            self._joined.connection.break_off()
            for node in self.nodes:
                node.scope.cancel()
            await self._joined.over.wait()
            self._joined = None
        for node in self.nodes:
            node.lose_link()

    # -- the end

    async def make_peace(self) -> None:
        """Everything is mended; both trees are to be the same, and every version is to be accounted for."""
        for node in self.nodes:
            node.mortality.left = None
            node.meddler = None
        await self._bury_the_dead()
        await self.revive()
        await self._unlink()
        await self.meet()
        with trio.move_on_after(20.0) as scope:
            while not await self._is_settled():
                await self._rejoin_if_broken()
                await self.decide()
                if self.backup.active:
                    await self.hand_over()
        if scope.cancelled_caught:
            raise AssertionError(self._differences())
        for node in self.nodes:
            self.ledger.seen(node.name, node.contents())
        kept = [each for node in self.nodes for each in node.archived_versions()]
        missing = self.ledger.missing(self.primary.contents(), kept)
        assert not missing, "\n".join(missing)

    async def _is_settled(self) -> bool:
        """Whether both have the same, scans find nothing new, and both know it."""
        await trio.sleep(0.02)
        if not self.in_sync:
            return False
        for node in self.nodes:
            await node.changed()
        await trio.sleep(0.02)
        if not self.in_sync or self.primary.modes() != self.backup.modes():
            return False
        local = [await node.local.in_index(node.index.has_local, node.tree.name) for node in self.nodes]
        return not any(local)

    async def _rejoin_if_broken(self) -> None:
        if self.linked and self._joined is not None and self._joined.over.is_set():
            self.ledger.tell(f"the connection broke: {self._joined.failures}")
            await self._join()

    def _differences(self) -> str:
        one, other = (node.contents() for node in self.nodes)
        paths = sorted(path for path in one.keys() | other.keys() if one.get(path, 0) != other.get(path, 0))
        states = [
            f"{node.name}: active {node.active}, incomplete {node.incomplete}, overwrite {node.overwrite_due}, "
            f"version {node.version}, stand {node.stand}, failures {self._joined and self._joined.failures}, "
            f"problem {node.session and node.session.sink.problem}, local {node.index.has_local(node.tree.name)}"
            for node in self.nodes
        ]
        one, other = (node.modes() for node in self.nodes)
        bits = [path for path in one.keys() & other.keys() if one[path] != other[path]]
        return "\n".join([f"not the same after all: {paths}, permission bits {bits}", *states])


HAPPENINGS = {
    "write": 30,
    "meddle": 6,
    "wait": 20,
    "rest": 12,
    "part": 4,
    "meet": 8,
    "lose_connection": 3,
    "decide": 4,
    "hand_over": 6,
    "crash": 7,
    "revive": 8,
    "interfere": 3,
    "compare_all": 1,
    "order_overwrite": 1,
}


async def live(folder: Path, seed: int) -> None:
    """Lets a pair live through the history of `seed`; AssertionError with all that happened if something is wrong."""
    pair = Pair(folder, seed)
    try:
        await pair.live(pair.random.randint(3, 40))
    except (AssertionError, PairAgentError, BaseExceptionGroup) as error:
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise AssertionError("\n".join([f"seed {seed}", *pair.ledger.story, str(first)])) from error
    pair.close()
