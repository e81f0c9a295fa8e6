"""What a peer that keeps no rule can do: end the session, and have single names refused; the tree stays as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.core.bulk_messages import (
    ENTRIES_MAX,
    Applied,
    Begin,
    Copy,
    End,
    Fetch,
    FetchSmall,
    Files,
    Follow,
    Hold,
    Look,
    Mark,
    Standing,
    Zeros,
)
from agent.core.tree_entries import Entry, EntryKind
from tests.replica.hostile_peer import INDEX, HostilePeer, digest, file, link, run, small
from tests.replica.two_workers import FOLLOWING, SERVING, Worker, until

BIG = 100_000
OWN = {"own": b"the sink's own", "old": b"o" * BIG}


@pytest.fixture
def sink(tmp_path: Path) -> Worker:
    worker = Worker(tmp_path / "sink", FOLLOWING)
    for name, contents in OWN.items():
        (worker.data / name).write_bytes(contents)
    return worker


@pytest.fixture
def source(tmp_path: Path) -> Worker:
    worker = Worker(tmp_path / "source", SERVING)
    (worker.data / "one").write_bytes(b"one")
    (worker.data / "big").write_bytes(os.urandom(BIG))
    (tmp_path / "secret").write_bytes(b"outside of the tree")
    return worker


NAMES = [
    *("..", "../up", "a/../../up", "/etc/passwd", "a//b", "a/./b", "", "a/", "C:x", "back\\slash", "con", "dot."),
    *("a\0b", ".pair-agent", ".pair-agent/staging-data/x", ".PAIR-AGENT/x", "n" * 256, "/".join("n" * 99), "é" * 200),
    "e\u0301",
]
TARGETS = ["/etc/passwd", "../out", "a/../../out", "..", "", "\\\\host\\x", "C:/x", ".pair-agent/x", "t" * 2000]


def test_d13_names_that_lead_out_of_the_tree_are_refused_and_the_rest_comes_over(sink: Worker) -> None:
    async def main() -> None:
        async with HostilePeer(sink) as peer:
            bad = [file(name) for name in NAMES] + [link(f"link {n}", each) for n, each in enumerate(TARGETS)]
            wanted = await peer.until_asked_small([file("good"), *bad, file("also good"), link("link", "good")])
            assert wanted.paths == ("also good", "good")
            await peer.send(Files(wanted.number, (small(), small())))
            await peer.receive(Applied)
            assert sink.contents() == {"also good": b"contents", "good": b"contents", "link": "good"}
            assert len(sink.sentences("name-refused")) == len(NAMES) + len(TARGETS)
            assert {path.name for path in sink.folder.parent.iterdir()} == {"sink"}

    run(main)


def test_d13_a_path_below_a_link_never_reaches_what_the_link_leads_to(sink: Worker) -> None:
    """Neither one that the peer makes itself, nor one that somebody made here."""

    async def main() -> None:
        outside = sink.folder / "outside"
        outside.mkdir()
        (sink.data / "here").symlink_to(outside)
        async with HostilePeer(sink) as peer:
            entries = [link("a", "b"), Entry("b", EntryKind.FOLDER, mode=0o755), file("a/x"), file("here/x")]
            wanted = await peer.until_asked_small(entries)
            await peer.send(Files(wanted.number, tuple(small() for _ in wanted.paths)))
            await peer.receive(Applied)
            assert list(outside.iterdir()) == []
            assert list((sink.data / "b").iterdir()) == []

    run(main)


OUT_OF_ORDER: dict[str, list[Any]] = {
    "files that were not asked for": [Files(77, (small(),))],
    "more files than were asked for": [Files(0, (small(), small(), small()))],
    "no files at all": [Files(0, ())],
    "a big file in place of small ones": [Begin(0, 3), b"abc", End(0, "", 3, digest(b"abc"), 1, 0o644)],
    "data": [b"data"],
    "a copy": [Copy(0, 4)],
    "zeros": [Zeros(4)],
    "an end": [End(77, "", 0, digest(b""), 1, 0o644)],
}


@pytest.mark.parametrize("messages", OUT_OF_ORDER.values(), ids=OUT_OF_ORDER)
def test_contents_that_do_not_answer_what_was_asked_end_the_session_and_change_nothing(
    sink: Worker, messages: list[Any]
) -> None:
    async def main() -> None:
        async with HostilePeer(sink) as peer:
            wanted = await peer.until_asked_small([file("good"), file("own", b"other")])
            await peer.send(*numbered(messages, wanted.number))
            await peer.ended()
        check_nothing_changed(sink)

    run(main)


BIG_FILE_ABUSED: dict[str, list[Any]] = {
    "data without a beginning": [b"data"],
    "a copy without a beginning": [Copy(0, 4)],
    "an end without a beginning": [End(0, "", 4, digest(b"data"), 1, 0o644)],
    "a beginning of another file": [Begin(77, 4)],
    "an end of another file": [Begin(0, 4), b"data", End(77, "", 4, digest(b"data"), 1, 0o644)],
    "a copy from behind the end": [Begin(0, BIG), Copy(BIG - 10, 11)],
    "a copy from far behind the end": [Begin(0, BIG), Copy(2**62, 2**62)],
    "small files in between": [Begin(0, BIG), b"data", Files(0, (small(),))],
}


@pytest.mark.parametrize("messages", BIG_FILE_ABUSED.values(), ids=BIG_FILE_ABUSED)
def test_a_big_file_that_is_not_sent_by_the_rules_ends_the_session_and_changes_nothing(
    sink: Worker, messages: list[Any]
) -> None:
    async def main() -> None:
        async with HostilePeer(sink) as peer:
            wanted = await peer.until_asked_big(file("old", size=BIG + 1))
            assert wanted.signature > 0
            await peer.send(*numbered(messages, wanted.number))
            await peer.ended()
        check_nothing_changed(sink)

    run(main)


def test_a_file_without_an_older_version_cannot_be_made_of_copies(sink: Worker) -> None:
    async def main() -> None:
        async with HostilePeer(sink) as peer:
            wanted = await peer.until_asked_big(file("new", size=BIG))
            await peer.send(Begin(wanted.number, BIG), Copy(0, 1))
            await peer.ended()
        check_nothing_changed(sink)

    run(main)


def test_what_comes_of_another_follow_does_not_count(sink: Worker) -> None:
    async def main() -> None:
        async with HostilePeer(sink) as peer:
            standing = Standing("data", "data", "folder", INDEX, 1, 1, "")
            await peer.send(Hold(False, 2, True, 1, 0, (standing,)))
            follow = await peer.receive(Follow)
            await peer.send(
                peer.changes(Follow(follow.number + 1, "data", b"", 0, 0), [file("stale")]),
                peer.mark(follow, number=follow.number + 1),
                Mark(follow.number, "another tree", INDEX, 9, True, 0, 2, 0, 0),
            )
            await trio.sleep(0.2)
            assert ("permit",) not in [each[:1] for each in sink.told]
            await peer.send(
                peer.changes(follow, [file("own", OWN["own"]), file("old", OWN["old"])]),
                peer.mark(follow),
            )
            wanted = await peer.receive(FetchSmall)
            assert wanted.paths == ("own",)
            assert ("permit",) not in [each[:1] for each in sink.told]
        check_nothing_changed(sink)

    run(main)


def test_a_file_that_the_peer_cannot_read_is_told_by_name_and_the_rest_comes_over(sink: Worker) -> None:
    async def main() -> None:
        async with HostilePeer(sink) as peer:
            wanted = await peer.until_asked_small([file("bad"), file("good"), file("own")])
            await peer.send(Files(wanted.number, (small(problem="no\x07 luck"), small(), small())))
            applied = await peer.receive(Applied)
            assert [path for path, _ in applied.refused] == ["bad"]
            assert sink.contents() == {"good": b"contents", "own": b"contents"}
            assert sink.archived() == sorted(OWN.values())

    run(main)


# -- as a sink


async def follow(peer: HostilePeer) -> Mark:
    await peer.send(Hold(False, 1, False, 1, 0, ()), Follow(1, "data", b"", 0, Look.NONE))
    return await peer.receive(Mark)


def test_a_source_hands_out_nothing_that_is_no_file_of_the_tree(source: Worker) -> None:
    async def main() -> None:
        (source.data / "link").symlink_to("../../secret")
        async with HostilePeer(source) as peer:
            await follow(peer)
            paths = ("../../secret", "../secret", str(source.folder.parent / "secret"), "link", "", ".", "nothing")
            await peer.send(FetchSmall(1, "data", paths), FetchSmall(2, "another tree", ("one",)))
            for number, count in ((1, len(paths)), (2, 1)):
                files = await peer.receive(Files)
                assert files.number == number
                assert [each.problem for each in files.files] == ["it is gone"] * count
                assert b"".join(each.contents for each in files.files) == b""
            await peer.send(Fetch(3, "data", "../../secret", b"", 0))
            assert (await peer.receive(End)).problem == "it is gone"

    run(main)


def test_a_source_follows_no_link_that_took_the_place_of_a_file_after_it_was_told(source: Worker) -> None:
    async def main() -> None:
        async with HostilePeer(source) as peer:
            await follow(peer)
            for name in ("one", "big"):
                (source.data / name).unlink()
                (source.data / name).symlink_to("../../secret")
            await peer.send(FetchSmall(1, "data", ("one",)), Fetch(2, "data", "big", b"", 0))
            (answer,) = (await peer.receive(Files)).files
            assert answer.problem
            assert answer.contents == b""
            assert (await peer.receive(End)).problem

    run(main)


AS_A_SINK: dict[str, list[Any]] = {
    "a signature beyond all bounds": [Fetch(1, "data", "big", b"", 2**40)],
    "half a signature": [Fetch(1, "data", "big", b"", 4), b"half"],
    "a signature longer than announced": [Fetch(1, "data", "big", b"", 4), b"too long"],
    "a file before the signature of another": [Fetch(1, "data", "big", b"", 400), Fetch(2, "data", "big", b"", 400)],
    "small files before the signature of another": [Fetch(1, "data", "big", b"", 400), FetchSmall(2, "data", ("one",))],
    "too many files": [FetchSmall(number, "data", ("one",) * ENTRIES_MAX) for number in range(5000)],
    "applied what was not told": [Applied(1, "data", 2**60, 0, (), 0, 0)],
}


@pytest.mark.parametrize("messages", AS_A_SINK.values(), ids=AS_A_SINK)
def test_a_sink_that_keeps_no_rule_ends_the_session(source: Worker, messages: list[Any]) -> None:
    async def main() -> None:
        before = source.contents()
        async with HostilePeer(source) as peer:
            await follow(peer)
            await peer.send(*messages)
            await peer.ended()
        assert source.contents() == before
        assert source.index.has_local("data"), "nobody has what stands here"

    run(main)


def test_a_final_number_that_nobody_gave_ends_nothing(source: Worker) -> None:
    async def main() -> None:
        async with HostilePeer(source) as peer:
            mark = await follow(peer)
            await peer.send(Applied(mark.number, "data", mark.seq, 55, (), 0, 0))
            await until(lambda: ("followed", 2) in source.told)
            outcome: list[str] = []
            assert source.session is not None
            source.session.source.finish(55, outcome.append)
            await peer.receive(Mark)
            assert outcome == []

    run(main)


def numbered(messages: list[Any], number: int) -> list[Any]:
    """Gives those with the number 0 the one that was asked for."""
    return [
        type(each)(number, *[getattr(each, name) for name in each.__slots__[1:]])
        if getattr(each, "number", None) == 0
        else each
        for each in messages
    ]


def check_nothing_changed(sink: Worker) -> None:
    assert sink.contents() == OWN
    assert sink.archived() == []
