"""Pauses between attempts to reach something that does not answer."""

import asyncio
import random

from adapter.core.retry import Backoff


async def pause(backoff: Backoff, attempt: int) -> None:
    """Sleep after failed attempt number `attempt` (from 1)."""
    await asyncio.sleep(backoff.delay(attempt, random.random()))  # noqa: S311 -- jitter
