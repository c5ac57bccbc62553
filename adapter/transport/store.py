"""Tickets on the local disk: one SQLite file for each partition, a copy of the tickets topic.

The copy is updated after the Kafka transaction, so it is at most one transaction behind the topic and never ahead of
it; its checkpoint says how far it has got. It may be lost at any time, since the topic has everything. So commits do
not wait for the disk (WAL, synchronous=NORMAL: a power failure loses the latest commits and nothing else).
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from adapter.core.errors import Stop, Unavailable
from adapter.ports import Checkpoint, TicketRecord
from adapter.transport.sqlite import is_damage, transaction

_T = TypeVar("_T")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS ticket
    (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL, due INTEGER);
CREATE INDEX IF NOT EXISTS ticket_due ON ticket (due) WHERE due IS NOT NULL;
CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
_WRITE: Final = (
    "INSERT INTO ticket (key, value, due) VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, due = excluded.due"
)
_PREFIX: Final = "fault-adapter-tickets-"
_AT_ONCE: Final = 500
"""Most keys of one query."""


class SqliteStores:
    """`ports.TicketStores` in one folder, which this process alone may use; without `folder`, in a temporary one.

    `setting` is the name of the setting for the folder, `cache` the bytes of memory each store may use as cache.
    `damaged` is called with each file that was damaged and had to be recreated. Raises Stop if the folder can't be
    used.
    """

    def __init__(self, folder: Path | None, *, setting: str, cache: int, damaged: Callable[[Path], None]) -> None:
        self._setting = setting
        self._cache = cache
        self._damaged = damaged
        self._temporary = folder is None
        try:
            if folder is None:
                _remove_left_behind()
                folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(folder)
        except OSError as error:
            raise Stop(_unusable(setting, folder, error)) from None
        if lock is None:
            raise Stop(f"{setting}: {folder} is in use by another process; each needs a folder of its own")
        self._folder, self._lock = folder, lock
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="tickets")

    async def open(self, partition: int, identity: str) -> "SqliteStore":
        """The store of that partition; empty if the file was of another identity, or damaged. Raises Unavailable."""
        name = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
        path = self._folder / f"tickets-{partition}-{name}.db"
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._open, path, partition)

    def close(self) -> None:
        """After every store was closed."""
        self._threads.shutdown()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def _open(self, path: Path, partition: int) -> "SqliteStore":
        try:
            # Whatever removes old temporary files may have removed the folder; what is open goes on without it.
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for foreign in self._folder.glob(f"tickets-{partition}-*.db*"):
                if not foreign.name.startswith(path.name):
                    foreign.unlink(missing_ok=True)
            try:
                return SqliteStore(*_connect(path, self._cache), self._threads, path, self._setting)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if not is_damage(error):
                    raise
                self._damaged(path)
                _remove(path)
                return SqliteStore(*_connect(path, self._cache), self._threads, path, self._setting)
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(_unusable(self._setting, path, error)) from None


class SqliteStore:
    """`ports.TicketStore`."""

    def __init__(
        self,
        database: sqlite3.Connection,
        checkpoint: Checkpoint | None,
        threads: ThreadPoolExecutor,
        path: Path,
        setting: str,
    ) -> None:
        self.checkpoint = checkpoint
        self._database = database
        self._threads = threads
        self._path = path
        self._setting = setting
        self._access = threading.Lock()
        """A caller may be cancelled, and another one start, while a thread still works for the first."""

    def load(self, tickets: Sequence[TicketRecord]) -> None:
        self._alone(lambda: self._load(tickets))

    async def clear(self) -> None:
        await self._do(self._clear)

    async def count(self) -> int:
        return await self._do(lambda: int(self._database.execute("SELECT count(*) FROM ticket").fetchone()[0]))

    async def find(self, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        return await self._do(lambda: dict(self._find(list(keys))))

    async def due(self, until: int, limit: int) -> Sequence[TicketRecord]:
        question = "SELECT key, value, due FROM ticket WHERE due <= ? ORDER BY due LIMIT ?"
        return await self._do(lambda: list(map(_due, self._database.execute(question, (until, limit)))))

    async def save(self, tickets: Sequence[TicketRecord], checkpoint: Checkpoint) -> None:
        await self._do(lambda: self._save(tickets, checkpoint))

    async def close(self) -> None:
        await self._do(self._database.close)

    # -- on a thread -------------------------------------------------------------------------------------------------

    async def _do(self, what: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._alone, what)

    def _alone(self, what: Callable[[], _T]) -> _T:
        with self._access:
            try:
                return what()
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if not is_damage(error):
                    raise Unavailable(_unusable(self._setting, self._path, error)) from error
                self._database.close()
                with contextlib.suppress(OSError):  # the whole disk may fail
                    _remove(self._path)
                raise Stop(f"{self._path} is damaged; start again: it is read anew ({error})") from error

    def _load(self, tickets: Sequence[TicketRecord]) -> None:
        if self.checkpoint is None:  # a fresh copy that a power failure damages has no checkpoint
            self._database.execute("PRAGMA synchronous = OFF")
        with transaction(self._database):
            self._write(tickets)

    def _clear(self) -> None:
        self.checkpoint = None
        self._database.executescript("DELETE FROM mark; DROP TABLE IF EXISTS ticket;" + _SCHEMA)  # noqa: S608 -- constants

    def _find(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._database.execute(f"SELECT key, value FROM ticket WHERE key IN ({marks})", some)  # noqa: S608 -- marks alone
            yield from map(_sound, rows)

    def _save(self, tickets: Sequence[TicketRecord], checkpoint: Checkpoint) -> None:
        if self.checkpoint is None:  # what was loaded unsynced reaches the disk before anything says it is complete
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with transaction(self._database):
            self._write(tickets)
            self._database.executemany(
                "INSERT OR REPLACE INTO mark (name, value) VALUES (?, ?)",
                [("transaction", checkpoint.transaction), ("tickets", checkpoint.tickets)],
            )
        self.checkpoint = checkpoint

    def _write(self, tickets: Sequence[TicketRecord]) -> None:
        last = {t.key: t for t in tickets}.values()
        self._database.executemany(_WRITE, [(t.key, t.value, t.due) for t in last if t.value is not None])
        self._database.executemany("DELETE FROM ticket WHERE key = ?", [(t.key,) for t in last if t.value is None])


def _sound(row: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """The key and value of a ticket. Raises DatabaseError if they are damaged: SQLite takes any type in any column."""
    if not (isinstance(row[0], bytes) and isinstance(row[1], bytes)):
        raise sqlite3.DatabaseError("a ticket is stored as another type")
    return row


def _due(row: tuple[bytes, bytes, int]) -> TicketRecord:
    """Raises as `_sound`."""
    key, value, due = row
    if not isinstance(due, int):
        raise sqlite3.DatabaseError("a ticket is due at no time")
    return TicketRecord(*_sound((key, value)), due)


def _connect(path: Path, cache: int) -> tuple[sqlite3.Connection, Checkpoint | None]:
    """The store in that file, and how far it is complete. Raises sqlite3.Error, OSError or UnicodeDecodeError."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        path.chmod(0o600)
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA cache_size = -{cache // 1024}")
        database.executescript(_SCHEMA)
        marks = dict(database.execute("SELECT name, value FROM mark"))
    except BaseException:
        database.close()
        raise
    match marks:
        case {"transaction": str(name), "tickets": int(tickets)}:
            return database, Checkpoint(name, tickets)
        case _:
            return database, None


def _lock(folder: Path) -> int | None:
    """Locks the folder until the returned file descriptor is closed; None if another process holds the lock."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove_left_behind() -> None:
    """Remove the temporary folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # of another user, or gone meanwhile
            if (folder / "lock").exists() and (lock := _lock(folder)) is not None:
                shutil.rmtree(folder)
                os.close(lock)


def _remove(path: Path) -> None:
    for each in (path, *path.parent.glob(f"{path.name}-*")):
        each.unlink(missing_ok=True)


def _unusable(setting: str, path: Path | None, error: Exception) -> str:
    what = "a temporary folder can't be had" if path is None else f"{path} can't be used"
    return f"{setting}: {what} ({error}); give a folder on a local disk with room"
