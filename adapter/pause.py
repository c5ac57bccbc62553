"""Pauses between attempts to reach something that does not answer."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from adapter.core.errors import Unavailable
from adapter.core.retry import ASK_AGAIN, Backoff

_Answer = TypeVar("_Answer")


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
