"""A sink comes to have what its source has, and no work of its own is lost on the way: path by path, tree by tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.core.tree_entries import DIGEST_BYTES, EntryKind
from agent.core.tree_plan import Around, Deed, Have, PlanMode, Want, decide
from tests.core.tree_scene import BEGINNING, FILE, FOLDER, LINK, Scene, edited, follow, scenes

# --- one path: all that can stand here (rows; * is local) against all that can be wanted (columns) --------------------

OTHER = b"2" * DIGEST_BYTES

OWN = {
    "none": None,
    "gone": Have(None, False),
    "gone*": Have(None, True),
    "file": Have(FILE, False),
    "file*": Have(FILE, True),
    "unread": Have(replace(FILE, digest=b""), False),
    "unread*": Have(replace(FILE, digest=b""), True),
    "folder": Have(FOLDER, False),
    "folder*": Have(FOLDER, True),
    "link": Have(LINK, False),
    "link*": Have(LINK, True),
}
WANTED = {
    "gone": None,
    "same": FILE,
    "chmod": replace(FILE, mode=0o600),
    "touched": replace(FILE, mtime_ns=2),
    "other": replace(FILE, digest=OTHER),
    "unread": replace(FILE, digest=b""),
    "newer": replace(FILE, digest=b"", mtime_ns=2),
    "grown": replace(FILE, digest=b"", size=2),
    "folder": FOLDER,
    "closed": replace(FOLDER, mode=0o700),
    "link": LINK,
    "there": replace(LINK, target="there"),
}
WORDS = {
    ".": Deed.NOTHING,
    "adopt": Deed.ADOPT,
    "attr": Deed.ATTRIBUTES,
    "fetch": Deed.FETCH,
    "folder": Deed.MAKE_FOLDER,
    "link": Deed.MAKE_LINK,
    "remove": Deed.REMOVE,
    "keep": Deed.KEEP,
    "clash": Deed.CONFLICT,
}

MIRROR_COMMON = """
          gone     same    chmod   touched  other   unread  newer   grown   folder   closed   link   there
none      .        fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
gone      .        fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
gone*     adopt    fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
file      remove   .       attr    attr     fetch   .       fetch   fetch   folder   folder   link   link
file*     remove!  adopt   attr    attr     fetch!  fetch!  fetch!  fetch!  folder!  folder!  link!  link!
unread    remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
unread*   remove!  fetch!  fetch!  fetch!   fetch!  fetch!  fetch!  fetch!  folder!  folder!  link!  link!
folder    remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   .        attr     link   link
folder*   remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   adopt    attr     link   link
link      remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   .      link
link*     remove!  fetch!  fetch!  fetch!   fetch!  fetch!  fetch!  fetch!  folder!  folder!  adopt  link!
"""
# What the source changed and has not read is never believed to be the same.
MIRROR_CHANGED = MIRROR_COMMON.replace("attr     fetch   .  ", "attr     fetch   fetch")

OVERWRITE_COMMON = """
          gone     same    chmod   touched  other   unread  newer   grown   folder   closed   link   there
none      .        fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
gone      .        fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
gone*     adopt    fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
file      remove!  .       attr    attr     fetch!  .       fetch!  fetch!  folder!  folder!  link!  link!
file*     remove!  adopt   attr    attr     fetch!  fetch!  fetch!  fetch!  folder!  folder!  link!  link!
unread    remove!  fetch!  fetch!  fetch!   fetch!  fetch!  fetch!  fetch!  folder!  folder!  link!  link!
unread*   remove!  fetch!  fetch!  fetch!   fetch!  fetch!  fetch!  fetch!  folder!  folder!  link!  link!
folder    remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   .        attr     link   link
folder*   remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   adopt    attr     link   link
link      remove!  fetch!  fetch!  fetch!   fetch!  fetch!  fetch!  fetch!  folder!  folder!  .      link!
link*     remove!  fetch!  fetch!  fetch!   fetch!  fetch!  fetch!  fetch!  folder!  folder!  adopt  link!
"""
OVERWRITE_CHANGED = OVERWRITE_COMMON.replace("attr     fetch!  .  ", "attr     fetch!  fetch!")

MERGE_COMMON = """
          gone     same    chmod   touched  other   unread  newer   grown   folder   closed   link   there
none      .        fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
gone      .        fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
gone*     adopt    keep    keep    keep     keep    keep    keep    keep    keep     keep     keep   keep
file      remove   .       attr    attr     fetch   .       fetch   fetch   folder   folder   link   link
file*     keep     adopt   keep    keep     keep    keep    keep    keep    keep     keep     keep   keep
unread    remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
unread*   keep     keep    keep    keep     keep    keep    keep    keep    keep     keep     keep   keep
folder    remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   .        attr     link   link
folder*   keep     keep    keep    keep     keep    keep    keep    keep    adopt    keep     keep   keep
link      remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   .      link
link*     keep     keep    keep    keep     keep    keep    keep    keep    keep     keep     adopt  keep
"""
MERGE_CHANGED = """
          gone     same    chmod   touched  other   unread  newer   grown   folder   closed   link   there
