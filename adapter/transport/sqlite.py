"""What the two stores on disk (`spool`, `store`) share of SQLite: transactions, and what counts as damage."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def is_damage(error: Exception) -> bool:
    """Whether the contents of the file are damaged, as opposed to a failing or full disk. SQLite has no single code for
    that: a missing column is a generic error (SQLITE_ERROR) to it, and an error message that quotes garbage can't even
    be decoded.
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
