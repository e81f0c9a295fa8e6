"""What can be replicated between Windows and Linux is settled by names alone, and nothing gets out of a tree."""

from __future__ import annotations

import posixpath
import unicodedata
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.core.tree_names import (
    DEPTH_MAX,
    NAME_BYTES_MAX,
    NAME_UNITS_MAX,
    PATH_BYTES_MAX,
    RESERVED_FOLDER,
    collision_key,
    normal_name,
    normal_target,
    refusal_of_link_untrusted,
    refusal_of_name,
    refusal_of_path_untrusted,
)

NOT_UTF_8 = b"caf\xe9".decode("utf-8", "surrogateescape")  # as Linux names it to Python
FORBIDDEN = [chr(code) for code in (*range(32), *range(127, 160))] + list('/\\<>:"|?*')
DEVICES = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
DEVICES += [port + number for port in ("COM", "LPT") for number in "0123456789¹²³"]


@pytest.mark.parametrize(
    "name",
    [
        "a", "flow.json", ".git", "..a", "...b", " leading space", "trailing.tmp~", "a b", "-rf", "Größe.csv", "レシピ",
        "console", "nulls", "com", "com10", "aux-1", "x.con", "lpt", "CONIN", "$Recycle", "a%b", "{1}", "#1", "ﬁ", "😀",
        "a" * NAME_BYTES_MAX, "é" * 127, "😀" * 63,
    ],
)  # fmt: skip
def test_ordinary_names_are_replicated(name: str) -> None:
    assert refusal_of_name(name) is None
    assert refusal_of_path_untrusted(f"folder/{name}") is None


@pytest.mark.parametrize(
    ("name", "because"),
    [
        ("", "is not a name"),
        (".", "is not a name"),
        ("..", "is not a name"),
        ("C:", "Windows does not allow"),
        ("file.txt:stream", "Windows does not allow"),
        ("end.", "which Windows drops"),
        ("end ", "which Windows drops"),
        ("end. .", "which Windows drops"),
        ("...", "which Windows drops"),
        (NOT_UTF_8, "is not UTF-8"),
        ("\ud83d", "is not UTF-8"),
        ("a" * (NAME_BYTES_MAX + 1), "is longer than 255 bytes"),
        ("é" * 128, "has 256 bytes"),
        ("😀" * 64, "has 256 bytes"),
        pytest.param("a" * 10_000_000, "is longer than 255 bytes", id="10 MB"),
        *((f"a{character}b", "Windows does not allow") for character in FORBIDDEN),
        *((device, "device on Windows") for device in DEVICES),
    ],
)
def test_d13_a_name_that_some_system_cannot_hold_is_refused_with_a_sentence(name: str, because: str) -> None:
    refusal = refusal_of_name(name)
    assert refusal is not None
    assert because in refusal
    assert refusal.isprintable()
    assert len(refusal) < 250
    if "/" not in name:
        for path in (name, f"folder/{name}", f"{name}/file", f"folder/{name}/file"):
            assert refusal_of_path_untrusted(path) is not None


@pytest.mark.parametrize("device", DEVICES)
def test_d13_a_device_is_one_in_any_letter_case_and_with_any_ending(device: str) -> None:
    for name in (device.lower(), device.title(), f"{device}.txt", f"{device}.tar.gz", f"{device} .txt"):
        assert "device on Windows" in (refusal_of_name(name) or "")
    for name in (f"{device}x", f"x{device}", f"{device}_", f" {device}", f"{device} x"):
        assert refusal_of_name(name) is None


@pytest.mark.parametrize(
    ("path", "because"),
    [
        ("", "is empty"),
        ("/", "is absolute"),
        ("/etc/passwd", "is absolute"),
        ("//server/share", "is absolute"),
        ("..", "'..' is not a name"),
        ("../x", "'..' is not a name"),
        ("a/../../x", "'..' is not a name"),
        ("a/..", "'..' is not a name"),
        ("./a", "'.' is not a name"),
        ("a//b", "'' is not a name"),
        ("a/", "'' is not a name"),
        ("C:/Windows", "contains ':'"),
        ("c:autoexec.bat", "contains ':'"),
        ("..\\x", r"contains '\\'"),
        ("\\\\server\\share", r"contains '\\'"),
        ("a/b\0", r"contains '\x00'"),
        ("Cafe\u0301", "normal form"),
        ("a/e\u0301/b", "normal form"),
        ("/".join(["a"] * (DEPTH_MAX + 1)), "65 folders deep"),
        ("/".join(["a" * 200] * 6), "longer than 1024 bytes"),
        ("/".join(["é" * 110] * 6), "longer than 1024 bytes"),
        ("/".join([NOT_UTF_8] * 300), "longer than 1024 bytes"),
        pytest.param("a" * 10_000_000, "longer than 1024 bytes", id="10 MB"),
        ("a/" * 600, "longer than 1024 bytes"),
        (RESERVED_FOLDER, "agent's own folder"),
        (f"{RESERVED_FOLDER}/staging/1", "agent's own folder"),
        (".Pair-Agent/staging", "agent's own folder"),
        ("PAIR-A~1/staging", "agent's own folder"),
    ],
)
def test_d13_a_path_that_leaves_its_tree_is_refused_whoever_sends_it(path: str, because: str) -> None:
    refusal = refusal_of_path_untrusted(path)
    assert refusal is not None
    assert because in refusal
    assert refusal.isprintable()
    assert len(refusal) < 250


