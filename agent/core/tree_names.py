"""Which names, paths and links can be replicated: one set of rules, the same on every platform.

A pair may get a Windows node any day, so a name that Windows cannot hold is refused on Linux too; and the node that
receives checks again what the other one sent. Knows nothing of disks: whether a folder really is one, and whether two
names of one folder collide, is asked by those who see the folder.

Every `refusal_of_...` returns None, or a sentence that says what is wrong and what is allowed. A name inside of it is
written so that a log can show it.

* What has no refusal can be joined to a tree's root on Windows and on Linux and stays inside of the tree, as long as
  the folders above it are folders and not links.
* A link without a refusal leads to a place inside of the tree, also through other such links: ".." stands only at the
  beginning of its target, where what lies above is known.

Sources: "Naming Files, Paths, and Namespaces" (Microsoft Learn), Python's `ntpath.isreserved`.
"""

from __future__ import annotations

import re
import unicodedata

RESERVED_FOLDER = ".pair-agent"  # in a tree's root: the agent's own

NAME_BYTES_MAX = 255  # of UTF-8
NAME_UNITS_MAX = 255  # of UTF-16, as NTFS counts; kept by NAME_BYTES_MAX, for no character has more units than bytes
PATH_BYTES_MAX = 1024
DEPTH_MAX = 64
_SHOWN_MAX = 60  # characters of a name within a sentence

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f/\\<>:"|?*]')
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³]) *(\.|\Z)", re.IGNORECASE | re.ASCII)
_DRIVE = re.compile(r"[A-Za-z]:")
# Windows opens the folder in any letter case, and by the short name that it may have made for it.
_RESERVED_KEY = re.compile(r"\.pair-agent|pair-a~[0-9]")


def refusal_of_name(name: str) -> str | None:
    """Returns why an entry with this name, one component of a path, cannot be replicated, or None.

    Expects what `normal_name` returns; the name of a file that is not UTF-8 holds surrogates (PEP 383).
    """
    if name in ("", ".", ".."):
        return f"{name!r} is not a name"
    if len(name) > NAME_BYTES_MAX:
        return f"the name {_shown(name)} is longer than {NAME_BYTES_MAX} bytes, the most that file systems take"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return f"the name {_shown(name)} is not UTF-8, so the other node could not write it; rename it"
    if size > NAME_BYTES_MAX:
        return f"the name {_shown(name)} has {size} bytes, and file systems take no more than {NAME_BYTES_MAX}"
    if found := _FORBIDDEN.search(name):
        return f"the name {_shown(name)} contains {found.group()!r}, which Windows does not allow; rename it"
    if name[-1] in ". ":
        return f"the name {_shown(name)} ends with {name[-1]!r}, which Windows drops; rename it"
    if _DEVICE.match(name):
        return f"the name {_shown(name)} is that of a device on Windows; rename it"
    return None


def refusal_of_path_untrusted(path: str, *, single_file: bool = False) -> str | None:
    """Returns why nothing at `path` (see Entry) may be replicated, or None.

    `single_file`: the tree is one file, so that "" is its only path; in any other tree "" is refused.
    """
    if single_file:
        return f"the path {_shown(path)} is not of a tree that is a single file" if path else None
    if not path:
        return "the path is empty, and only a tree that is a single file has such an entry"
    if path[0] == "/":
        return f"the path {_shown(path)} is absolute, and only what lies in the tree is replicated"
    if len(path) > PATH_BYTES_MAX or len(path.encode("utf-8", "surrogatepass")) > PATH_BYTES_MAX:
        return f"the path {_shown(path)} is longer than {PATH_BYTES_MAX} bytes"
    names = path.split("/")
    if len(names) > DEPTH_MAX:
        return f"the path {_shown(path)} lies {len(names)} folders deep, and {DEPTH_MAX} are allowed"
    for name in names:
        if refusal := refusal_of_name(name):
            return refusal
    if not unicodedata.is_normalized("NFC", path):
        return f"the path {_shown(path)} is not in the normal form of Unicode (NFC)"
    if _is_reserved(names[0]):
        return f"the path {_shown(path)} lies in the agent's own folder {RESERVED_FOLDER}"
    return None


def refusal_of_link_untrusted(path: str, target: str) -> str | None:
    """Returns why the symbolic link at `path`, itself without a refusal, may not lead to `target`, or None."""
    if not path:
        return "a tree that is a single file cannot be a link"
    if not target:
        return "the link leads nowhere: its target is empty"
    shown = f"the link leads to {_shown(target)}"
    if len(target) > PATH_BYTES_MAX or len(target.encode("utf-8", "surrogatepass")) > PATH_BYTES_MAX:
        return f"{shown}, which is longer than {PATH_BYTES_MAX} bytes"
    if target[0] == "/" or _DRIVE.match(target):
        return f"{shown}, which is absolute; make it relative, so that it leads to the same place on the other node"
    if "\\" in target:
        return f"{shown}, and '\\' is not allowed; folders are parted by '/'"
    folders_left, named = path.count("/"), False
    for part in target.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            # What a name stands for may be a link itself, and then ".." goes up from wherever that one leads.
            if named:
                return f"{shown}, which goes up again behind a name; write it without that detour"
            if not folders_left:
                return f"{shown}, which lies outside of the tree"
            folders_left -= 1
            continue
        named = True
        if refusal := refusal_of_name(part):
            return f"{shown}, but {refusal}"
        if _is_reserved(part):
            return f"{shown}, which is the agent's own folder"
    return None


def normal_name(on_disk: str) -> str:
    """Returns the name of an entry as both nodes know it: in Unicode's normal form NFC."""
    return on_disk if on_disk.isascii() else unicodedata.normalize("NFC", on_disk)


def normal_target(on_disk: str) -> str:
    """Returns a link's target, its folders parted by "/", as both nodes know it: names in NFC, no idle steps.

    So a target that names an entry names it as the other node will write it. An absolute target stays absolute.
    """
    steps = [part for part in normal_name(on_disk).split("/") if part not in ("", ".")]
    if on_disk.startswith("/"):
        return "/" + "/".join(steps)
    return "/".join(steps) or on_disk[:1]


def collision_key(path: str) -> str:
    """Returns what two paths have in common that are one to a file system which ignores case, as on Windows.

    Folds letter by letter as NTFS does, so that "Maße" and "Masse" are two files, unlike with `str.casefold` alone. The
    key of a path consists of the keys of its names.
    """
    if path.isascii():
        return path.lower()
    path = unicodedata.normalize("NFC", path)
    folded = path.casefold()
    if len(folded) != len(path):
        folded = "".join(map(_folded_letter, path))
    return unicodedata.normalize("NFC", folded)


def _folded_letter(letter: str) -> str:
    for folded in (letter.casefold(), letter.lower()):
        if len(folded) == 1:
            return folded
    return letter


def _is_reserved(name: str) -> bool:
    return _RESERVED_KEY.fullmatch(collision_key(name)) is not None


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_MAX else name[:_SHOWN_MAX] + "…")
