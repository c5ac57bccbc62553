"""The journal: a worker's record of the state of its commands, from which its successor recovers after a crash.

Each entry holds the complete state of a command at that moment, so only the last entry of a command counts:

    INTENT    a call is about to be made, or was made; written before its first byte (KEYED and NEVER)
    CLEARED   that call provably had no effect
    HELD      the outcome is in doubt; the doubt was published and the lane is held
    PARKED    the command waits behind a held lane
    SETTLED   the command has ended: its final event or dead letter is in the same transaction

A command that was held or parked is a resident: the committed offset may pass it, so that it is not delivered again,
and all its entries carry its record until it is SETTLED.

An entry lies in the partition of the journal that has the number of its command's partition, in one record with the
others of its transaction. The mark says from which journal offset on a successor must read; it travels in the metadata
string of the committed offset.
"""

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final, TypeAlias, TypeGuard

from adapter.core.command import Held, Intended, Past, Untouched
from adapter.core.errors import Undecodable
from adapter.core.immutable import immutable


class Kind(StrEnum):
    INTENT = "INTENT"
    CLEARED = "CLEARED"
    HELD = "HELD"
    PARKED = "PARKED"
    SETTLED = "SETTLED"


_OPEN = frozenset({Kind.INTENT, Kind.CLEARED})

_STRETCHES: Final = 32
"""Into about so many stretches the remembered part of the journal is divided; entries are counted for each."""


@immutable
class Source:
    """A record of the commands or the events as it was delivered."""

    partition: int
    offset: int
    timestamp: float
    """Seconds since the epoch."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    leader_epoch: int | None = field(default=None, compare=False)
    """Leader epoch under which it was written; None if unknown, as of a record that comes from the journal."""

    def digest(self) -> bytes:
        """A digest of the record's bytes, whether they can be decoded or not."""
        return blake2b(repr((self.key, self.value, self.timestamp)).encode(), digest_size=12).digest()


@immutable
class Entry:
    kind: Kind
    command_id: str
    """Empty: a dead letter, which is SETTLED."""
    offset: int
    """Of the command, in its partition of the commands topic."""
    digest: bytes
    """Of the command's content: the same id with another content is an error of its producer. Of a dead letter
    `Source.digest`."""
    at: float
    attempt: int = 0
    unclear_since: float | None = None
    until: float | None = None
    """HELD: when the doubt ends at the latest."""
    doubted: str | None = None
    """It was in doubt once, and this is why it is sent again."""
    source: Source | None = None
    """The record itself, from HELD or PARKED on: the frontier has passed it."""

    @property
    def resident(self) -> bool:
        """Whether the journal is the only place where this unfinished command still is."""
        return self.source is not None and self.kind is not Kind.SETTLED

    @property
    def called_at(self) -> float:
        """HELD: when the call in doubt was made, at the earliest."""
        return self.at if self.unclear_since is None else self.unclear_since

    @property
    def ends_at(self) -> float:
        """HELD: when the doubt ends, at the latest."""
        return self.at if self.until is None else self.until

    @property
    def size(self) -> int:
        """The approximate number of bytes it occupies in the journal."""
        source = self.source
        size = 64 + len(self.command_id) + len(self.doubted or "")
        if source is not None:
            size += len(source.key or b"") + len(source.value or b"")
            size += sum(len(name) + len(value or b"") + 8 for name, value in source.headers)
        return size

    def past(self) -> Past:
        """What this entry, the last of an unfinished command, means for the worker that continues the command."""
        match self.kind:
            case Kind.INTENT:
                return Intended(self.attempt, self.at, self.unclear_since)
            case Kind.HELD:
                return Held(self.attempt, self.ends_at, self.called_at)
            case _:
                return Untouched(self.attempt, self.unclear_since, self.doubted)

    def record(self) -> dict[str, Any]:
        """As one of the entries of a record of the Avro schema `fault.journal.JournalEntries`."""
        source = self.source
        return {
            "commandId": self.command_id,
            "kind": self.kind.value,
            "offset": self.offset,
            "digest": self.digest,
            "at": _millis(self.at),
            "attempt": self.attempt,
            "unclearSince": None if self.unclear_since is None else _millis(self.unclear_since),
            "until": None if self.until is None else _millis(self.until),
            "doubted": self.doubted,
            "command": None
            if source is None
            else {
                "partition": source.partition,
                "timestamp": _millis(source.timestamp),
                "key": source.key,
                "value": source.value,
                "headers": [{"name": name, "value": value} for name, value in source.headers],
            },
        }


def entries(record: Mapping[str, Any]) -> list[Entry]:
    """The entries of a `JournalEntries` record. Raises Undecodable for one of a kind that a later release has added: it
    may be an intent, or the only place where a command still is.
    """
    return list(map(_entry, record["entries"]))


