"""What happens in the demo, in order: pairing, protection, kill, takeover, return, switchback, comparison of the trees.

Every step waits for what the nodes say and the application wrote, never for a time; one deadline bounds them all.
Asks the agents through the function it is given, and leaves starting, stopping and showing to others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND, Role
from agent.demo.agents import DemoAgent
from agent.demo.application import READING_INTERVAL_MS
from agent.demo.comparison import Comparison, compare_trees
from agent.demo.interruption import Interruption
from agent.demo.node_watch import Ask, DemoFailedError, NodeWatch
from agent.demo.pair_files import HEARTBEAT, LOOPBACK, DemoPair
from agent.demo.readings import Reading, Run, readings_below, runs_of
from agent.demo.result import Ending, Fault
from agent.demo.screen import NodeView, Screen
from agent.platform.clock import boottime_ns, wall_ms

STORY_SECONDS_MAX = 50.0
POLL_INTERVAL_S = 0.1
LOOK_SECONDS = 1.5  # how long each state is left on the screen
FILES_BEFORE_KILL = 10  # on the backup, so that there is data to go on with
COMPARE_SECONDS_MAX = 5.0  # for the last changes to arrive; what differs then differs


class Story:
    """Tells the whole story once; see the module."""

    def __init__(
        self,
        pair: DemoPair,
        agents: Sequence[DemoAgent],
        ask: Ask,
        screen: Screen,
        interruption: Interruption,
        *,
        began_ns: int,
    ) -> None:
        self._pair = pair
        self._screen = screen
        self._interruption = interruption
        self._watches = [NodeWatch(agent, ask) for agent in agents]
        self._primary, self._backup = self._watches
        self._deadline_ns = began_ns + int(STORY_SECONDS_MAX * 1e9)

    def tell(self) -> tuple[Fault, Ending]:
        """Goes through all of it. Raises DemoFailedError or InterruptedDemoError; the agents are left as they are.

        In the end the application pauses on both nodes, until `resume`.
        """
        self._pair_up()
        self._protect()
        fault = self._kill()
        self._return()
        return fault, self._compare()

    def resume(self) -> None:
        """Lets the application go on."""
        for node in self._pair.nodes:
            node.pause_path.unlink(missing_ok=True)

    def runs(self) -> list[Run]:
        """Returns the runs of the application on both nodes by all readings written so far."""
        for watch in self._watches:
            watch.read()
        return runs_of(self._written())

    def _pair_up(self) -> None:
        primary, backup = self._primary, self._backup
        for node in self._pair.nodes:
            self._screen.say("pairing", f"{node.name} ({node.mode.value}): own certificate, {node.fingerprint[:23]}...")
        self._screen.say("pairing", "each trusts exactly the other's certificate, as after `pair-agent trust`")
        primary.agent.start()
        backup.agent.start()
        self._screen.say(
            "pairing",
            f"two agents started, processes {primary.agent.pid} and {backup.agent.pid}; {backup.name} dials "
            f"{LOOPBACK}:{self._pair.link_port}",
        )
        self._wait("waiting for the link", lambda: primary.linked and backup.linked)
        self._screen.say(
            "pairing",
            f"linked over TLS 1.3; a heartbeat every {HEARTBEAT.interval} ms, timeout {HEARTBEAT.timeout} ms",
        )

    def _protect(self) -> None:
        self._wait(
            "waiting for the primary to become active and the backup to be ready",
            lambda: self._in_order(after_ns=0) and self._backup.files >= FILES_BEFORE_KILL,
        )
        self._tell_active(self._primary, "active")
        self._screen.say("active", f"its application writes a reading every {READING_INTERVAL_MS} ms, each a file")
        self._screen.say("active", f"{self._backup.name} is standby and receives them: failover would work right now")
        self._let_run("both nodes in order")

    def _kill(self) -> Fault:
        primary, backup = self._primary, self._backup
        pid, name = primary.agent.pid, primary.name
        killed_at_ns = primary.agent.kill()
        killed_at_ms = wall_ms() - (boottime_ns() - killed_at_ns) // NANOSECONDS_PER_MILLISECOND
        self._screen.say("kill", f"kill -9 of process {pid}, the agent of {name}", alarming=True)
        self._wait(
            f"waiting for {backup.name} to take over",
            lambda: backup.wrote_after(killed_at_ns) and backup.is_in(Role.ACTIVE, "running"),
        )
        event = backup.activation()
        decided_after_ms = _milliseconds_since(killed_at_ms, event)
        first = backup.own(after_ns=killed_at_ns)[0]
        self._tell_active(backup, "takeover")
        self._screen.say(
            "takeover",
            f"its first reading came {(first.taken_ns - killed_at_ns) / 1e6:.0f} ms after the kill, number "
            f"{first.number}: its data is {name}'s",
        )
        self._let_run(f"{name} is dead, {backup.name} works")
        return Fault(killed_at_ns, name, backup.name, decided_after_ms)

    def _return(self) -> None:
        primary, backup = self._primary, self._backup
        returned_at_ns = boottime_ns()
        primary.agent.start()
        self._screen.say("return", f"the agent of {primary.name} is started again, process {primary.agent.pid}")
        self._wait(f"waiting for {primary.name} to come back", lambda: primary.linked and backup.linked)
        self._screen.say("return", f"{primary.name} and {backup.name} are linked again")
        self._wait(
            f"waiting for {primary.name} to get the role back",
            lambda: primary.wrote_after(returned_at_ns) and self._in_order(after_ns=returned_at_ns),
        )
        self._tell_active(primary, "switchback")
        self._screen.say("switchback", f"{backup.name} stopped its application first, and is standby again")
        self._tell_received(backup.own()[-1], primary.own(after_ns=returned_at_ns)[0])
        self._let_run("both nodes in order again")

    def _compare(self) -> Ending:
        primary, backup = self._pair.nodes
        gap_ms = self._primary.number("sync", "last_gap_ms")
        for node in self._pair.nodes:
            node.pause_path.touch()
        began_ns = boottime_ns()
        until_ns = began_ns + int(COMPARE_SECONDS_MAX * 1e9)
        found: list[Comparison] = []

        def compared() -> bool:
            in_sync = all(watch.in_sync for watch in self._watches)
            found[:] = [compare_trees(primary.tree_path, backup.tree_path)]
            return (in_sync and found[0].same) or boottime_ns() > until_ns

        self._wait("the application pauses, both trees are compared file by file", compared)
        (comparison,) = found
        same = "are the same on both nodes" if comparison.same else "were looked at; NOT all are the same on both nodes"
        self._screen.say(
            "comparison",
            f"the application pauses; all {comparison.files} files, {comparison.size_bytes} bytes, {same}",
            alarming=not comparison.same,
        )
        return Ending(
            comparison=comparison,
            standing=frozenset(readings_below(primary.tree_path)),
            archived=frozenset(readings_below(primary.archive_path)),
            written=frozenset(self._written()),
            switchback_gap_ms=gap_ms,
        )

    def _written(self) -> set[Reading]:
        return {reading for watch in self._watches for reading in watch.seen}

    def _tell_received(self, last: Reading, first: Reading) -> None:
        """What the first reading after the switchback shows: it goes on from what the application found."""
        received = first.number == last.number + 1
        self._screen.say(
            "switchback",
            f"{self._primary.name} went on with number {first.number}, after {last.number} of {self._backup.name}: it "
            + ("had received all of them before its application started" if received else "had NOT received all"),
            alarming=not received,
        )

    def _in_order(self, after_ns: int) -> bool:
        primary, backup = self._primary, self._backup
        return (
            primary.is_in(Role.ACTIVE, "running")
            and primary.wrote_after(after_ns)
            and backup.is_in(Role.STANDBY, "stopped")
            and primary.ready
            and backup.ready
            and backup.in_sync
        )

    def _tell_active(self, watch: NodeWatch, stage: str) -> None:
        event = watch.activation()
        said = f"{watch.name} is active in term {watch.view().word('term')}" if event is None else event["sentence"]
        self._screen.say(stage, f"{watch.name}: {said}")

    def _let_run(self, doing: str) -> None:
        until_ns = boottime_ns() + int(LOOK_SECONDS * 1e9)
        self._wait(doing, lambda: boottime_ns() >= until_ns)

    def _wait(self, doing: str, done: Callable[[], bool]) -> None:
        while True:
            for watch in self._watches:
                watch.look()
            self._screen.show([watch.view() for watch in self._watches], doing)
            if done():
                return
            if boottime_ns() > self._deadline_ns:
                raise DemoFailedError(
                    f"The demo gave up after {STORY_SECONDS_MAX:.0f} s: {doing}. {self._seen()} "
                    "If this machine is very busy, try again when it is not."
                )
            self._interruption.pause(POLL_INTERVAL_S)

    def _seen(self) -> str:
        return " ".join(_sentence(watch.view()) for watch in self._watches)


def _sentence(view: NodeView) -> str:
    if not view.running:
        return f"{view.name} is dead."
    if view.status is None:
        return f"{view.name} does not answer."
    return (
        f"{view.name} is {view.word('role')} ({view.word('reason')}), its link {view.word('link', 'state')}, its "
        f"application {view.word('workload', 'state')}."
    )


def _milliseconds_since(wall: int, event: dict[str, Any] | None) -> int | None:
    """The time of an event after a wall clock time; None if there is none, or the clock was set meanwhile."""
    if event is None:
        return None
    passed = round(datetime.fromisoformat(event["time"]).timestamp() * 1000) - wall
    return passed if 0 <= passed <= STORY_SECONDS_MAX * 1000 else None
