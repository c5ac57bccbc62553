"""When to try again, and when to stop trying anything: backoff of one command, breaker of the whole supplier.

Pure: the time (seconds of a monotonic clock) and the random share are arguments.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter: between half and the whole of `first` doubled each time, up to `longest`."""

    first: float
    longest: float

    def delay(self, attempt: int, share: float, at_least: float | None = None) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1); `share` is random in [0, 1).

        `at_least` is what the supplier asked for (Retry-After, RFC 9110 section 10.2.3): never less than that,
        and spread above it so that everybody does not come back at once.
        """
        whole = min(self.longest, self.first * 2.0 ** min(attempt - 1, 30))
        jittered = whole * (1 + share) / 2
        return jittered if at_least is None else at_least + jittered * share


ASK_AGAIN: Final = Backoff(first=0.2, longest=5.0)
"""Between attempts to reach something of ours: the broker, the registry, the disk."""

TRANSACTION_AGAIN: Final = Backoff(first=0.1, longest=0.5)
"""Before a transaction that was refused is tried again. Should a partition be lost, that is told sooner."""


_FORGOTTEN: Final = 600.0
"""Seconds after which what was learnt about the supplier may no longer hold."""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """The circuit breaker: stops starting calls while the supplier is down or refuses us, and probes with one call at a
    time.

    It opens after `threshold` failures in a row. A refusal that may concern every call (401, 403, 404, redirects) opens
    it at once if there was none for ten minutes. Further ones most likely concern their own call alone, since others
    have succeeded meanwhile, and must not stop everybody for as long as that call is retried: they open it like other
    failures, and only once no call has succeeded for as long as a probe waits.
    """

    __slots__ = (
        "_failing_since",
        "_failures",
        "_refused_at",
        "backoff",
        "doubted",
        "failed_keys",
        "opened",
        "retry_at",
        "state",
        "successes",
        "threshold",
    )

    def __init__(self, *, threshold: int, backoff: Backoff) -> None:
        self.threshold = threshold
        self.backoff = backoff
        self.state = BreakerState.CLOSED
        self.retry_at = 0.0
        """When the next probe may start (monotonic seconds), if open."""
        self.failed_keys: set[bytes] = set()
        """Keys of the calls that failed since the last good answer: a probe with another key tells more."""
        self.doubted = False
        """Whether a call that must not be repeated came to nothing clear since the last good answer."""
        self.opened = 0
        """How often it has opened since the last good answer."""
        self.successes = 0
        """Calls answered as they should be, ever."""
        self._failures = 0
        self._failing_since = 0.0
        self._refused_at = -inf

    def known(self, now: float) -> BreakerState:
        """The state, as far as it still says something about the supplier: CLOSED if the breaker has been open for ten
        minutes without a probe because there was no call to make.
        """
        asked = self.state is not BreakerState.OPEN or now - self.retry_at < _FORGOTTEN
        return self.state if asked else BreakerState.CLOSED

    def allow(self, now: float) -> bool:
        """Whether a call may start now. A True while open makes that call the probe."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN and now >= self.retry_at:
            self.state = BreakerState.PROBING
            return True
        return False

    def succeeded(self) -> None:
        """A call was answered by the supplier's application, whatever it said."""
        self.successes += 1
        self._failures = 0
        self.opened = 0
        self.failed_keys.clear()
        self.doubted = False
        self.state = BreakerState.CLOSED

    def failed(
        self, key: bytes, now: float, *, share: float, at_least: float | None = None, at_once: bool = False
    ) -> None:
        """A call found the supplier unavailable, unclear, or set up wrongly (`at_once`)."""
        self.failed_keys.add(key)
        self._failures += 1
        if self._failures == 1:
            self._failing_since = now
        enough = self._failures >= self.threshold
        if at_once:
            # Of concurrent calls, the refused ones are answered first, and in a row.
            lasting = now - self._failing_since >= self.backoff.first
            enough = now - self._refused_at >= _FORGOTTEN or (enough and lasting)
            self._refused_at = now
        if self.state is BreakerState.CLOSED and not enough:
            return
        if self.state is BreakerState.OPEN:
            return  # a call that started before it opened
        self.opened += 1
        self.state = BreakerState.OPEN
        self.retry_at = now + self.backoff.delay(self.opened, share, at_least)

    def released(self, now: float) -> None:
        """A probe ended without a verdict (it was abandoned): let the next call probe."""
        if self.state is BreakerState.PROBING:
            self.state = BreakerState.OPEN
            self.retry_at = now
