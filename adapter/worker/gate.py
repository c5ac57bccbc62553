"""The gate before the supplier: how many calls are in flight, and whether one may start at all.

Callers queue for a permit in the order they came. While the breaker is open nobody passes; then one passes as the
probe, by preference one with a key that has not failed since the last good answer.

Who has a permit does what has to be done before the call, which is mostly a commit, and then takes a place; there are
no more calls than places. Of permits there are more, by as many as calls have ended, of late, during such a commit:
else places would lie idle for as long as commits take. With a slow supplier hardly a call ends meanwhile, so hardly
anybody commits what then waits.

Where calls a second are limited, a place is taken when it is the call's time, and a permit as long before that as
commits take.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from adapter.core.command import Accepted, Forbidden, Misdirected, Rejected, Unavailable, Unclear, Verdict
from adapter.core.rate import RateLimit
from adapter.core.retry import Breaker, BreakerState

_FORGOTTEN: Final = 1 / 256
"""How much of how many are let in ahead each commit takes away during which fewer calls ended. They come in waves: by
the mean, places would lie idle in each trough.
"""

_LONG_BEFORE: Final = 1.0
"""Seconds by which a permit comes before the time of its call at the most: what a worker that dies has committed by
then is in doubt for nothing.
"""


@dataclass(slots=True, eq=False)
class Permit:
    """Leave to make one call, given back with `Gate.leave`."""

    key: bytes
    probe: bool
    """Whether this call finds out if the supplier is back."""
    given: float
    """When, in seconds of the loop's clock."""
    ended: int
    """How many calls had ended by then."""
    calling: bool = False
    """Whether the call may be made: it has a place."""
    tried: bool = False
    """Whether it has asked for one."""


@dataclass(slots=True, eq=False)
class _Waiter:
    key: bytes
    turn: "asyncio.Future[Permit]"


