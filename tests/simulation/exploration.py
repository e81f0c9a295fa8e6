"""Walks through every state of the modelled pair that a number of faults can lead to, shortest schedules first.

From each new state the pair must also find home by itself (`tests.simulation.homecoming`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.simulation.homecoming import Homecoming, Way, homeward
from tests.simulation.moves import Move, apply, faults, sentence, told_of, unhurried, urgent
from tests.simulation.pair_model import Pair
from tests.simulation.pair_time import next_instant
from tests.simulation.pair_values import BrokenPromiseError

EFFECTS_MAX = 5  # in one list; a crash is tried before each and after the last
TRANSCRIPT_HOME_MOVES_MAX = 40

Start = Callable[[], Pair]


@dataclass
class Figures:
    """What an exploration came to."""

    states: int = 0
    moves: int = 0
    depth: int = 0
    homecomings: int = 0
    longest_home_s: int = 0
    most_messages: int = 0


@dataclass(frozen=True)
class Bounds:
    """How far an exploration goes."""

    faults_max: int
    kinds: frozenset[str]
    crash_within: bool = False  # between the effects of one list, as one fault
    ways: tuple[Way, ...] = tuple(Way)
    states_max: int = 1_000_000


class Exploration:
    """One breadth-first walk; `run` raises BrokenPromiseError with the schedule that led there."""

    def __init__(self, start: Start, bounds: Bounds) -> None:
        self._start = start
        self._bounds = bounds
        self._came_from: dict[int, tuple[int, Move]] = {}
        self._home = Homecoming()
        self.figures = Figures()

    def run(self) -> Figures:
        """Walks until nothing is new; too many states for the bounds are a failure too."""
        first, figures = self._start(), self.figures
        key = hash((first.key(), 0))
        self._came_from[key] = (0, ())
        level = [(key, first, 0)]
        while level:
            figures.depth += 1
            level = [found for key, pair, spent in level for found in self._expand(key, pair, spent)]
            figures.states = len(self._came_from)
            if figures.states > self._bounds.states_max:
                raise BrokenPromiseError(f"more than {self._bounds.states_max} states at depth {figures.depth}")
        figures.homecomings = len(self._home.known)
        figures.longest_home_s = self._home.longest_s
        figures.most_messages = self._home.most_messages
        return figures

    def _expand(self, key: int, pair: Pair, spent: int) -> Iterator[tuple[int, Pair, int]]:
        for move, cost in self._moves(pair, spent):
            following = pair.clone()
            self.figures.moves += 1
            try:
                apply(following, move)
                following_key = following.key()
                new = hash((following_key, spent + cost))
                if new in self._came_from:
                    continue
                for way in self._bounds.ways:
                    self._home.check(following, following_key, way)
            except AssertionError as broken:
                raise BrokenPromiseError(f"{broken}\n{self._schedule(key, move)}") from broken
            self._came_from[new] = (key, move)
            yield new, following, spent + cost

    def _moves(self, pair: Pair, spent: int) -> Iterator[tuple[Move, int]]:
        at_once = urgent(pair)
        happening = [*at_once, *unhurried(pair)]
        for move in happening:
            yield move, 0
        if not at_once and next_instant(pair) is not None:
            yield ("time",), 0
        if spent == self._bounds.faults_max:
            return
        for move in faults(pair, self._bounds.kinds):
            yield move, 1
        if self._bounds.crash_within:
            for move in happening:
                if told_of(move) is not None:
                    for effects in range(EFFECTS_MAX + 1):
                        yield ("then crash", move, effects), 1

    def _schedule(self, key: int, move: Move) -> str:
        moves = [move]
        while self._came_from[key][1]:
            key, before = self._came_from[key]
            moves.append(before)
        return transcript(self._start(), moves[::-1])


def transcript(pair: Pair, moves: list[Move]) -> str:
    """Returns a schedule, played again, as lines to read."""
    lines: list[str] = []

    def played(move: Move) -> bool:
        lines.append(f"{pair.now:4d} s  {sentence(move)}")
        pair.said.clear()
        try:
            apply(pair, move)
        except AssertionError as broken:
            lines.append(f"          BROKEN: {broken}")
            return False
        lines.extend(f"          {said}" for said in pair.said)
        return True

    if not all(played(move) for move in moves):
        return "\n".join(lines)
    lines.append("and then, without another fault:")
    for _ in range(TRANSCRIPT_HOME_MOVES_MAX):
        following = homeward(pair, Way.MENDED)
        if following is None or not played(following):
            break
    return "\n".join(lines)
