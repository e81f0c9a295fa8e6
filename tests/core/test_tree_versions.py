"""Which node is newer is told from both nodes' notes alone, and told rightly after whatever befell them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.core.tree_versions import (
    Relation,
    TreeVersion,
    followed,
    merged,
    offered,
    relation,
    went_on_alone,
    written,
)

MIRRORED = {
    Relation.SAME: Relation.SAME,
    Relation.AHEAD: Relation.BEHIND,
    Relation.BEHIND: Relation.AHEAD,
    Relation.BOTH_CHANGED: Relation.BOTH_CHANGED,
    Relation.UNRELATED: Relation.UNRELATED,
}
EVERY_VERSION = [
    TreeVersion(data, alone, base, offer)
    for data, alone, base, offer in product(range(4), (False, True), range(4), range(4))
]


@pytest.mark.parametrize(
    ("own", "peer", "expected"),
    [
        (TreeVersion(), TreeVersion(), Relation.SAME),
        (TreeVersion(1, True), TreeVersion(), Relation.UNRELATED),  # nothing was ever given to the other
        (TreeVersion(1, False, 1), TreeVersion(1, False, 1), Relation.SAME),
        (TreeVersion(1, True, 1), TreeVersion(1, False, 1), Relation.AHEAD),
        (TreeVersion(3, True, 1), TreeVersion(1, False, 1), Relation.AHEAD),
        (TreeVersion(3, True, 1), TreeVersion(1, True, 1), Relation.BOTH_CHANGED),
        (TreeVersion(3, True, 1), TreeVersion(2, True, 1), Relation.BOTH_CHANGED),
        (TreeVersion(3, True, 1, 3), TreeVersion(3, False, 3), Relation.AHEAD),  # it took the offer
        (TreeVersion(5, True, 1, 3), TreeVersion(3, False, 3), Relation.AHEAD),
        (TreeVersion(5, True, 1, 3), TreeVersion(1, False, 1), Relation.AHEAD),  # it did not
        (TreeVersion(5, True, 1, 3), TreeVersion(4, True, 3), Relation.BOTH_CHANGED),
        (TreeVersion(5, True, 1, 3), TreeVersion(2, True, 1), Relation.BOTH_CHANGED),
        (TreeVersion(1, True), TreeVersion(2, True), Relation.UNRELATED),
        (TreeVersion(5, True, 3), TreeVersion(4, True, 1), Relation.UNRELATED),
        (TreeVersion(2, False, 1), TreeVersion(1, False, 2), Relation.BOTH_CHANGED),  # no history leads there
        (TreeVersion(0, True, 3), TreeVersion(3, False, 3), Relation.UNRELATED),
    ],
)
def test_the_verdict(own: TreeVersion, peer: TreeVersion, expected: Relation) -> None:
    assert relation(own, peer) is expected
    assert relation(peer, own) is MIRRORED[expected]


def test_both_nodes_reach_the_same_verdict_whatever_they_say_of_themselves() -> None:
    for own, peer in product(EVERY_VERSION, repeat=2):
        assert relation(peer, own) is MIRRORED[relation(own, peer)]


def test_a_node_is_never_behind_when_it_may_hold_what_the_other_was_not_given() -> None:
    for own, peer in product(EVERY_VERSION, repeat=2):
        assert not (own.alone and relation(own, peer) in (Relation.SAME, Relation.BEHIND) and own.data_term)


# --- histories: two nodes that take turns, fall apart, crash and meet again -------------------------------------------


@dataclass
class Node:
    """A node's note, and what its trees really hold: a number for each write."""

    lane: int
    version: TreeVersion = field(default_factory=TreeVersion)
    holds: set[int] = field(default_factory=set)
    active: bool = False
    known_term: int = 0


