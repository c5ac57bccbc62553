"""From settings to a process with one flow or all of them, with one telemetry endpoint and one stop signal."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import NoReturn, TypeVar

from adapter.app.credentials import Credentials
from adapter.app.descriptors import raise_limit
from adapter.app.page import open_page
from adapter.app.process import Process
from adapter.app.projector import leave_limit, project
from adapter.app.server import receive
from adapter.app.stop import stop_on_signals
from adapter.app.worker import work
from adapter.core.errors import Stop
from adapter.settings import Projecting, Receiving, Settings
from adapter.telemetry import Log, Metrics, start_logging

_Settings = TypeVar("_Settings", bound=Receiving | Projecting)

Flow = Callable[[_Settings, Log, Process], Awaitable[None]]
"""Runs until the process is to stop. Raises the error that makes it impossible to go on."""


async def run_worker(settings: Settings) -> NoReturn:
    await _run(settings, {"worker": work}, limit=settings.worker.stop_timeout)


async def run_server(settings: Receiving) -> NoReturn:
    await _run(settings, {"server": receive}, limit=settings.server.stop_timeout)


async def run_projector(settings: Projecting) -> NoReturn:
    await _run(settings, {"projector": project}, limit=leave_limit(settings))


async def run_all(settings: Settings) -> NoReturn:
    limit = max(settings.worker.stop_timeout, settings.server.stop_timeout, leave_limit(settings))
    await _run(settings, {"worker": work, "server": receive, "projector": project}, limit=limit)


async def _run(settings: _Settings, flows: Mapping[str, Flow[_Settings]], *, limit: timedelta) -> NoReturn:
    """Run the flows until SIGTERM, SIGINT or SIGHUP, then end the process; a second signal, or the end of `limit` after
    the first, ends it at once. If one flow can't go on, all are stopped in order.

    Raises the error of a flow that failed; several Stops are raised as one with all their problems.
    """
    telemetry = settings.telemetry
    log = start_logging(level=telemetry.log_level, form=telemetry.log_format)
    logs = {name: log.bind(flow=name) for name in flows}
    if len(flows) == 1:
        log = next(iter(logs.values()))
    raise_limit()
    stop, metrics = stop_on_signals(log, limit), Metrics()
    credentials = Credentials(settings.kafka, log, metrics)
    watching = asyncio.ensure_future(credentials.watch())
    async with open_page(telemetry, metrics, log, flows) as page:
        process = Process(stop, metrics, page, credentials)
        tasks = {asyncio.ensure_future(flow(settings, logs[name], process)) for name, flow in flows.items()}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            stop.set()  # a flow that ends without being asked has failed: stop the others
            await asyncio.wait(tasks)
        finally:
            for task in (*tasks, watching):
                task.cancel()
    failures = [error for task in tasks if (error := task.exception()) is not None]
    problems = [problem for error in failures if isinstance(error, Stop) for problem in error.problems]
    for error in failures:
        if not isinstance(error, Stop):
            raise error
    if problems:
        raise Stop(*problems)
    log.info("stopped")
    logging.shutdown()
    os._exit(0)  # all is closed; a normal exit would wait for a thread that is still asking an absent Kafka
