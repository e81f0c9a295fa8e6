"""The file that the index lives in: opened, checked, migrated, moved aside if it is damaged; and its transactions.

Knows nothing of rows. Promises:

* One process at a time: the file is locked as long as it is open.
* A damaged file, or one that no migration leads on from, is moved aside and kept, and a new one begun that remembers
  (`was_lost`) until somebody takes note. So a loss is not forgotten if the process dies right after it was found.
* A file of a newer release is refused and left alone.
* After an I/O error nothing more is written: what the kernel remembers may not be what the disk holds.
* A durable transaction is on the disk when it ends, with all that came before it. The others survive the end of the
  process; a loss of power may take the last of them, but never a part of one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.core.errors import StateError
from agent.platform.durability import sync_directory
from agent.replica import index_schema

LOCK_SECONDS_MAX: Final = 1.0
ASIDE_MAX: Final = 5  # damaged files that are kept; a further one takes the place of the last
_WAL_BYTES_KEPT: Final = 16 << 20
CACHE_KIBIBYTES: Final = 16 << 10
_BESIDE: Final = ("-wal", "-shm", "-journal")
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class _Unusable(Exception):  # noqa: N818  never leaves this module
    """The file is damaged, or outdated beyond migration: it is moved aside."""


class IndexFile:
    """The open file at `path`. Every method raises StateError, and blocks for as long as the disk takes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._refusal = f"the index {path} is closed."
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"the folder {path.parent} of the index cannot be made: {error.strerror}.") from error
        # A file that is missing beside damaged ones was moved aside a moment before the process died.
        lost = not path.exists() and self._aside(1).exists()
        try:
            self._open(lost=lost)
        except _Unusable:
            self._move_aside()
            self._open(lost=True)

    @property
    def is_open(self) -> bool:
        """True until `close`, or until the file had to be given up."""
        return self._connection is not None

    @property
    def was_lost(self) -> bool:
        """True if an index before this one was lost, until `acknowledge_loss`."""
        with self.guarded() as connection:
            (lost,) = connection.execute("SELECT lost FROM file_state").fetchone()
        return bool(lost)

    def acknowledge_loss(self) -> None:
        """Forgets that an index was lost."""
        with self.transaction(durable=True) as connection:
            connection.execute("UPDATE file_state SET lost = 0")

    @contextlib.contextmanager
    def guarded(self) -> Iterator[sqlite3.Connection]:
        """Gives the connection for reading, and translates its errors."""
        connection = self._connection
        if connection is None:
            raise StateError(self._refusal)
        try:
            yield connection
        except sqlite3.Error as error:
            raise self._failure(error) from error

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Gives the connection within a transaction, which an exception undoes."""
        with self.guarded() as connection:
            if durable:
                connection.execute("PRAGMA synchronous = FULL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):  # what made it fail is on its way up
                        connection.execute("ROLLBACK")
                if durable and self._connection is not None:
                    connection.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        """Closes the file; may be called twice."""
        self._disconnect()

    def _open(self, *, lost: bool) -> None:
        existed = self._path.exists()
        try:
            connection = sqlite3.connect(
                self._path,
                timeout=LOCK_SECONDS_MAX,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
        except sqlite3.Error as error:
            raise StateError(f"the index {self._path} cannot be opened: {error}.") from error
        self._connection = connection
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if tables:
                self._require_our_format(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
            if tables:
                self._check(connection)
            else:
                # An empty file may be all that a failing disk left of an index: better a needless comparison.
                self._create(connection, lost=lost or existed)
            connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            self._disconnect()
            code = error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else 0
            if code in _DAMAGED or isinstance(error, sqlite3.ProgrammingError):
                raise _Unusable from error
            if code == sqlite3.SQLITE_BUSY:
                raise StateError(f"the index {self._path} is in use by another process. End that one first.") from error
            if code == sqlite3.SQLITE_ERROR:  # a table that should be there is missing
                raise _Unusable from error
            raise StateError(f"the index {self._path} cannot be used: {error}.") from error
        except BaseException:
            self._disconnect()
            raise

    def _create(self, connection: sqlite3.Connection, *, lost: bool) -> None:
        connection.executescript(
            f"BEGIN IMMEDIATE; {index_schema.TABLES}"
            f"INSERT INTO file_state(lost) VALUES ({int(lost)});"
            f"PRAGMA application_id = {index_schema.APPLICATION_ID};"
            f"PRAGMA user_version = {index_schema.VERSION};"
            "COMMIT;"
        )
        with contextlib.suppress(OSError):  # some file systems flush no folders
            sync_directory(self._path.parent)

    def _require_our_format(self, connection: sqlite3.Connection) -> None:
        """Raises StateError for a newer version before anything is written, _Unusable for what is no index."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != index_schema.APPLICATION_ID:
            raise _Unusable
        if version > index_schema.VERSION:
            raise StateError(
                f"the index {self._path} was written by a newer release (version {version} of its format, this release "
                f"knows {index_schema.VERSION}). Install that release again, or move the file away: then all "
                "trees are read and compared anew."
            )

    def _check(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise _Unusable
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        while version < index_schema.VERSION:
            if version not in index_schema.MIGRATIONS:
                raise _Unusable
            connection.executescript(
                f"BEGIN IMMEDIATE; {index_schema.MIGRATIONS[version]}; PRAGMA user_version = {version + 1}; COMMIT;"
            )
            version += 1
        connection.execute(f"SELECT 1 FROM {', '.join(index_schema.ALL_TABLES)} LIMIT 0")  # are they all there?

    def _failure(self, error: sqlite3.Error) -> StateError:
        """Returns what an error of SQLite means, having given up the file if it can no longer be trusted."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            self._disconnect()
            moved_to = self._move_aside()
            self._refusal = f"the index {self._path} was damaged; it is kept as {moved_to.name}. Start the agent again."
            return StateError(self._refusal)
        if code == sqlite3.SQLITE_IOERR:
            self._disconnect()
            self._refusal = f"the index {self._path} cannot be read or written: {error}. Look after the disk."
            return StateError(self._refusal)
        if code == sqlite3.SQLITE_FULL:
            return StateError(f"the index {self._path} cannot be written: no space is left. Make room on that disk.")
        return StateError(f"the index {self._path} cannot be used: {error}.")

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.damaged-{number}")

    def _move_aside(self) -> Path:
        """Moves the file and what belongs to it aside; returns where it is now."""
        number = next((each for each in range(1, ASIDE_MAX) if not self._aside(each).exists()), ASIDE_MAX)
        target = self._aside(number)
        try:
            for suffix in _BESIDE:  # first, for a new file must never meet the log of the old one
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self._path}{suffix}", f"{target}{suffix}")
            os.replace(self._path, target)
        except OSError as error:
            raise StateError(
                f"the index {self._path} is damaged and cannot be moved aside: {error.strerror}. Move it away by hand."
            ) from error
        return target
