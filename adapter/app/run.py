"""All flows in one process: one telemetry endpoint, one stop."""

import asyncio

from adapter.app.page import open_page
from adapter.app.projector import project
from adapter.app.server import receive
from adapter.app.start import stop_on_signals
from adapter.app.worker import work
from adapter.core.errors import Stop
from adapter.settings import Settings
from adapter.telemetry import Metrics, start_logging


async def run_all(settings: Settings) -> int:
    """Worker, server and projector until SIGTERM or SIGINT; a second one ends the process at once.

    If one of them can't go on, all stop. Raises Stop with what each had to say.
    """
    log = start_logging(level=settings.telemetry.log_level, form=settings.telemetry.log_format)
    stop, metrics = stop_on_signals(log), Metrics()
    flows = {"worker": work, "server": receive, "projector": project}
    async with open_page(settings.telemetry, metrics, log) as page:
        tasks = {
            asyncio.ensure_future(flow(settings, log.bind(flow=name), metrics, stop, page))
            for name, flow in flows.items()
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            stop.set()  # one that has ended before it was asked has failed: the others stop in order
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
    failures = [error for task in tasks if (error := task.exception()) is not None]
    if failures and all(isinstance(error, Stop) for error in failures):
        raise Stop(*(problem for error in failures if isinstance(error, Stop) for problem in error.problems))
    if failures:
        raise failures[0]
    log.info("stopped")
    return 0
