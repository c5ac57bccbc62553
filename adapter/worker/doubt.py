"""A command in doubt holds its lane until its ticket says what became of it, or its time limit has passed.

Commands that wait behind it for long are parked: they move into the journal, so that the frontier can pass them.
"""

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from adapter.core.command import Again, By, Rejected, Settled
from adapter.core.doubt import settlement
from adapter.core.errors import Undecodable
from adapter.core.journal import Kind
from adapter.core.operation import Problem
from adapter.core.ticket import Ticket
from adapter.worker.assignment import Assignment, Item
from adapter.worker.case import Case, Cases
from adapter.worker.tickets import Watch

_LAST_LOOK: Final = 10.0
"""Seconds to look at the ticket of a doubt whose time limit had passed before it was taken up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """Holds lanes while the outcome of their command is unknown."""

    cases: Cases
    parked_after: float
    """Seconds for which a lane is held before the commands behind it are parked."""
    parked: int
    """The most commands parked behind a command in doubt; further ones are rejected."""

    async def hold(self, case: Case, until: float) -> Settled | Again | None:
        """Hold the lane of a command until its ticket settles the doubt; None if it does not before `until` (seconds
        since the epoch). Raises Abandoned if the partition is being revoked.
        """
        a, lane, key = case.assignment, case.lane, case.ticket
        a.check(safe=True)
        with a.waits(lane, "doubt"):
            if key is None:
                return await self._hold_out(case, until, None)
            if case.now() < until:
                with self.cases.tickets.watch(key) as watch:
                    return await self._hold_out(case, until, watch)
            with suppress(TimeoutError):  # its time was up before we took it up: the ticket decides as it is now
                async with asyncio.timeout(_LAST_LOOK):
                    ticket = await self.cases.tickets.ticket(key)
                    return None if ticket is None else _settlement(case, ticket)
            return None

    async def _hold_out(self, case: Case, until: float, watch: Watch | None) -> Settled | Again | None:
        """Without a ticket to watch, only the time limit ends it."""
        parks_at = case.now() + self.parked_after
        while case.now() < until:
            case.assignment.check(safe=True)
            with suppress(TimeoutError):
                async with case.by(min(until, max(case.now() + 0.05, parks_at))):
                    if watch is not None:
                        return await _settled(case, watch)
                    await self.cases.loop.create_future()
            if case.now() >= parks_at:
                parking = await self._park_behind(case.assignment, case.lane)
                parks_at = case.now() + min(1.0, self.parked_after) if parking else math.inf
        return None

    async def _park_behind(self, assignment: Assignment, lane: bytes) -> bool:
        """Park what waits behind the head; False if one of them can't be parked, nor what is behind it."""
        parked, ended, parking = 0, set[Item](), True
        for item in assignment.lanes.behind(lane):
            if item.resident is None:
                parking = await self._park(Case(self.cases, assignment, lane, item), blocked=parked >= self.parked)
            if not parking:
                break
            if item.resident is None:
                ended.add(item)
            else:
                parked += 1
        if ended:
            assignment.lanes.strike(lane, ended)
        return parking

    async def _park(self, case: Case, *, blocked: bool) -> bool:
        """Park a command that waits behind a doubt: afterwards it is a resident, or it has ended (unreadable, repeated,
        or rejected because it is `blocked`: too many are parked already). False if the record of neither can be stored;
        it will halt the lane when its turn comes, not before, since the doubt must be able to end.
        """
        try:
            case.task = await case.read()
            past = await case.past()
        except Undecodable as why:
            return case.dead_letter(why) or self._untaken(case, "dead-letter-too-large")
        if past is None:
            case.repeat()
            return True
        case.take_up()
        rejected = None
        if blocked and case.before is None:
            problem = Problem("", "too many commands wait behind one whose outcome is in doubt")
            rejected = Rejected(By.ADAPTER, "ticket-blocked", None, (problem,))
        elif problems := case.too_large(Kind.PARKED):
            rejected = Rejected(By.ADAPTER, "invalid", None, problems)
        subject = case.task.subject
        if rejected is None:
            case.park()
        elif not case.publish(rejected):
            del case.assignment.unfinished[subject.command_id]
            return self._untaken(case, "event-too-large")
        self.cases.metrics.operation(subject.operation.name).received.inc()
        return True

    def _untaken(self, case: Case, reason: str) -> bool:
        """Leave a command that can't be parked as it was found, and log why."""
        before = case.before
        if before is not None:
            case.assignment.open[before.command_id] = before
        self.cases.log.error("lane halted", reason=reason, **case.place())
        return False


async def _settled(case: Case, watch: Watch) -> Settled | Again:
    """What the ticket says about the command in doubt, as soon as it says something."""
    while True:
        told = _settlement(case, await watch.changed())
        if told is not None:
            return told


def _settlement(case: Case, ticket: Ticket) -> Settled | Again | None:
    """What the ticket says about the command in doubt; None if it says nothing."""
    command, subject = case.command, case.task.subject
    assert command.unclear_since is not None, "a doubt has the time of its call"
    return settlement(
        subject.operation,
        subject.command_id,
        attempts=command.attempts,
        sent_at=command.unclear_since,
        ticket=ticket,
    )
