"""Carries out the commands of a lane, one after the other: does what `core.command` says, and calls the supplier.

The bookkeeping of a command is its `Case`; while its outcome is unknown, `Doubts` holds its lane.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from adapter.core.allowance import Allowance, Share
from adapter.core.command import (
    Accepted,
    Action,
    Again,
    Event,
    Finish,
    Forbidden,
    Hold,
    Intend,
    Intended,
    Misdirected,
    Past,
    Post,
    Publish,
    Seek,
    Settled,
    Unclear,
    Untouched,
    Verdict,
    Wait,
)
from adapter.core.errors import Abandoned, Refused, Unavailable, Undecodable
from adapter.core.journal import Kind
from adapter.core.operation import Problem, Repeat
from adapter.core.retry import BreakerState
from adapter.ports import Reply
from adapter.telemetry import metrics as m
from adapter.worker.assignment import Assignment
from adapter.worker.case import Case, Cases
from adapter.worker.doubt import Doubts
from adapter.worker.gate import Gate, Permit
from adapter.worker.pace import Cohort, Pace
from adapter.worker.request import Requests
from adapter.worker.room import Room

INTENT_LIFE: Final = 5.0
"""Seconds for which a committed intent may be used: if this process was stopped in between, a successor may already
have waited until its call must be over. `Policy.call_limit` includes it."""

_STALE: Final = 10.0
"""Seconds after which a request is written again, because it says when it was sent."""

_LONG: Final = 2**15
"""Bytes of a request above which it needs a share of the allowance. It may be far longer than its command, which is all
that the window counts: five times if every character is escaped, ten times if it is made of tags.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conductor:
    """Runs lanes."""

    cases: Cases
    doubts: Doubts
    requests: Requests
    gate: Gate
    room: Room
    replies: Pace
    cohort: Cohort
    allowance: Allowance
    """Of bytes, for long requests: from before their permits until the ends of their calls."""

    async def run(self, assignment: Assignment, lane: bytes) -> None:
        """Take the commands of a lane in order until there is none left, or until other lanes have waited longer."""
        item = assignment.lanes.head(lane)
        try:
            while item is not None and not assignment.closing:
                await _Turn(self, Case(self.cases, assignment, lane, item)).take()
                assignment.calling.discard(lane)
                item = assignment.lanes.done(lane)
                if item is not None and item.resident is None and self.room.crowded:
                    break
        except (Abandoned, asyncio.CancelledError):
            return  # the partition is gone or about to go; its next owner continues
        finally:
            assignment.calling.discard(lane)
            assignment.waiting.pop(lane, None)
        if item is not None and not assignment.closing:
            self.room.add(assignment, lane)

    async def wakes_in(self, assignment: Assignment, lane: bytes) -> float | None:
        """Seconds until a sleeping lane must be woken: until its command's deadline, 0 if the command may end without a
        call, None if it can sleep on. Raises Unavailable while the registry does not answer.
        """
        item = assignment.lanes.head(lane)
        assert item is not None, "a lane that sleeps has work"
        try:
            task = await self.cases.reader.read(item.source)
            self.requests.write(task, None)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 -- whatever it is, its own turn tells
            return 0.0
        command_id = task.subject.command_id
        if command_id in assignment.open or task.problems or self.cases.seen(command_id) is not None:
            return 0.0
        return None if task.not_after is None else task.not_after - self.cases.wall()


