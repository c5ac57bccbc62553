"""The gate before the supplier: how many calls are in flight, and whether one may start at all.

Lanes queue for a permit in order of arrival. While the breaker is open none gets one; then a single one passes as the
probe, preferably with a key that has not failed since the last good answer. Once a supplier that gives no clear answer
has brought a command into doubt, it is preferably one that may be repeated: else each probe would leave one more.

With a permit, a lane does what has to be done before its call, usually the commit of its intent. Then it takes a
place; there are never more calls than places. There are more permits than places, or places would be idle while
intents are committed: more by as many as calls have recently ended during one such commit. If the supplier is slow,
hardly a call ends meanwhile, so hardly any intent is committed that then has to wait for a place.

If the calls per second are limited, a place is free at the time of the next call, and permits are given earlier by as
long as commits take.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from adapter.core.command import Accepted, Forbidden, Misdirected, Rejected, Unavailable, Unclear, Verdict
from adapter.core.operation import Repeat
from adapter.core.rate import RateLimit
from adapter.core.retry import Breaker, BreakerState

_FORGOTTEN: Final = 1 / 256
"""The share by which the number of permits ahead shrinks with each commit during which fewer calls ended; it grows at
once. Calls end in waves: with the mean, places would be idle in each trough.
"""

_LONG_BEFORE: Final = 1.0
"""The most seconds by which a permit is given before the time of its call: if the worker dies in between, a committed
intent is in doubt without need.
"""

_OTHERS: Final = 10
"""One probe in so many is made with a key that has not failed even if that may leave a doubt, since the commands that
may be repeated could be the very ones that fail.
"""

_HARM: Final = (Repeat.SAFE, Repeat.KEYED, Repeat.NEVER)
"""From the least harm that a call without a clear answer does to the most."""


@dataclass(slots=True, eq=False)
class Permit:
    """Permission to make one call, returned with `Gate.leave`."""

    key: bytes
    repeat: Repeat
    """What may be done if the outcome of its call is unclear."""
    probe: bool
    """Whether this call is the breaker's probe."""
    given: float
    """When it was given, in seconds of the loop's clock."""
    ended: int
    """How many calls had ended by then."""
    calling: bool = False
    """Whether it has a place, so that the call may be made."""
    tried: bool = False
    """Whether it has asked for a place."""


@dataclass(slots=True, eq=False)
class _Waiter:
    key: bytes
    repeat: Repeat
    turn: "asyncio.Future[Permit]"


