"""Trees that cannot be kept in sync as configured are findings before anything is copied."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from agent.config.load import load_config
from agent.config.tree_contradictions import TREES_MAX

from .conftest import COMPLETE, Findings

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="making a link needs a privilege there")


def tree(name: str, path: str, exclude: str = "[]") -> str:
    return f"[[tree]]\nname = {name!r}\nkind = 'data'\npath = {path!r}\nexclude = {exclude}\n"


def test_trees_apart_from_each_other_are_fine(findings: Findings) -> None:
    assert findings(tree("a", "t/a") + tree("b", "t/ab") + tree("c", "../t") + tree("d", "agent.toml.d")) == []


@pytest.mark.parametrize(
    ("after", "part"),
    [
        (tree("a", "t") + tree("A", "u"), 'tree.1.name: "A" is the name of an earlier tree'),
        (tree("a", "t") + tree("b", "t"), "is already the path of tree.0 (a)"),
        (tree("a", "t") + tree("b", "t/u"), "the path of tree.0 (a)"),
        (tree("a", "t/u") + tree("b", "t"), "the path of tree.0 (a)"),
        (tree("a", "t/../u") + tree("b", "u"), "is already the path of tree.0 (a)"),
        (tree("a", "state/x"), "overlaps state_directory"),
        (tree("a", "state"), "overlaps state_directory"),
        (tree("a", "."), "holds this node's private key"),
        (tree("a", "own.key"), "holds this node's private key"),
        (tree("a", "own.crt"), "holds this node's own certificate"),
        (tree("a", "remote.crt"), "holds the certificates that this node trusts"),
        (tree("a", "agent.toml"), "holds the agent's own configuration"),
        (tree("", "t"), 'tree.0.name: found ""'),
        (tree("a" * 65, "t"), "allowed: 1 to 64 letters"),
        (tree("a b", "t"), "allowed: 1 to 64 letters"),
        (tree("../a", "t"), "allowed: 1 to 64 letters"),
        (tree("a.", "t"), "a dot neither first nor last"),
        (tree("nul.d", "t"), "tree.0.name: the name"),
    ],
)
def test_a_tree_that_cannot_stay_apart_is_a_finding(findings: Findings, after: str, part: str) -> None:
    found = findings(after)
    assert any(part in sentence for sentence in found), found


def test_the_longest_and_the_shortest_name_are_allowed(findings: Findings) -> None:
    assert findings(tree("a" * 64, "t") + tree("b", "u") + tree("x.y-z_0", "v")) == []


def test_the_key_lies_apart_from_the_configuration_and_is_found_all_the_same(findings: Findings, folder: Path) -> None:
    (folder / "keys").mkdir()
    (folder / "own.key").rename(folder / "keys" / "own.key")
    complete = COMPLETE.replace("own.key", "keys/own.key")
    found = findings(tree("a", "keys", '["*.key"]'), complete=complete)
    assert any("holds this node's private key" in sentence for sentence in found), found


def test_a_credential_that_is_pasted_into_the_file_lies_in_no_tree(
    findings: Findings, identities: dict[str, tuple[str, str]]
) -> None:
    pasted = COMPLETE.replace('"remote.crt"', f"'''{identities['beta'][1]}'''")
    assert findings(tree("a", "remote.crt"), complete=pasted) == []


@needs_links
@pytest.mark.parametrize(
    ("target", "words"),
    [("state", "overlaps state_directory"), (".", "private key"), ("t", "already the path of tree.0 (a)")],
)
def test_a_tree_behind_a_link_is_judged_by_where_it_leads(
    findings: Findings, folder: Path, target: str, words: str
) -> None:
    (folder / "state").mkdir()
    (folder / "link").symlink_to(folder / target, target_is_directory=True)
    assert any(words in sentence for sentence in findings(tree("a", "t") + tree("b", "link")))


@needs_links
def test_a_key_that_is_a_link_into_a_tree_is_found(findings: Findings, folder: Path) -> None:
    (folder / "t").mkdir()
    (folder / "own.key").rename(folder / "t" / "real.key")
    (folder / "own.key").symlink_to(folder / "t" / "real.key")
    assert any("holds this node's private key" in sentence for sentence in findings(tree("a", "t")))


@needs_links
def test_a_root_that_is_a_link_arrives_resolved(folder: Path) -> None:
    (folder / "release-2").mkdir()
    (folder / "current").symlink_to("release-2", target_is_directory=True)
    path = folder / "agent.toml"
    path.write_text(COMPLETE + tree("a", "current"))
    (found,) = load_config(path, {}).trees
    assert found.path == Path(os.path.realpath(folder)) / "release-2"


def test_as_many_trees_as_allowed_and_no_more(findings: Findings) -> None:
    trees = [tree(f"t{number}", f"t{number}") for number in range(TREES_MAX + 1)]
    assert findings("".join(trees[:-1])) == []
    (found,) = findings("".join(trees))
    assert "tree: found 65 of them; allowed: at most 64" in found


@pytest.mark.parametrize(
    "pattern", ["*.tmp", ".git/", "/cache/", "!keep.txt", "a/**/b", "[ab]?.log", "***", r"\#note", r"a\*b", "ä ö"]
)
def test_what_git_understands_may_be_excluded(findings: Findings, pattern: str) -> None:
    assert findings(tree("a", "t", f"[{pattern!r}]".replace("\\\\", "\\"))) == []


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("!", "is no gitignore pattern"),
        ("[z-a]", "is no gitignore pattern"),
        ("\\", "is no gitignore pattern"),
        ("/", "matches nothing"),
        ("a[", "matches nothing"),
        ("# cache", "is a comment"),
        (r"cache\old", "write / on every system"),
    ],
)
def test_a_pattern_that_would_exclude_nothing_is_a_finding(findings: Findings, pattern: str, words: str) -> None:
    (found,) = findings(tree("a", "t", f"['*.tmp', '{pattern}']"))
    assert "tree.0.exclude: the pattern" in found
    assert words in found
