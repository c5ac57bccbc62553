"""The gate before the supplier: how many calls are in flight, and whether one may start at all.

Callers queue in the order they came. While the breaker is open nobody passes; then one passes as the probe, by
preference one with another key than the call that opened it.

Whoever has something to commit before the call is let in ahead of time: beyond the permits as many as calls have ended,
of late, during such a commit. Otherwise permits would lie idle for as long as commits take, a third of the time with a
quick supplier; and with a slow one, whose calls do not end meanwhile, nobody commits what then waits.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from adapter.core.command import Accepted, Forbidden, Misdirected, Rejected, Unavailable, Unclear, Verdict
from adapter.core.retry import Breaker, BreakerState


@dataclass(slots=True, eq=False)
class Permit:
    """Leave to make one call, given back with `Gate.leave`."""

    key: bytes
    probe: bool
    """Whether this call finds out if the supplier is back."""
    calling: bool
    """Whether the call may start: no more of these than there are permits."""
    ended: int
    """How many calls had ended when it was given."""


@dataclass(slots=True, eq=False)
class _Waiter:
    key: bytes
    ahead: bool
    turn: "asyncio.Future[Permit]"


_FORGOTTEN: Final = 1 / 256
"""How much of how many are let in ahead each commit takes away during which fewer calls ended. They come in waves: by
the mean, places would lie idle in each trough.
"""


class Gate:
    """Permits for calls to the supplier. `changed` hears of every change of the breaker's state."""

    def __init__(self, *, permits: int, breaker: Breaker, changed: Callable[[BreakerState, str], None]) -> None:
        self.breaker = breaker
        self.in_flight = 0
        """Calls that may be under way."""
        self.eased: Callable[[], None] = lambda: None
        """Called when somebody may have left the queue."""
        self._permits = permits
        self._inside = 0
        """Who has been given leave, with those who have still to commit something."""
        self._ended = 0
        self._ahead = 0.0
        """How many are let in beyond the permits."""
        self._ready: deque[tuple[Permit, asyncio.Future[None]]] = deque()
        """Who has committed and waits for a call to end."""
        self._changed = changed
        self._told = breaker.state
        self._waiters: deque[_Waiter] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    async def enter(self, key: bytes, *, ahead: bool = False) -> Permit:
        """Wait for leave to call, or, `ahead`, to prepare a call that asks again with `begin`. Every permit is given
        back with `leave`.
        """
        if not self._waiters and self._room(ahead) and self.breaker.allow(self._loop.time()):
            return self._permit(key, ahead)
        waiter = _Waiter(key, ahead, self._loop.create_future())
        self._waiters.append(waiter)
        self._pump()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.leave(waiter.turn.result(), None)
            raise

    def begin(self, permit: Permit) -> "asyncio.Future[None] | None":
        """What was entered ahead for is done: the call may start once this is resolved, at once for None."""
        ended = min(self._ended - permit.ended, self._permits)
        self._ahead = max(ended, self._ahead + (ended - self._ahead) * _FORGOTTEN)
        if self.in_flight < self._permits and not self._ready:
            permit.calling = True
            self.in_flight += 1
            return None
        turn: asyncio.Future[None] = self._loop.create_future()
        self._ready.append((permit, turn))
        return turn

    def leave(self, permit: Permit, verdict: Verdict | None) -> None:
        """The call of this permit came to `verdict`; None: it was not made."""
        self._inside -= 1
        if permit.calling:
            self._ended += 1
            self.in_flight -= 1
            self._start()
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
        self._tell(getattr(verdict, "reason", "answered"))
        self._pump()

    def _start(self) -> None:
        """Let those call who are ready."""
        while self._ready and self.in_flight < self._permits:
            permit, turn = self._ready.popleft()
            if not turn.done():  # else cancelled while it waited
                permit.calling = True
                self.in_flight += 1
                turn.set_result(None)

    def _room(self, ahead: bool) -> bool:  # noqa: FBT001 -- the waiter's own
        return self._inside < self._permits + (round(self._ahead) if ahead else 0)

    def _pump(self) -> None:
        now = self._loop.time()
        while self._waiters and self._room(self._waiters[0].ahead):
            if self._waiters[0].turn.done():  # cancelled while it waited
                self._waiters.popleft()
            elif self.breaker.allow(now):
                waiter = self._next()
                waiter.turn.set_result(self._permit(waiter.key, waiter.ahead))
            else:
                break
        if self._waiters and self.breaker.state is BreakerState.OPEN and self._alarm is None:
            self._alarm = self._loop.call_at(self.breaker.retry_at, self._ring)
        self.eased()

    def _ring(self) -> None:
        self._alarm = None
        self._pump()

    def _permit(self, key: bytes, ahead: bool) -> Permit:  # noqa: FBT001 -- as above
        self._inside += 1
        if not ahead:
            self.in_flight += 1
        self._tell("probe")
        return Permit(key, self.breaker.state is BreakerState.PROBING, not ahead, self._ended)

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

    def _tell(self, why: str) -> None:
        if self.breaker.state is not self._told:
            self._told = self.breaker.state
            self._changed(self._told, why)