class Gate:
    """Permits and places for calls to the supplier. `changed` is called when the breaker changes its state, with the
    reason and, if a call could not be sent, what was wrong.
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
        """Permits that are given and not yet returned."""
        self._ahead = 0.0
        """How many permits there may be beyond the places."""
        self._before = 0.0
        """Seconds that recently passed between a permit and the question for a place."""
        self._ended = 0
        """Calls that have ended, ever."""
        self._ready: deque[tuple[Permit, asyncio.Future[None]]] = deque()
        """Permits that wait for a place."""
        self._changed = changed
        self._reported = breaker.state
        self._waiters: deque[_Waiter] = deque()
        self._alarm: asyncio.Handle | None = None
        self._alarm_at: float | None = None
        """Kept here because the handle can't tell: uvloop rounds its time, and below a millisecond has none."""
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def holds_back(self) -> str:
        """What a call would have to wait for at the moment: "breaker", "places" or "rate"; "" if for nothing."""
        if self.breaker.state is not BreakerState.CLOSED:
            return "breaker"
        if self.in_flight >= self._places or not self._room:
            return "places"
        return "rate" if self._opens > self._loop.time() else ""

    @property
    def probe_in(self) -> float:
        """Seconds until the breaker lets a probe pass; 0 if it is closed or probes."""
        opened = self.breaker.state is BreakerState.OPEN
        return max(0.0, self.breaker.retry_at - self._loop.time()) if opened else 0.0

    async def enter(self, key: bytes, repeat: Repeat = Repeat.NEVER) -> Permit:
        """Wait for a permit; every permit is given back with `leave`. `repeat` is what may be done if the outcome of
        the call is unclear.
        """
        now = self._loop.time()
        if not self._waiters and self._room and self._opens <= now and self.breaker.allow(now):
            return self._given(key, repeat, now)
        waiter = _Waiter(key, repeat, self._loop.create_future())
        self._waiters.append(waiter)
        self._pump()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.leave(waiter.turn.result(), None)
            raise

    def begin(self, permit: Permit) -> "asyncio.Future[None] | None":
        """Ask for a place; what has to be done before the call is done. Wait for the future, if there is one: then
        `permit.calling` says whether the call may be made. If not, the breaker stops it, and the permit is returned.
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
        if self._rate is not None:  # otherwise it is a call's end, not time, that frees a place
            self._watch_time()
        return turn

    def leave(self, permit: Permit, verdict: Verdict | None) -> None:
        """Return the permit. `verdict` is what its call came to; None if it was not made."""
        self._permits -= 1
        if permit.calling:
            self.in_flight -= 1
            self._ended += verdict is not None
        elif permit.tried:  # it was one too many
            self._ahead = max(0.0, self._ahead - 1)
        now, share = self._loop.time(), random.random()  # noqa: S311 -- jitter
        # While the breaker probes, only the probe counts: other calls began before it opened.
        believed = permit.probe or self.breaker.state is BreakerState.CLOSED
        self.breaker.doubted |= isinstance(verdict, Unclear) and permit.repeat is Repeat.NEVER
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
        why = "abandoned" if verdict is None else getattr(verdict, "reason", "answered")
        self._tell(why, getattr(verdict, "detail", None))
        self._give_places()
        self._pump()

    def _give_places(self) -> None:
        """Give free places to permits that wait for one; those that the breaker stops get an answer without a place."""
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
        """When the limit of calls a second allows the next permit."""
        return -inf if self._rate is None else self._rate.due(self._permits - self.in_flight) - self._before

    def _pump(self) -> None:
        now = self._loop.time()
        while self._waiters:
            if self._waiters[0].turn.done():  # cancelled while it waited
                self._waiters.popleft()
            elif self._room and self._opens <= now and self.breaker.allow(now):
                waiter = self._next()
                waiter.turn.set_result(self._given(waiter.key, waiter.repeat, now))
            else:
                break
        self._watch_time()
        self.eased()

    def _watch_time(self) -> None:
        """Set the alarm for what depends on time alone, the next probe and the time of the next call, or none:
        a breaker that closes meanwhile may open again until another time.
        """
        at = inf
        if self._waiters and self._room:  # otherwise the next permit returned lets one in, whatever the time
            match self.breaker.state:
                case BreakerState.OPEN:
                    at = max(self.breaker.retry_at, self._opens)
                case BreakerState.CLOSED:
                    at = self._opens
                case BreakerState.PROBING:
                    pass  # the end of the probe lets the next in
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

    def _given(self, key: bytes, repeat: Repeat, now: float) -> Permit:
        self._permits += 1
        self._tell("probe")
        return Permit(key, repeat, self.breaker.state is BreakerState.PROBING, now, self._ended)

    def _next(self) -> _Waiter:
        """The first in the queue; for a probe the first of those that tell most at the least harm."""
        waiting = self._waiters
        place = 0
        if self.breaker.state is BreakerState.PROBING:
            place = min((n for n, w in enumerate(waiting) if not w.turn.done()), key=lambda n: self._unfit(waiting[n]))
        waiter = waiting[place]
        del waiting[place]
        return waiter

    def _unfit(self, waiter: _Waiter) -> tuple[int, int]:
        """How little a waiter is fit to probe: the least of all does."""
        failed, harm = waiter.key in self.breaker.failed_keys, _HARM.index(waiter.repeat)
        wary = self.breaker.doubted and self.breaker.opened % _OTHERS
        return (harm, failed) if wary else (failed, harm)

    def _tell(self, why: str, detail: str | None = None) -> None:
        if self.breaker.state is not self._reported:
            self._reported = self.breaker.state
            self._changed(self._reported, why, detail)