class _Turn:
    """One command's turn in its lane."""

    __slots__ = (
        "_assignment",
        "_body",
        "_case",
        "_command",
        "_conductor",
        "_lane",
        "_length",
        "_permit",
        "_quarantined",
        "_reference",
        "_reply",
        "_share",
        "_task",
    )

    def __init__(self, conductor: Conductor, case: Case) -> None:
        self._conductor = conductor
        self._case = case
        self._assignment = case.assignment
        self._lane = case.lane
        self._permit: Permit | None = None
        self._body: bytes | None = None
        self._length = 0
        """Bytes of the request, as it was last written."""
        self._share: Share | None = None
        """Of the allowance, for a long request; returned with the permit."""
        self._reply: Reply | None = None
        """From which something is still kept."""
        self._quarantined = False
        """Whether a reply was, since the command began or was sent again by an operator. One tells enough."""
        self._reference: str | None = None
        """The supplier's, from the ticket of a command that leaves it out."""

    async def take(self) -> None:
        case, tracer = self._case, self._conductor.requests.tracer
        await self._conductor.cohort.step()
        try:
            case.task = await case.read()
            await self._conductor.cohort.step()
            past = await case.past()
        except Undecodable as why:
            if not case.dead_letter(why):
                await self._halt("dead-letter-too-large")
            return
        if past is None:
            case.repeat()
            return
        if tracer is not None:
            case.trace(tracer)
        if case.item.resident is None:
            self._conductor.cases.metrics.operation(case.task.subject.operation.name).received.inc()
        case.take_up()
        self._task, self._command = case.task, case.command
        if case.before is not None:
            case.readdress(case.before)
        try:
            await self._conduct(past)
        finally:
            self._leave(None)
            self._release_reply()

    async def _conduct(self, past: Past) -> None:
        """Carry out one action after the other until the command has ended."""
        case, command = self._case, self._command
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
                        case.journal(Kind.CLEARED)
                    self._conductor.cases.metrics.count(m.RETRIES, command.operation.name, reason)
                    self._assignment.calling.discard(self._lane)
                    await case.sleep(until - case.now(), reason)
                    action = command.resumed(case.now())
                case Publish(event):
                    action = await self._tell(event)
                case Hold(until):
                    self._assignment.calling.discard(self._lane)
                    action = await self._out_of_doubt(await self._conductor.doubts.hold(case, until))
                case Finish():
                    return

    def _begin(self, past: Past) -> Action:
        """Refuse a command that breaks a rule, unless it may have been called already."""
        if isinstance(past, Untouched) and past.attempts == 0:
            problems = self._write() if self._task.problems else self._unstorable()
            if problems:
                return self._command.refuse(problems, "invalid")
        if self._calls_next(past) and self._conductor.requests.supplier.leaves_out_reference(self._task.record):
            return self._command.seek(self._case.now())
        return self._proceed(past)

    def _calls_next(self, past: Past) -> bool:
        """Whether a call follows, at once or once an earlier one must be over."""
        if isinstance(past, Intended):
            return self._task.subject.operation.repeat is not Repeat.NEVER
        return isinstance(past, Untouched)

    def _proceed(self, past: Past) -> Action:
        if isinstance(past, Untouched) and past.attempts == 0:
            problems = self._write()
            if problems:
                return self._command.refuse(problems, "invalid")
            for warning in self._task.warnings:
                self._conductor.cases.log.warning("rule broken", problem=str(warning), **self._case.about())
        return self._command.begin(self._case.now(), past)

    def _unstorable(self) -> tuple[Problem, ...]:
        """Why the command must not be called: the journal could not hold it if its outcome came into doubt."""
        operation = self._task.subject.operation
        return self._case.too_large(Kind.HELD) if operation.repeat is Repeat.NEVER else ()

    def _write(self) -> tuple[Problem, ...]:
        """Write the request to be sent now; returns what is wrong with the command, if anything. Of a long command
        nothing else is kept then: decoded, it may take a hundred times as many bytes, for as long as a call lasts.
        """
        try:
            self._body = self._conductor.requests.write(self._task, self._reference)
            self._length = len(self._body)
            self._case.put_away()
        except Refused as refused:
            return refused.problems
        except Exception:  # a record must never stop the worker, whatever we have overlooked
            self._conductor.cases.log.exception("request not writable", **self._case.about())
            return (*self._task.problems, Problem("", "can't be written as a request; the worker's log says how"))
        return ()

    async def _out_of_doubt(self, told: Settled | Again | None) -> Action:
        """Go on with what the ticket said; None: it said nothing in time."""
        command, now = self._command, self._case.now()
        match told:
            case Settled():
                return command.settle(told)
            case Again():
                self._quarantined = False
                await self._case.take_out()
                if self._conductor.requests.supplier.leaves_out_reference(self._task.record):
                    self._reference = told.reference
                return command.repeat(now, told)
            case None:
                return command.resumed(now)

    # -- the ticket ----------------------------------------------------------------------------------------------------

    async def _seek(self, until: float, past: Past) -> Action:
        """Take the supplier's reference from the ticket, once the tickets were read to their end. An operation that can
        do without a reference does not wait for one to be set, nor longer than `until`.
        """
        needed, key = self._task.subject.operation.needs_reference, self._case.ticket
        assert key is not None, "what names the supplier's reference is about a ticket"
        field = self._conductor.requests.supplier.notification.supplier_reference
        why = Problem(field, "left out, and nothing is known of its ticket")
        self._assignment.check(safe=True)
        self._case.put_away()
        with self._assignment.waits(self._lane, "ticket"):
            with suppress(TimeoutError):
                async with self._case.by(self._task.not_after if needed else until):
                    self._reference = await self._conductor.cases.tickets.reference(key)
                if needed and self._reference is None:
                    async with self._case.by(self._command.seek(self._case.now()).until):
                        with self._conductor.cases.tickets.watch(key) as watch:
                            while self._reference is None:
                                ticket = await watch.changed()
                                self._reference = ticket.maintainer_reference
                                status = "has no status" if ticket.status is None else f"is {ticket.status}"
                                why = Problem(field, f"left out, and not told by the supplier; the ticket {status}")
            await self._case.take_out()
        if needed and self._reference is None:
            return self._command.unfound(self._case.now(), why)
        return self._proceed(past)

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _enter_gate(self) -> bool:
        """Wait for a permit, at most until the deadline. False: the deadline came first. Raises Abandoned."""
        self._assignment.calling.discard(self._lane)
        self._assignment.check(safe=True)
        not_after = self._task.not_after
        if not self._length:
            self._write()  # what is wrong with it shows when it is written to be sent
        if self._conductor.gate.breaker.state is not BreakerState.CLOSED:
            self._body = None  # it may be long
        repeat = self._task.subject.operation.repeat
        began = time.monotonic()
        try:
            with self._assignment.waits(self._lane, "gate"):
                if self._length > _LONG:
                    await self._take_share()
                if not_after is None:
                    self._permit = await self._conductor.gate.enter(self._lane, repeat)
                else:
                    async with self._case.by(not_after):
                        self._permit = await self._conductor.gate.enter(self._lane, repeat)
        except TimeoutError:
            self._leave(None)
            return False
        if time.monotonic() - began > _STALE:
            self._body = None
        self._assignment.calling.add(self._lane)
        return True

    async def _take_share(self) -> None:
        """Wait until other long requests leave enough of the allowance. Raises TimeoutError at the deadline."""
        granted: asyncio.Future[None] = self._conductor.cases.loop.create_future()
        self._share = self._conductor.allowance.request(
            self._length, lambda: None if granted.done() else granted.set_result(None)
        )
        if not self._share.granted:
            self._body = None
            async with self._case.by(self._task.not_after):
                await granted

    async def _take_place(self, until: float | None) -> bool:
        """Wait for a place among the calls, unless the permit has one. False if none came in time, or if the breaker or
        the end of the assignment stops the call.
        """
        permit = self._permit
        assert permit is not None, "the gate was entered"
        turn = None if permit.calling or self._assignment.closing else self._conductor.gate.begin(permit)
        if turn is not None:
            self._assignment.placeless.add(turn)
            try:
                with suppress(TimeoutError), self._assignment.waits(self._lane, "gate"):
                    async with self._case.by(until):
                        await turn
            finally:
                self._assignment.placeless.discard(turn)
        return permit.calling

    def _leave(self, verdict: Verdict | None) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            self._conductor.gate.leave(permit, verdict)
        share, self._share = self._share, None
        if share is not None:
            share.release()

    async def _intend(self, attempt: int) -> Action:
        """Write the intent and wait until it is committed, so that a successor knows of every call we may make."""
        command = self._command
        if not await self._enter_gate():
            return command.forgone(self._case.now())
        self._assignment.check(safe=True)
        at = self._case.now()
        committed: asyncio.Future[None] = self._conductor.cases.loop.create_future()
        self._case.journal(Kind.INTENT, attempt=attempt, at=at, committed=committed)
        await committed
        good_until = at + INTENT_LIFE if self._task.not_after is None else min(at + INTENT_LIFE, self._task.not_after)
        placed = await self._take_place(good_until)
        try:
            self._assignment.check(safe=True)
        except Abandoned:
            self._case.journal(Kind.CLEARED)
            raise
        action = command.intended(self._case.now())
        if placed and self._case.now() < good_until:
            return action
        self._leave(None)
        self._case.journal(Kind.CLEARED)
        return command.forgone(self._case.now())

    async def _post(self) -> Action:
        command, task = self._command, self._task
        if self._permit is None and not await self._enter_gate():
            return command.forgone(self._case.now())
        before = self._assignment.outcomes.get(self._lane)
        if before is not None:
            await before
        if not await self._take_place(task.not_after):
            self._leave(None)
            return command.forgone(self._case.now())
        self._assignment.check(safe=task.subject.operation.repeat is Repeat.SAFE)
        if self._body is None:
            await self._case.take_out()
            problems = self._write()
            if problems:
                self._leave(None)
                return command.unsendable(problems)
        assert self._body is not None, "it was written"
        began = time.monotonic()
        verdict = await self._conductor.requests.send(
            task, self._body, attempt=command.attempts, about=self._case.about, keep=self._keep
        )
        self._body = None
        seconds = time.monotonic() - began
        meter = self._conductor.cases.metrics.operation(task.subject.operation.name)
        meter.call_seconds.observe(seconds, self._case.exemplar())
        self._conductor.cases.metrics.count(m.CALLS, task.subject.operation.name, type(verdict).__name__.lower())
        if isinstance(verdict, Accepted) and verdict.deviations:
            meter.reply_deviations.inc(verdict.deviations)
        self._leave(verdict)
        await self._conductor.replies.turn()
        if isinstance(verdict, Unclear | Forbidden | Misdirected):
            self._quarantine(verdict.reason)
        action = command.answered(self._case.now(), verdict, self._conductor.gate.breaker.successes)
        if not isinstance(action, Publish):
            self._release_reply()
        return action

    def _keep(self, reply: Reply) -> None:
        self._reply = reply

    def _quarantine(self, reason: str) -> None:
        """Keep the reply, which says neither yes nor no, for whoever has to find out what it does say."""
        reply = self._reply
        if reply is None or not reply.body or self._quarantined:
            return
        self._quarantined = True
        committed: asyncio.Future[None] = self._conductor.cases.loop.create_future()
        self._case.quarantine(reply, reason, committed)
        self._release_reply(committed)

    def _release_reply(self, committed: "asyncio.Future[None] | None" = None) -> None:
        """Nothing derived from it is kept any more, or nothing once `committed` is done."""
        reply, self._reply = self._reply, None
        release = None if reply is None else reply.release
        if release is None:
            return
        if committed is None:
            release()
        else:
            committed.add_done_callback(lambda _: release())

    async def _tell(self, event: Event) -> Action:
        await self._conductor.cohort.step()
        if not self._case.publish(event):
            self._release_reply()
            await self._halt("event-too-large")
        self._release_reply(self._assignment.outcomes[self._lane])
        return self._command.published()

    async def _halt(self, reason: str) -> None:
        """Something is ours to mend: the lane stops here, losing nothing, until the assignment ends."""
        self._assignment.calling.discard(self._lane)
        self._assignment.check(safe=True)
        self._conductor.cases.log.error("lane halted", reason=reason, **self._case.place())
        self._assignment.waiting[self._lane] = reason
        await self._conductor.cases.loop.create_future()