def _entry(record: Mapping[str, Any]) -> Entry:
    if record["kind"] not in Kind.__members__:
        raise Undecodable("unknown-record", "an entry is of a kind that this release does not know")
    command = record["command"]
    source = None
    if command is not None:
        source = Source(
            partition=command["partition"],
            offset=record["offset"],
            timestamp=command["timestamp"] / 1000,
            key=command["key"],
            value=command["value"],
            headers=tuple((h["name"], h["value"]) for h in command["headers"]),
        )
    unclear, until = record["unclearSince"], record["until"]
    return Entry(
        kind=Kind(record["kind"]),
        command_id=record["commandId"],
        offset=record["offset"],
        digest=record["digest"],
        at=record["at"] / 1000,
        attempt=record["attempt"],
        unclear_since=None if unclear is None else unclear / 1000,
        until=None if until is None else until / 1000,
        doubted=record["doubted"],
        source=source,
    )


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a new owner of a partition knows after it has read the journal from the mark to its end."""

    settled: Mapping[str, bytes]
    """Commands that have ended, with their digests, oldest first."""
    open: Mapping[str, Entry]
    """Last entries of commands that have not ended and have no record here, by command id: those at or after the
    committed offset will be delivered again, and so may others where the commands were mirrored."""
    residents: tuple[Entry, ...]
    """Commands that were held or parked: those whose turn has come, then those that wait behind them, each in the order
    of their offsets. Offsets alone do not tell it where the commands were mirrored.
    """
    finished: Mapping[int, str]
    """Commands that have ended, by their offsets at or after the committed one: they are delivered again and passed
    over."""
    letters: Mapping[int, bytes]
    """The same of dead letters, with their digests."""

    def counts(self) -> dict[str, int]:
        """How many commands there are of each state."""
        states = {"settled": len(self.settled), "intent": 0, "held": 0, "parked": 0}
        for found in (*self.open.values(), *self.residents):
            if found.kind is not Kind.CLEARED:
                states[found.kind.value.lower()] += 1
        return states


def recover(entries: Iterable[Entry], position: int) -> Recovered:
    """Fold the entries of one partition; `position` is its committed offset.

    A resident whose offset lies at or after `position` is delivered once more and must then be passed over.
    """
    letters: dict[int, bytes] = {}
    last: dict[str, Entry] = {}
    for item in entries:
        if not item.command_id:
            letters[item.offset] = item.digest
            continue
        last.pop(item.command_id, None)  # so that the order is that of the last entries
        last[item.command_id] = item
    residents = sorted((e for e in last.values() if e.resident), key=lambda e: (e.kind is Kind.PARKED, e.offset))
    return Recovered(
        settled={i: e.digest for i, e in last.items() if e.kind is Kind.SETTLED},
        open={i: e for i, e in last.items() if not e.resident and e.kind in _OPEN},
        residents=tuple(residents),
        finished={e.offset: i for i, e in last.items() if e.kind is Kind.SETTLED and e.offset >= position},
        letters={offset: digest for offset, digest in letters.items() if offset >= position},
    )


_Noted: TypeAlias = tuple[int, Entry, int]
"""Journal offset, entry, and the offset of the commands that the frontier has to pass before the mark passes it."""


class Extent:
    """Keeps track of which part of the journal a successor must read: it yields the mark of one assignment.

    The journal offsets it knows are lower bounds, which is all that a mark needs: one worker appends to the partition,
    and every transaction adds its records and a marker, so the next one begins at least that much further on. The last
    marker does not count: a commit is acknowledged before its markers are written, and with two producers the next
    records may be written before them.
    """

    __slots__ = ("_counts", "_entries", "_last", "_marker", "_remembered", "_residents", "_total", "_written", "end")

    def __init__(self, end: int, remembered: int = 0) -> None:
        """`remembered` is how many entries a successor is to read at least, so that it recognises repeats."""
        self.end = end
        """The next entry will lie here or later."""
        self._marker = 0
        """1 while the marker of the last transaction may not be written yet."""
        self._remembered = remembered
        self._counts: deque[list[int]] = deque()
        """Some tens of stretches: [journal offset, entries from there to the next stretch]."""
        self._total = 0
        """Entries in all stretches."""
        self._entries: deque[_Noted] = deque()
        self._last: dict[str | int, _Noted] = {}
        """The last entry of each command, by command id, and dead letters, by their offsets."""
        self._residents: dict[str, int] = {}
        """Journal offset of each resident's entry, by command id."""
        self._written: dict[str, float] = {}
        """When the residents' entries were written, at the earliest."""

    def recovered(self, at: int, entry: Entry, end: int, *, unfinished: bool) -> None:
        """`entry` was read at journal offset `at`; the partition of the commands ends at `end`.

        If the commands topic was mirrored or created again since, its records have other offsets: that of an
        `unfinished` command may be any record in the topic, or none, and an offset beyond the end belongs to no record.
        """
        holds = end - 1 if unfinished else min(entry.offset, end - 1)
        before = self._last.get(entry.command_id or entry.offset)
        if before is not None and entry.kind is Kind.SETTLED:
            holds = max(holds, min(before[1].offset, end - 1))
        self._note(at, entry, entry.at, holds)

    def known(self, entry: Entry, written: float) -> Entry:
        """`entry` is about to be committed, at `written` (seconds since the epoch), at journal offset `end` or later.

        Returns it as it is to be written: if several records have the command's id, its end is recorded at the offset
        of the last of them, whichever was worked on last.
        """
        if entry.kind is Kind.SETTLED:
            before = self._last.get(entry.command_id or entry.offset)
            if before is not None and entry.offset < before[1].offset == before[2]:
                entry = replace(entry, offset=before[1].offset)
        self._note(self.end, entry, written, entry.offset)
        return entry

    def _note(self, at: int, entry: Entry, written: float, holds: int) -> None:
        self._count(at)
        if entry.resident:
            self._residents[entry.command_id] = at
            self._written[entry.command_id] = written
            before = self._last.get(entry.command_id)
            if before is not None and before[1].offset <= entry.offset:
                del self._last[entry.command_id]  # the resident is its record
        else:
            self._residents.pop(entry.command_id, None)
            self._written.pop(entry.command_id, None)
            noted = (at, entry, holds)
            self._entries.append(noted)
            self._last[entry.command_id or entry.offset] = noted

    def committed(self, records: int) -> None:
        """A transaction with that many records of the journal was committed."""
        if records:
            self.end += records + self._marker
            self._marker = 1

    def mark(self, position: int) -> int:
        """The journal offset from which a successor must read, if `position` is the committed offset."""
        entries, last = self._entries, self._last
        while entries:
            noted = entries[0]
            _, entry, holds = noted
            key = entry.command_id or entry.offset
            newest = last.get(key) is noted
            if newest and holds >= position:
                break
            entries.popleft()  # passed by the frontier, or a later entry of its command says all that matters
            if newest:
                del last[key]
        mark = entries[0][0] if entries else self.end
        return min(mark, min(self._residents.values(), default=mark))

    @property
    def needed(self) -> bool:
        """Whether the journal has anything from the last `mark` on that a successor must read."""
        return bool(self._entries or self._residents)

    def memory(self, mark: int) -> int:
        """The journal offset from which a successor reads if it is to recognise repeats as well."""
        return min(mark, self._counts[0][0]) if self._counts else mark

    def _count(self, at: int) -> None:
        counts = self._counts
        if not self._remembered:
            return
        if not counts or counts[-1][1] * _STRETCHES >= self._remembered:
            counts.append([at, 0])
        counts[-1][1] += 1
        self._total += 1
        while self._total - counts[0][1] >= self._remembered:
            self._total -= counts.popleft()[1]

    def stale(self, distance: int, before: float) -> tuple[str, ...]:
        """Residents to write forward (once more, to the end of the journal): those that keep the mark more than
        `distance` back, or that were written `before` that time (seconds since the epoch) and would expire some day.
        """
        written = self._written
        return tuple(i for i, at in self._residents.items() if self.end - at > distance or written[i] < before)