class History:
    """Two nodes, 0 the primary, that do to their notes what the module's table says."""

    def __init__(self) -> None:
        self.nodes = (Node(lane=1), Node(lane=0))
        self.linked = False
        self.in_step = False  # the standby follows the active node, write by write
        self.met = False  # both had the same at least once since either had nothing
        self.note_lost = False  # a round's end reached one node only
        self.last_moment: set[int] = set()  # writes that a crash kept from the other node
        self._writes = 0

    def write(self, node: Node) -> int:
        self._writes += 1
        node.holds.add(self._writes)
        if self.in_step:
            self.other(node).holds.add(self._writes)
        return self._writes

    def other(self, node: Node) -> Node:
        return self.nodes[1 - self.nodes.index(node)]

    def activate(self, node: Node) -> None:
        """Activates a node if roles allow it: alone, or with trees that lack nothing of the other's."""
        rival = self.other(node)
        newer = relation(node.version, rival.version) in (Relation.SAME, Relation.AHEAD)
        if node.active or (self.linked and (rival.active or not newer)):
            return
        term = max(node.known_term, rival.known_term if self.linked else 0) + 1
        node.known_term = term + (term % 2 != node.lane)
        self.in_step = False
        node.version = written(node.version, node.known_term)
        node.active = True
        self.write(node)

    def stop(self, node: Node) -> None:
        if node.active:
            node.active = False
            self.in_step = False

    def crash(self, node: Node, *, unsent: bool) -> None:
        """Cuts a node's power, perhaps between a write and its way to the other node."""
        if unsent and node.active and self.in_step:
            self.in_step = False
            self.last_moment.add(self.write(node))
        node.active = False
        self.part(crashed=node)

    def lose_disk(self, node: Node) -> None:
        self.crash(node, unsent=False)
        node.version, node.holds = TreeVersion(), set()
        self.met = self.note_lost = False

    def part(self, crashed: Node | None = None) -> None:
        self.linked = False
        self.in_step, was_in_step = False, self.in_step
        for node in self.nodes:
            if node.active and was_in_step and node is not crashed:
                node.version = went_on_alone(node.version)
                self.write(node)

    def meet(self, *, merging: bool, steps: int) -> None:
        """Links the nodes and brings the one that lacks something in step; after `steps` steps the link is lost."""
        primary, backup = self.nodes
        self.linked = True
        primary.known_term = backup.known_term = max(primary.known_term, backup.known_term)
        if primary.active and backup.active:
            self.stop(backup)
        verdict = relation(primary.version, backup.version)
        source, sink = primary, backup
        if verdict is Relation.BEHIND or not primary.version.data_term:
            source, sink = backup, primary
        elif verdict is Relation.BOTH_CHANGED and merging and not primary.active:
            return self.merge(source=backup, sink=primary, steps=steps)
        if sink.active:
            self.stop(sink)  # a node that is active without being newer steps down
        if verdict is Relation.SAME:
            self.in_step = source.active
            return None
        source.version = offered(source.version, sink.version)
        if steps == 0:
            return self.part()
        sink.holds = set(source.holds)
        if steps == 1:
            return self.lose_note()
        sink.version = followed(source.version)
        self.met = True
        if steps == 2:
            return self.lose_note()
        source.version = followed(source.version)
        self.note_lost, self.in_step = False, source.active
        return None

    def merge(self, source: Node, sink: Node, steps: int) -> None:
        self.stop(source)
        source.version = offered(source.version, sink.version)
        if steps == 0:
            return self.part()
        sink.holds |= source.holds
        if steps == 1:
            return self.lose_note()
        sink.version = merged(source.version)
        self.met = True
        if steps == 2:
            return self.lose_note()
        source.version = followed(source.version)  # the sink is ahead, or after a lost note only called so
        return None

    def lose_note(self) -> None:
        self.note_lost = True
        self.part()

    def check(self) -> None:
        primary, backup = self.nodes
        verdict = relation(primary.version, backup.version)
        if not primary.version.data_term and not backup.version.data_term:
            return  # no history: whatever lies there was never noted as whole
        primary_more = primary.holds - backup.holds - self.last_moment
        backup_more = backup.holds - primary.holds - self.last_moment
        if verdict in (Relation.SAME, Relation.AHEAD):
            assert not backup_more
        if verdict in (Relation.SAME, Relation.BEHIND):
            assert not primary_more
        assert not (self.met and verdict is Relation.UNRELATED)
        if self.met and not self.note_lost:
            truth = {
                (False, False): Relation.SAME,
                (True, False): Relation.AHEAD,
                (False, True): Relation.BEHIND,
                (True, True): Relation.BOTH_CHANGED,
            }
            assert verdict is truth[bool(primary_more), bool(backup_more)]


Happening = tuple[str, int, int]
happenings = st.one_of(
    st.tuples(st.sampled_from(["activate", "write", "stop", "crash", "unsent"]), st.integers(0, 1), st.just(0)),
    st.tuples(st.sampled_from(["meet", "merge"]), st.just(0), st.sampled_from([3, 3, 3, 2, 1, 0])),
    st.tuples(st.sampled_from(["part", "part", "lose disk"]), st.integers(0, 1), st.just(0)),
)
IN_STEP: list[Happening] = [("activate", 0, 0), ("meet", 0, 3)]


@settings(deadline=None)
@given(st.lists(happenings, max_size=25).map(lambda more: IN_STEP + more))
@example([*IN_STEP, ("part", 0, 0), ("activate", 0, 0), ("meet", 0, 2), ("activate", 0, 0)])
def test_i2_the_verdict_agrees_with_what_really_happened(history: list[Happening]) -> None:
    play(history)


def test_i2_long_histories_end_with_the_right_verdict_too() -> None:
    for seed in range(2000):
        random = Random(seed)
        history: list[Happening] = []
        for _ in range(random.randint(1, 40)):
            lot = random.random()
            if lot < 0.5:
                what = random.choice(["activate", "activate", "write", "stop", "crash", "unsent"])
                history.append((what, random.randint(0, 1), 0))
            elif lot < 0.8:
                history.append((random.choice(["meet", "merge"]), 0, random.choice([3, 3, 3, 2, 1, 0])))
            elif lot < 0.99:
                history.append(PART)
            else:
                history.append(("lose disk", random.randint(0, 1), 0))
        try:
            play(IN_STEP + history)
        except AssertionError as error:
            pytest.fail(f"seed {seed}: {history}: {error}")


