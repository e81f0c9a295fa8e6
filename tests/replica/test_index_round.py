"""A round in the index: what the source told leads to steps, the journal survives a crash, the end is one moment."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.errors import StateError
from agent.core.tree_entries import Entry, EntryKind
from agent.core.tree_plan import Decision, Deed, PlanMode, Want
from agent.replica.file_tree import Fingerprint, Found
from agent.replica.index import Index
from agent.replica.steps import Applied, Step, StepKind
from tests.replica.tree_scene import TREE, found_file, found_folder

SOURCE = b"source-index-id."


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "index.db")
    yield index
    index.close()


def digest_of(contents: str) -> bytes:
    return blake3(contents.encode()).digest()


def file(path: str, contents: str = "one", mtime_ns: int = 5) -> Entry:
    return Entry(path, EntryKind.FILE, len(contents), mtime_ns, 0o644, digest=digest_of(contents))


def folder(path: str) -> Entry:
    return Entry(path, EntryKind.FOLDER, mode=0o755)


def link(path: str, target: str) -> Entry:
    return Entry(path, EntryKind.LINK, target=target)


def want(entry: Entry | str, *, changed: bool = True) -> Want:
    """What the source has; a path alone is gone there."""
    return Want(entry, None, changed) if isinstance(entry, str) else Want(entry.path, entry, changed)


def stand(index: Index, *entries: Entry, local: bool = True) -> None:
    """Puts entries into the index, as scans and readings do."""
    found = [
        Found(replace(entry, digest=b""), Fingerprint(entry.size, entry.mtime_ns, number, 1), entry.path)
        for number, entry in enumerate(sorted(entries, key=lambda each: each.path.split("/")), start=1)
    ]
    index.update(TREE, found)
    index.note_digests(
        TREE, [(each.entry.path, each.fingerprint, entry.digest) for each in found for entry in entries
               if entry.path == each.entry.path and entry.digest]
    )  # fmt: skip
    if not local:
        index.mark_common(TREE, index.last_seq(TREE))


def plan(index: Index, mode: PlanMode = PlanMode.MIRROR) -> dict[str, Decision]:
    return {each.path: decision for each, _, decision in index.plan(TREE, mode)}


def deeds(index: Index, mode: PlanMode = PlanMode.MIRROR) -> dict[str, Deed]:
    return {path: decision.deed for path, decision in plan(index, mode).items()}


def tell(index: Index, *wants: Want, whole: bool = False) -> None:
    index.begin_incoming(TREE, whole)
    index.add_incoming(TREE, list(wants))


def standing(index: Index) -> dict[str, Entry]:
    return {each.path: each.entry for each in index.changes_after(TREE, 0, 1000) if each.entry is not None}


def local(index: Index) -> set[str]:
    return {each.path for each in index.changes_after(TREE, 0, 1000) if each.local}


def applied(entry: Entry | str) -> Applied:
    if isinstance(entry, str):
        return Applied(entry, None, None, entry)
    return Applied(entry.path, entry, Fingerprint(entry.size, entry.mtime_ns, 99, 99), entry.path)


def test_only_what_is_to_be_done_is_told(index: Index) -> None:
    stand(index, file("same"), file("changed"), file("gone"), file("untold"), folder("f"), local=False)
    tell(index, want(file("same")), want(file("changed", "two")), want("gone"), want(file("new")), want("never"))
    index.add_incoming(TREE, [want(folder("f")), want(link("l", "f")), want(file("same", mtime_ns=6))])
    assert deeds(index) == {
        "changed": Deed.FETCH,
        "gone": Deed.REMOVE,
        "new": Deed.FETCH,
        "l": Deed.MAKE_LINK,
        "same": Deed.ATTRIBUTES,  # the last word counts
    }


def test_in_a_whole_round_what_was_not_told_is_gone(index: Index) -> None:
    stand(index, file("same"), file("untold"), folder("f"), file("f/untold"), local=False)
    tell(index, want(file("same")), want(folder("f")), whole=True)
    assert deeds(index) == {"untold": Deed.REMOVE, "f/untold": Deed.REMOVE}
    index.drop_round(TREE)
    tell(index, want(file("same")))
    assert deeds(index) == {}
    index.incoming_is_whole(TREE)
    assert set(deeds(index)) == {"f", "untold", "f/untold"}


def test_the_rows_come_with_the_plan(index: Index) -> None:
    stand(index, file("a"), file("b"))
    stand(index, file("a"))
    tell(index, want(file("a", "two")), want(file("b", "two")), want(file("c")))
    rows = {each.path: row for each, row, _ in index.plan(TREE, PlanMode.MIRROR)}
    assert rows["a"] is not None
    assert rows["a"].entry == file("a")
    assert rows["b"] is None  # a tombstone
    assert rows["c"] is None


def test_own_changes_go_to_the_archive(index: Index) -> None:
    stand(index, file("a"))
    tell(index, want(file("a", "two")))
    assert plan(index)["a"].archive
    index.mark_common(TREE, index.last_seq(TREE))
    assert not plan(index)["a"].archive


def test_more_than_fits_into_memory_at_once_is_planned(index: Index) -> None:
    index.update(TREE, [found_file(f"{number:04}", inode=number) for number in range(2500)])
    tell(index, *[want(file(f"{number:04}", "other")) for number in range(1000, 3500)], whole=True)
    seen = []
    for each, _, decision in index.plan(TREE, PlanMode.MIRROR):
        seen.append((each.path, decision.deed))
        index.by_digest(TREE, b"x" * 32)  # and in between, other questions are asked
        index.note_staged(TREE, each.path, b"x" * 32)
    assert len(seen) == len(set(seen)) == 3500
    assert dict(seen) == {f"{n:04}": Deed.FETCH if n >= 1000 else Deed.REMOVE for n in range(3500)}


def test_results_are_taken_over_and_what_is_the_same_is_adopted(index: Index) -> None:
    stand(index, file("same"), file("changed"), file("gone"), file("own"))
    seq = index.last_seq(TREE)
    tell(index, want(file("same")), want(file("changed", "two")), want("gone"))
    assert len(plan(index)) == 2
    index.begin_apply(TREE, (SOURCE, 7))
    index.finish_apply(TREE, [applied("gone"), applied(file("changed", "two"))])
    assert standing(index) == {"same": file("same"), "changed": file("changed", "two"), "own": file("own")}
    assert local(index) == {"own"}
    assert index.peer_position(TREE) == (SOURCE, 7)
    assert {each.path for each in index.changes_after(TREE, seq, 10)} == {"gone", "changed"}
    row = index.row(TREE, "changed")
    assert row is not None
    assert row.fingerprint == Fingerprint(3, 5, 99, 99)
    assert index.totals(TREE) == (3, 9)


def test_the_next_scan_after_a_round_finds_nothing_new(index: Index) -> None:
    """Windows keeps no permission bits and cuts times: the row keeps what the source said."""
    entry = replace(file("a"), mtime_ns=123_456_789, mode=0o640)
    on_disk = Fingerprint(3, 123_456_700, 7, 0)
    tell(index, want(entry))
    plan(index)
    index.finish_apply(TREE, [Applied("a", entry, on_disk, "a")])
    found = Found(Entry("a", EntryKind.FILE, 3, 123_456_700, None), on_disk, "a")
    assert index.update(TREE, [found]).changed == 0
    assert standing(index)["a"] == entry


def test_a_row_that_changed_since_the_plan_is_not_adopted(index: Index) -> None:
    stand(index, file("a"))
    tell(index, want(file("a")))
    assert plan(index) == {}
    index.update(TREE, [found_file("a", size=50)])
    index.finish_apply(TREE, [])
    assert local(index) == {"a"}


def test_what_stood_in_a_folder_that_gave_way_is_gone_with_it(index: Index) -> None:
    stand(index, folder("a"), file("a/x"), folder("a/b"), file("a/b/y"), file("a b"))
    tell(index, want(file("a")))
    plan(index)
    index.finish_apply(TREE, [applied(file("a"))])
    assert set(standing(index)) == {"a", "a b"}
    assert local(index) == {"a b"}


def test_a_merge_keeps_own_rows_and_makes_what_stays_local(index: Index) -> None:
    stand(index, file("both"), file("removed here"), file("common"), folder("f"), file("f/x"), local=False)
    update = [found_file("both", size=9), found_file("common", size=3, mtime_ns=5, inode=2), found_folder("f")]
    index.update(TREE, [*update, found_file("f/x", size=8)])
    tell(index, want(file("both", "two")), want("f"), want(file("new")), want(file("f/x/below")))
    index.add_incoming(TREE, [want(file("removed here", "two"))])
    assert deeds(index, PlanMode.MERGE) == {
        "both": Deed.CONFLICT,
        "f": Deed.KEEP,  # something of this node's own stands in it
        "f/x/below": Deed.CONFLICT,  # a file of this node's own stands in place of the folder
        "new": Deed.FETCH,
        "removed here": Deed.CONFLICT,
    }
    seq = index.last_seq(TREE)
    index.finish_apply(TREE, [applied(file("new"))])
    assert {"both", "f", "f/x", "f/x/below", "removed here"} <= local(index)
    assert "new" not in local(index)
    told = {each.path: each.entry for each in index.changes_after(TREE, seq, 10)}
    assert set(told) == {"f", "f/x/below", "new"}  # the others were to be told already
    assert told["f/x/below"] is None


def test_steps_come_back_as_they_were_in_their_order(index: Index) -> None:
    steps = [
        Step(StepKind.PUT_FILE, "a/b", file("a/b"), "staged-1", True, Fingerprint(1, 2, 3, 4), "a/b\u0308", "why"),
        Step(StepKind.REMOVE, "c", None, expected=None),
        Step(StepKind.MAKE_LINK, "l", link("l", "a/b")),
        Step(StepKind.MAKE_FOLDER, "d", folder("d")),
        Step(StepKind.ATTRIBUTES, "e", replace(file("e"), mode=None, mtime_ns=-5)),
    ]
    tell(index)
    index.stage(TREE, steps[:2])
    index.stage(TREE, steps[2:])
    assert list(index.steps(TREE)) == steps
    more = [Step(StepKind.REMOVE, f"{number:04}") for number in range(1200)]
    index.stage(TREE, more)
    assert [step.path for step in index.steps(TREE)][5:] == [step.path for step in more]


def test_staged_contents_outlive_a_round_that_came_to_nothing(index: Index, tmp_path: Path) -> None:
    tell(index, want(file("a")))
    index.stage(TREE, [Step(StepKind.PUT_FILE, "a", file("a"), "staged-1")])
    index.note_staged(TREE, "staged-2", digest_of("two"))
    index.drop_round(TREE)
    assert list(index.steps(TREE)) == []
    index.close()
    again = Index(tmp_path / "index.db")
    again.begin_incoming(TREE, whole=False)
    assert again.staged(TREE, digest_of("one")) == "staged-1"
    assert again.staged_names(TREE) == {"staged-1", "staged-2"}
    assert again.staged(TREE, digest_of("three")) == ""
    again.finish_apply(TREE, [])
    assert again.staged_names(TREE) == set()
    again.note_staged(TREE, "staged-3", digest_of("one"))
    again.forget_staged(TREE)
    assert again.staged_names(TREE) == set()
    again.close()


def test_the_journal_is_there_after_a_crash_and_nothing_else_begins_before_it(index: Index, tmp_path: Path) -> None:
    stand(index, file("gone"), file("same"))
    tell(index, want("gone"), want(file("same")))
    plan(index)
    step = Step(StepKind.REMOVE, "gone")
    index.stage(TREE, [step])
    index.begin_apply(TREE, (SOURCE, 9))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for each in tmp_path.glob("index.db*"):
        shutil.copy(each, crashed / each.name)
    after = Index(crashed / "index.db")
    assert after.applying_trees() == [TREE]
    with pytest.raises(StateError, match="journal"):
        after.begin_incoming(TREE, whole=False)
    with pytest.raises(StateError, match="journal"):
        after.stage(TREE, [step])
    assert list(after.steps(TREE)) == [step]
    after.finish_apply(TREE, [applied("gone")])
    assert after.applying_trees() == []
    assert after.peer_position(TREE) == (SOURCE, 9)
    assert (set(standing(after)), local(after)) == ({"same"}, set())
    after.close()


def test_an_apply_that_fails_leaves_the_journal(index: Index) -> None:
    stand(index, file("a"))
    tell(index, want("a"))
    plan(index)
    index.stage(TREE, [Step(StepKind.REMOVE, "a")])
    index.begin_apply(TREE, (SOURCE, 9))

    def fails() -> Iterator[Applied]:
        assert len(list(index.steps(TREE))) == 1  # who carries them out reads them meanwhile
        yield applied("a")
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input"):
        index.finish_apply(TREE, fails())
    assert index.applying_trees() == [TREE]
    assert set(standing(index)) == {"a"}
    assert index.peer_position(TREE) == (b"", 0)
    index.drop_round(TREE)
    assert index.applying_trees() == []


def test_what_a_round_brings_over_is_counted(index: Index) -> None:
    stand(index, file("same"), file("changed"))
    tell(index, want(file("same")), want(file("changed", "four")), want(file("new", "seven..")), want("gone"))
    assert index.incoming_totals(TREE) == (2, 11)


kinds = st.sampled_from(["one", "two", "folder", "link"])
paths = st.sampled_from(["a", "b", "a/b", "a/c", "a b", "b/a", "b/a/c"])
models = st.dictionaries(paths, kinds, max_size=6)


def as_tree(model: dict[str, str]) -> dict[str, Entry]:
    """Makes a tree of it: what is above another is a folder."""
    tree: dict[str, Entry] = {}
    for path in sorted(model, key=lambda each: each.split("/"), reverse=True):
        if path not in tree:
            kind = model[path]
            entry = folder(path) if kind == "folder" else link(path, "x") if kind == "link" else file(path, kind)
            tree[path] = entry
        names = path.split("/")
        for depth in range(1, len(names)):
            tree["/".join(names[:depth])] = folder("/".join(names[:depth]))
    return tree


def carried_out(tree: dict[str, Entry], plan: Iterable[tuple[Want, object, Decision]]) -> list[Applied]:
    """Does to a model what steps do to a disk."""
    results = []
    for each, _, decision in plan:
        if decision.deed in (Deed.KEEP, Deed.CONFLICT):
            continue
        if each.entry is None:
            tree.pop(each.path, None)
        else:
            if each.entry.kind is not EntryKind.FOLDER:
                for path in [path for path in tree if path.startswith(each.path + "/")]:
                    del tree[path]
            tree[each.path] = each.entry
        results.append(applied(each.entry or each.path))
    results.sort(key=lambda result: (result.entry is not None, result.path.count("/") * (1 if result.entry else -1)))
    return results


@settings(max_examples=50, deadline=None)
@given(models, models, models, st.sampled_from([PlanMode.MIRROR, PlanMode.OVERWRITE]), st.booleans())
def test_after_a_round_the_rows_are_what_the_source_has(
    before: dict[str, str], own: dict[str, str], source: dict[str, str], mode: PlanMode, whole: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        index = Index(Path(place) / "index.db")
        stand(index, *as_tree(before).values(), local=False)
        disk = as_tree(own)
        stand(index, *disk.values())
        wanted = as_tree(source)
        gone = [path for path in disk.keys() - wanted.keys() if not whole]
        tell(index, *map(want, wanted.values()), *map(want, gone), whole=whole)
        results = carried_out(disk, list(index.plan(TREE, mode)))
        index.finish_apply(TREE, results)
        assert standing(index) == wanted == disk
        assert local(index) & wanted.keys() == set()
        assert index.totals(TREE)[0] == sum(each.kind is EntryKind.FILE for each in wanted.values())
        index.close()
