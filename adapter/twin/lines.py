"""The logs of a twin: numbered entries, the latest in memory, and all of them as JSON lines in a file.

A line is appended and flushed whenever an entry is created or changes; of lines with the same `sequence` the last one
is valid.
"""

import json
from collections.abc import Iterator
from dataclasses import Field, asdict
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Protocol, TextIO, TypeVar

from adapter.core.errors import Stop

_KEPT: Final = 200_000
"""Entries in memory."""


class Numbered(Protocol):
    """A dataclass with a sequence number."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def sequence(self) -> int: ...


_Entry = TypeVar("_Entry", bound=Numbered)


class Log(Generic[_Entry]):
    """Oldest first. Without a path there is no file. Raises Stop if the file cannot be opened."""

    def __init__(self, path: Path | None) -> None:
        self._entries: dict[int, _Entry] = {}
        self._last = 0
        self._file: TextIO | None = None
        if path is not None:
            try:
                self._file = path.open("a", encoding="utf-8")
            except OSError as error:
                raise Stop(f"{path}: cannot be written: {error.strerror}") from error

    def __iter__(self) -> Iterator[_Entry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        """Number of entries ever made, in memory or not."""
        return self._last

    def number(self) -> int:
        """The next sequence number."""
        self._last += 1
        return self._last

    def since(self, sequence: int) -> list[_Entry]:
        """The entries after that sequence number, as they stand now."""
        return [entry for number, entry in self._entries.items() if number > sequence]

    def find(self, sequence: int) -> _Entry | None:
        """None if it was too long ago to be kept in memory."""
        return self._entries.get(sequence)

    def enter(self, entry: _Entry) -> None:
        """Adds the entry, or replaces that of the same sequence number."""
        if entry.sequence not in self._entries and len(self._entries) >= _KEPT:
            del self._entries[next(iter(self._entries))]
        self._entries[entry.sequence] = entry
        if self._file:
            self._file.write(line(entry))
            self._file.flush()

    def close(self) -> None:
        if self._file:
            self._file.close()


def line(entry: Numbered) -> str:
    """One JSON line."""
    return json.dumps(asdict(entry), separators=(",", ":")) + "\n"