def play(history: list[Happening]) -> History:
    pair = History()
    for what, which, steps in history:
        node = pair.nodes[which]
        if what == "activate":
            pair.activate(node)
        elif what == "write" and node.active:
            if not pair.in_step:
                assert node.version.alone
            pair.write(node)
        elif what == "stop":
            pair.stop(node)
        elif what in ("crash", "unsent"):
            pair.crash(node, unsent=what == "unsent")
        elif what in ("meet", "merge"):
            pair.meet(merging=what == "merge", steps=steps)
        elif what == "part":
            pair.part()
        elif what == "lose disk":
            pair.lose_disk(node)
        pair.check()
    return pair


PART: Happening = ("part", 0, 0)
PRIMARY_ACTS: Happening = ("activate", 0, 0)
BACKUP_ACTS: Happening = ("activate", 1, 0)
PRIMARY_STOPS: Happening = ("stop", 0, 0)
PRIMARY_FALLS: Happening = ("crash", 0, 0)
BACKUP_FALLS: Happening = ("crash", 1, 0)
MEET: Happening = ("meet", 0, 3)
MERGE: Happening = ("merge", 0, 3)


@pytest.mark.parametrize(
    ("story", "verdict"),
    [
        ([], Relation.SAME),
        ([PRIMARY_STOPS], Relation.SAME),
        ([PRIMARY_STOPS, BACKUP_ACTS], Relation.BEHIND),  # handed over
        ([PRIMARY_STOPS, BACKUP_ACTS, MEET], Relation.SAME),
        ([PRIMARY_FALLS, BACKUP_ACTS], Relation.BEHIND),  # taken over
        ([("unsent", 0, 0), BACKUP_ACTS], Relation.BEHIND),
        ([PRIMARY_FALLS, BACKUP_ACTS, BACKUP_FALLS, BACKUP_ACTS], Relation.BEHIND),  # restarted while alone
        ([PRIMARY_FALLS, BACKUP_ACTS, BACKUP_FALLS, PRIMARY_ACTS], Relation.BOTH_CHANGED),
        ([PART], Relation.AHEAD),  # the backup was not granted to take over
        ([PART, PRIMARY_FALLS, PRIMARY_ACTS], Relation.AHEAD),
        ([PART, BACKUP_ACTS], Relation.BOTH_CHANGED),  # a full partition
        ([PART, BACKUP_ACTS, BACKUP_FALLS, BACKUP_ACTS, PRIMARY_FALLS, PRIMARY_ACTS], Relation.BOTH_CHANGED),
        ([PART, BACKUP_ACTS, MEET], Relation.SAME),  # the primary's wins
        ([PART, BACKUP_ACTS, PRIMARY_FALLS, MERGE], Relation.AHEAD),  # the primary has both
        ([PART, BACKUP_ACTS, PRIMARY_FALLS, MERGE, PRIMARY_ACTS], Relation.AHEAD),
        ([PART, BACKUP_ACTS, PRIMARY_FALLS, MERGE, PRIMARY_ACTS, MEET], Relation.SAME),
        ([("lose disk", 1, 0)], Relation.UNRELATED),
        ([("lose disk", 1, 0), MEET], Relation.SAME),
        ([("lose disk", 1, 0), ("lose disk", 0, 0)], Relation.SAME),
        ([("lose disk", 0, 0), PRIMARY_ACTS, BACKUP_ACTS], Relation.UNRELATED),
    ],
)
def test_histories(story: list[Happening], verdict: Relation) -> None:
    primary, backup = play([*IN_STEP, *story]).nodes
    assert relation(primary.version, backup.version) is verdict


@pytest.mark.parametrize("steps", range(3))
def test_n14_a_round_that_ends_for_one_node_only_leaves_a_source_that_is_ahead(steps: int) -> None:
    """However often the source is restarted before the two meet again."""
    story: list[Happening] = [*IN_STEP, PART, PRIMARY_FALLS, PRIMARY_ACTS, ("meet", 0, steps)]
    for _ in range(3):
        primary, backup = play(story).nodes
        assert relation(primary.version, backup.version) is Relation.AHEAD
        story += [PRIMARY_FALLS, PRIMARY_ACTS]


@pytest.mark.parametrize("steps", range(3))
def test_n14_both_having_written_is_seen_when_the_sink_of_a_broken_round_took_over(steps: int) -> None:
    story: list[Happening] = [*IN_STEP, PART, PRIMARY_FALLS, PRIMARY_ACTS, ("meet", 0, steps)]
    story += [BACKUP_ACTS, PRIMARY_FALLS, PRIMARY_ACTS]
    primary, backup = play(story).nodes
    assert relation(primary.version, backup.version) is Relation.BOTH_CHANGED
