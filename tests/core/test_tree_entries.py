"""What counts as the same: contents only where both are known, attributes only where both nodes have them."""

from __future__ import annotations

from dataclasses import replace

from agent.core.tree_entries import DIGEST_BYTES, Entry, EntryKind

FILE = Entry("p", EntryKind.FILE, size=1, mtime_ns=1, mode=0o644, digest=b"1" * DIGEST_BYTES)
FOLDER = Entry("p", EntryKind.FOLDER, mode=0o755)
LINK = Entry("p", EntryKind.LINK, target="here")


def test_contents_that_were_not_read_are_never_the_same() -> None:
    unread = replace(FILE, digest=b"")
    assert FILE.same_contents(FILE)
    for one, other in ((FILE, unread), (unread, FILE), (unread, unread)):
        assert not one.same_contents(other)


def test_contents_differ_by_digest_size_kind_and_target() -> None:
    differing = [replace(FILE, digest=b"2" * DIGEST_BYTES), replace(FILE, size=2), FOLDER, LINK, None]
    assert not any(FILE.same_contents(other) for other in differing)
    assert FOLDER.same_contents(replace(FOLDER, mode=None))
    assert LINK.same_contents(replace(LINK, mtime_ns=5))
    assert not LINK.same_contents(replace(LINK, target="there"))


def test_times_and_permission_bits_are_attributes_and_no_contents() -> None:
    for other in (replace(FILE, mtime_ns=2), replace(FILE, mode=0o600)):
        assert FILE.same_contents(other)
        assert not FILE.same_attributes(other)


def test_a_node_without_permission_bits_agrees_with_any() -> None:
    for entry in (FILE, FOLDER):
        assert entry.same_attributes(replace(entry, mode=None))
        assert replace(entry, mode=None).same_attributes(entry)
    assert FOLDER.same_attributes(replace(FOLDER, mtime_ns=9))  # a folder's time changes with what lies in it
