"""Two trees are the same only if every name and every byte is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.tree_names import RESERVED_FOLDER
from agent.demo.comparison import Comparison, compare_trees


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    one, other = tmp_path / "one", tmp_path / "other"
    for tree in (one, other):
        (tree / "sub").mkdir(parents=True)
        (tree / "a.txt").write_bytes(b"four")
        (tree / "sub" / "b.txt").write_bytes(b"")
    return one, other


def test_what_is_the_same_is_counted(trees: tuple[Path, Path]) -> None:
    assert compare_trees(*trees) == Comparison(2, 4, ())


@pytest.mark.parametrize("swapped", [False, True])
def test_one_byte_or_one_name_makes_a_difference(trees: tuple[Path, Path], swapped: bool) -> None:
    one, other = reversed(trees) if swapped else trees
    (one / "a.txt").write_bytes(b"fouR")
    (one / "sub" / "only-here.txt").write_bytes(b"")
    found = compare_trees(one, other)
    assert [Path(path).as_posix() for path in found.differing] == ["a.txt", "sub/only-here.txt"]
    assert found.files == 3
    assert not found.same


def test_what_agents_keep_in_a_tree_is_none_of_it(trees: tuple[Path, Path]) -> None:
    (trees[0] / RESERVED_FOLDER / "staging").mkdir(parents=True)
    (trees[0] / RESERVED_FOLDER / "staging" / "half").write_bytes(b"half")
    assert compare_trees(*trees).same
