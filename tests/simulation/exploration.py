"""Walks through every state of the modelled pair that a number of faults can lead to, shortest schedules first.

From each new state the pair must also find its way home by itself: faults end, and within bounds of time, steps and
messages exactly one node is active (`homecoming`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.core.role_table import Phase
from tests.simulation.moves import Move, apply, faults, sentence, told_of, unhurried, urgent
from tests.simulation.pair_model import BACKUP, NAMES, PRIMARY, BrokenPromise, Pair

HOME_STEPS_MAX = 400
HOME_SECONDS_MAX = 90
HOME_MESSAGES_MAX = 120


@dataclass
class Figures:
    """What an exploration came to."""

    states: int = 0
    moves: int = 0
    depth: int = 0
    homecomings: int = 0
    longest_home_s: int = 0
    most_messages: int = 0
    complete: bool = True


@dataclass(frozen=True)
class Bounds:
    """How far an exploration goes."""

    faults_max: int
    kinds: frozenset[str]
    states_max: int = 10_000_000
    crash_within: bool = False  # between the effects of one list, as one fault
    homecoming: bool = True
    alone: bool = False


Start = Callable[[], Pair]


class Exploration:
    """One breadth-first walk; `run` raises BrokenPromise with the schedule that led there."""

    def __init__(self, start: Start, bounds: Bounds) -> None:
        self._start = start
        self._bounds = bounds
        self._came_from: dict[int, tuple[int, Move]] = {}
        self._home = Homecoming()
        self.figures = Figures()

    def run(self) -> Figures:
        """Walks until nothing is new or the bound of states is reached."""
        first = self._start()
        key = hash((first.key(), 0))
        self._came_from[key] = (0, ())
        level: list[tuple[int, Pair, int]] = [(key, first, 0)]
        figures = self.figures
        while level:
            figures.depth += 1
            following: list[tuple[int, Pair, int]] = []
            for key, pair, spent in level:
                following += self._expand(key, pair, spent)
                if len(self._came_from) >= self._bounds.states_max:
                    figures.complete = False
                    following = []
                    break
            level = following
        figures.states = len(self._came_from)
        figures.homecomings = len(self._home.known)
        figures.longest_home_s = self._home.longest_s
        figures.most_messages = self._home.most_messages
        return figures

    def _expand(self, key: int, pair: Pair, spent: int) -> list[tuple[int, Pair, int]]:
        found = []
        for move, cost in self._moves(pair, spent):
            following = pair.clone()
            self.figures.moves += 1
            try:
                apply(following, move)
            except AssertionError as broken:
                raise BrokenPromise(self._told(broken, key, move)) from broken
            new = hash((following.key(), spent + cost))
            if new in self._came_from:
                continue
            self._came_from[new] = (key, move)
            found.append((new, following, spent + cost))
            if self._bounds.homecoming:
                try:
                    self._home.check(following)
                    if self._bounds.alone:
                        for survivor in (PRIMARY, BACKUP):
                            self._home.check_alone(following, survivor)
                except AssertionError as broken:
                    raise BrokenPromise(self._told(broken, key, move)) from broken
        return found

    def _moves(self, pair: Pair, spent: int) -> Iterable[tuple[Move, int]]:
        at_once, at_some_time = urgent(pair), unhurried(pair)
        for move in (*at_once, *at_some_time):
            yield move, 0
        if not at_once and any(each > pair.now for each in pair.deadlines()):
            yield ("time",), 0
        if spent < self._bounds.faults_max:
            for move in faults(pair, self._bounds.kinds):
                yield move, 1
            if self._bounds.crash_within:
                for move in (*at_once, *at_some_time):
                    if told_of(move) is not None:
                        for effects in range(self._effects(pair, move)):
                            yield ("then crash", move, effects), 1

    @staticmethod
    def _effects(pair: Pair, move: Move) -> int:
        """Returns how many effects a move has at most."""
        return 6

    def _told(self, broken: AssertionError, key: int, move: Move) -> str:
        moves = [move]
        while key:
            key, before = self._came_from[key]
            if before:
                moves.append(before)
        return f"{broken}\n" + transcript(self._start(), moves[::-1])


class Homecoming:
    """Lets a pair go on without faults, in two fixed orders of events, until nothing happens any more."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.longest_s = 0
        self.most_messages = 0

    def check(self, pair: Pair) -> None:
        """Raises BrokenPromise unless the pair comes home within the bounds."""
        for last_first in (False, True):
            self._check(pair.clone(), last_first)

    def check_alone(self, pair: Pair, survivor: int) -> None:
        """Raises BrokenPromise unless one node goes on alone when the other one's power fails for good."""
        alone = pair.clone()
        if alone.nodes[1 - survivor].powered:
            alone.crash(1 - survivor, power=True)
        self._check(alone, False, survivor)

    def _check(self, pair: Pair, last_first: bool, survivor: int | None = None) -> None:
        began_s, messages = pair.now, pair.messages
        passed = []
        for _ in range(HOME_STEPS_MAX):
            key = hash((pair.key(), last_first, survivor))
            if key in self.known:
                break
            passed.append(key)
            move = homeward(pair, last_first, survivor)
            if move is None:
                require_home(pair) if survivor is None else require_alone(pair, survivor)
                break
            apply(pair, move)
        else:
            raise BrokenPromise(f"the pair is not home after {HOME_STEPS_MAX} steps")
        if pair.now - began_s > HOME_SECONDS_MAX:
            raise BrokenPromise(f"the pair is not home after {pair.now - began_s} s")
        if pair.messages - messages > HOME_MESSAGES_MAX:
            raise BrokenPromise(f"{pair.messages - messages} messages were sent on the way home")
        self.longest_s = max(self.longest_s, pair.now - began_s)
        self.most_messages = max(self.most_messages, pair.messages - messages)
        self.known.update(passed)