class Gate:
    """Permits and places for calls to the supplier. `changed` hears of every change of the breaker's state: why, and
    what was wrong with a call that could not be sent.
    """

    def __init__(
        self,
        *,
        places: int,
        rate: RateLimit | None,
        breaker: Breaker,
        changed: Callable[[BreakerState, str, str | None], None],
    ) -> None:
        self.breaker = breaker
        self.in_flight = 0
        """Places that are taken."""
        self.eased: Callable[[], None] = lambda: None
        """Called when somebody may have left the queue."""
        self._places = places
        self._rate = rate
        self._permits = 0
        """Given and not yet given back: who calls, waits for a place, or has something to commit before."""
        self._ahead = 0.0
        """How many permits there may be beyond the places."""
        self._before = 0.0
        """Seconds from a permit to the question for a place, of late."""
        self._ended = 0
        """Calls, since the start."""
        self._ready: deque[tuple[Permit, asyncio.Future[None]]] = deque()
        """Who waits for a place."""
        self._changed = changed
        self._told = breaker.state
        self._waiters: deque[_Waiter] = deque()
        self._alarm: asyncio.Handle | None = None
        self._alarm_at: float | None = None
        """The handle can't be asked: uvloop rounds its time, and below a millisecond gives one without."""
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    async def enter(self, key: bytes) -> Permit:
        """Wait for a permit; every permit is given back with `leave`."""
        now = self._loop.time()
        if not self._waiters and self._room and self._opens <= now and self.breaker.allow(now):
            return self._given(key, now)
        waiter = _Waiter(key, self._loop.create_future())
        self._waiters.append(waiter)
        self._pump()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.leave(waiter.turn.result(), None)
            raise

    def begin(self, permit: Permit) -> "asyncio.Future[None] | None":
        """Whatever had to be done before the call is done. Once the answer is resolved, at once for None, `calling` of
        the permit says whether the call may be made; else it is given back: the breaker stops calls.
        """
        permit.tried = True
        ended = min(self._ended - permit.ended, self._places)
        self._ahead = max(ended, self._ahead + (ended - self._ahead) * _FORGOTTEN)
        if self._rate is not None:
            took = min(self._loop.time() - permit.given, _LONG_BEFORE)
            self._before = max(took, self._before + (took - self._before) * _FORGOTTEN)
        if self._stops(permit):
            return None
        if not self._ready and self._place(permit):
            return None
        turn: asyncio.Future[None] = self._loop.create_future()
        self._ready.append((permit, turn))
        if self._rate is not None:  # else a call that ends gives the place, not time
            self._watch_time()
        return turn

    def leave(self, permit: Permit, verdict: Verdict | None) -> None:
        """The call of this permit came to `verdict`; None: it was not made."""
        self._permits -= 1
        if permit.calling:
            self.in_flight -= 1
            self._ended += verdict is not None
        elif permit.tried:  # it was let in for nothing
            self._ahead = max(0.0, self._ahead - 1)
        now, share = self._loop.time(), random.random()  # noqa: S311 -- jitter
        # While it probes, the breaker believes the probe alone: other calls began before it opened.
        believed = permit.probe or self.breaker.state is BreakerState.CLOSED
        match verdict:
            case Accepted() | Rejected():
                self.breaker.succeeded()
            case None:
                if believed:
                    self.breaker.released(now)
            case _ if not believed:
                self.breaker.failed_keys.add(permit.key)
            case Unavailable(_, retry_after):
                self.breaker.failed(permit.key, now, share=share, at_least=retry_after)
            case Unclear():
                self.breaker.failed(permit.key, now, share=share)
            case Forbidden() | Misdirected():
                self.breaker.failed(permit.key, now, share=share, at_once=True)
        self._tell(getattr(verdict, "reason", "answered"), getattr(verdict, "detail", None))
        self._give_places()
        self._pump()

    def _give_places(self) -> None:
        """To those who are ready. Where the breaker stops calls they hear that they get none."""
        while self._ready:
            permit, turn = self._ready[0]
            if not turn.done():  # else nobody waits for it any more
                if not self._stops(permit) and not self._place(permit):
                    return
                turn.set_result(None)
            self._ready.popleft()

    def _stops(self, permit: Permit) -> bool:
        """Whether the breaker stops this call."""
        return self.breaker.state is not BreakerState.CLOSED and not permit.probe

    def _place(self, permit: Permit) -> bool:
        """Take a place, if one is free and it is time."""
        if self.in_flight >= self._places:
            return False
        if self._rate is not None:
            now = self._loop.time()
            if now < self._rate.due():
                return False
            self._rate.began(now)
        permit.calling = True
        self.in_flight += 1
        return True

    @property
    def _room(self) -> bool:
        ahead = round(self._ahead) if self.breaker.state is BreakerState.CLOSED else 0
        return self._permits < self._places + ahead

    @property
    def _opens(self) -> float:
        """When the limit of calls a second lets the next in."""
        return -inf if self._rate is None else self._rate.due(self._permits - self.in_flight) - self._before

    def _pump(self) -> None:
        now = self._loop.time()
        while self._waiters:
            if self._waiters[0].turn.done():  # cancelled while it waited
                self._waiters.popleft()
            elif self._room and self._opens <= now and self.breaker.allow(now):
                waiter = self._next()
                waiter.turn.set_result(self._given(waiter.key, now))
            else:
                break
        self._watch_time()
        self.eased()

    def _watch_time(self) -> None:
        """Set the alarm for what only time brings: the next probe, the next call's time, and no other. A breaker that
        closes meanwhile may open again for another time.
        """
        at = inf
        if self._waiters and self._room:  # else the next to leave lets one in, whatever the time
            match self.breaker.state:
                case BreakerState.OPEN:
                    at = max(self.breaker.retry_at, self._opens)
                case BreakerState.CLOSED:
                    at = self._opens
                case BreakerState.PROBING:
                    pass  # its end lets the next in
        if self._rate is not None and self._ready and self.in_flight < self._places:
            at = min(at, self._rate.due())
        self._set_alarm(None if at == inf else at)

    def _set_alarm(self, at: float | None) -> None:
        if at == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = None if at is None else self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = self._alarm_at = None
        self._give_places()
        self._pump()

    def _given(self, key: bytes, now: float) -> Permit:
        self._permits += 1
        self._tell("probe")
        return Permit(key, self.breaker.state is BreakerState.PROBING, now, self._ended)

    def _next(self) -> _Waiter:
        """The first in the queue; for a probe the first whose key has not failed since the last good answer."""
        waiting = self._waiters
        place = 0
        if self.breaker.state is BreakerState.PROBING:
            others = (n for n, w in enumerate(waiting) if w.key not in self.breaker.failed_keys and not w.turn.done())
            place = next(others, 0)
        waiter = waiting[place]
        del waiting[place]
        return waiter

    def _tell(self, why: str, detail: str | None = None) -> None:
        if self.breaker.state is not self._told:
            self._told = self.breaker.state
            self._changed(self._told, why, detail)
