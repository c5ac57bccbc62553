"""How a role is told to stop, by signals, and stops: within its time limit, after leaving its group."""

import asyncio
import os
import signal
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from typing import Final, Protocol, TypeVar

from adapter.telemetry import Log, switch_debug

_Answer = TypeVar("_Answer")

_CLOSING: Final = 2.0
"""Seconds for closing the clients once the flows' time limit is over. A client whose cluster is away would take longer.
"""


async def before(stop: asyncio.Event, starting: Awaitable[_Answer]) -> _Answer | None:
    """The result of `starting`; None, and `starting` is cancelled, if `stop` is set first."""
    asked = asyncio.ensure_future(stop.wait())
    try:
        async with asyncio.timeout(None) as limit:
            asked.add_done_callback(lambda done: None if done.cancelled() else limit.reschedule(0))
            try:
                return await starting
            finally:
                asked.cancel()
    except TimeoutError:
        if not stop.is_set():
            raise
        return None


class Member(Protocol):
    """A running member of a consumer group."""

    async def run(self) -> None:
        """Work until cancelled. Raises the error that makes it impossible to go on."""
        ...

    async def close(self) -> None:
        """Leave the group; if `run` is still running, work under way is finished first."""
        ...


async def run_until(
    stop: asyncio.Event, opening: AbstractAsyncContextManager[Member], limit: timedelta, log: Log
) -> None:
    """Open a flow and run it until `stop` is set, then have it leave its group within the limit. Raises what opening
    and `run` raise.
    """
    async with AsyncExitStack() as stack:
        if flow := await before(stop, stack.enter_async_context(opening)):
            await _run(stop, flow, limit, log)


async def _run(stop: asyncio.Event, flow: Member, limit: timedelta, log: Log) -> None:
    running, stopping = asyncio.ensure_future(flow.run()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await flow.close()
        except TimeoutError:
            log.warning("not finished within the time limit", limit_seconds=limit.total_seconds())
    finally:
        running.cancel()
        stopping.cancel()


def stop_on_signals(log: Log, limit: timedelta) -> asyncio.Event:
    """An event that is set by the first SIGTERM, SIGINT or SIGHUP. A second SIGTERM or SIGINT ends the process at once,
    and so does the end of `limit` after the first.

    SIGUSR1 switches debug logging on and off.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def leave(reason: str) -> None:
        log.warning("leaving at once", reason=reason)
        os._exit(0)  # what is unfinished is in the topics, the journal and the spool

    def asked(name: str) -> None:
        if stop.is_set():
            leave("second signal")
        log.info("stopping", signal=name)
        loop.call_later(limit.total_seconds() + _CLOSING, leave, "time limit")
        stop.set()

    def hung_up() -> None:
        if not stop.is_set():  # when a terminal is closed, both the shell and the kernel send SIGHUP
            asked(signal.SIGHUP.name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number.name)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        loop.add_signal_handler(signal.SIGHUP, hung_up)
    loop.add_signal_handler(signal.SIGUSR1, lambda: log.warning("log level", now=switch_debug()))
    return stop
