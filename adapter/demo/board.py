"""What the story expects of each command, and what came of it.

An outcome is an event's headline (core.wording); a story says which it expects, word for word.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from adapter.transport.kafka.client import Sent

DEAD_LETTER: Final = "dead letter"


class Unexpected(Exception):  # noqa: N818 -- named for what it says
    """A command ended in another way than the story goes on from."""


@dataclass(slots=True, eq=False)
class Sending:
    """One record that was sent, what is expected of it and what was seen."""

    ticket: str
    what: str
    expected: tuple[str, ...]
    requests: int
    """How many requests for it the supplier should get."""

    message_id: str | None
    """Under which the supplier knows it; None for a record that is no command."""

    record: Sent
    seen: list[str] = field(default_factory=list)
    records: list[Mapping[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def decided(self) -> bool:
        """Whether all that is expected has come, or something else instead."""
        return len(self.seen) >= len(self.expected) or not self._in_order

    @property
    def _in_order(self) -> bool:
        return self.seen == list(self.expected[: len(self.seen)])

    async def end(self) -> Mapping[str, Any]:
        """Its last event, once all that is expected has come. Raises Unexpected as soon as another has."""
        while True:
            if not self._in_order:
                raise Unexpected(f"{self.ticket}: {self.what}: {self.seen[-1]}")
            if len(self.seen) == len(self.expected):
                return self.records[-1]
            self.changed.clear()
            await self.changed.wait()


class Board:
    """All that was sent and seen, in the order of sending."""

    def __init__(self) -> None:
        self.sendings: dict[str, Sending] = {}
        """By command id, or by ticket for a record that is no command."""

        self.strays: list[str] = []
        """Outcomes of nothing that was sent."""

    @property
    def decided(self) -> bool:
        return all(sending.decided for sending in self.sendings.values())

    def enter(self, identifier: str, sending: Sending) -> None:
        self.sendings[identifier] = sending

    def saw(self, identifier: str, text: str, record: Mapping[str, Any]) -> Sending | None:
        """Notes an outcome; what it is of, None for a stray."""
        sending = self.sendings.get(identifier)
        if sending is None:
            self.strays.append(text)
            return None
        sending.seen.append(text)
        sending.records.append(record)
        sending.changed.set()
        return sending


def problems(board: Board, requests: Mapping[str, int], failures: Sequence[str] = ()) -> list[str]:
    """Everything that did not go as expected; `requests` counts the supplier's by message id."""
    found = list(failures)
    for sending in board.sendings.values():
        where = f"{sending.ticket}: {sending.what}"
        if list(sending.expected) != sending.seen:
            found.append(f"{where}: expected {_listed(sending.expected)}, seen {_listed(sending.seen)}")
        asked = received(sending, requests)
        if asked != sending.requests:
            found.append(f"{where}: the supplier got {asked} requests, expected {sending.requests}")
    found += [f"an outcome of nothing that was sent: {text}" for text in board.strays]
    return found


def received(sending: Sending, requests: Mapping[str, int]) -> int:
    """How many requests for it the supplier got."""
    return requests.get(sending.message_id, 0) if sending.message_id else 0


def _listed(outcomes: Sequence[str]) -> str:
    return ", then ".join(outcomes) if outcomes else "nothing"
