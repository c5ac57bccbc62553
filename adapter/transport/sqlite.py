"""What the two stores on disk (`spool`, `store`) share of SQLite: transactions, and what counts as damage."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def is_damage(error: Exception) -> bool:
    """Whether the contents of the file are wrong, rather than that the disk fails or has no room. SQLite has no one
    word for that: a column that is not there any more is an error of ours to it, and one whose words quote garbage
    can't even be told.
    """
    if isinstance(error, sqlite3.OperationalError):
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR
    return isinstance(error, sqlite3.DatabaseError | UnicodeDecodeError)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Commits at the end of the block, rolls back what raises."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled it back already
            database.execute("ROLLBACK")
        raise
