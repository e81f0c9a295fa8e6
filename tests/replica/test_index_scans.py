"""Whatever sequence of scans the index is given, its rows are the last one, and only what changed has a new seq."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.tree_entries import EntryKind
from agent.replica.file_tree import Found
from agent.replica.index import Index
from tests.replica.tree_scene import TREE, found_file, found_folder

Model = dict[tuple[str, ...], tuple[int, int]]  # size and inode of each file

names = st.sampled_from(["a", "b", "a b", "a.b", "ä", "Z"])
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map(tuple), st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=12
)


def as_scan(model: Model) -> list[Found]:
    """Returns what a scan would find of these files, with the folders that they need."""
    files = {path: value for path, value in model.items() if not any(path[:n] in model for n in range(1, len(path)))}
    folders = {path[:n] for path in files for n in range(1, len(path))}
    found = []
    for path in sorted(files.keys() | folders):
        if path in files:
            size, inode = files[path]
            found.append(found_file("/".join(path), size=size, inode=inode))
        else:
            found.append(found_folder("/".join(path)))
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(trees, min_size=1, max_size=5))
def test_after_any_sequence_of_scans_the_rows_are_the_last_one(
    models: list[dict[tuple[str, ...], tuple[int, int]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        index = Index(Path(folder) / "index.db")
        seen: dict[str, int] = {}
        for model in models:
            found = as_scan(model)
            before = index.last_seq(TREE)
            index.update(TREE, found)
            standing = {each.path: each for each in index.changes_after(TREE, 0, 1000) if each.entry is not None}
            assert set(standing) == {each.entry.path for each in found}
            assert all(standing[each.entry.path].entry == each.entry for each in found)
            sizes = [each.entry.size for each in found if each.entry.kind is EntryKind.FILE]
            assert index.totals(TREE) == (len(sizes), sum(sizes))
            changed = {each.path for each in index.changes_after(TREE, before, 1000)}
            assert all(seen.get(path) == each.seq for path, each in standing.items() if path not in changed)
            seen = {path: each.seq for path, each in standing.items()}
        index.close()


def test_more_rows_than_fit_into_memory_at_once_are_merged(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.db")
    found = [found_file(f"{number:05}", inode=number) for number in range(3500)]
    assert index.update(TREE, found).changed == 3500
    half = [each for each in found if int(each.entry.path) % 2]
    half += [found_file(f"{number:05}x", inode=number + 10_000) for number in range(0, 3500, 7)]
    half.sort(key=lambda each: each.entry.path)
    done = index.update(TREE, half)
    assert (done.changed, done.gone, len(done.paths)) == (500, 1750, 1000)
    standing = [each.path for each in index.changes_after(TREE, 0, 10_000) if each.entry is not None]
    assert sorted(standing) == [each.entry.path for each in half]
    index.close()
