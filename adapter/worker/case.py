"""The bookkeeping of one record of a lane: it is read and compared with what is known of its command, and what becomes
of it is entered in the ledger as events, journal entries and dead letters.

Nothing is decided here and no call is made. A record whose turn has come (`conductor`) and one that is parked behind a
command in doubt (`doubt`) are treated alike.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from adapter.core.command import Accepted, Command, Event, InDoubt, Past, Policy, Rejected, Settled, Untouched
from adapter.core.document import trimmed
from adapter.core.doubt import WHY_LIMIT
from adapter.core.errors import Unavailable, Undecodable
from adapter.core.journal import Entry, Kind
from adapter.core.operation import Problem
from adapter.core.overdue import Recurring
from adapter.core.retry import ASK_AGAIN
from adapter.ports import Outgoing, Reply, size
from adapter.telemetry import Log, Metrics, Role, Span, Tracer
from adapter.telemetry import metrics as m
from adapter.worker.assignment import Assignment, Item
from adapter.worker.events import Events, kind
from adapter.worker.ledger import Ledger, Work
from adapter.worker.memory import Memory
from adapter.worker.reader import Reader, Task
from adapter.worker.tickets import Tickets

_WHY: Final = 4 * WHY_LIMIT
"""Bytes by which an entry may grow if an operator has its command sent again."""

_LONG: Final = 1024
"""Bytes above which a record is not kept decoded while it waits: decoded, a list may take a hundred times as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """What all cases of a worker share. `finished` is called for every record that is done, after the commit."""

    reader: Reader
    ledger: Ledger
    events: Events
    policy: Policy
    memory: Memory
    tickets: Tickets
    commands_topic: str
    largest_record: int
    """The most bytes that a record may have in a topic, headers included."""
    assignments: Callable[[], Iterable[Assignment]]
    finished: Callable[[Assignment, Item], None]
    log: Log
    metrics: Metrics
    unread: Recurring = field(default_factory=Recurring)
    """Why records can't be read, which all that wait find out at once."""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    wall: Callable[[], float] = time.time
    """The system's clock: seconds since the epoch. It may be set while we run."""

    def seen(self, command_id: str) -> bytes | None:
        """Digest of the command of that id, if one has ended, is being worked on, or will be delivered again."""
        digest = self.memory.digest(command_id)
        for assignment in self.assignments():
            if digest is not None:
                break
            digest = assignment.seen(command_id)
        return digest

    def ended(self, assignment: Assignment, command_id: str) -> bool:
        """Whether that command has an outcome that is committed, or that will be committed no later than what
        `assignment` enters now.
        """
        return (
            self.memory.digest(command_id) is not None
            or command_id in assignment.ending
            or any(a.recovered is not None and command_id in a.recovered.settled for a in self.assignments())
        )