@immutable
class Mark:
    """The metadata string of a committed offset: from where a successor reads the journal, and which journal."""

    offset: int
    memory: int
    """From where it reads to recognise repeats as well: `offset` or before."""
    journal: str
    """Identity of the journal (cluster id and topic id); a mark of another journal is ignored."""
    commands: str
    """Identity of the commands topic whose offset is committed."""
    transaction: str
    """Unique to the transaction: a producer that was cut off learns by it whether the transaction was committed."""
    needed: bool = False
    """Whether the journal has entries from `offset` on that a successor must read."""

    def text(self) -> str:
        told = {
            "mark": self.offset,
            "memory": self.memory,
            "journal": self.journal,
            "commands": self.commands,
            "transaction": self.transaction,
            "needed": self.needed,
        }
        return json.dumps(told, separators=(",", ":"))


def read_mark(metadata: str | None, journal: str) -> Mark | None:
    """The mark in this metadata; None (missing, unreadable, of another journal): the whole journal must be read."""
    told = _parsed(metadata)
    offset, memory = told.get("mark"), told.get("memory")
    if told.get("journal") != journal or not _is_offset(offset) or not _is_offset(memory):
        return None
    needed = told.get("needed") is True  # earlier releases did not say
    return Mark(offset, min(memory, offset), journal, commands_of(metadata), str(told.get("transaction")), needed)


def commands_of(metadata: str | None) -> str:
    """Identity of the commands topic in which the offset with this metadata was committed; empty if it does not say."""
    commands = _parsed(metadata).get("commands")
    return commands if isinstance(commands, str) else ""


def _parsed(metadata: str | None) -> Mapping[str, object]:
    """The fields of a metadata string; none if it is not ours."""
    try:
        told = json.loads(metadata or "")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _is_offset(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _millis(seconds: float) -> int:
    return round(seconds * 1000)
