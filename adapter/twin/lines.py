"""A log file: lines are appended, and flushed one by one."""

from pathlib import Path
from typing import TextIO

from adapter.core.errors import Stop


class Lines:
    """The lines of one file; without a path they go nowhere. Raises Stop if the file cannot be opened."""

    def __init__(self, path: Path | None) -> None:
        self._file: TextIO | None = None
        if path is None:
            return
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise Stop(f"{path}: cannot be written: {error.strerror}") from error

    def append(self, line: str) -> None:
        if self._file:
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        if self._file:
            self._file.close()
