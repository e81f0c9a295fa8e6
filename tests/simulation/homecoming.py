"""What must come of a modelled pair once faults end: from every state it finds home by itself, within bounds.

Three ways to go on, each in a fixed order of events:

* everything is mended: exactly one node is active, the right one, and both know it;
* one node dies for good: the other one is active;
* a one-way hole stays: both are not active for long.
"""

from __future__ import annotations

from enum import Enum

from agent.core.role_table import Phase
from agent.core.vocabulary import Role, TimeoutPolicy
from tests.simulation.moves import Move, apply, unhurried, urgent
from tests.simulation.pair_model import Pair
from tests.simulation.pair_time import next_instant
from tests.simulation.pair_trees import has_everything
from tests.simulation.pair_values import BACKUP, NAMES, PRIMARY, BrokenPromiseError

STEPS_MAX = 600
SECONDS_MAX = 90
MESSAGES_MAX = 120
DOUBLE_SECONDS_MAX = 15
MENDING = ("heal", "wake", "boot", "usable")


class Way(Enum):
    """How a pair goes on."""

    MENDED = "first events first"
    MENDED_BACKWARDS = "last events first"
    PRIMARY_ALONE = "the backup stays dead"
    BACKUP_ALONE = "the primary stays dead"
    ONE_WAY = "the hole stays"


SURVIVORS = {Way.PRIMARY_ALONE: PRIMARY, Way.BACKUP_ALONE: BACKUP}


class Homecoming:
    """Lets pairs go on without faults, and remembers which states are known to come home."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.longest_s = 0
        self.most_messages = 0

    def check(self, pair: Pair, key: int, way: Way) -> None:
        """Raises BrokenPromiseError unless the pair comes home within the bounds; `key` is the pair's."""
        if hash((key, way.value)) in self.known or (way is Way.ONE_WAY and len(pair.blocked) != 1):
            return
        pair = pair.clone()
        dead = 1 - SURVIVORS[way] if way in SURVIVORS else None
        if dead is not None and pair.nodes[dead].powered:
            pair.crash(dead, power=True)
        passed = self._go(pair, way)
        self.known.update(passed)

    def _go(self, pair: Pair, way: Way) -> list[int]:
        began_s, messages, double_since_s = pair.now, pair.messages, pair.now
        passed = []
        for _ in range(STEPS_MAX):
            key = hash((pair.key(), way.value))
            if key in self.known or (way is Way.ONE_WAY and pair.now - began_s > SECONDS_MAX):
                break
            passed.append(key)
            move = homeward(pair, way)
            if move is None:
                require_home(pair, way)
                break
            apply(pair, move)
            if any(node.running is None for node in pair.nodes):
                double_since_s = pair.now
            elif way is Way.ONE_WAY and pair.now - double_since_s > DOUBLE_SECONDS_MAX:
                raise BrokenPromiseError(f"both run for {pair.now - double_since_s} s although one is heard")
        else:
            raise BrokenPromiseError(f"the pair is not home after {STEPS_MAX} steps ({way.value})")
        if way is not Way.ONE_WAY and pair.now - began_s > SECONDS_MAX:
            raise BrokenPromiseError(f"the pair is not home after {pair.now - began_s} s ({way.value})")
        if pair.messages - messages > MESSAGES_MAX:
            raise BrokenPromiseError(f"{pair.messages - messages} messages were sent on the way home ({way.value})")
        if way is not Way.ONE_WAY:
            self.longest_s = max(self.longest_s, pair.now - began_s)
        self.most_messages = max(self.most_messages, pair.messages - messages)
        return passed


def homeward(pair: Pair, way: Way) -> Move | None:
    """Returns the next move of a pair that no fault strikes any more; None: it is at rest."""
    moves, later = [], []
    for move in unhurried(pair):
        if move[0] not in MENDING:
            later.append(move)
        elif (move[0] != "heal" or way is not Way.ONE_WAY) and (
            move[0] != "boot" or way not in SURVIVORS or move[1] == SURVIVORS[way]
        ):
            moves.append(move)
    moves += urgent(pair)
    moves += [move for move in later if move[0] != "proven gone"]
    if moves:
        return moves[-1 if way is Way.MENDED_BACKWARDS else 0]
    return None if next_instant(pair) is None else ("time",)


def require_home(pair: Pair, way: Way) -> None:
    """Raises BrokenPromiseError unless a pair at rest is as it must be."""
    if way in SURVIVORS:
        _require_alone(pair, SURVIVORS[way])
    elif way is not Way.ONE_WAY:
        _require_together(pair)


def _require_together(pair: Pair) -> None:
    primary, backup = pair.nodes
    assert primary.roles is not None
    assert backup.roles is not None
    shown = f"primary {primary.roles.phase.value}, backup {backup.roles.phase.value}"
    if primary.link is None or primary.link != backup.link:
        raise BrokenPromiseError(f"at rest without a link: {shown}")
    maintenance = primary.roles.record.maintenance
    if maintenance != backup.roles.record.maintenance:
        raise BrokenPromiseError(f"the nodes differ over maintenance: {shown}")
    phases = [primary.roles.phase, backup.roles.phase]
    if maintenance and phases == [Phase.STANDBY, Phase.STANDBY]:
        return  # nobody was active, and maintenance forbids that anybody becomes it by itself
    if sorted(phase.value for phase in phases) != [Phase.ACTIVE.value, Phase.STANDBY.value]:
        raise BrokenPromiseError(f"at rest, but not one active and one on standby: {shown}")
    at = phases.index(Phase.ACTIVE)
    active, standby = pair.nodes[at], pair.nodes[1 - at]
    assert active.roles is not None
    assert standby.roles is not None
    if active.running != active.roles.record.active_term:
        raise BrokenPromiseError(f"{NAMES[at]} is active, but its workload does not run in its term: {shown}")
    if standby.running is not None:
        raise BrokenPromiseError(f"a workload runs on standby: {shown}")
    if at == BACKUP and not (maintenance or backup.roles.record.hold or primary.roles.workload_failed):
        raise BrokenPromiseError(f"the backup stays active without a reason: {shown}")
    if standby.roles.peer is None or standby.roles.peer.role is not Role.ACTIVE:
        raise BrokenPromiseError(f"{NAMES[1 - at]} does not know that {NAMES[at]} is active: {shown}")
    if pair.trees and (not has_everything(pair, 1 - at) or backup.roles.record.overwrite_due):
        raise BrokenPromiseError(f"at rest, but the trees are not in step: {shown}")


def _require_alone(pair: Pair, survivor: int) -> None:
    node = pair.nodes[survivor]
    assert node.roles is not None
    if node.roles.phase is Phase.ACTIVE and node.running == node.roles.record.active_term:
        return
    maintenance = node.roles.record.maintenance and not node.roles._was_last_active
    policy = survivor == PRIMARY and pair.policy is not TimeoutPolicy.ACTIVATE
    if not (maintenance or policy or node.roles.obstacle):
        where = f"{node.roles.phase.value}: {node.roles.reason}"
        raise BrokenPromiseError(f"{NAMES[survivor]} is alone and not active: {where}")
