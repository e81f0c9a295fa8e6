"""Who may read a file, and how files come to be: private from their first byte, and whole or not at all.

"Others" are all accounts but the owner, this process's own, and those that could take any right at will (root;
administrators and the system). Everything here blocks for as long as the disk takes. OSError never leaves: failures are
StateError, a sentence with the path.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path

from agent.core.errors import StateError
from agent.platform.durability import flush_data, replace, sync_directory, write_all

if sys.platform == "win32":
    from agent.platform import security_windows
    from agent.platform.security_descriptor import foreign_readers

    def _restrict(path: Path) -> None:
        security_windows.restrict(path)

    def _others(path: Path) -> str | None:
        readers = foreign_readers(security_windows.read_descriptor(path), security_windows.own_trustees())
        if not readers:
            return None
        names = ", ".join(security_windows.account_name(trustee) for trustee in readers)
        return (
            f"{path} can be read by others ({names}). Give it to its owner alone: "
            f'icacls "{path}" /inheritance:r /grant:r "%USERNAME%:F" "*S-1-5-18:F"'
        )

    def _create(path: Path, *, private: bool) -> int:
        if private:
            return security_windows.create_private(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_BINARY | os.O_NOINHERIT)

    def _copy_mode(source: Path, descriptor: int) -> None:
        """Does nothing: a new file inherits the access list of its folder, as the old one did."""

else:
    import stat

    def _restrict(path: Path) -> None:
        path.chmod(0o700 if path.is_dir() else 0o600)

    def _others(path: Path) -> str | None:
        # A POSIX access list cannot hide here: where there is one, the group's bits show its mask.
        mode = path.stat().st_mode
        readers = [name for name, bits in (("its group", 0o040), ("everyone", 0o004)) if mode & bits]
        if readers:
            return (
                f"{path} can be read by {' and '.join(readers)} (mode {stat.S_IMODE(mode):04o}). "
                f"Give it to its owner alone: chmod {'700' if stat.S_ISDIR(mode) else '600'} '{path}'"
            )
        folder = path.resolve().parent
        status = folder.stat()
        # Who may rename in the folder can put another file in this one's place. A group of the owner's own, as many
        # distributions give every account one, is nobody else; in a sticky folder only owners rename.
        others_write = status.st_mode & 0o002 or (status.st_mode & 0o020 and status.st_gid != status.st_uid)
        if others_write and not status.st_mode & stat.S_ISVTX:
            return (
                f"{path} can be replaced by others, because they may write to its folder "
                f"(mode {stat.S_IMODE(status.st_mode):04o}). Mend it: chmod go-w '{folder}'"
            )
        return None

    def _create(path: Path, *, private: bool) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.open(path, flags, 0o600 if private else 0o666)

    def _copy_mode(source: Path, descriptor: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.fchmod(descriptor, stat.S_IMODE(source.stat().st_mode))


def restrict_to_owner(path: Path) -> None:
    """Takes every right to an existing file or directory from others; raises StateError."""
    try:
        _restrict(path)
    except OSError as error:
        raise StateError(f"{path} cannot be restricted to its owner: {error.strerror}.") from error


def readable_by_others(path: Path) -> str | None:
    """Returns a sentence naming who else may read or replace the private file `path` and how to mend it; else None.

    Raises StateError if the file is missing or may not be looked at.
    """
    try:
        return _others(path)
    except OSError as error:
        raise StateError(f"{path} cannot be examined: {error.strerror}.") from error


def write_private(path: Path, data: bytes) -> None:
    """Writes a new file that only its owner can read at any moment, and returns when it is on the disk.

    Raises StateError if the file exists, which is left as it is, or cannot be written, which leaves no file.
    """
    try:
        descriptor = _create(path, private=True)
    except FileExistsError as error:
        raise StateError(f"{path} exists already and was not overwritten.") from error
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        _fill(descriptor, data)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise StateError(f"{path} cannot be written: {error.strerror}.") from error


def replace_file(path: Path, data: bytes, private: bool) -> None:
    """Gives `path` the content `data`, whole or not at all, and returns when it is on the disk.

    A `private` file is readable by its owner alone; another keeps the mode that it had. Raises StateError; the old file
    is intact then. A crash may leave the new content beside it, as a hidden file that ends in ".new".
    """
    # The name is drawn, because two writers may meet here; only whole files ever get the real name.
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        descriptor = _create(new, private=private)
        try:
            _fill(descriptor, data, mode_of=None if private else path)
            replace(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}.") from error


def _fill(descriptor: int, data: bytes, mode_of: Path | None = None) -> None:
    """Writes and flushes `data`, and closes the descriptor whatever happens."""
    try:
        if mode_of is not None:
            _copy_mode(mode_of, descriptor)
        write_all(descriptor, data)
        flush_data(descriptor)
    finally:
        os.close(descriptor)
