"""The gate before the supplier: how many calls are in flight, and whether one may start at all.

Callers queue in the order they came. While the breaker is open nobody passes; then one passes as the probe, by
preference one with another key than the call that opened it.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from adapter.core.command import Accepted, Forbidden, Misdirected, Rejected, Unavailable, Unclear, Verdict
from adapter.core.retry import Breaker, BreakerState


@dataclass(slots=True)
class _Waiter:
    key: bytes
    turn: "asyncio.Future[None]"


class Gate:
    """Permits for calls to the supplier. `changed` hears of every change of the breaker's state."""

    def __init__(self, *, permits: int, breaker: Breaker, changed: Callable[[BreakerState, str], None]) -> None:
        self.breaker = breaker
        self.in_flight = 0
        self._permits = permits
        self._changed = changed
        self._told = breaker.state
        self._waiters: deque[_Waiter] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    async def enter(self, key: bytes) -> None:
        """Wait for a permit; every permit is given back with `leave`."""
        if not self._waiters and self.in_flight < self._permits and self.breaker.allow(self._loop.time()):
            self.in_flight += 1
            self._tell("probe")
            return
        waiter = _Waiter(key, self._loop.create_future())
        self._waiters.append(waiter)
        self._pump()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.leave(key, None)
            else:
                self._waiters.remove(waiter)
            raise

    def leave(self, key: bytes, verdict: Verdict | None) -> None:
        """The call of this permit came to `verdict`; None: it was not made."""
        self.in_flight -= 1
        now, share = self._loop.time(), random.random()  # noqa: S311 -- jitter
        match verdict:
            case None:
                self.breaker.released(now)
            case Accepted() | Rejected():
                self.breaker.succeeded()
            case Unavailable(_, retry_after):
                self.breaker.failed(key, now, share=share, at_least=retry_after)
            case Unclear():
                self.breaker.failed(key, now, share=share)
            case Forbidden() | Misdirected():
                self.breaker.failed(key, now, share=share, at_once=True)
        self._tell(getattr(verdict, "reason", "answered"))
        self._pump()

    def _pump(self) -> None:
        now = self._loop.time()
        while self._waiters and self.in_flight < self._permits and self.breaker.allow(now):
            waiter = self._next()
            self.in_flight += 1
            self._tell("probe")
            waiter.turn.set_result(None)
        if self._waiters and self.breaker.state is BreakerState.OPEN and self._alarm is None:
            self._alarm = self._loop.call_at(self.breaker.retry_at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._pump()

    def _next(self) -> _Waiter:
        if self.breaker.state is BreakerState.PROBING:
            for index, waiter in enumerate(self._waiters):
                if waiter.key != self.breaker.last_key:
                    del self._waiters[index]
                    return waiter
        return self._waiters.popleft()

    def _tell(self, why: str) -> None:
        if self.breaker.state is not self._told:
            self._told = self.breaker.state
            self._changed(self._told, why)
