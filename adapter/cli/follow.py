"""Options that are a time (`--since`, `--timeout`), following commands until each has its final outcome, and the
events of tickets.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from adapter.cli import show
from adapter.cli.bus import Client
from adapter.core.errors import Stop, Undecodable
from adapter.settings.kinds import parse_duration
from adapter.transport.kafka.client import Edge, Seen

_PROVISIONAL = frozenset({"CommandOutcomeUnknown", "DoubtDecided"})


class Outcomes:
    """The commands whose outcome is awaited. Prints their events as JSON lines as they arrive."""

    def __init__(self, bus: Client, pending: Iterable[str]) -> None:
        self._bus = bus
        self._accepted = {entry.accepted.name for entry in bus.known.operations.values()}
        self.pending = set(pending)
        self.not_accepted = False

    def follow(self, records: Iterable[Seen]) -> None:
        """Read until nothing is pending or the records end."""
        if not self.pending:
            return
        for seen in records:
            try:
                event = self._bus.decode(seen.value, self._bus.known.events)
            except Undecodable:  # none of ours: others may write here too
                continue
            if event.record.get("commandId") not in self.pending:
                continue
            show.write(show.event(self._bus, seen, text=False))
            if event.name in _PROVISIONAL:
                continue
            self.pending.discard(event.record["commandId"])
            if event.name not in self._accepted and event.record.get("outcome") != "ACCEPTED":
                self.not_accepted = True
            if not self.pending:
                return


_CLOCKS_APART: Final = timedelta(minutes=10)
"""How far clocks may differ: an event may have the time of a producer whose clock is behind."""


def timeline(bus: Client, keys: Collection[bytes], start: Edge | datetime) -> Iterator[Seen]:
    """The events of these keys so far, in order for each and without duplicates, as the ticket counts them: a
    notification may be written twice. A few from before `start` may be among them.
    """
    told: set[str] = set()
    since = start - _CLOCKS_APART if isinstance(start, datetime) else start
    with bus.following(bus.topics.events, start=since, keys=keys) as follower:
        for seen in follower.rest():
            identifier = seen.header("ce_id")
            if seen.key not in keys or identifier in told:
                continue
            if identifier:
                told.add(identifier)
            yield seen


def seconds(option: str, text: str, *, zero: bool = False) -> float:
    """A duration as the value of an option, in seconds; it may be 0s only with `zero`. Raises Stop."""
    try:
        return parse_duration(text, zero=zero).total_seconds()
    except ValueError as error:
        raise Stop(f"{option}: {error}; write for example 30s or 5m") from None


def since(text: str, now: datetime) -> datetime | Edge:
    """The value of --since. Raises Stop."""
    if text == "beginning":
        return Edge.FIRST
    try:
        return now - parse_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Stop("--since: neither a duration such as 2h nor a time with its zone such as 2026-01-31T12:00:00Z")
    return at
