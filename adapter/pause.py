"""Pauses between attempts to reach something that does not answer."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeVar

from adapter.core.errors import Unavailable
from adapter.core.retry import ASK_AGAIN, Backoff

_Answer = TypeVar("_Answer")

_SHORT: Final = 0.2
"""Seconds between two attempts while somebody waits for the answer."""


async def pause(backoff: Backoff, attempt: int) -> None:
    """Sleep after failed attempt number `attempt` (from 1)."""
    await asyncio.sleep(backoff.delay(attempt, random.random()))  # noqa: S311 -- jitter


async def until_answered(
    ask: Callable[[], Awaitable[_Answer]], tell: Callable[..., object], backoff: Backoff = ASK_AGAIN
) -> _Answer:
    """Call `ask` until it no longer raises Unavailable, with increasing pauses. `tell` is called with the `reason` and
    the number of each failed `attempt` (from 1).
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return await ask()
        except Unavailable as error:
            tell(reason=str(error), attempt=attempt)
            await pause(backoff, attempt)


async def patiently(ask: Callable[[], Awaitable[_Answer]], limit: float) -> _Answer:
    """Call `ask` until it no longer raises Unavailable, for `limit` seconds; then raise that."""
    end = monotonic() + limit
    while True:
        try:
            return await ask()
        except Unavailable:
            if monotonic() >= end:
                raise
        await asyncio.sleep(_SHORT)