def test_the_longest_and_deepest_paths_are_replicated() -> None:
    assert refusal_of_path_untrusted("/".join(["a"] * DEPTH_MAX)) is None
    longest = "/".join(["a" * 204] * 4 + ["é" * 102])
    assert len(longest.encode()) == PATH_BYTES_MAX
    assert refusal_of_path_untrusted(longest) is None


def test_the_reserved_name_is_free_below_the_root() -> None:
    assert refusal_of_path_untrusted(f"a/{RESERVED_FOLDER}/b") is None
    assert refusal_of_path_untrusted(f"{RESERVED_FOLDER}s") is None


def test_a_single_file_tree_has_one_path_and_no_other_tree_has_it() -> None:
    assert refusal_of_path_untrusted("", single_file=True) is None
    assert refusal_of_path_untrusted("", single_file=False) is not None
    for path in ("a", "..", "/", RESERVED_FOLDER):
        assert "a tree that is a single file" in (refusal_of_path_untrusted(path, single_file=True) or "")


@given(st.text(max_size=300))
@example("😀" * 64)
def test_a_name_of_few_enough_bytes_has_few_enough_units(name: str) -> None:
    if refusal_of_name(name) is None:
        assert len(name.encode("utf-16-le")) // 2 <= len(name.encode()) <= NAME_BYTES_MAX == NAME_UNITS_MAX


awkward = st.text(st.sampled_from("aBe./\\ :~é\u0301\ud800\0"), max_size=12)


@given(st.one_of(awkward, st.text(st.characters(), max_size=20)))
def test_whatever_is_not_refused_stays_below_the_root(path: str) -> None:
    if refusal_of_path_untrusted(path) is None:
        assert posixpath.normpath(posixpath.join("/root", path)) == f"/root/{path}"
        assert not any(character in path for character in FORBIDDEN if character != "/")
        assert normal_name(path) == path


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("link", "file"),
        ("link", "folder/file"),
        ("link", "not/there"),
        ("link", "."),
        ("link", "./file"),
        ("link", "folder/"),
        ("a/link", ".."),
        ("a/link", "../file"),
        ("a/b/link", "../../file"),
        ("a/b/link", "../c/file"),
        ("link", "..file"),
        ("link", "e\u0301"),
    ],
)
def test_a_link_within_the_tree_is_replicated(path: str, target: str) -> None:
    assert refusal_of_link_untrusted(path, target) is None


@pytest.mark.parametrize(
    ("path", "target", "because"),
    [
        ("", "file", "single file"),
        ("link", "", "leads nowhere"),
        ("link", "/etc/passwd", "is absolute"),
        ("link", "//server/share", "is absolute"),
        ("link", "C:/Windows", "is absolute"),
        ("link", "c:file", "is absolute"),
        ("link", "C:\\Windows", "is absolute"),
        ("link", "\\\\?\\C:\\Windows", "parted by '/'"),
        ("link", "..\\..\\x", "parted by '/'"),
        ("link", "..", "outside of the tree"),
        ("link", "../x", "outside of the tree"),
        ("link", "./../x", "outside of the tree"),
        ("a/link", "../../x", "outside of the tree"),
        ("a/link", "..//../x", "outside of the tree"),
        ("a/b/link", "up/..", "goes up again"),
        ("a/b/link", "../c/../d", "goes up again"),
        ("link", "a/../..", "goes up again"),
        ("link", "a" * (PATH_BYTES_MAX + 1), "longer than 1024 bytes"),
        ("link", "é/" * 400, "longer than 1024 bytes"),
        ("link", NOT_UTF_8, "is not UTF-8"),
        ("link", "NUL", "device on Windows"),
        ("link", "a/file:stream", "Windows does not allow"),
        ("link", "a/b\n", "Windows does not allow"),
        ("link", f"{RESERVED_FOLDER}/staging", "agent's own folder"),
        ("a/link", f"../{RESERVED_FOLDER.upper()}", "agent's own folder"),
    ],
)
def test_d13_a_link_that_may_leave_the_tree_is_refused(path: str, target: str, because: str) -> None:
    refusal = refusal_of_link_untrusted(path, target)
    assert refusal is not None
    assert because in refusal
    assert refusal.isprintable()
    assert len(refusal) < 350


