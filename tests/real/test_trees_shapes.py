"""Trees of every shape on a real pair: several, a single file, one that is missing, one that has no other end."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.real.pair import Node
from tests.real.tree_pair import TreePair, archived, contents, edit_config, sentences, tree_status

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX; the Wine lane has its own pair")

NAMES = ["first", "second", "third"]
TREES = "".join(f'[[tree]]\nname = "{name}"\nkind = "data"\npath = "{name}"\n' for name in NAMES)
SINGLE = '[[tree]]\nname = "single"\nkind = "config"\npath = "settings.json"\n'
LONELY = '[[tree]]\nname = "lonely"\nkind = "data"\npath = "lonely"\n'


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TreePair]:
    """Three folders and a file on the primary; nothing of them stands on the backup."""
    pair = TreePair(tmp_path_factory.mktemp("pair"), trees=TREES + SINGLE, fill=False)
    for name in NAMES:
        folder = pair.tree(pair.primary, name)
        folder.mkdir()
        (folder / "file").write_text(name)
    (pair.primary.directory / "settings.json").write_text('{"a": 1}')
    try:
        for node in pair.nodes:
            node.start()
        pair.wait_in_order()
        pair.wait_for(lambda: all(same(pair, name) for name in NAMES), "all folders")
        yield pair
    finally:
        pair.close()


def same(pair: TreePair, name: str) -> bool:
    return contents(pair.tree(pair.primary, name)) == contents(pair.tree(pair.backup, name))


def single(node: Node) -> str:
    path = node.directory / "settings.json"
    return path.read_text() if path.exists() else ""


def test_a_single_file_is_a_tree_also_when_it_is_replaced_as_editors_do(pair: TreePair) -> None:
    pair.wait_for(lambda: single(pair.backup) == '{"a": 1}', "the file")
    (pair.primary.directory / "new.json").write_text('{"a": 2}')
    (pair.primary.directory / "new.json").rename(pair.primary.directory / "settings.json")
    pair.wait_for(lambda: single(pair.backup) == '{"a": 2}', "the file that replaced it")
    with open(pair.primary.directory / "settings.json", "a") as file:
        file.write("\n")
    pair.wait_for(lambda: single(pair.backup) == '{"a": 2}\n', "what was appended")
    assert not (pair.backup.directory / "new.json").exists()


def test_each_tree_keeps_to_itself(pair: TreePair) -> None:
    for name in NAMES:
        (pair.tree(pair.primary, name) / "file").unlink()
        (pair.tree(pair.primary, name) / f"of-{name}").write_bytes(os.urandom(1_000))
    pair.wait_for(lambda: all(same(pair, name) for name in NAMES), "all of them")
    assert [list(contents(pair.tree(pair.backup, name))) for name in NAMES] == [[f"of-{name}"] for name in NAMES]


def test_a_tree_that_vanishes_on_the_source_deletes_nothing_and_is_told(pair: TreePair) -> None:
    here, there = pair.tree(pair.primary, "second"), pair.tree(pair.backup, "second")
    before = contents(there)
    away = here.rename(here.with_name("away"))
    pair.primary.order("sync", full=False)
    pair.wait_for(lambda: "is gone" in tree_status(pair.primary, "second").get("error", ""), "the error")
    assert "nothing is taken for deleted" in " ".join(sentences(pair.primary, "tree-trouble"))
    assert tree_status(pair.primary, "second")["state"] == "failed"
    (pair.tree(pair.primary, "first") / "goes-on").write_text("the other trees do")
    pair.wait_for(lambda: same(pair, "first"), "the other trees")
    assert contents(there) == before
    away.rename(here)
    (here / "back").write_text("and it goes on")
    pair.wait_for(lambda: same(pair, "second"), "the tree that is back")


def test_a_tree_that_vanishes_on_the_standby_is_told_and_an_empty_folder_receives_it_anew(pair: TreePair) -> None:
    there = pair.tree(pair.backup, "third")
    shutil.rmtree(there)
    pair.backup.order("sync", full=False)
    pair.wait_for(lambda: "is gone" in tree_status(pair.backup, "third").get("error", ""), "the error")
    there.mkdir()
    pair.backup.order("sync", full=False)
    pair.wait_for(lambda: same(pair, "third"), "everything anew")
    assert contents(pair.tree(pair.primary, "third"))
    assert not archived(pair.primary, "third")


def test_a_tree_that_only_one_node_has_is_told_on_both_and_holds_the_others_up_in_nothing(pair: TreePair) -> None:
    pair.stop_both()
    edit_config(pair.backup, "[[tree]]", LONELY + "[[tree]]")
    (pair.backup.directory / "lonely").mkdir()
    for node in pair.nodes:
        node.start()
    pair.wait_active(pair.primary)
    pair.wait_for(lambda: "no tree of this name" in tree_status(pair.backup, "lonely").get("error", ""), "the error")
    assert not pair.backup.status()["readiness"]["ready"]
    (pair.tree(pair.primary, "first") / "still").write_text("follows")
    pair.wait_for(lambda: same(pair, "first"), "the other trees")
    assert not any(sentences(node, "conflict") for node in pair.nodes)


def test_a_tree_that_the_active_node_alone_has_keeps_the_role_there_without_an_outage(pair: TreePair) -> None:
    """Continues the test above: the backup alone has "lonely"."""
    pair.wait_for(lambda: tree_status(pair.backup, "first").get("state") == "in-sync", "the backup is up to date")
    pair.primary.kill()
    pair.wait_active(pair.backup)
    pair.primary.start()
    pair.wait_for(lambda: "lonely" in str(pair.primary.status().get("reason")), "the primary says why it waits")
    (pair.tree(pair.backup, "first") / "more").write_text("follows")
    pair.wait_for(lambda: same(pair, "first"), "the other trees")
    pair.wait_for(lambda: "no tree of this name" in tree_status(pair.backup, "lonely")["error"], "the error")
    assert not any("handing over" in each for each in sentences(pair.backup, "role-changed")), "stopped in vain"
    assert not any(sentences(node, "conflict") for node in pair.nodes)
