"""Carries one lane's commands through: reads, judges, journals, calls, publishes, in what order `core.command` says."""

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from adapter.core.command import (
    Accepted,
    Action,
    Again,
    By,
    Command,
    Event,
    Finish,
    Hold,
    InDoubt,
    Intend,
    Intended,
    Past,
    Policy,
    Post,
    Publish,
    Rejected,
    Seek,
    Settled,
    Untouched,
    Verdict,
    Wait,
)
from adapter.core.document import trimmed
from adapter.core.doubt import TEXT_LIMIT, settlement
from adapter.core.errors import Abandoned, Refused, Unavailable, Undecodable
from adapter.core.journal import Entry, Kind, Source
from adapter.core.operation import Problem, Repeat
from adapter.core.retry import ASK_AGAIN, BreakerState
from adapter.core.ticket import Ticket
from adapter.ports import Outgoing
from adapter.telemetry import Log, Metrics, Role, Span, Tracer
from adapter.telemetry import metrics as m
from adapter.worker.assignment import Assignment, Item, Memory
from adapter.worker.events import Events, kind
from adapter.worker.gate import Gate, Permit
from adapter.worker.ledger import Ledger, Work
from adapter.worker.pace import Cohort, Pace
from adapter.worker.reader import Reader, Task
from adapter.worker.request import Requests
from adapter.worker.room import Room
from adapter.worker.tickets import Tickets, Watch

INTENT_LIFE: Final = 5.0
"""Seconds after which a committed intent is not used any more (this process may have been stopped in between, and a
successor may have waited the call's time out). `Policy.call_limit` includes it."""

_LAST_LOOK: Final = 10.0
"""Seconds to find out what became of a doubt whose time limit has passed while nobody was there."""

_WHY: Final = 4 * TEXT_LIMIT
"""Bytes by which an entry grows if an operator has its command sent again."""

_STALE: Final = 10.0
"""Seconds after which a request that was written is written anew: it says when it was sent."""

_LONG: Final = 1024
"""Bytes of a record of which a list may take a hundred times as many once it is read."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where commands come from, and how much may be kept of what waits."""

    commands_topic: str
    largest_record: int
    """Bytes a record may have with all its headers; nothing larger can be stored."""
    parked_after: float
    """Seconds a lane is held before what waits behind it moves into the journal."""
    parked: int
    """Commands parked behind one held lane; more are rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conductor:
    """Runs lanes. `finished` hears of every record that is done, after the commit."""

    reader: Reader
    requests: Requests
    gate: Gate
    room: Room
    replies: Pace
    cohort: Cohort
    ledger: Ledger
    events: Events
    policy: Policy
    deployment: Deployment
    memory: Memory
    tickets: Tickets
    assignments: Callable[[], Iterable[Assignment]]
    finished: Callable[[Assignment, Item], None]
    log: Log
    metrics: Metrics
    tracer: Tracer | None = None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    wall: Callable[[], float] = time.time
    """The system's clock: seconds since the epoch. It may be set while we run."""

    async def run(self, assignment: Assignment, lane: bytes) -> None:
        """Take the commands of a lane in their order, until there is none or others have waited for longer."""
        item = assignment.lanes.head(lane)
        try:
            while item is not None and not assignment.closing:
                await _Turn(self, assignment, lane, item).take()
                assignment.calling.discard(lane)
                item = assignment.lanes.done(lane)
                if item is not None and item.resident is None and self.room.crowded:
                    break
        except (Abandoned, asyncio.CancelledError):
            return  # the partition is gone or about to go; its next owner takes the command up
        finally:
            assignment.calling.discard(lane)
            assignment.waiting.pop(lane, None)
        if item is not None and not assignment.closing:
            self.room.add(assignment, lane)

    async def wakes_in(self, assignment: Assignment, lane: bytes) -> float | None:
        """Seconds until a lane that sleeps must be woken: at its command's deadline, at once if that may end without a
        call. Raises Unavailable while the registry does not answer.
        """
        item = assignment.lanes.head(lane)
        assert item is not None, "a lane that sleeps has work"
        try:
            task = await self.reader.read(item.source)
            self.requests.write(task, None)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 -- whatever it is, its own turn tells
            return 0.0
        command_id = task.subject.command_id
        if command_id in assignment.open or task.problems or self.seen(command_id) is not None:
            return 0.0
        return None if task.not_after is None else task.not_after - self.wall()

    def seen(self, command_id: str) -> bytes | None:
        """Digest of a command of that id that has ended, whose turn has come, or that will be taken up."""
        digest = self.memory.digest(command_id)
        if digest is None:
            for assignment in self.assignments():
                digest = assignment.unfinished.get(command_id)
                if digest is None and assignment.recovered is not None:
                    digest = assignment.recovered.settled.get(command_id)
                if digest is None and assignment.open:
                    digest = assignment.coming(command_id)
                if digest is not None:
                    break
        return digest

    def ended(self, assignment: Assignment, command_id: str) -> bool:
        """Whether that command has an outcome that is committed, or that is entered before what `assignment` enters
        now.
        """
        return (
            self.memory.digest(command_id) is not None
            or command_id in assignment.ending
            or any(a.recovered is not None and command_id in a.recovered.settled for a in self.assignments())
        )


