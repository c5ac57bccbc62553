"""Notifies the buyer of changes of tickets: one notification for every change, in order per ticket, tickets in
parallel, each repeated until it is acknowledged with a valid answer. Duplicates, late ones and dialects are random.
With the same seed the same is drawn for each notification, whatever happens to others.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import aiohttp

from adapter.twin import dialects, notices
from adapter.twin.deliveries import NAMED, Delivery, End
from adapter.twin.dialects import Dialect, Manner, Written
from adapter.twin.judge import Judge, asked_by
from adapter.twin.lines import Log
from adapter.twin.notices import Notice
from adapter.twin.post import Answered, post, session
from adapter.twin.settings import Notify
from adapter.twin.tickets import Books, Change

_LOG: Final = logging.getLogger(__name__)
_LONGEST_PAUSE: Final = 60.0
_AT_ONCE: Final = 64
"""Maximum number of concurrent attempts."""
_TICK: Final = timedelta(milliseconds=1)
"""Minimum distance of the times of two messages: some dialects write only milliseconds."""


@dataclass(frozen=True, slots=True)
class _Letter:
    """A notification that waits to be delivered."""

    notice: Notice
    entry: Delivery
    dialects: frozenset[Dialect]
    seed: str
    """Seed of its random choices."""

    manner: Manner


class Notifier:
    """Notifies for as long as the `async with` lasts; also lets the books move on by the clock. Raises Stop if the
    certificate files do not fit.
    """

    def __init__(self, settings: Notify, books: Books, judge: Judge, *, echo: bool, log: Log[Delivery]) -> None:
        self._settings = settings
        self._books = books
        self._judge = judge
        self._echo = echo
        self._log = log
        self._lanes: dict[str, deque[_Letter]] = {}
        self._arrived: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._changed = asyncio.Event()
        self._latest = datetime.min.replace(tzinfo=UTC)
        self._running = contextlib.AsyncExitStack()
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._http = session(self._settings.tls, at_once=_AT_ONCE)
        await self._running.enter_async_context(self._http)
        self._running.push_async_callback(self._cancel)
        self._books.listener = self._announce
        self._start(self._keep_time())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._books.listener = lambda _: None
        await self._running.aclose()

    def _announce(self, change: Change) -> None:
        """Takes a change of the books as it is entered."""
        self._changed.set()
        if change.happening is None:
            return
        self._latest = max(datetime.now(UTC), self._latest + _TICK)  # no two at the same time
        sequence = self._log.number()
        notice = Notice(change.happening, change.ticket, f"CF-{sequence:05d}", self._latest)
        self._enqueue(sequence, notice, change.manner)

    def _enqueue(self, sequence: int, notice: Notice, manner: Manner, *, repeat_of: _Letter | None = None) -> None:
        settings = self._settings
        ticket = notice.ticket
        seed = repeat_of.seed if repeat_of else f"{settings.seed}:{ticket.reference}:{len(ticket.updates)}"
        generator = random.Random(seed)  # noqa: S311 -- chance, not secrecy
        late = generator.random() < settings.disorder if manner.late is None else manner.late
        late = late and repeat_of is None
        chosen = dialects.choose(settings.dialects, chance=settings.dialect_chance, generator=generator)
        if manner.dialects is not None:
            chosen = frozenset(manner.dialects)
        if Dialect.SAME_MESSAGE_ID in chosen:
            notice = replace(notice, message_id=dialects.SHARED_MESSAGE_ID)
        entry = Delivery(
            sequence=sequence,
            id=notice.message_id,
            reference=ticket.reference,
            kind=notice.happening.value,
            status=ticket.status.value,
            sent_at=notice.sent_at.isoformat(timespec="microseconds"),
            dialects=tuple(sorted(chosen)),
            repeat_of=repeat_of.entry.sequence if repeat_of else None,
            late=late,
        )
        self._log.enter(entry)
        reference = ticket.reference
        self._lanes.setdefault(reference, deque()).append(_Letter(notice, entry, chosen, seed, manner))
        if reference in self._arrived:
            self._arrived[reference].set()
        else:
            self._arrived[reference] = asyncio.Event()
            self._start(self._walk(reference))

    async def _walk(self, reference: str) -> None:
        """Delivers the notifications of one ticket, oldest first, except that a late one follows its successor."""
        lane, arrived = self._lanes[reference], self._arrived[reference]
        try:
            while lane:
                letter = lane.popleft()
                if letter.entry.late:
                    arrived.clear()
                    if not lane:
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(arrived.wait(), self._settings.hold)
                    if lane:
                        await self._deliver(lane.popleft())
                await self._deliver(letter)
        finally:  # otherwise nothing would ever deliver from this lane again
            del self._lanes[reference], self._arrived[reference]

    async def _deliver(self, letter: _Letter) -> None:
        """Posts it until it is acknowledged or its attempts are used up; then, if it is to be repeated, enqueues the
        repeat. One that cannot be posted at all is given up, with a line in the log.
        """
        settings = self._settings
        generator = random.Random(f"{letter.seed}:written")  # noqa: S311 -- as above
        # Drawn for a repeat as well, so that the generator is in the same state for the choices below.
        drawn = generator.random() < settings.repeats
        repeated = drawn if letter.manner.repeated is None else letter.manner.repeated
        entry = letter.entry
        try:
            written = dialects.write(notices.element(letter.notice), letter.dialects, generator)
            hint = "" if Dialect.NO_HINTS in letter.dialects else notices.PATHS.get(letter.notice.happening, "")
            headers = {"Content-Type": written.content_type, "SOAPAction": f'"{hint}"'}
            while entry.end is None:
                async with self._at_once:
                    entry, wished = await self._attempt(entry, written, f"{settings.url.rstrip('/')}{hint}", headers)
                if entry.end is None and settings.attempts is not None and entry.attempts >= settings.attempts:
                    entry = replace(entry, end=End.GIVEN_UP)
                self._log.enter(entry)
                if entry.end is None:
                    backoff = settings.retry * 2 ** min(entry.attempts - 1, 10)
                    await asyncio.sleep(min(max(backoff, wished), _LONGEST_PAUSE))
        except Exception:  # noqa: BLE001 -- no error may hold up the notifications behind it
            _LOG.exception("notification %d (%s) could not be posted", entry.sequence, entry.id)
            entry = replace(entry, end=End.GIVEN_UP, failure="could not be posted")
            self._log.enter(entry)
        if repeated and entry.end is End.ACKNOWLEDGED and entry.repeat_of is None:
            # With a time of its own: the same message in all but when it was sent.
            self._latest = max(datetime.now(UTC), self._latest + _TICK)
            again = replace(letter.notice, sent_at=self._latest)
            self._enqueue(self._log.number(), again, letter.manner, repeat_of=letter)

    async def _attempt(
        self, entry: Delivery, written: Written, url: str, headers: Mapping[str, str]
    ) -> tuple[Delivery, float]:
        """Makes one attempt. Returns the entry after it, and the seconds of the receiver's Retry-After, or 0."""
        began, clock = datetime.now(UTC), asyncio.get_running_loop().time()
        entry = replace(
            entry,
            attempts=entry.attempts + 1,
            times=(*entry.times, began.isoformat(timespec="microseconds"))[-NAMED:],
        )
        self._log.enter(entry)
        answer = await post(self._http, url, written.body, headers)
        entry = replace(entry, seconds=round(asyncio.get_running_loop().time() - clock, 6))
        if not isinstance(answer, Answered):
            return replace(entry, answered=None, failure=answer.why), 0.0
        asked = asked_by(written.body, written.content_type)
        if not self._echo:
            asked = replace(asked, message_id=None)
        problems = self._judge.problems(answer.status, answer.content_type, answer.body, asked)
        known = entry.problems
        if answer.status == 200:  # the contract says nothing about answers of another status
            known = (*known, *(problem for problem in problems if problem not in known))
        end = None if problems else End.ACKNOWLEDGED
        entry = replace(entry, answered=answer.status, failure=None, problems=known, end=end)
        return entry, answer.retry_after or 0.0

    async def _keep_time(self) -> None:
        """Advances the books when something is due, even if nobody looks at them."""
        while True:
            now = datetime.now(UTC)
            self._books.advance(now)
            self._changed.clear()
            due = self._books.due[0][0] if self._books.due else None
            with contextlib.suppress(TimeoutError):
                wait = None if due is None else min((due - now).total_seconds(), 3600.0)
                await asyncio.wait_for(self._changed.wait(), wait)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _cancel(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