class Case:
    """To be used in this order: `read` its `task`, ask for its `past`, and unless it is a repeat `take_up`, which makes
    its `command`.

    The system's clock is read once, when the case begins; from then on time is measured by the monotonic clock, so that
    setting the system's clock neither shortens nor lengthens a time limit of this command.
    """

    __slots__ = ("_cases", "_span", "_zero", "assignment", "before", "command", "item", "lane", "task")

    task: Task
    """What `read` returned."""
    command: Command
    """Made by `take_up`."""

    def __init__(self, cases: Cases, assignment: Assignment, lane: bytes, item: Item) -> None:
        self._cases = cases
        self._zero = cases.wall() - time.monotonic()
        self._span: Span | None = None
        self.assignment = assignment
        self.lane = lane
        self.item = item
        self.before: Entry | None = None
        """Its last entry from before this assignment (of `Assignment.open`)."""

    # -- what it is ----------------------------------------------------------------------------------------------------

    async def read(self) -> Task:
        """Decode the record; waits while the registry does not answer. Raises Undecodable."""
        attempt = 0
        while True:
            try:
                return await self._cases.reader.read(self.item.source)
            except Unavailable as error:
                attempt += 1
                if self._cases.unread.due(str(error), time.monotonic()):
                    self._cases.log.warning("registry not available", reason=str(error), attempt=attempt)
                await self.sleep(ASK_AGAIN.delay(attempt, random.random()), "registry")  # noqa: S311 -- jitter
            except Undecodable:
                raise
            except Exception:  # a record must never stop the worker, whatever we have overlooked
                self._cases.log.exception("record not readable", **self.place())
                raise Undecodable("internal-error", "reading it failed; the worker's log says how") from None

    async def past(self) -> Past | None:
        """What is known of the command; None if this is a repeat of one that has ended or is under way. The ticket is
        asked whether it lists the command, if that is too old for its end to be remembered.

        Raises Undecodable if the id belongs to a command with other content.
        """
        past = self._remembered()
        key = self.ticket if past == Untouched() and self.item.resident is None else None
        if key is None or self._cases.memory.reaches(self.task.issued_at):
            return past
        return None if await self._is_listed(key) else past

    def _remembered(self) -> Past | None:
        """As `past`, by journal and memory alone. An open entry of the journal is assigned to the first record with its
        content, whatever its offset: if the topic was mirrored or created again since, the record has another one.
        """
        a, item, task = self.assignment, self.item, self.task
        if item.resident is not None:
            return item.resident.past()
        command_id = task.subject.command_id
        entry = a.open.get(command_id)
        if entry is not None and (entry.offset == item.source.offset or entry.digest == task.digest):
            self.before = a.open.pop(command_id)
        seen = self._cases.seen(command_id)
        if seen is None and entry is not None and self.before is None:
            seen = entry.digest
        if seen is None:
            return Untouched() if self.before is None else self.before.past()
        if seen != task.digest and not self._has_ended():
            raise Undecodable("command-id-reused", "a command with other content had this commandId before")
        return None

    def _has_ended(self) -> bool:
        """Whether the journal has the end of this very record. Its digest may differ, since another release may have
        ended it that knew other fields.
        """
        recovered, offset = self.assignment.recovered, self.item.source.offset
        return recovered is not None and recovered.finished.get(offset) == self.task.subject.command_id

    async def _is_listed(self, key: bytes) -> bool:
        """Whether the command's ticket lists it."""
        a, command_id = self.assignment, self.task.subject.command_id
        a.check(safe=True)
        a.unfinished[command_id] = self.task.digest
        self.put_away()
        listed = True
        try:
            with a.waits(self.lane, a.waiting.get(self.lane, "ticket")):
                listed = await self._cases.tickets.commanded(key, command_id)
                await self.take_out()
        finally:
            if listed:
                a.unfinished.pop(command_id, None)
        return listed

    def take_up(self) -> None:
        """It will be carried out or parked: from now on another record of its id is a repeat."""
        task = self.task
        self.assignment.unfinished[task.subject.command_id] = task.digest
        self.command = Command(task.subject.operation, self._cases.policy, not_after=task.not_after)

    def trace(self, tracer: Tracer) -> None:
        """Begin a span for it, the parent of the spans of its calls and of its events."""
        source, topic, task = self.item.source, self._cases.commands_topic, self.task
        self._span = tracer.span(
            f"process {topic}",
            Role.CONSUMER,
            task.subject.trace,
            messaging__system="kafka",
            messaging__operation__type="process",
            messaging__operation__name="process",
            messaging__destination__name=topic,
            messaging__destination__partition__id=str(source.partition),
            messaging__kafka__offset=source.offset,
            fault__operation=task.subject.operation.name,
            fault__command__id=task.subject.command_id,
        )
        self.task = replace(task, subject=replace(task.subject, trace=self._span.trace))

    @property
    def ticket(self) -> bytes | None:
        """Key of the command's ticket; None for one that is about an address."""
        reference = self.task.subject.reference
        return None if reference is None else trimmed(reference).encode("utf-8", "replace")

    def put_away(self) -> None:
        """Drop the decoded form of a long record while nothing needs it: all lanes may wait at once."""
        if len(self.item.source.value or b"") > _LONG:
            self.task.record.clear()

    async def take_out(self) -> None:
        """Decode again what was put away."""
        if not self.task.record:
            self.task.record.update((await self.read()).record)

    # -- what is written down ------------------------------------------------------------------------------------------

    def too_large(self, kind: Kind) -> tuple[Problem, ...]:
        """Why an entry of that kind can't be written; empty if it can."""
        limit, source = self._cases.largest_record, self.item.source
        if 3 * size(source) + _WHY < limit:  # an entry repeats the id at most twice, and that is part of the value
            return ()
        (entry,) = self._cases.events.entries((self._entry(kind),), source.partition)
        return (Problem("", "too large to be kept while it waits"),) if size(entry) + _WHY > limit else ()

    def journal(
        self,
        kind: Kind,
        *,
        attempt: int | None = None,
        at: float | None = None,
        committed: "asyncio.Future[None] | None" = None,
    ) -> None:
        """Enter where its call stands."""
        entry = self._entry(kind, at=at, attempt=attempt)
        if self.item.resident is not None:
            self._reside(entry)
        self._cases.ledger.enter(Work(self.assignment, entry=entry, committed=committed))

    def readdress(self, before: Entry) -> None:
        """Enter the entry from before once more if its record has another offset now: the mark depends on it."""
        offset = self.item.source.offset
        if before.offset != offset:
            self._cases.ledger.enter(Work(self.assignment, entry=replace(before, offset=offset)))

    def park(self) -> None:
        """Move it into the journal, so that the frontier may pass it. If it was called before, that entry is kept."""
        parked, before = self._entry(Kind.PARKED), self.before
        entry = parked if before is None else replace(before, offset=parked.offset, source=parked.source)
        self._reside(entry)
        self._cases.ledger.enter(Work(self.assignment, entry=entry, finish=self.item.source.offset, then=self._done))

    def publish(self, event: Event) -> bool:
        """Enter the event, its journal entry and the end of the record as one piece of work. False if a record would be
        too large.
        """
        a, item, task = self.assignment, self.item, self.task
        entry = self._entry(Kind.HELD, until=event.until) if isinstance(event, InDoubt) else self._entry(Kind.SETTLED)
        outcome = self._outcome(event)
        kept = self._cases.events.entries((entry,), a.partition) if entry.resident else ()
        if any(size(record) > self._cases.largest_record for record in (outcome, *kept)):
            return False
        committed: asyncio.Future[None] = self._cases.loop.create_future()
        a.outcomes[self.lane] = committed
        work = Work(
            a,
            (outcome,),
            entry,
            finish=None if item.resident is not None else item.source.offset,
            committed=committed,
            then=self._after_commit(event, entry, committed),
        )
        if entry.resident:
            self._reside(entry)
        else:
            a.residents.pop(entry.command_id, None)
            a.ending.add(entry.command_id)
            task.record.clear()  # it may be long, and nothing but the commit is still to come
        self._cases.ledger.enter(work)
        return True

    def repeat(self) -> None:
        """End a repeat without an event. The end of its command is recorded at the last offset at which its id was
        seen, so that the mark does not pass it before the frontier has passed that offset.
        """
        a, task, offset = self.assignment, self.task, self.item.source.offset
        command_id = task.subject.command_id
        work = Work(a, finish=offset, then=self._done)
        if not self._has_ended():  # else the journal has its end already
            self._cases.metrics.operation(task.subject.operation.name).repeated.inc()
            if self._cases.ended(a, command_id):
                work.entry = Entry(Kind.SETTLED, command_id, offset, task.digest, self.now())
            elif command_id in a.unfinished:
                a.repeated[command_id] = a.last_seen(command_id, offset)
        self._cases.ledger.enter(work)

    def dead_letter(self, why: Undecodable) -> bool:
        """Enter the dead letter and the end of the record. False if it would be too large."""
        a, item, resident = self.assignment, self.item, self.item.resident
        letter = self._cases.events.dead_letter(item.source, self._cases.commands_topic, why, at=datetime.now(UTC))
        if size(letter) > self._cases.largest_record:
            return False

        def then() -> None:
            self._cases.metrics.count(m.DEAD_LETTERS, why.reason)
            self._cases.log.warning("dead letter", reason=why.reason, detail=why.detail, **self.place())
            if resident is not None:
                a.unfinished.pop(resident.command_id, None)
            self._done()

        if resident is not None:  # it could be decoded once, so an earlier entry has its id
            # If it was never called, it must not count as ended: somebody may correct it and send it again.
            called = resident.past() != Untouched()
            entry = replace(resident, kind=Kind.SETTLED if called else Kind.CLEARED, at=self.now(), source=None)
            a.residents.pop(resident.command_id, None)
        else:
            entry = Entry(Kind.SETTLED, "", item.source.offset, item.source.digest(), self.now())
        finish = item.source.offset if resident is None else None
        self._cases.ledger.enter(Work(a, (letter,), entry, finish=finish, then=then))
        return True

    def quarantine(self, reply: Reply, reason: str, committed: "asyncio.Future[None]") -> None:
        """Enter the reply as it came."""
        record = self._cases.events.quarantined(self.task.subject, reply, reason, at=datetime.now(UTC))
        self._cases.ledger.enter(Work(self.assignment, (record,), committed=committed))

    def _entry(
        self, kind: Kind, *, at: float | None = None, attempt: int | None = None, until: float | None = None
    ) -> Entry:
        command, command_id, offset = self.command, self.task.subject.command_id, self.item.source.offset
        kept = kind is Kind.HELD or kind is Kind.PARKED or self.item.resident is not None
        return Entry(
            kind=kind,
            command_id=command_id,
            offset=self.assignment.last_seen(command_id, offset) if kind is Kind.SETTLED else offset,
            digest=self.task.digest,
            at=self.now() if at is None else at,
            attempt=command.attempts if attempt is None else attempt,
            unclear_since=command.unclear_since,
            until=until,
            doubted=command.doubted,
            source=self.item.source if kept else None,
        )

    def _outcome(self, event: Event) -> Outgoing:
        """The event as a record for the bus. Of the contents for which the reply has no field it carries as many as fit
        the topic: their paths may be longer than the whole reply was.
        """
        made = partial(
            self._cases.events.outcome, self.task.subject, attempts=self.command.attempts, at=datetime.now(UTC)
        )
        outcome, largest = made(event), self._cases.largest_record
        while isinstance(event, Accepted | Rejected | Settled) and event.aside and size(outcome) > largest:
            event = replace(event, aside=event.aside[: len(event.aside) // 2])
            outcome = made(event)
        return outcome

    def _reside(self, entry: Entry) -> None:
        self.item.resident = entry
        self.assignment.residents[entry.command_id] = entry

    def _after_commit(self, event: Event, entry: Entry, committed: "asyncio.Future[None]") -> Callable[[], None]:
        """What to do once the event is committed: remember the end, count it, log the outcome. Not before, since the
        command has not ended if the partition is lost first: it is delivered again.
        """
        name, attempts, a, item = self.task.subject.operation.name, self.command.attempts, self.assignment, self.item
        counted = item.resident is None
        # Not the event itself: it may be long, and is in its record by now.
        outcome, in_doubt = kind(event), isinstance(event, InDoubt)
        fields: dict[str, Any] = {"code": event.code} if isinstance(event, Rejected) else {}
        if isinstance(event, InDoubt):
            fields = {"reason": event.reason}

        def then() -> None:
            if a.outcomes.get(self.lane) is committed:
                del a.outcomes[self.lane]
            if entry.kind is Kind.SETTLED:
                self._cases.memory.settle(entry.command_id, entry.digest, entry.at)
                a.unfinished.pop(entry.command_id, None)
                a.repeated.pop(entry.command_id, None)
                a.ending.discard(entry.command_id)
            seconds = max(0.0, self.now() - item.source.timestamp)
            self._cases.metrics.count(m.OUTCOMES, name, outcome)
            if not in_doubt:
                self._cases.metrics.operation(name).command_seconds.observe(seconds, self.exemplar())
            write = self._cases.log.warning if in_doubt else self._cases.log.info
            write("outcome", outcome=outcome, attempts=attempts, seconds=round(seconds, 4), **fields, **self.about())
            if self._span is not None and not in_doubt:
                self._span.end(fault__outcome=outcome, fault__attempts=attempts)
            if counted:
                self._done()

        return then

    def _done(self) -> None:
        self._cases.finished(self.assignment, self.item)

    # -- its time ------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._zero + time.monotonic()

    def by(self, until: float | None) -> asyncio.Timeout:
        """A block that raises TimeoutError at that time (seconds since the epoch), if it has to wait so long."""
        return asyncio.timeout(None if until is None else max(0.0, until - self.now()))

    async def sleep(self, seconds: float, why: str) -> None:
        """Raises Abandoned at once if the partition is being revoked: a lane that only waits need not finish."""
        self.assignment.check(safe=True)
        with self.assignment.waits(self.lane, why):
            await asyncio.sleep(max(0.0, seconds))

    # -- for log and metrics -------------------------------------------------------------------------------------------

    def exemplar(self) -> dict[str, str] | None:
        """Labels that connect a measurement with a sampled trace."""
        trace = self.task.subject.trace
        return {"trace_id": trace.trace_id} if trace is not None and trace.sampled else None

    def place(self) -> dict[str, Any]:
        source = self.item.source
        return {"partition": source.partition, "offset": source.offset}

    def about(self) -> dict[str, Any]:
        subject = self.task.subject
        about = {
            "operation": subject.operation.name,
            "command_id": subject.command_id,
            "reference": subject.reference,
            **self.place(),
        }
        if subject.trace is not None:
            about["trace_id"] = subject.trace.trace_id
        return about
