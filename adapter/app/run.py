"""From settings to a process: its flows, one or all, with one telemetry endpoint and one stop."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from adapter.app.page import Page, open_page
from adapter.app.projector import project
from adapter.app.server import receive
from adapter.app.start import stop_on_signals
from adapter.app.worker import work
from adapter.core.errors import Stop
from adapter.settings import Projecting, Receiving, Settings
from adapter.telemetry import Log, Metrics, start_logging

_Settings = TypeVar("_Settings", bound=Receiving | Projecting)

Flow = Callable[[_Settings, Log, Metrics, asyncio.Event, Page], Awaitable[None]]
"""Works until the event is set. Raises what makes it impossible to go on."""


async def run_worker(settings: Settings) -> int:
    return await _run(settings, {"worker": work})


async def run_server(settings: Receiving) -> int:
    return await _run(settings, {"server": receive})


async def run_projector(settings: Projecting) -> int:
    return await _run(settings, {"projector": project})


async def run_all(settings: Settings) -> int:
    return await _run(settings, {"worker": work, "server": receive, "projector": project})


async def _run(settings: _Settings, flows: Mapping[str, Flow[_Settings]]) -> int:
    """Run them until SIGTERM or SIGINT; a second one ends the process at once. If one can't go on, all stop in order.

    Raises what they had to say, Stop with the problems of all.
    """
    telemetry = settings.telemetry
    log = start_logging(level=telemetry.log_level, form=telemetry.log_format)
    logs = {name: log.bind(flow=name) for name in flows}
    if len(flows) == 1:
        log = next(iter(logs.values()))
    stop, metrics = stop_on_signals(log), Metrics()
    async with open_page(telemetry, metrics, log, flows) as page:
        tasks = {asyncio.ensure_future(flow(settings, logs[name], metrics, stop, page)) for name, flow in flows.items()}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            stop.set()  # whatever ended before it was asked has failed
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
    failures = [error for task in tasks if (error := task.exception()) is not None]
    problems = [problem for error in failures if isinstance(error, Stop) for problem in error.problems]
    for error in failures:
        if not isinstance(error, Stop):
            raise error
    if problems:
        raise Stop(*problems)
    log.info("stopped")
    return 0
