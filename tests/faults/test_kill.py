"""kill -9 of the worker under load, again and again."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.stage import OpenCalls, open_stage
from tests.support.processes import Processes
from tests.support.topics import Topics
from tests.support.wait import eventually

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "3"))
IN_FLIGHT = 50
TICKETS = 120


@pytest.mark.timeout(600 + 60 * ROUNDS)
async def test_every_command_ends_once_however_often_the_worker_is_killed(
    kafka: str, create_topics: Callable[..., Topics], processes: Processes, tmp_path: Path
) -> None:
    topics = create_topics(partitions=8)
    stage = await open_stage(processes, kafka, topics, tmp_path, latency=1.0)
    workload = stage.workload(seed=20)
    worker = await stage.worker()
    opened = OpenCalls(stage.log)
    in_flight = []
    for _ in range(ROUNDS):
        workload.send(tickets=TICKETS, per_ticket=4)
        await eventually(lambda: opened.count() > IN_FLIGHT, what=f"{IN_FLIGHT} calls under way")
        worker.kill()
        in_flight.append(opened.count())
        worker = await stage.worker()
    await stage.finished()
    assert await worker.stop() == 0

    violations, events = stage.verdict(workload)
    kinds = Counter(event.type for event in events)
    print(f"{len(workload.sent)} commands, in flight at the kills {in_flight}, events {dict(kinds)}")
    assert violations == []
    # A lane has one intent at a time, and the lanes of earlier rounds may still be at work.
    assert kinds["CommandOutcomeUnknown"] <= sum(TICKETS * (n + 1) for n in range(ROUNDS))
    assert kinds["CommandOutcomeUnknown"] == kinds["CommandSettled"]