class _Turn:
    """One command's turn in its lane.

    The system's clock is read when it begins and then goes on evenly: whoever sets the clock meanwhile neither ends a
    time limit of this command nor draws it out.
    """

    __slots__ = (
        "_a",
        "_before",
        "_body",
        "_c",
        "_command",
        "_item",
        "_lane",
        "_permit",
        "_reference",
        "_span",
        "_task",
        "_zero",
    )

    def __init__(self, conductor: Conductor, assignment: Assignment, lane: bytes, item: Item) -> None:
        self._c = conductor
        self._zero = conductor.wall() - time.monotonic()
        self._a = assignment
        self._lane = lane
        self._item = item
        self._before: Entry | None = None
        """Its last entry from before this assignment, taken up from those that were open."""
        self._permit: Permit | None = None
        self._body: bytes | None = None
        self._reference: str | None = None
        """The supplier's, from the ticket of a command that leaves it out."""
        self._span: Span | None = None

    async def take(self) -> None:
        a, item = self._a, self._item
        await self._c.cohort.step()
        try:
            task = self._task = await self._read()
            await self._c.cohort.step()
            past = self._past()
            if past is not None and self._c.tracer is not None:
                task = self._task = self._traced(self._c.tracer, task)
        except Undecodable as why:
            if not self._dead_letter(why):
                await self._halt("dead-letter-too-large")
            return
        if past is None or (past == Untouched() and await self._ended_long_ago()):
            self._repeat()
            return
        if item.resident is None:
            self._c.metrics.operation(task.subject.operation.name).received.inc()
        a.unfinished[task.subject.command_id] = task.digest
        before = self._before
        if before is not None and before.offset != item.source.offset:  # by which the mark goes
            self._enter(Work(a, entry=replace(before, offset=item.source.offset)))
        try:
            await self._conduct(past)
        finally:
            self._leave(None)

    def _traced(self, tracer: Tracer, task: Task) -> Task:
        """The task in a span of its own, below which its calls are and its events hang."""
        source, topic = self._item.source, self._c.deployment.commands_topic
        self._span = tracer.span(
            f"process {topic}",
            Role.CONSUMER,
            task.trace,
            messaging__system="kafka",
            messaging__operation__type="process",
            messaging__operation__name="process",
            messaging__destination__name=topic,
            messaging__destination__partition__id=str(source.partition),
            messaging__kafka__offset=source.offset,
            fault__operation=task.subject.operation.name,
            fault__command__id=task.subject.command_id,
        )
        trace = self._span.trace
        return replace(task, trace=trace, subject=replace(task.subject, traceparent=str(trace)))

    def _past(self) -> Past | None:
        """What is known of the command; None: it has ended or is under way, and this is a repeat.

        Raises Undecodable if another content has the id. An open entry is taken up by the first record of its content
        that has its turn: in a topic that was mirrored or made anew its own has another offset.
        """
        a, item, task = self._a, self._item, self._task
        if item.resident is not None:
            return item.resident.past()
        command_id = task.subject.command_id
        entry = a.open.get(command_id)
        if entry is not None and (entry.offset == item.source.offset or entry.digest == task.digest):
            self._before = a.open.pop(command_id)
        seen = self._c.seen(command_id)
        if seen is None and entry is not None and self._before is None:
            seen = entry.digest
        if seen is None:
            return Untouched() if self._before is None else self._before.past()
        if seen != task.digest and not self._has_ended():
            raise Undecodable("command-id-reused", "a command with other content had this commandId before")
        return None

    def _has_ended(self) -> bool:
        """Whether the journal has the end of this very record. Its digest need not be the same: the release that ended
        it may have known other fields of it.
        """
        recovered, offset = self._a.recovered, self._item.source.offset
        return recovered is not None and recovered.finished.get(offset) == self._task.subject.command_id

    async def _ended_long_ago(self) -> bool:
        """Whether the ticket tells of the command, asked only if its end, had it ended, would be forgotten here."""
        task, key = self._task, self._ticket
        if self._item.resident is not None or key is None or self._c.memory.reaches(task.issued_at):
            return False
        a, command_id = self._a, task.subject.command_id
        a.check(safe=True)
        a.unfinished[command_id] = task.digest
        held = a.waiting.get(self._lane)
        a.waiting[self._lane] = held or "ticket"
        self._put_away()
        ended = True
        try:
            ended = await self._c.tickets.commanded(key, command_id)
            await self._take_out()
        finally:
            if held is None:
                a.waiting.pop(self._lane, None)
            if ended:
                a.unfinished.pop(command_id, None)
        return ended

    def _repeat(self) -> None:
        """End a repeat without an event. The end of its command is written down at the last offset at which the id was
        seen: the mark must not pass it before the frontier has passed that.
        """
        a, task, offset = self._a, self._task, self._item.source.offset
        command_id = task.subject.command_id
        work = Work(a, finish=offset, then=self._done)
        if not self._has_ended():  # else its end lies in the journal already
            self._c.metrics.operation(task.subject.operation.name).repeated.inc()
            if self._c.ended(a, command_id):
                work.entry = Entry(Kind.SETTLED, command_id, offset, task.digest, self._now())
            elif command_id in a.unfinished:
                a.repeated[command_id] = a.last_seen(command_id, offset)
        self._enter(work)

    async def _read(self) -> Task:
        attempt = 0
        while True:
            try:
                return await self._c.reader.read(self._item.source)
            except Unavailable as error:
                attempt += 1
                self._c.log.warning("registry not available", reason=str(error), attempt=attempt)
                await self._sleep(ASK_AGAIN.delay(attempt, random.random()), "registry")  # noqa: S311 -- jitter
            except Undecodable:
                raise
            except Exception:  # a record must never stop the worker, whatever we have overlooked
                self._c.log.exception("record not readable", **self._place())
                raise Undecodable("internal-error", "reading it failed; the worker's log says how") from None

    def _put_away(self) -> None:
        """Keep a long record as bytes alone while its command waits for a ticket: every lane may wait so at once."""
        if len(self._item.source.value or b"") > _LONG:
            self._task.record.clear()

    async def _take_out(self) -> None:
        if not self._task.record:
            self._task.record.update((await self._read()).record)

    async def _conduct(self, past: Past) -> None:
        """Carry out one action after the other until the command has ended."""
        task = self._task
        operation = task.subject.operation
        command = self._command = Command(operation, self._c.policy, not_after=task.not_after)
        action = self._begin(past)
        while True:
            match action:
                case Seek(until):
                    action = await self._seek(until, past)
                case Intend(attempt):
                    action = await self._intend(attempt)
                case Post():
                    action = await self._post()
                case Wait(until, reason, cleared):
                    if cleared:
                        self._journal(Kind.CLEARED)
                    self._c.metrics.count(m.RETRIES, operation.name, reason)
                    self._a.calling.discard(self._lane)
                    await self._sleep(until - self._now(), reason)
                    action = command.resumed(self._now())
                case Publish(event):
                    action = await self._tell(event)
                case Hold(until):
                    self._a.calling.discard(self._lane)
                    action = await self._hold(until)
                case Finish():
                    return

    def _begin(self, past: Past) -> Action:
        """Refuse what breaks a rule, unless a call may have been made already."""
        if isinstance(past, Untouched) and past.attempts == 0:
            problems = self._task.problems or self._unstorable()
            if problems:
                return self._command.refuse(problems, "invalid")
        if self._calls_next(past) and self._leaves_out_reference():
            return self._command.seek(self._now())
        return self._proceed(past)

    def _calls_next(self, past: Past) -> bool:
        """Whether a call follows, at once or when an earlier one must be over."""
        if isinstance(past, Intended):
            return self._task.subject.operation.repeat is not Repeat.NEVER
        return isinstance(past, Untouched)

    def _proceed(self, past: Past) -> Action:
        if isinstance(past, Untouched) and past.attempts == 0:
            problems = self._write()
            if problems:
                return self._command.refuse(problems, "invalid")
            for warning in self._task.warnings:
                self._c.log.warning("rule broken", problem=str(warning), **self._about())
        return self._command.begin(self._now(), past)

    def _unstorable(self) -> tuple[Problem, ...]:
        """What forbids to take on a command that the journal could not keep, should its outcome be in doubt."""
        operation = self._task.subject.operation
        return self._too_large(Kind.HELD) if operation.repeat is Repeat.NEVER else ()

    def _too_large(self, kind: Kind) -> tuple[Problem, ...]:
        limit, source = self._c.deployment.largest_record, self._item.source
        if 3 * _size(source) + _WHY < limit:  # an entry repeats the id at most twice, and that is part of the value
            return ()
        (entry,) = self._c.events.entries((self._entry(kind),), source.partition)
        return (Problem("", "too large to be kept while it waits"),) if _size(entry) + _WHY > limit else ()

    def _write(self) -> tuple[Problem, ...]:
        """Write the request as it is to be sent now; what forbids to write it."""
        if self._task.problems:  # of a command that another release has tried, which knew more fields or fewer rules
            return self._task.problems
        try:
            self._body = self._c.requests.write(self._task, self._reference)
        except Refused as refused:
            return refused.problems
        except Exception:  # a record must never stop the worker, whatever we have overlooked
            self._c.log.exception("request not writable", **self._about())
            return (Problem("", "can't be written as a request; the worker's log says how"),)
        return ()

    # -- the ticket ----------------------------------------------------------------------------------------------------

    @property
    def _ticket(self) -> bytes | None:
        """Key of the command's ticket; None for one that is about an address."""
        reference = self._task.subject.reference
        return None if reference is None else trimmed(reference).encode("utf-8", "replace")

    def _leaves_out_reference(self) -> bool:
        """Whether the command could name the supplier's reference, and does not."""
        name = self._c.reader.supplier.notification.supplier_reference
        return name in self._task.record and not (self._task.record[name] or "").strip()

    async def _seek(self, until: float, past: Past) -> Action:
        """Take the supplier's reference from the ticket. Nothing is decided before the tickets were read to their end;
        who can do without a reference does not wait longer than that, nor beyond `until`.
        """
        needed, key = self._task.subject.operation.needs_reference, self._ticket
        assert key is not None, "what names the supplier's reference is about a ticket"
        field = self._c.reader.supplier.notification.supplier_reference
        why = Problem(field, "left out, and nothing is known of its ticket")
        self._a.check(safe=True)
        self._a.waiting[self._lane] = "ticket"
        self._put_away()
        try:
            with suppress(TimeoutError):
                async with self._by(self._task.not_after if needed else until):
                    self._reference = await self._c.tickets.reference(key)
                if needed and self._reference is None:
                    async with self._by(self._command.seek(self._now()).until):
                        with self._c.tickets.watch(key) as watch:
                            while self._reference is None:
                                ticket = await watch.changed()
                                self._reference = ticket.maintainer_reference
                                status = "has no status" if ticket.status is None else f"is {ticket.status}"
                                why = Problem(field, f"left out, and not told by the supplier; the ticket {status}")
            await self._take_out()
        finally:
            self._a.waiting.pop(self._lane, None)
        if needed and self._reference is None:
            return self._command.unfound(self._now(), why)
        return self._proceed(past)

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _enter_gate(self) -> bool:
        """Wait for a permit, at most until the deadline. False: the deadline came first. Raises Abandoned."""
        self._a.calling.discard(self._lane)
        self._a.check(safe=True)
        not_after = self._task.not_after
        if self._c.gate.breaker.state is not BreakerState.CLOSED:
            self._body = None  # it may be long
        began = time.monotonic()
        self._a.waiting[self._lane] = "gate"
        try:
            if not_after is None:
                self._permit = await self._c.gate.enter(self._lane)
            else:
                async with self._by(not_after):
                    self._permit = await self._c.gate.enter(self._lane)
        except TimeoutError:
            return False
        finally:
            self._a.waiting.pop(self._lane, None)
        if time.monotonic() - began > _STALE:
            self._body = None
        self._a.calling.add(self._lane)
        return True

    async def _take_place(self, until: float | None) -> bool:
        """Wait for a place among the calls, unless it is taken already. False: none came until then, or the breaker or
        the end of the partition stops calls.
        """
        permit = self._permit
        assert permit is not None, "the gate was entered"
        turn = None if permit.calling or self._a.closing else self._c.gate.begin(permit)
        if turn is not None:
            self._a.placeless.add(turn)
            self._a.waiting[self._lane] = "gate"
            try:
                with suppress(TimeoutError):
                    async with self._by(until):
                        await turn
            finally:
                self._a.placeless.discard(turn)
                self._a.waiting.pop(self._lane, None)
        return permit.calling

    def _leave(self, verdict: Verdict | None) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            self._c.gate.leave(permit, verdict)

    async def _intend(self, attempt: int) -> Action:
        """Write the intent and wait until it is committed: a successor must know of every call we may make."""
        command = self._command
        if not await self._enter_gate():
            command.forgone()
            return command.resumed(self._now())
        self._a.check(safe=True)
        at = self._now()
        committed: asyncio.Future[None] = self._c.loop.create_future()
        self._journal(Kind.INTENT, attempt=attempt, at=at, committed=committed)
        await committed
        good_until = at + INTENT_LIFE if self._task.not_after is None else min(at + INTENT_LIFE, self._task.not_after)
        placed = await self._take_place(good_until)
        try:
            self._a.check(safe=True)
        except Abandoned:
            self._journal(Kind.CLEARED)
            raise
        action = command.intended(self._now())
        if placed and self._now() < good_until:
            return action
        self._leave(None)
        self._journal(Kind.CLEARED)
        command.forgone()
        return command.resumed(self._now())

    async def _post(self) -> Action:
        command, task = self._command, self._task
        if self._permit is None and not await self._enter_gate():
            command.forgone()
            return command.resumed(self._now())
        before = self._a.outcomes.get(self._lane)
        if before is not None:
            await before
        if not await self._take_place(task.not_after):
            self._leave(None)
            command.forgone()
            return command.resumed(self._now())
        self._a.check(safe=task.subject.operation.repeat is Repeat.SAFE)
        if command.attempts > 1 or self._body is None:
            problems = self._write()
            if problems:
                self._leave(None)
                return command.unsendable(problems)
        body, self._body = self._body, None
        assert body is not None, "it was written"
        began = time.monotonic()
        verdict = await self._c.requests.send(task, body, attempt=command.attempts, about=self._about)
        seconds = time.monotonic() - began
        meter = self._c.metrics.operation(task.subject.operation.name)
        meter.call_seconds.observe(seconds, self._exemplar())
        self._c.metrics.count(m.CALLS, task.subject.operation.name, type(verdict).__name__.lower())
        if isinstance(verdict, Accepted) and verdict.deviations:
            meter.reply_deviations.inc(verdict.deviations)
        self._leave(verdict)
        await self._c.replies.turn()
        return command.answered(self._now(), verdict, self._c.gate.breaker.successes)

    # -- what is written down ------------------------------------------------------------------------------------------

    def _enter(self, work: Work) -> None:
        self._c.ledger.enter(work)

    def _journal(
        self,
        kind: Kind,
        *,
        attempt: int | None = None,
        at: float | None = None,
        committed: "asyncio.Future[None] | None" = None,
    ) -> None:
        entry = self._entry(kind, at=at, attempt=attempt)
        if self._item.resident is not None:
            self._reside(entry)
        self._enter(Work(self._a, entry=entry, committed=committed))

    def _entry(
        self, kind: Kind, *, at: float | None = None, attempt: int | None = None, until: float | None = None
    ) -> Entry:
        command, command_id, offset = self._command, self._task.subject.command_id, self._item.source.offset
        kept = kind is Kind.HELD or kind is Kind.PARKED or self._item.resident is not None
        return Entry(
            kind=kind,
            command_id=command_id,
            offset=self._a.last_seen(command_id, offset) if kind is Kind.SETTLED else offset,
            digest=self._task.digest,
            at=self._now() if at is None else at,
            attempt=command.attempts if attempt is None else attempt,
            unclear_since=command.unclear_since,
            until=until,
            doubted=command.doubted,
            source=self._item.source if kept else None,
        )

    async def _tell(self, event: Event) -> Action:
        await self._c.cohort.step()
        if not self._publish(event):
            await self._halt("event-too-large")
        return self._command.published()

    def _publish(self, event: Event) -> bool:
        """Enter the event, its journal entry and the record's end as one piece of work. False: too large a record."""
        a, item, task = self._a, self._item, self._task
        entry = self._entry(Kind.HELD, until=event.until) if isinstance(event, InDoubt) else self._entry(Kind.SETTLED)
        outcome = self._outcome(event)
        kept = self._c.events.entries((entry,), a.partition) if entry.resident else ()
        if any(_size(record) > self._c.deployment.largest_record for record in (outcome, *kept)):
            return False
        committed: asyncio.Future[None] = self._c.loop.create_future()
        a.outcomes[self._lane] = committed
        work = Work(
            a,
            (outcome,),
            entry,
            finish=None if item.resident is not None else item.source.offset,
            committed=committed,
            then=self._told(event, entry, committed),
        )
        if entry.resident:
            self._reside(entry)
        else:
            a.residents.pop(entry.command_id, None)
            a.ending.add(entry.command_id)
            task.record.clear()  # it may be long, and nothing but the commit is still to come
        self._enter(work)
        return True

    def _outcome(self, event: Event) -> Outgoing:
        """The event's record. Of what its reply has no field for as much as a topic takes: a path may be longer than
        all that leads to it.
        """
        made = partial(
            self._c.events.outcome, self._task.subject, attempts=self._command.attempts, at=datetime.now(UTC)
        )
        outcome, largest = made(event), self._c.deployment.largest_record
        while isinstance(event, Accepted | Rejected | Settled) and event.aside and _size(outcome) > largest:
            event = replace(event, aside=event.aside[: len(event.aside) // 2])
            outcome = made(event)
        return outcome

    def _reside(self, entry: Entry) -> None:
        self._item.resident = entry
        self._a.residents[entry.command_id] = entry

    def _told(self, event: Event, entry: Entry, committed: "asyncio.Future[None]") -> Callable[[], None]:
        """What to do once the event is committed: remember the end, count it, write the one log line of an outcome.

        Not before: should the partition be lost first, the command comes again and has not ended.
        """
        name, attempts, item = self._task.subject.operation.name, self._command.attempts, self._item
        counted = item.resident is None

        def then() -> None:
            if self._a.outcomes.get(self._lane) is committed:
                del self._a.outcomes[self._lane]
            if entry.kind is Kind.SETTLED:
                self._c.memory.settle(entry.command_id, entry.digest, entry.at)
                self._a.unfinished.pop(entry.command_id, None)
                self._a.repeated.pop(entry.command_id, None)
                self._a.ending.discard(entry.command_id)
            outcome = kind(event)
            seconds = max(0.0, self._now() - item.source.timestamp)
            self._c.metrics.count(m.OUTCOMES, name, outcome)
            if not isinstance(event, InDoubt):
                self._c.metrics.operation(name).command_seconds.observe(seconds, self._exemplar())
            fields: dict[str, Any] = {"code": event.code} if isinstance(event, Rejected) else {}
            if isinstance(event, InDoubt):
                fields = {"reason": event.reason}
            write = self._c.log.warning if isinstance(event, InDoubt) else self._c.log.info
            write("outcome", outcome=outcome, attempts=attempts, seconds=round(seconds, 4), **fields, **self._about())
            if self._span is not None and not isinstance(event, InDoubt):
                self._span.end(fault__outcome=outcome, fault__attempts=attempts)
            if counted:
                self._done()

        return then

    def _done(self) -> None:
        self._c.finished(self._a, self._item)

    def _dead_letter(self, why: Undecodable) -> bool:
        """Enter the dead letter and the record's end. False: too large a record."""
        a, item, resident = self._a, self._item, self._item.resident
        letter = self._c.events.dead_letter(item.source, self._c.deployment.commands_topic, why, at=datetime.now(UTC))
        if _size(letter) > self._c.deployment.largest_record:
            return False

        def then() -> None:
            self._c.metrics.count(m.DEAD_LETTERS, why.reason)
            self._c.log.warning("dead letter", reason=why.reason, detail=why.detail, **self._place())
            if resident is not None:
                a.unfinished.pop(resident.command_id, None)
            self._done()

        if resident is not None:  # it could be read once, or it would not be one
            # What was never called is carried out if somebody puts it back, so its id must not be that of an ended one.
            called = resident.past() != Untouched()
            entry = replace(resident, kind=Kind.SETTLED if called else Kind.CLEARED, at=self._now(), source=None)
            a.residents.pop(resident.command_id, None)
        else:
            entry = Entry(Kind.SETTLED, "", item.source.offset, item.source.digest(), self._now())
        finish = item.source.offset if resident is None else None
        self._enter(Work(a, (letter,), entry, finish=finish, then=then))
        return True

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        """Seconds since the epoch."""
        return self._zero + time.monotonic()

    def _by(self, until: float | None) -> asyncio.Timeout:
        """Raises TimeoutError at that time (seconds since the epoch), at the earliest after what can be had at once."""
        return asyncio.timeout(None if until is None else max(0.0, until - self._now()))

    async def _sleep(self, seconds: float, why: str) -> None:
        """Raises Abandoned instead where the partition is going: nobody waits for who only waits."""
        self._a.check(safe=True)
        waiting = self._a.waiting
        held = waiting.get(self._lane)
        waiting[self._lane] = why
        try:
            await asyncio.sleep(max(0.0, seconds))
        finally:
            if held is None:
                waiting.pop(self._lane, None)
            else:
                waiting[self._lane] = held

    async def _hold(self, until: float) -> Action:
        """Hold the lane until the doubt ends; what waits behind longer than a while moves into the journal."""
        key, told = self._ticket, None
        self._a.check(safe=True)
        self._a.waiting[self._lane] = "doubt"
        try:
            if key is None:
                await self._hold_out(until)
            elif self._now() < until:
                with self._c.tickets.watch(key) as watch:
                    told = await self._hold_out(until, watch)
            else:  # its time was up before we took it up: what the ticket says by now still counts
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_LOOK):
                        told = self._settlement(await self._c.tickets.ticket(key))
        finally:
            self._a.waiting.pop(self._lane, None)
        match told:
            case Settled():
                return self._command.settle(told)
            case Again():
                return self._command.repeat(self._now(), told)
            case None:
                return self._command.resumed(self._now())

    async def _hold_out(self, until: float, watch: Watch | None = None) -> Settled | Again | None:
        """What the ticket tells until then. Raises Abandoned instead where the partition is going."""
        parks_at = self._now() + self._c.deployment.parked_after
        while self._now() < until:
            self._a.check(safe=True)
            with suppress(TimeoutError):
                async with self._by(min(until, max(self._now() + 0.05, parks_at))):
                    while True:
                        told = self._settlement(await (_never() if watch is None else watch.changed()))
                        if told is not None:
                            return told
            if self._now() >= parks_at:
                parking = await self._park_behind()
                parks_at = self._now() + min(1.0, self._c.deployment.parked_after) if parking else math.inf
        return None

    def _settlement(self, ticket: Ticket | None) -> Settled | Again | None:
        """What the ticket tells of the command in doubt."""
        command, subject = self._command, self._task.subject
        assert command.unclear_since is not None, "a doubt has the time of its call"
        if ticket is None:
            return None
        if self._leaves_out_reference():  # for another call, should there be one
            self._reference = ticket.maintainer_reference
        return settlement(
            subject.operation,
            subject.command_id,
            attempts=command.attempts,
            sent_at=command.unclear_since,
            ticket=ticket,
        )

    async def _park_behind(self) -> bool:
        """False: one has to stay where it is, and with it what is behind it."""
        parked, ended, parking = 0, set[Item](), True
        for item in self._a.lanes.behind(self._lane):
            if item.resident is None:
                turn = _Turn(self._c, self._a, self._lane, item)
                parking = await turn.park(blocked=parked >= self._c.deployment.parked)
            if not parking:
                break
            if item.resident is None:
                ended.add(item)
            else:
                parked += 1
        if ended:
            self._a.lanes.strike(self._lane, ended)
        return parking

    async def park(self, *, blocked: bool) -> bool:
        """Keep this command, which waits behind a held lane, in the journal, so that the frontier may pass it: a
        resident, or it has ended. False: neither can be stored; it halts the lane when its turn comes, since until then
        the doubt must find its end.

        `blocked`: too many are parked already, and this one is rejected. What is unreadable or repeated ends at once.
        What was called before keeps that entry.
        """
        a, item = self._a, self._item
        try:
            task = self._task = await self._read()
            past = self._past()
        except Undecodable as why:
            return self._dead_letter(why) or self._untaken("dead-letter-too-large")
        if past is None or (past == Untouched() and await self._ended_long_ago()):
            self._repeat()
            return True
        self._command = Command(task.subject.operation, self._c.policy, not_after=task.not_after)
        a.unfinished[task.subject.command_id] = task.digest
        rejected, before = None, self._before
        if blocked and before is None:
            problem = Problem("", "too many commands wait behind one whose outcome is in doubt")
            rejected = Rejected(By.ADAPTER, "ticket-blocked", None, (problem,))
        elif problems := self._too_large(Kind.PARKED):
            rejected = Rejected(By.ADAPTER, "invalid", None, problems)
        if rejected is not None:
            if self._publish(rejected):
                return True
            del a.unfinished[task.subject.command_id]
            return self._untaken("event-too-large")
        parked = self._entry(Kind.PARKED)
        entry = parked if before is None else replace(before, offset=parked.offset, source=parked.source)
        work = Work(a, entry=entry, finish=item.source.offset, then=self._done)
        self._reside(entry)
        self._enter(work)
        return True

    def _untaken(self, reason: str) -> bool:
        """Leave what could not be parked as it was found, and say why."""
        before = self._before
        if before is not None:
            self._a.open[before.command_id] = before
        self._c.log.error("lane halted", reason=reason, **self._place())
        return False

    async def _halt(self, reason: str) -> None:
        """Something is ours to mend; this lane stops here and loses nothing. Ends with the assignment."""
        self._a.calling.discard(self._lane)
        self._a.check(safe=True)
        self._c.log.error("lane halted", reason=reason, **self._place())
        self._a.waiting[self._lane] = reason
        await _never()

    def _exemplar(self) -> dict[str, str] | None:
        trace = self._task.trace
        return {"trace_id": trace.trace_id} if trace is not None and trace.sampled else None

    # -- for the log ---------------------------------------------------------------------------------------------------

    def _place(self) -> dict[str, Any]:
        source = self._item.source
        return {"partition": source.partition, "offset": source.offset}

    def _about(self) -> dict[str, Any]:
        subject, trace = self._task.subject, self._task.trace
        about = {
            "operation": subject.operation.name,
            "command_id": subject.command_id,
            "reference": subject.reference,
            **self._place(),
        }
        if trace is not None:
            about["trace_id"] = trace.trace_id
        return about


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


def _size(record: Outgoing | Source) -> int:
    """Bytes it takes up in a topic, at most."""
    size = 100 + len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"") + 10
    return size
