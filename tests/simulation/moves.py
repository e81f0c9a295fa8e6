"""What can happen next to the modelled pair: by itself at once, by itself at some time, or as a fault or an order.

A move is a tuple of its name and its arguments, so that a schedule can be printed, kept and played again.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from agent.core import inputs as told
from agent.core.role_table import Phase
from tests.simulation import pair_trees
from tests.simulation.pair_model import Pair
from tests.simulation.pair_time import freeze, partition, pass_time, wake
from tests.simulation.pair_values import BACKUP, NAMES, PRIMARY, SECOND, Last

Move = tuple[Any, ...]
ORDERS = {
    "failover": told.FailoverOrdered(),
    "failback": told.FailbackOrdered(),
    "maintenance on": told.MaintenanceOrdered(True),
    "maintenance off": told.MaintenanceOrdered(False),
    "stop": told.StopOrdered(),
    "workload gave up": told.WorkloadGaveUp("it ends again and again"),
}
TREES = {"offer", "begin", "complete", "follows", "usable", "hindered", "catch-up fails", "final changes stuck"}
TOLD = TREES | {
    *("deliver", "silence", "beacon", "frozen", "timer", "boot"),
    *("stopped", "caught up", "late answer", "finished"),
}
PARTITIONS = (frozenset({PRIMARY, BACKUP}), frozenset({PRIMARY}), frozenset({BACKUP}))


def urgent(pair: Pair) -> list[Move]:
    """Returns what happens within a second: time does not pass while there is any of it."""
    moves: list[Move] = []
    for at, node in enumerate(pair.nodes):
        if node.fence_at is not None and node.running is not None and pair.now >= node.fence_at:
            moves.append(("fence", at))
        if node.roles is None and node.running is not None:
            moves.append(("reap", at))
        if not node.awake:
            continue
        if node.beacon is not None:
            moves.append(("beacon", at))
        if node.frozen_untold:
            moves.append(("frozen", at))
        if node.stop_by is not None and pair.now >= node.stop_by:
            moves.append(("stopped", at))
        if node.finishing is not None and not pair_trees.hears_of_follower(pair, at):
            moves.append(("finished", at))
        deadline_ns = node.roles.next_deadline() if node.roles else None
        if deadline_ns is not None and deadline_ns <= pair.now * SECOND:
            moves.append(("timer", at))
    for number, connection in pair.connections.items():
        for at, end in enumerate(connection.ends):
            if end.over or not pair.nodes[at].awake:
                continue
            if end.inbox and (1 - at) not in pair.blocked:
                moves.append(("deliver", at, number))
            elif end.silent_at is not None and end.silent_at <= pair.now:
                moves.append(("silence", at, number))
    if pair.can_connect():
        moves.append(("connect",))
    return moves


def unhurried(pair: Pair) -> list[Move]:
    """Returns what happens at some time, now or later, if the world is kind."""
    moves: list[Move] = []
    primary, backup = pair.nodes
    for at, node in enumerate(pair.nodes):
        if node.awake and node.stop_by is not None and pair.now < node.stop_by:
            moves.append(("stopped", at))
        if node.awake and node.catching_up:
            moves += _answers(pair, at)
        if node.awake and pair.trees:
            moves += _rounds(pair, at)
        if node.roles is None and node.running is None:
            moves.append(("boot", at))
        if node.frozen_since is not None:
            moves.append(("wake", at))
    gone = primary.powered and primary.roles is None and primary.running is None
    if gone and not pair.blocked and backup.awake and backup.linked_before and backup.link is None and not pair.greets:
        moves.append(("proven gone",))
    if pair.blocked:
        moves.append(("heal",))
    return moves


def _answers(pair: Pair, at: int) -> list[Move]:
    """The last catch-up ends when everything is there; the answer to one before is on its way at any time."""
    moves: list[Move] = [("caught up", at)] if pair_trees.caught_up(pair, at) else []
    return [*moves, ("late answer", at)] if len(pair.nodes[at].catching_up) > 1 else moves


def _rounds(pair: Pair, at: int) -> list[Move]:
    node = pair.nodes[at]
    moves: list[Move] = []
    if pair_trees.awaits_round(pair, at):
        if not pair_trees.applies(node):
            moves.append(("begin", at))
        if not pair_trees.has_offer(pair, at):
            moves.append(("offer", 1 - at))
        elif pair_trees.applies(node) or pair_trees.is_whole(node):
            moves.append(("complete", at))
    if node.follows is not None and node.follows[0] == node.link and pair_trees.speak(pair):
        moves.append(("follows", at))
    if node.hindered:
        moves.append(("usable", at))
    return moves


def faults(pair: Pair, kinds: frozenset[str]) -> list[Move]:
    """Returns the faults and orders of these kinds that can strike now."""
    moves: list[Move] = []
    for at, node in enumerate(pair.nodes):
        if node.roles is not None and "crash" in kinds:
            moves.append(("crash", at))
        if node.powered and "power" in kinds:
            moves.append(("power", at))
        # Two freezes without time in between are one longer freeze.
        if node.awake and "freeze" in kinds and node.woke_at != pair.now:
            moves.append(("freeze", at))
        if node.awake and node.roles and node.roles.phase is not Phase.STOPPED:
            for order in ORDERS:
                if order not in kinds:
                    continue
                on = node.roles.record.maintenance
                if (order == "maintenance on" and on) or (order == "maintenance off" and not on):
                    continue
                if order == "workload gave up" and node.running is None:
                    continue
                moves.append((order, at))
        if node.awake and "hindered" in kinds and pair.trees and not node.hindered:
            moves.append(("hindered", at))
        if node.awake and "catch-up fails" in kinds and node.catching_up:
            moves.append(("catch-up fails", at))
        if node.awake and "final changes stuck" in kinds and node.finishing is not None:
            moves.append(("final changes stuck", at))
    if "partition" in kinds and not pair.blocked:
        moves += [("partition", unheard) for unheard in PARTITIONS]
    if "reset" in kinds:
        for number, connection in pair.connections.items():
            if any(end.over for end in connection.ends):
                continue
            arriving = [range(len(end.inbox) + 1) for end in connection.ends]
            moves += [("reset", number, *kept) for kept in product(*arriving)]
    return moves


def apply(pair: Pair, move: Move) -> None:
    """Lets a move happen. Raises BrokenPromiseError when it breaks one."""
    name, *arguments = move
    if name == "then crash":
        pair.crash_after = arguments[1]
        apply(pair, arguments[0])
        pair.crash_after = None
    elif name in _ON_PAIR:
        _ON_PAIR[name](pair, *arguments)
    elif name in ORDERS:
        pair.tell(arguments[0], ORDERS[name])
    elif name in TREES:
        _of_trees(pair, name, arguments[0])
    elif name in ("caught up", "late answer"):
        _caught_up(pair, arguments[0], late=name == "late answer")
    else:
        _fact(pair, name, arguments[0] if arguments else BACKUP)


def _fact(pair: Pair, name: str, at: int) -> None:
    node = pair.nodes[at]
    if name == "fence":
        node.running, node.fence_at, node.frozen_untold = None, None, True
    elif name == "reap":
        node.running = None
    elif name == "frozen":
        node.frozen_untold = False
        pair.tell(at, told.Frozen("this agent was frozen"))
    elif name == "beacon":
        beacon, node.beacon = node.beacon, None
        assert beacon is not None
        pair.tell(at, beacon)
    elif name == "stopped":
        node.running = node.stop_by = None
        pair.tell(at, told.WorkloadEnded())
    elif name == "finished":
        delivered = not pair.trees or pair_trees.has_everything(pair, 1 - at)
        _finished(pair, at, "" if delivered else "the other node is not up to date")
    elif name == "timer":
        pair.tell(at, told.TimerFired())
    elif name == "proven gone":
        pair.tell(at, told.PeerProvenGone())
    else:
        raise AssertionError(f"no such move: {name}")


def _caught_up(pair: Pair, at: int, *, late: bool) -> None:
    node = pair.nodes[at]
    *before, last = node.catching_up
    node.catching_up = (last,) if late else tuple(before)
    pair.tell(at, told.CaughtUp(before[-1] if late else last))


def _of_trees(pair: Pair, name: str, at: int) -> None:
    node = pair.nodes[at]
    if name in ("offer", "begin", "complete", "follows"):
        getattr(pair_trees, name)(pair, at)
    elif name in ("hindered", "usable"):
        node.hindered = name == "hindered"
        pair.tell(at, told.TreesHindered(pair_trees.OBSTACLE if node.hindered else ""))
    elif name == "catch-up fails":
        *before, order = node.catching_up
        node.catching_up = tuple(before)
        pair.tell(at, told.CatchUpFailed(order, "the disk is full"))
    else:
        _finished(pair, at, "the other node's disk is full")


def _finished(pair: Pair, at: int, undelivered: str) -> None:
    node = pair.nodes[at]
    assert node.finishing is not None
    order, node.finishing = node.finishing, None
    node.goes_on = True
    pair.tell(at, told.FinalChangesSent(order, undelivered))
    pair.nodes[at].goes_on = False


def _reset(pair: Pair, number: int, *kept: int) -> None:
    for end, count in zip(pair.connections[number].ends, kept, strict=True):
        end.inbox = (*end.inbox[:count], Last(told.LinkLoss.CLOSED))


_ON_PAIR: dict[str, Callable[..., None]] = {
    "deliver": Pair.deliver,
    "silence": Pair.silence,
    "connect": Pair.connect,
    "boot": Pair.boot,
    "wake": wake,
    "heal": lambda pair: partition(pair, frozenset()),
    "crash": Pair.crash,
    "power": lambda pair, at: pair.crash(at, power=True),
    "freeze": freeze,
    "partition": partition,
    "reset": _reset,
    "time": pass_time,
}


def told_of(move: Move) -> int | None:
    """Returns the node whose roles a move tells something."""
    if move[0] in TOLD or move[0] in ORDERS:
        return int(move[1])
    return BACKUP if move[0] == "proven gone" else None


def sentence(move: Move) -> str:
    """Returns a move in words."""
    name, *arguments = move
    if name == "then crash":
        at = told_of(arguments[0])
        assert at is not None
        return f"{sentence(arguments[0])}; {NAMES[at]} crashes after {arguments[1]} effects of it"
    if name == "partition":
        return "unheard from now on: " + " and ".join(NAMES[at] for at in sorted(arguments[0]))
    if name in ("connect", "heal", "time", "proven gone", "reset"):
        return " ".join(str(each) for each in move)
    return f"{name} at {NAMES[arguments[0]]}" + (f" (connection {arguments[1]})" if len(arguments) > 1 else "")