def test_no_chain_of_accepted_links_leaves_the_tree() -> None:
    """Each link may lead through others, and a ".." in its target goes up from where those lead."""
    folders: list[tuple[str, ...]] = [(), ("a",), ("a", "a")]
    targets = ["/".join(steps) for length in (1, 2, 3) for steps in product(("..", "a", "x"), repeat=length)]
    places = [(*folder, "x") for folder in folders]
    accepted = {
        place: [target.split("/") for target in targets if refusal_of_link_untrusted("/".join(place), target) is None]
        for place in places
    }
    assert all(accepted.values())
    for first, second in product(places, repeat=2):
        for one, other in product(accepted[first], accepted[second]):
            standing = {first: one, second: other}
            for place, target in standing.items():
                assert not leaves_the_tree(place[:-1], target, standing)


def leaves_the_tree(
    folder: tuple[str, ...], target: list[str], links: dict[tuple[str, ...], list[str]], followed: int = 0
) -> bool:
    """Follows a target as an operating system does, every link on its way included."""
    steps = list(target)
    while steps:
        step = steps.pop(0)
        if step == "..":
            if not folder:
                return True
            folder = folder[:-1]
        elif (*folder, step) in links:
            followed += 1
            if followed > 8:
                return False  # leads in a circle
            steps = [*links[(*folder, step)], *steps]
        else:
            folder = (*folder, step)
    return False


@pytest.mark.parametrize(
    ("on_disk", "target"),
    [
        ("file", "file"),
        ("./file", "file"),
        ("a//b/", "a/b"),
        ("../.", ".."),
        ("./", "."),
        (".", "."),
        ("", ""),
        ("/a//b", "/a/b"),
        ("/", "/"),
        ("e\u0301", "é"),
        ("./..//x", "../x"),
    ],
)
def test_a_target_is_told_the_same_way_however_it_is_written(on_disk: str, target: str) -> None:
    assert normal_target(on_disk) == target
    assert normal_target(target) == target


@given(awkward)
def test_writing_a_target_the_same_way_does_not_make_it_safe_or_unsafe(target: str) -> None:
    before, after = (refusal_of_link_untrusted("a/link", text) for text in (target, normal_target(target)))
    assert (before is None) == (after is None)


def test_a_name_is_known_by_its_normal_form() -> None:
    assert normal_name("Cafe\u0301") == "Café"
    assert normal_name(NOT_UTF_8) == NOT_UTF_8
    assert refusal_of_name(normal_name("=\u0338")) is None  # one letter, ≠


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("readme", "README"),
        ("Größe", "GRÖSSE".replace("SS", "ß")),
        ("Café", "CAFE\u0301"),
        ("a/B/c", "A/b/C"),
        ("σ", "ς"),
        ("ß", "ẞ"),
        ("ÿ", "Ÿ"),
        ("ǆ", "ǅ"),
        ("ᾳ", "ᾼ"),
        ("я", "Я"),
        ("Maße.CSV", "MAßE.csv"),
    ],
)
def test_d13_paths_that_are_one_on_windows_collide(one: str, other: str) -> None:
    assert collision_key(one) == collision_key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("Maße", "Masse"), ("ﬁ", "fi"), ("a/b", "a-b"), ("sıra", "sira"), ("a", "á"), ("İ", "i")]
)
def test_paths_that_are_two_on_windows_do_not_collide(one: str, other: str) -> None:
    assert collision_key(one) != collision_key(other)


def test_every_letter_collides_with_itself_in_the_other_case() -> None:
    letters = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    apart = {
        (letter, other)
        for letter in letters
        for other in (letter.upper(), letter.lower())
        if len(other) == 1 and collision_key(letter) != collision_key(other)
    }
    assert apart == {("ı", "I")}  # NTFS keeps them apart, too


@given(st.lists(st.text(st.characters(exclude_characters="/")), min_size=1, max_size=4))
@example(["e", "\u0301"])
@example(["ß", "ΑΣ", "Σ"])
def test_the_key_of_a_path_is_made_of_the_keys_of_its_names(names: list[str]) -> None:
    assert collision_key("/".join(names)) == "/".join(map(collision_key, names))


@given(st.text())
def test_one_name_in_two_normal_forms_has_one_key(name: str) -> None:
    assert collision_key(unicodedata.normalize("NFD", name)) == collision_key(unicodedata.normalize("NFC", name))
