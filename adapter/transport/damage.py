"""What SQLite says when a file is damaged, and what when the disk fails or has no room."""

import sqlite3


def is_damage(error: Exception) -> bool:
    """Whether the contents of the file are wrong. SQLite has no one word for that: a column that is not there any more
    is an error of ours to it, and one whose words quote garbage can't even be told.
    """
    if isinstance(error, sqlite3.OperationalError):
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR
    return isinstance(error, sqlite3.DatabaseError | UnicodeDecodeError)