none      .        fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
gone      .        fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
gone*     adopt    clash   clash   clash    clash   clash   clash   clash   keep     keep     clash  clash
file      remove   .       attr    attr     fetch   fetch   fetch   fetch   folder   folder   link   link
file*     keep     adopt   keep    keep     clash   clash   clash   clash   keep     keep     clash  clash
unread    remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   link   link
unread*   keep     clash   clash   clash    clash   clash   clash   clash   keep     keep     clash  clash
folder    remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   .        attr     link   link
folder*   keep     clash   clash   clash    clash   clash   clash   clash   adopt    keep     clash  clash
link      remove   fetch   fetch   fetch    fetch   fetch   fetch   fetch   folder   folder   .      link
link*     keep     clash   clash   clash    clash   clash   clash   clash   keep     keep     adopt  clash
"""


def cells(table: str) -> Iterator[tuple[str, str, str]]:
    header, *rows = table.strip("\n").splitlines()
    columns = header.split()
    assert columns == list(WANTED)
    assert [row.split()[0] for row in rows] == list(OWN)
    for row in rows:
        own, *verdicts = row.split()
        assert len(verdicts) == len(columns)
        yield from ((own, wanted, verdict) for wanted, verdict in zip(columns, verdicts, strict=True))


@pytest.mark.parametrize(
    ("mode", "changed", "table"),
    [
        (PlanMode.MIRROR, False, MIRROR_COMMON),
        (PlanMode.MIRROR, True, MIRROR_CHANGED),
        (PlanMode.OVERWRITE, False, OVERWRITE_COMMON),
        (PlanMode.OVERWRITE, True, OVERWRITE_CHANGED),
        (PlanMode.MERGE, False, MERGE_COMMON),
        (PlanMode.MERGE, True, MERGE_CHANGED),
    ],
)
def test_every_meeting_of_two_entries_is_decided(mode: PlanMode, changed: bool, table: str) -> None:
    wrong = []
    for own, wanted, verdict in cells(table):
        decision = decide(OWN[own], Want("p", WANTED[wanted], changed), mode)
        expected = (WORDS[verdict.rstrip("!")], verdict.endswith("!"))
        if (decision.deed, decision.archive) != expected:
            wrong.append(f"{own} against {wanted}: {decision}, not {verdict}")
    assert wrong == []


def test_the_changed_tables_differ_where_they_should() -> None:
    assert MIRROR_CHANGED != MIRROR_COMMON
    assert OVERWRITE_CHANGED != OVERWRITE_COMMON


@pytest.mark.parametrize("mode", PlanMode)
def test_a_file_that_was_changed_and_not_read_is_not_taken_for_the_old_one_because_size_and_time_agree(
    mode: PlanMode,
) -> None:
    unread = replace(FILE, digest=b"")
    assert decide(Have(FILE, False), Want("p", unread, changed=True), mode).deed is Deed.FETCH
    assert decide(Have(FILE, True), Want("p", unread, changed=True), mode).deed in (Deed.FETCH, Deed.CONFLICT)


@pytest.mark.parametrize("mode", PlanMode)
def test_permission_bits_that_one_node_does_not_know_are_no_difference(mode: PlanMode) -> None:
    for entry in (FILE, FOLDER):
        without = replace(entry, mode=None)
        assert decide(Have(entry, False), Want("p", without, True), mode).deed is Deed.NOTHING
        assert decide(Have(without, True), Want("p", entry, True), mode).deed is Deed.ADOPT


def test_a_links_permission_bits_are_never_set_for_they_are_those_of_what_it_leads_to() -> None:
    for mode in PlanMode:
        own = replace(LINK, mode=0o755)
        assert decide(Have(own, False), Want("p", replace(LINK, mode=0o777), True), mode).deed is Deed.NOTHING


def test_whoever_finds_a_version_in_the_archive_finds_the_reason() -> None:
    for table, mode in ((MIRROR_CHANGED, PlanMode.MIRROR), (OVERWRITE_CHANGED, PlanMode.OVERWRITE)):
        for own, wanted, _ in cells(table):
            decision = decide(OWN[own], Want("p", WANTED[wanted], True), mode)
            assert bool(decision.reason) == decision.archive
    for own, wanted, _ in cells(MERGE_CHANGED):
        decision = decide(OWN[own], Want("p", WANTED[wanted], True), PlanMode.MERGE)
        assert decision.reason or decision.deed is not Deed.CONFLICT


ABOVE, BELOW = Around(local_above=True), Around(local_below=True)


@pytest.mark.parametrize(
    ("own", "wanted", "around", "deed"),
    [
        ("none", "other", ABOVE, Deed.CONFLICT),  # beneath a folder that was replaced by a file here
        ("none", "there", ABOVE, Deed.CONFLICT),
        ("none", "folder", ABOVE, Deed.KEEP),
        ("none", "gone", ABOVE, Deed.NOTHING),
        ("gone", "other", ABOVE, Deed.CONFLICT),
        ("gone*", "gone", ABOVE, Deed.ADOPT),
        ("folder", "gone", BELOW, Deed.KEEP),  # removed there, and something in it was changed here
        ("folder", "other", BELOW, Deed.CONFLICT),
        ("folder", "there", BELOW, Deed.CONFLICT),
        ("folder", "folder", BELOW, Deed.NOTHING),
        ("folder", "closed", BELOW, Deed.ATTRIBUTES),
    ],
)
def test_a_merge_keeps_folders_that_own_work_needs_and_makes_none_where_own_work_stands(
    own: str, wanted: str, around: Around, deed: Deed
) -> None:
    for changed in (False, True):
        decision = decide(OWN[own], Want("p", WANTED[wanted], changed), PlanMode.MERGE, around)
        assert (decision.deed, decision.archive) == (deed, False)


def test_outside_of_a_merge_nothing_around_matters() -> None:
    for mode, table in ((PlanMode.MIRROR, MIRROR_CHANGED), (PlanMode.OVERWRITE, OVERWRITE_CHANGED)):
        for own, wanted, _ in cells(table):
            want = Want("p", WANTED[wanted], True)
            assert decide(OWN[own], want, mode) == decide(OWN[own], want, mode, Around(True, True))


# --- whole trees: two nodes had the same, each went on, and then one follows the other --------------------------------


@settings(deadline=None)
@given(scenes(), st.sampled_from([PlanMode.MIRROR, PlanMode.OVERWRITE]))
def test_a_sink_that_mirrors_has_what_its_source_has(scene: Scene, mode: PlanMode) -> None:
    assert follow(scene, mode).tree == scene.source


@settings(deadline=None)
@given(scenes(), st.sampled_from(PlanMode))
def test_d5_nothing_of_the_sinks_own_vanishes(scene: Scene, mode: PlanMode) -> None:
    outcome = follow(scene, mode)
    for path, entry in scene.sink.items():
        if entry.kind is EntryKind.FOLDER or scene.common.get(path) == entry:
            continue
        assert entry in outcome.archive or entry.same_contents(outcome.tree.get(path))


@settings(deadline=None)
@given(scenes())
def test_an_overwrite_archives_whatever_it_replaces(scene: Scene) -> None:
    outcome = follow(scene, PlanMode.OVERWRITE)
    for path, entry in scene.sink.items():
        if entry.kind is not EntryKind.FOLDER and not entry.same_contents(scene.source.get(path)):
            assert entry in outcome.archive


@settings(deadline=None)
@given(scenes())
def test_a_mirroring_sink_archives_nothing_that_both_nodes_had(scene: Scene) -> None:
    for entry in follow(scene, PlanMode.MIRROR).archive:
        have = scene.have(entry.path)
        assert have is not None
        assert have.local


NEW_BELOW = edited(BEGINNING, [replace(FILE, path="a/a/b", digest=OTHER)])
FILE_ABOVE = edited(BEGINNING, [replace(FILE, path="a", digest=OTHER)])
NONE_BELOW = edited(BEGINNING, ["a"])


@settings(deadline=None)
@given(scenes())
@example(Scene(BEGINNING, FILE_ABOVE, NEW_BELOW, frozenset(), frozenset()))
@example(Scene(BEGINNING, NEW_BELOW, FILE_ABOVE, frozenset(), frozenset()))
@example(Scene(BEGINNING, NEW_BELOW, NONE_BELOW, frozenset(), frozenset()))
@example(Scene(BEGINNING, NONE_BELOW, NEW_BELOW, frozenset(), frozenset()))
def test_d5_a_merge_leaves_own_work_in_place_and_loses_nothing_of_the_other_nodes(scene: Scene) -> None:
    outcome = follow(scene, PlanMode.MERGE)
    assert outcome.archive == []
    for path in scene.common.keys() | scene.sink.keys() | scene.source.keys():
        have, wanted, stands = scene.have(path), scene.source.get(path), outcome.tree.get(path)
        if have is not None and have.local:
            own = scene.sink.get(path)
            remade = own is None and any(other.startswith(path + "/") for other in outcome.tree)
            assert stands == own or remade
        elif scene.around(path) == Around():
            assert stands == wanted
        if wanted is not None and wanted != scene.common.get(path) and wanted.kind is not EntryKind.FOLDER:
            assert wanted.same_contents(stands) or wanted in outcome.archive_of_source


@settings(deadline=None)
@given(scenes())
def test_a_second_round_finds_nothing_to_do(scene: Scene) -> None:
    """Of what was read; a file that was not has to be fetched again to be known."""
    after = replace(scene, sink=scene.source, common=scene.source, unread=frozenset(), touched=frozenset())
    assert follow(scene, PlanMode.MIRROR).tree == after.sink
    for mode in PlanMode:
        assert {decision.deed for decision in follow(after, mode).decisions.values()} <= {Deed.NOTHING}
