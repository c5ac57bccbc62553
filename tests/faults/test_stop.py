"""SIGTERM under load: the first ends what is under way, the second ends the process; neither loses anything."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.stage import OpenCalls, Stage, open_stage
from tests.faults.workload import Workload
from tests.support.processes import Process, Processes
from tests.support.topics import Topics
from tests.support.wait import eventually

IN_FLIGHT = 30
LATENCY = 2.0
LATE = 30
"""Calls that may start between a count and a signal."""


async def at_work(stage: Stage) -> tuple[Process, Workload, OpenCalls]:
    """A worker with many calls under way."""
    workload, opened = stage.workload(seed=7), OpenCalls(stage.log)
    worker = await stage.worker()
    workload.send(tickets=60, per_ticket=3)
    await eventually(lambda: opened.count() > IN_FLIGHT, within=60, what=f"{IN_FLIGHT} calls under way")
    return worker, workload, opened


async def finished_by_another(stage: Stage, workload: Workload) -> Counter[str]:
    """How often each kind of event came, once another worker has finished all."""
    successor = await stage.worker()
    await stage.finished(within=90)
    assert await successor.stop(within=30) == 0
    violations, events = stage.verdict(workload)
    assert violations == []
    return Counter(event.type for event in events)


async def test_a_worker_asked_to_stop_finishes_its_calls_and_leaves_no_doubt(
    kafka: str, create_topics: Callable[..., Topics], processes: Processes, tmp_path: Path
) -> None:
    stage = await open_stage(processes, kafka, create_topics(partitions=4), tmp_path, latency=LATENCY)
    worker, workload, opened = await at_work(stage)
    assert await worker.stop(within=20) == 0
    assert opened.count() == 0  # it waited for them
    assert (await finished_by_another(stage, workload))["CommandOutcomeUnknown"] == 0


async def test_a_worker_asked_twice_leaves_at_once_and_loses_nothing(
    kafka: str, create_topics: Callable[..., Topics], processes: Processes, tmp_path: Path
) -> None:
    stage = await open_stage(processes, kafka, create_topics(partitions=4), tmp_path, latency=LATENCY)
    worker, workload, opened = await at_work(stage)
    under_way = opened.count()
    worker.send(signal.SIGTERM)
    await worker.ready(lambda process: '"stopping"' in process.output)
    asked = time.monotonic()
    worker.send(signal.SIGTERM)
    assert await worker.ended(within=10) == 0
    assert time.monotonic() - asked < LATENCY
    kinds = await finished_by_another(stage, workload)
    assert kinds["CommandOutcomeUnknown"] <= under_way + LATE
