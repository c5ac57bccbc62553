"""The spool: notifications on disk while Kafka does not answer, in one SQLite file.

A thread of its own owns the file. All notifications that wait for the thread are written in one transaction, so a burst
costs one fsync (WAL, synchronous=FULL: the commit has reached the disk when it returns). The index (the numbers of each
key, and the size) is held in memory and read once at the start; the contents stay on disk.

Deleting needs disk space too, which a full disk does not have. So a published notification leaves the index at once and
is deleted as soon as that works; when nothing else is left in the file, a new file replaces it, which frees the space.

A file that was removed or replaced under the process would still accept notifications, and they would be lost when the
process ends. So no more are accepted; a new file is made once everything in the old one is published.

A notification that can't be read does not block the others: it is skipped until the next start, which may be that of a
release that can read it, and stays in the file for inspection.
"""

import asyncio
import contextlib
import errno
import json
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from adapter.core.errors import Stop, Unavailable
from adapter.core.notification import Delivery
from adapter.ports import Arrival, Caller, Spooled
from adapter.transport.sqlite import is_damage, transaction

_GROUP: Final = 500
"""Notifications in one transaction, at most."""
_AT_ONCE: Final = 8 * 1024 * 1024
"""Most bytes that `heads` returns at once, unless one notification alone is longer."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS notification (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL,
    received_at REAL NOT NULL,
    facts TEXT NOT NULL,
    body BLOB NOT NULL
)
"""

# One bit tells text from bytes: what that bit was damaged of is the same in the type it was put as.
_INDEX: Final = (
    "SELECT number, CAST(key AS BLOB), CAST(received_at AS REAL), length(key) + length(facts) + length(body) "
    "FROM notification"
)
_ROW: Final = (
    "SELECT CAST(key AS BLOB), CAST(facts AS BLOB), iif(typeof(body) IN ('blob', 'text'), CAST(body AS BLOB), NULL) "
    "FROM notification WHERE number = ?"
)


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    size: int
    received_at: float


