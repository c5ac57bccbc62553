"""The gate before the supplier: how many calls are in flight, and whether one may start at all.

Callers queue for a permit in the order they came. While the breaker is open nobody passes; then one passes as the
probe, by preference one with another key than the call that opened it.

Who has a permit does what has to be done before the call, which is mostly a commit, and then takes a place; there are
no more calls than places. Of permits there are more, by as many as calls have ended, of late, during such a commit:
else places would lie idle for as long as commits take. With a slow supplier hardly a call ends meanwhile, so hardly
anybody commits what then waits.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from adapter.core.command import Accepted, Forbidden, Misdirected, Rejected, Unavailable, Unclear, Verdict
from adapter.core.retry import Breaker, BreakerState

_FORGOTTEN: Final = 1 / 256
"""How much of how many are let in ahead each commit takes away during which fewer calls ended. They come in waves: by
the mean, places would lie idle in each trough.
"""


@dataclass(slots=True, eq=False)
class Permit:
    """Leave to make one call, given back with `Gate.leave`."""

    key: bytes
    probe: bool
    """Whether this call finds out if the supplier is back."""
    ended: int
    """How many calls had ended when it was given."""
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
        self, *, places: int, breaker: Breaker, changed: Callable[[BreakerState, str, str | None], None]
    ) -> None:
        self.breaker = breaker
        self.in_flight = 0
        """Places that are taken."""
        self.eased: Callable[[], None] = lambda: None
        """Called when somebody may have left the queue."""
        self._places = places
        self._permits = 0
        """Given and not yet given back: who calls, waits for a place, or has something to commit before."""
        self._ahead = 0.0
        """How many permits there may be beyond the places."""
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
        if not self._waiters and self._room and self.breaker.allow(self._loop.time()):
            return self._given(key)
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
        if self._stops(permit):
            return None
        if self.in_flight < self._places and not self._ready:
            self._place(permit)
            return None
        turn: asyncio.Future[None] = self._loop.create_future()
        self._ready.append((permit, turn))
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
            case _ if not believed:
                pass
            case None:
                self.breaker.released(now)
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
                if not self._stops(permit):
                    if self.in_flight >= self._places:
                        return
                    self._place(permit)
                turn.set_result(None)
            self._ready.popleft()

    def _stops(self, permit: Permit) -> bool:
        """Whether the breaker stops this call."""
        return self.breaker.state is not BreakerState.CLOSED and not permit.probe

    def _place(self, permit: Permit) -> None:
        permit.calling = True
        self.in_flight += 1

    @property
    def _room(self) -> bool:
        ahead = round(self._ahead) if self.breaker.state is BreakerState.CLOSED else 0
        return self._permits < self._places + ahead

    def _pump(self) -> None:
        now = self._loop.time()
        while self._waiters:
            if self._waiters[0].turn.done():  # cancelled while it waited
                self._waiters.popleft()
            elif self._room and self.breaker.allow(now):
                waiter = self._next()
                waiter.turn.set_result(self._given(waiter.key))
            else:
                break
        # Without room the next to leave lets the probe in, whatever the time.
        due = self._waiters and self._room and self.breaker.state is BreakerState.OPEN
        self._set_alarm(self.breaker.retry_at if due else None)
        self.eased()

    def _set_alarm(self, at: float | None) -> None:
        """For the next probe, and no other: a breaker that closes meanwhile may open again for another time."""
        if at == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = None if at is None else self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = self._alarm_at = None
        self._pump()

    def _given(self, key: bytes) -> Permit:
        self._permits += 1
        self._tell("probe")
        return Permit(key, self.breaker.state is BreakerState.PROBING, self._ended)

    def _next(self) -> _Waiter:
        """The first in the queue; for a probe the first with another key than the one that opened the breaker."""
        waiting = self._waiters
        place = 0
        if self.breaker.state is BreakerState.PROBING:
            others = (n for n, w in enumerate(waiting) if w.key != self.breaker.last_key and not w.turn.done())
            place = next(others, 0)
        waiter = waiting[place]
        del waiting[place]
        return waiter

    def _tell(self, why: str, detail: str | None = None) -> None:
        if self.breaker.state is not self._told:
            self._told = self.breaker.state
            self._changed(self._told, why, detail)