def homeward(pair: Pair, last_first: bool, survivor: int | None = None) -> Move | None:
    """Returns the next move of a pair that no fault strikes any more; None: it is at rest."""
    dead = None if survivor is None else ("boot", 1 - survivor)
    mending = [move for move in unhurried(pair) if move[0] != "proven gone" and move != dead]
    moves = [*[move for move in mending if move[0] in ("heal", "wake", "boot")], *urgent(pair)]
    moves += [move for move in mending if move[0] not in ("heal", "wake", "boot")]
    if moves:
        return moves[-1 if last_first else 0]
    return ("time",) if any(each > pair.now for each in pair.deadlines()) else None


def require_home(pair: Pair) -> None:
    """Raises BrokenPromise unless exactly one node is active, and the right one; see PRODUCT.md, roles."""
    primary, backup = pair.nodes
    assert primary.roles is not None
    assert backup.roles is not None
    shown = ", ".join(f"{NAMES[at]} {node.roles.phase.value}" for at, node in enumerate(pair.nodes) if node.roles)
    if primary.link is None or primary.link != backup.link:
        raise BrokenPromise(f"at rest without a link: {shown}")
    active = [at for at, node in enumerate(pair.nodes) if node.roles and node.roles.phase is Phase.ACTIVE]
    resting = [at for at, node in enumerate(pair.nodes) if node.roles and node.roles.phase is Phase.STANDBY]
    maintenance = primary.roles.record.maintenance
    if primary.roles.record.maintenance != backup.roles.record.maintenance:
        raise BrokenPromise(f"the nodes differ over maintenance: {shown}")
    if not active and maintenance and len(resting) == 2:
        return  # nobody was active, and maintenance forbids that anybody becomes it by itself
    if len(active) != 1 or len(resting) != 1:
        raise BrokenPromise(f"at rest, but not one active and one on standby: {shown}")
    at = active[0]
    if pair.nodes[at].running != pair.nodes[at].roles.record.active_term:  # type: ignore[union-attr]  # it is active
        raise BrokenPromise(f"{NAMES[at]} is active in term and its workload does not run in it: {shown}")
    if pair.nodes[1 - at].running is not None:
        raise BrokenPromise(f"a workload runs on standby: {shown}")
    excused = maintenance or backup.roles.record.hold or primary.roles.workload_failed
    if at == BACKUP and not excused:
        raise BrokenPromise(f"the backup stays active without a reason: {shown}")
    known = pair.nodes[1 - at].roles
    assert known is not None
    if known.peer is None or known.peer.role.value != "active":
        raise BrokenPromise(f"{NAMES[1 - at]} does not know that {NAMES[at]} is active: {shown}")


def require_alone(pair: Pair, survivor: int) -> None:
    """Raises BrokenPromise unless the survivor is active, or has a documented reason not to be."""
    node = pair.nodes[survivor]
    assert node.roles is not None
    if node.roles.phase is Phase.ACTIVE and node.running == node.roles.record.active_term:
        return
    maintenance = node.roles.record.maintenance and not node.roles._was_last_active
    # A one-way hole: the other node lived and was active when it was heard last, and nothing can tell its death.
    told_to_wait = "waiting for the link" in node.roles.reason
    if not (maintenance or told_to_wait or node.roles.obstacle):
        raise BrokenPromise(f"{NAMES[survivor]} is alone and not active: {node.roles.phase.value}: {node.roles.reason}")


def transcript(pair: Pair, moves: list[Move]) -> str:
    """Returns a schedule, played again, as lines to read."""
    lines = []
    for move in moves:
        lines.append(f"{pair.now:4d} s  {sentence(move)}")
        try:
            apply(pair, move)
        except AssertionError as broken:
            lines += [f"          {said}" for said in pair.heard]
            return "\n".join([*lines, f"          BROKEN: {broken}"])
        lines += [f"          {said}" for said in pair.heard]
        pair.heard.clear()
    lines.append("then, without another fault:")
    for _ in range(HOME_STEPS_MAX):
        following = homeward(pair, False)
        if following is None:
            break
        lines.append(f"{pair.now:4d} s  {sentence(following)}")
        try:
            apply(pair, following)
        except AssertionError as broken:
            return "\n".join([*lines, f"          BROKEN: {broken}"])
        lines += [f"          {said}" for said in pair.heard]
        pair.heard.clear()
        if len(lines) > 80:
            break
    lines.append(f"          at rest: {[node.roles and node.roles.phase.value for node in pair.nodes]}")
    return "\n".join(lines)


__all__ = ["BACKUP", "PRIMARY", "Bounds", "Exploration", "Figures", "Homecoming"]
