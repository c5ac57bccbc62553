"""Expected and actual outcomes of each step of the story and of each ticket.

An outcome is an event's headline (core.wording); a story says which it expects, word for word.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from adapter.ports import Outgoing

DEAD_LETTER: Final = "dead letter"
QUARANTINED: Final = "quarantined"


class Unexpected(Exception):  # noqa: N818 -- named for what it says
    """A step ended in another way than the story goes on from."""


@dataclass(slots=True, eq=False)
class Step:
    """One record that was sent, or one thing that the supplier notifies: its expected and its actual outcomes."""

    ticket: str
    what: str
    expected: tuple[str, ...]
    messages: int
    """Expected number of messages about it between us and the supplier: requests, or notifications."""

    record: Outgoing | None = None
    """What was sent; None for what happens at the supplier."""

    seen: list[str] = field(default_factory=list)
    records: list[Mapping[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def decided(self) -> bool:
        """Whether all expected outcomes have come, or a different one."""
        return len(self.seen) >= len(self.expected) or not self._in_order

    @property
    def _in_order(self) -> bool:
        return self.seen == list(self.expected[: len(self.seen)])

    async def end(self) -> Mapping[str, Any]:
        """Its last event, once all expected ones have come. Raises Unexpected as soon as a different one comes."""
        return await self.reaches(len(self.expected))

    async def reaches(self, number: int) -> Mapping[str, Any]:
        """The event of that number, counted from 1; otherwise as `end`."""
        while True:
            if not self._in_order:
                raise Unexpected(f"{self.ticket}: {self.what}: {self.seen[-1]}")
            if len(self.seen) >= number:
                return self.records[number - 1]
            self.changed.clear()
            await self.changed.wait()


@dataclass(frozen=True, slots=True)
class State:
    """The expected final state of a ticket."""

    status: str
    late: int = 0
    """Number of notifications that arrived after a newer one."""


class Board:
    """All steps of the story, in order, and everything that was seen."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        """By the key under which their outcomes will be found."""

        self.strays: list[str] = []
        """Outcomes that belong to no step."""

        self.ids: Counter[str] = Counter()
        """How often each event was seen, by its id."""

        self.timeline: Counter[str] = Counter()
        """How many events each ticket has had."""

        self.states: dict[str, State] = {}
        """The expected final states, by ticket."""

        self.tickets: dict[str, Mapping[str, Any]] = {}
        """The actual tickets, by reference."""

    @property
    def decided(self) -> bool:
        return all(step.decided for step in self.steps.values()) and not list(self._unfolded())

    def enter(self, key: str, step: Step) -> None:
        self.steps[key] = step

    def saw(self, key: str, text: str, record: Mapping[str, Any]) -> Step | None:
        """Notes an outcome. Returns its step, None for a stray."""
        step = self.steps.get(key)
        if step is None:
            self.strays.append(text)
            return None
        step.seen.append(text)
        step.records.append(record)
        step.changed.set()
        return step

    def saw_event(self, reference: str, identifier: str) -> None:
        """Counts an event by its ticket and its id."""
        self.timeline[reference] += 1
        self.ids[identifier] += 1

    def problems(self, messages: Mapping[str, int], failures: Sequence[str] = ()) -> list[str]:
        """Everything that was not as expected. `messages` has the number of messages between us and the supplier, by
        step.
        """
        found = list(failures)
        for key, step in self.steps.items():
            where = f"{step.ticket}: {step.what}"
            if list(step.expected) != step.seen:
                found.append(f"{where}: expected {_listed(step.expected)}, seen {_listed(step.seen)}")
            got = messages.get(key, 0)
            if got != step.messages:
                found.append(f"{where}: {got} messages to or from the supplier, expected {step.messages}")
        found += [f"an outcome of nothing that was done: {text}" for text in self.strays]
        found += [f"the event {each} came {times} times" for each, times in self.ids.items() if times > 1]
        found += self._unfolded()
        return found

    def _unfolded(self) -> Iterator[str]:
        """Tickets that do not stand as they should."""
        for reference, expected in self.states.items():
            ticket = self.tickets.get(reference)
            events = self.timeline[reference]
            wanted = f"{expected.status} after {events} events, {expected.late} of them late"
            if ticket is None:
                yield f"{reference}: has no state, expected {wanted}"
                continue
            found = f"{ticket['status']} after {ticket['events']} events, {ticket['lateEvents']} of them late"
            if found != wanted:
                yield f"{reference}: is {found}, expected {wanted}"


def _listed(outcomes: Sequence[str]) -> str:
    return ", then ".join(outcomes) if outcomes else "nothing"
