"""Two nodes that had the same tree and went on alone, and a round in which one follows the other: a tree as a dict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from agent.core.tree_entries import DIGEST_BYTES, Entry, EntryKind
from agent.core.tree_plan import Around, Decision, Deed, Have, PlanMode, Want, decide

FILE = Entry("p", EntryKind.FILE, size=1, mtime_ns=1, mode=0o644, digest=b"1" * DIGEST_BYTES)
FOLDER = Entry("p", EntryKind.FOLDER, mode=0o755)
LINK = Entry("p", EntryKind.LINK, target="here")

Tree = dict[str, Entry]


BEGINNING: Tree = {
    "a": replace(FOLDER, path="a"),
    "a/a": replace(FOLDER, path="a/a"),
    "a/a/a": replace(FILE, path="a/a/a"),
    "a/b": replace(FILE, path="a/b"),
    "b": replace(FILE, path="b"),
}


def parents(path: str) -> list[str]:
    steps = path.split("/")
    return ["/".join(steps[:count]) for count in range(1, len(steps))]


def clear(tree: Tree, path: str) -> None:
    for other in [each for each in tree if each == path or each.startswith(path + "/")]:
        del tree[other]


def put(tree: Tree, entry: Entry) -> None:
    """Does as a workload does: makes room for the entry, and the folders above it."""
    for parent in parents(entry.path):
        if parent in tree and tree[parent].kind is not EntryKind.FOLDER:
            clear(tree, parent)
        tree.setdefault(parent, Entry(parent, EntryKind.FOLDER, mode=0o755))
    if entry.kind is not EntryKind.FOLDER or entry.path not in tree or tree[entry.path].kind is not EntryKind.FOLDER:
        clear(tree, entry.path)
    tree[entry.path] = entry


paths = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/a/b"])
files = st.builds(  # few sizes and times, so that different files often look the same
    lambda path, letter, mtime_ns, mode: Entry(
        path, EntryKind.FILE, size=1, mtime_ns=mtime_ns, mode=mode, digest=letter.encode() * DIGEST_BYTES
    ),
    paths,
    st.sampled_from("xy"),
    st.integers(1, 2),
    st.sampled_from([0o644, 0o600]),
)
folders = st.builds(lambda path, mode: Entry(path, EntryKind.FOLDER, mode=mode), paths, st.sampled_from([0o755, 0o700]))
links = st.builds(lambda path, target: Entry(path, EntryKind.LINK, target=target), paths, st.sampled_from("ab"))


@dataclass(frozen=True)
class Rewrite:
    """Other contents of the same size, with the old time: a workload may well restore that."""

    path: str


edits = st.lists(st.one_of(files, folders, links, paths, st.builds(Rewrite, paths)), max_size=4)


def edited(tree: Tree, changes: list[Entry | Rewrite | str]) -> Tree:
    after = dict(tree)
    for change in changes:
        if isinstance(change, str):
            clear(after, change)
        elif isinstance(change, Rewrite):
            entry = after.get(change.path)
            if entry is not None and entry.kind is EntryKind.FILE:
                after[change.path] = replace(entry, digest=bytes(byte ^ 1 for byte in entry.digest))
        else:
            put(after, change)
    return after


@dataclass(frozen=True)
class Scene:
    """What both had, what each made of it, and which files were not read or were touched without a change."""

    common: Tree
    sink: Tree
    source: Tree
    unread: frozenset[str]
    touched: frozenset[str]

    def row(self, tree: Tree, path: str, unread: str) -> tuple[Entry | None, bool]:
        entry = tree.get(path)
        local = entry != self.common.get(path) or unread + path in self.touched
        if entry is not None and entry.kind is EntryKind.FILE and unread + path in self.unread:
            entry = replace(entry, digest=b"")
        return entry, local

    def have(self, path: str) -> Have | None:
        if path not in self.sink and path not in self.common:
            return None
        return Have(*self.row(self.sink, path, "sink "))

    def want(self, path: str) -> Want:
        return Want(path, *self.row(self.source, path, "source "))

    def around(self, path: str) -> Around:
        def stands(other: str) -> bool:
            have = self.have(other)
            return have is not None and have.entry is not None and have.local

        return Around(
            local_above=any(stands(each) and self.sink[each].kind is not EntryKind.FOLDER for each in parents(path)),
            local_below=any(stands(each) for each in self.sink if each.startswith(path + "/")),
        )


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    common = edited(BEGINNING, draw(edits))
    sink, source = edited(common, draw(edits)), edited(common, draw(edits))
    rows = [f"{side} {path}" for side, tree in (("sink", sink), ("source", source)) for path in tree]
    unread = draw(st.sampled_from(["", "sink", "source"]))
    touched = draw(st.frozensets(st.sampled_from(rows), max_size=2)) if rows else frozenset()
    return Scene(common, sink, source, frozenset(row for row in rows if unread and row.startswith(unread)), touched)


@dataclass
class Outcome:
    tree: Tree
    decisions: dict[str, Decision]
    archive: list[Entry] = field(default_factory=list)  # own versions
    archive_of_source: list[Entry] = field(default_factory=list)


def follow(scene: Scene, mode: PlanMode) -> Outcome:
    """Carries out a round in the order of the contract, and complains of whatever a file system would."""
    every = sorted(scene.common.keys() | scene.sink.keys() | scene.source.keys())
    decisions = {path: decide(scene.have(path), scene.want(path), mode, scene.around(path)) for path in every}
    outcome = Outcome(dict(scene.sink), decisions)
    tree = outcome.tree
    outcome.archive = [tree[path] for path, decision in decisions.items() if decision.archive]

    making = {Deed.FETCH: EntryKind.FILE, Deed.MAKE_FOLDER: EntryKind.FOLDER, Deed.MAKE_LINK: EntryKind.LINK}
    for path in sorted(tree, key=lambda path: -path.count("/")):
        deed = decisions[path].deed
        if deed is Deed.REMOVE or (deed in making and tree[path].kind is not making[deed]):
            assert not any(other.startswith(path + "/") for other in tree), f"{path} is not empty"
            del tree[path]
    for kind in (EntryKind.FOLDER, EntryKind.FILE, EntryKind.LINK):
        for path, decision in decisions.items():
            if decision.deed in making and making[decision.deed] is kind:
                for parent in parents(path):
                    tree.setdefault(parent, Entry(parent, EntryKind.FOLDER, mode=0o755))
                tree[path] = scene.source[path]
    for path, decision in decisions.items():
        if decision.deed is Deed.ATTRIBUTES:
            tree[path] = replace(tree[path], mode=scene.source[path].mode, mtime_ns=scene.source[path].mtime_ns)
        if decision.deed is Deed.CONFLICT:
            assert scene.source[path].kind is not EntryKind.FOLDER
            outcome.archive_of_source.append(scene.source[path])
    for path in tree:
        assert all(tree[parent].kind is EntryKind.FOLDER for parent in parents(path))
    return outcome