class SqliteSpool:
    """`ports.Spool`. Numbers are never reused, so their order is the order of arrival, even across restarts."""

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        damaged: Callable[[Path, int], None],
        unreadable: Callable[[int, str], None],
    ) -> None:
        """Opens or creates the file, readable for its owner alone. A damaged file is moved aside, and the notifications
        that can still be read are copied from it: `damaged` is called with its new path and their number. `unreadable`
        is called with the number of each notification that is skipped, and the reason.

        Raises Stop if the file can't be used, as when another process has it open.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._unreadable = unreadable
        self._published: set[int] = set()
        """Numbers of published notifications that are still in the file."""
        self._keys: dict[bytes, deque[_Entry]] = {}
        self._depth = 0
        self._size = 0
        self._loop = asyncio.get_running_loop()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._database: sqlite3.Connection | None = None
        try:
            self._database = _open(path, damaged)
            self._place = _place(path)
            for number, key, received_at, size in self._database.execute(f"{_INDEX} ORDER BY number"):
                self._enter(key, _Entry(number, size, received_at))
        except (OSError, sqlite3.Error) as error:
            if self._database is not None:
                self._database.close()
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise Stop(
                f"ADAPTER_SERVER__SPOOL__PATH: {path} can't be used ({why}); give a file on a local disk that this "
                "process alone may write"
            ) from None
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        return self._depth

    @property
    def size(self) -> int:
        """Bytes of the notifications it holds, without SQLite's overhead."""
        return self._size

    def oldest(self) -> float:
        """Seconds since the oldest entry arrived; 0 without one."""
        first = min((entries[0].received_at for entries in self._keys.values()), default=None)
        return 0.0 if first is None else max(0.0, time.time() - first)

    def holds(self, key: bytes) -> bool:
        return key in self._keys

    async def put(self, key: bytes, arrival: Arrival) -> None:
        received_at = arrival.delivery.received_at.timestamp()
        row = (key, received_at, _facts(arrival), arrival.delivery.body)
        size = len(key) + len(row[2]) + len(row[3])
        if self._size + size > self._max_bytes:
            raise Unavailable("the spool is full")
        self._size += size  # reserved now, so that puts until it is written count it too

        def written(done: "asyncio.Future[Any]") -> None:  # also when nobody waits any more
            self._size -= size
            if done.exception() is None:
                self._enter(key, _Entry(done.result(), size, received_at))

        done = self._loop.create_future()
        done.add_done_callback(written)
        await self._ask(_Put(row, done))

    async def heads(self, limit: int) -> Sequence[Spooled]:
        rows: list[Spooled] = []
        while self._keys and not rows:
            rows, unreadable = await self._heads(limit)
            for number, reason in unreadable.items():
                self._unreadable(number, reason)
            self._leave(unreadable)
        return rows

    async def _heads(self, limit: int) -> "_Found":
        numbers: list[int] = []
        size = 0
        for key, entries in list(islice(self._keys.items(), limit)):
            size += entries[0].size
            if numbers and size > _AT_ONCE:
                break
            numbers.append(entries[0].number)
            self._keys[key] = self._keys.pop(key)  # the others' turn is next, also if these can't be published
        found: _Found = await self._ask(_Do(partial(_rows, numbers=numbers), self._loop.create_future()))
        return found

    async def drop(self, numbers: Sequence[int]) -> None:
        gone = set(numbers)
        self._leave(gone)
        self._published |= gone
        due = frozenset(self._published)
        await self._ask(_Do(partial(self._delete, numbers=due), self._loop.create_future()))
        self._published -= due

    async def close(self) -> None:
        """The notifications stay in the file for the next start."""
        self._requests.put(None)
        await asyncio.to_thread(self._thread.join)

    def _enter(self, key: bytes, entry: _Entry) -> None:
        self._keys.setdefault(key, deque()).append(entry)
        self._depth += 1
        self._size += entry.size

    def _leave(self, numbers: Container[int]) -> None:
        for key in [key for key, entries in self._keys.items() if entries[0].number in numbers]:
            entries = self._keys[key]
            entry = entries.popleft()
            if not entries:
                del self._keys[key]
            self._depth -= 1
            self._size -= entry.size

    async def _ask(self, request: "_Request") -> Any:
        if not self._thread.is_alive():
            raise Unavailable("the spool is closed")
        self._requests.put(request)
        return await asyncio.shield(request.done)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            puts: list[_Put] = []
            following: _Request | None = request
            while isinstance(following, _Put):
                puts.append(following)
                following = None
                if len(puts) < _GROUP:
                    with contextlib.suppress(queue.Empty):
                        following = self._requests.get_nowait()
                        if following is None:
                            self._requests.put(None)
            if puts:
                self._answer([put.done for put in puts], partial(self._insert, puts=puts))
            if isinstance(following, _Do):
                self._answer([following.done], partial(_act, action=following.action))
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()

    def _insert(self, database: sqlite3.Connection, *, puts: Sequence["_Put"]) -> list[int]:
        if _place(self._path) == self._place:
            return _insert(database, puts)
        if database.execute("SELECT 1 FROM notification LIMIT 1").fetchone() is not None:
            raise FileNotFoundError(errno.ENOENT, "it was removed or replaced before all in it was published")
        database.close()
        self._database = None
        return _insert(self._connected(), puts)

    def _connected(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = _connect(self._path)
            self._place = _place(self._path)
        return self._database

    def _delete(self, database: sqlite3.Connection, *, numbers: frozenset[int]) -> None:
        try:
            with transaction(database):
                database.executemany("DELETE FROM notification WHERE number = ?", [(number,) for number in numbers])
        except sqlite3.Error:
            if any(number not in numbers for (number,) in database.execute("SELECT number FROM notification")):
                raise
            database.close()
            self._database = None
            for ending in _ENDINGS:
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
            return
        if database.execute("SELECT 1 FROM notification LIMIT 1").fetchone() is None:
            # Nobody's name or telephone number is left behind in the write-ahead log.
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _answer(self, futures: "list[asyncio.Future[Any]]", act: Callable[[sqlite3.Connection], list[Any]]) -> None:
        failure: Exception | None = None
        results: list[Any] = []
        try:
            results = act(self._connected())
        except Exception as error:  # noqa: BLE001 -- who waits is told, whatever it is: the thread goes on
            failure = Unavailable(f"the spool can't be used: {_told(error)}")

        def settle() -> None:
            for place, future in enumerate(futures):
                if failure is None:
                    future.set_result(results[place])
                else:
                    future.set_exception(failure)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(settle)


_ENDINGS: Final = ("", "-wal", "-shm")
_Row = tuple[bytes, float, str, bytes]


@dataclass(frozen=True, slots=True)
class _Put:
    row: _Row
    done: "asyncio.Future[Any]"


@dataclass(frozen=True, slots=True)
class _Do:
    action: Callable[[sqlite3.Connection], Any]
    done: "asyncio.Future[Any]"


_Request = _Put | _Do


def _open(path: Path, damaged: Callable[[Path, int], None]) -> sqlite3.Connection:
    try:
        return _connect(path)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if not is_damage(error):  # busy, unreadable
            raise
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    for ending in _ENDINGS:
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(aside.with_name(aside.name + ending))
    database = _connect(path)
    damaged(aside, _take_over(aside, database))
    return database


def _take_over(aside: Path, database: sqlite3.Connection) -> int:
    """Copy the notifications of the damaged file that can still be read into `database`; returns their number."""
    saved = 0
    with contextlib.closing(sqlite3.connect(aside, isolation_level=None)) as old, transaction(database):
        old.text_factory = bytes  # as in `_ROW`
        for number in range(1, _last(old) + 1):  # one by one, for a scan ends at the first damaged page
            try:
                row = old.execute("SELECT * FROM notification WHERE rowid = ?", (number,)).fetchone()
                if row is None:
                    continue
                _, key, _, facts, body = row  # whatever the columns are called by now
                arrival = _arrival(facts, body)
            except (sqlite3.Error, ValueError, LookupError, TypeError):
                continue
            if isinstance(key, bytes):
                received_at = arrival.delivery.received_at.timestamp()
                new = (number, key, received_at, _facts(arrival), arrival.delivery.body)
                database.execute("INSERT INTO notification VALUES (?, ?, ?, ?, ?)", new)
                saved += 1
    return saved


def _last(old: sqlite3.Connection) -> int:
    """The last number of the damaged file, 0 if it has not even its list of tables. Two places tell it; the smaller one
    counts, for a garbled one may be beyond all counting.
    """
    told: list[int] = []
    for query in ("SELECT seq FROM sqlite_sequence WHERE name = 'notification'", "SELECT max(rowid) FROM notification"):
        with contextlib.suppress(sqlite3.Error, ValueError, TypeError):
            ((number,),) = old.execute(query)
            told.append(int(number))
    return min(told, default=0)


def _connect(path: Path) -> sqlite3.Connection:
    # Made here, for SQLite would make it readable for others; its side files take over the mode of the first. Never
    # opened otherwise: to close a descriptor of a file gives up all locks that the process has on it (POSIX).
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.chmod(0o600)
    database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        # One process alone: two that drain the same file would publish everything twice.
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = ON",  # it holds names and telephone numbers
            "journal_size_limit = 4194304",
        ):
            database.execute(f"PRAGMA {pragma}")
        with transaction(database):
            database.execute(_SCHEMA)
        _check(database)
        database.execute(f"{_INDEX} LIMIT 0")  # does it have all columns?
    except BaseException:
        database.close()
        raise
    return database


