"""SIGTERM under load: the first ends what is under way, the second ends the process; neither loses anything."""

import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.faults.stage import OpenCalls, Stage, open_stage
from tests.faults.workload import Workload
from tests.support.processes import Process, Processes
from tests.support.topics import Topics
from tests.support.wait import eventually

IN_FLIGHT = 30
LATENCY = 3.0
LATE = 30
"""Calls that may start between a count and a signal."""


Open = Callable[[float], Awaitable[Stage]]


@pytest.fixture
def opened(kafka: str, create_topics: Callable[..., Topics], processes: Processes, tmp_path: Path) -> Open:
    """Opens a stage on which a call may take that many seconds."""
    return lambda limit: open_stage(
        processes, kafka, create_topics(partitions=4), tmp_path, latency=LATENCY, call_limit=limit
    )


async def at_work(stage: Stage) -> tuple[Process, Workload, OpenCalls]:
    """A worker with many calls under way."""
    workload, calls = stage.workload(seed=7), OpenCalls(stage.log)
    worker = await stage.worker()
    workload.send(tickets=60, per_ticket=3)
    await eventually(lambda: calls.count() > IN_FLIGHT, what=f"{IN_FLIGHT} calls under way")
    return worker, workload, calls


async def finished_by_another(stage: Stage, workload: Workload) -> Counter[str]:
    """How often each kind of event came, once another worker has finished all."""
    successor = await stage.worker()
    await stage.finished()
    assert await successor.stop() == 0
    violations, events = stage.verdict(workload)
    assert violations == []
    return Counter(event.type for event in events)


async def test_a_worker_asked_to_stop_finishes_its_calls_and_leaves_no_doubt(opened: Open) -> None:
    stage = await opened(30)
    worker, workload, calls = await at_work(stage)
    assert await worker.stop() == 0
    assert calls.count() == 0  # it waited for them
    assert (await finished_by_another(stage, workload))["CommandOutcomeUnknown"] == 0


async def test_a_worker_whose_terminal_is_closed_finishes_its_calls_however_often_it_is_told(opened: Open) -> None:
    stage = await opened(30)
    worker, workload, calls = await at_work(stage)
    worker.send(signal.SIGHUP)  # from the shell
    await worker.ready(lambda process: '"signal":"SIGHUP"' in process.output)
    worker.send(signal.SIGHUP)  # from the kernel
    assert await worker.ended() == 0
    assert calls.count() == 0  # it waited for them
    assert (await finished_by_another(stage, workload))["CommandOutcomeUnknown"] == 0


async def test_a_worker_asked_twice_leaves_at_once_and_loses_nothing(opened: Open) -> None:
    stage = await opened(2 * LATENCY)
    worker, workload, calls = await at_work(stage)
    under_way = calls.count()
    worker.send(signal.SIGTERM)
    await worker.ready(lambda process: '"stopping"' in process.output)
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0
    assert '"leaving at once"' in worker.output
    kinds = await finished_by_another(stage, workload)
    assert 0 < kinds["CommandOutcomeUnknown"] <= under_way + LATE  # none, had it waited for the answers