def _place(path: Path) -> tuple[int, int] | None:
    """What identifies the file at that path; None if there is none. Raises OSError if the path can't be followed."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _check(database: sqlite3.Connection) -> None:
    if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("quick_check failed")


def _insert(database: sqlite3.Connection, puts: Sequence[_Put]) -> list[int]:
    numbers = []
    with transaction(database):
        for put in puts:
            cursor = database.execute(
                "INSERT INTO notification (key, received_at, facts, body) VALUES (?, ?, ?, ?)", put.row
            )
            assert cursor.lastrowid is not None
            numbers.append(cursor.lastrowid)
    return numbers


def _act(database: sqlite3.Connection, action: Callable[[sqlite3.Connection], Any]) -> list[Any]:
    return [action(database)]


_Found = tuple[list[Spooled], dict[int, str]]
"""The notifications that could be read, and by number why others could not."""


def _rows(database: sqlite3.Connection, numbers: Sequence[int]) -> _Found:
    found: list[Spooled] = []
    unreadable: dict[int, str] = {}
    for number in sorted(numbers):
        try:
            row = database.execute(_ROW, (number,)).fetchone()
            found.append(Spooled(number, row[0], _arrival(row[1], row[2])))
        except sqlite3.OperationalError:  # busy, a disk that fails: not the row
            raise
        except (sqlite3.DatabaseError, ValueError, LookupError, TypeError) as error:
            unreadable[number] = _told(error)
    return found, unreadable


def _told(error: Exception) -> str:
    """The error's text only where it can't quote the row, which may hold personal data."""
    return f"{type(error).__name__}: {error}" if isinstance(error, sqlite3.Error | OSError) else type(error).__name__


def _facts(arrival: Arrival) -> str:
    delivery, caller = arrival.delivery, arrival.caller
    return json.dumps(
        {
            "path": delivery.path,
            "content_type": delivery.content_type,
            "soap_action": delivery.soap_action,
            "received_at": delivery.received_at.isoformat(),
            "address": caller.address,
            "subject": caller.subject,
            "traceparent": arrival.traceparent,
        }
    )


def _arrival(text: str | bytes, body: bytes) -> Arrival:
    """Raises ValueError, LookupError or TypeError for what `_facts` did not write."""
    facts = json.loads(text)
    delivery = Delivery(
        body=body,
        received_at=datetime.fromisoformat(facts["received_at"]),
        path=facts["path"],
        content_type=facts["content_type"],
        soap_action=facts["soap_action"],
    )
    arrival = Arrival(delivery, Caller(facts["address"], facts["subject"]), facts["traceparent"])
    sure = (delivery.path, arrival.caller.address)
    maybe = (delivery.content_type, delivery.soap_action, arrival.caller.subject, arrival.traceparent)
    if (
        not isinstance(body, bytes)
        or delivery.received_at.tzinfo is None
        or not all(isinstance(each, str) for each in sure)
        or not all(each is None or isinstance(each, str) for each in maybe)
    ):
        raise TypeError
    return arrival
