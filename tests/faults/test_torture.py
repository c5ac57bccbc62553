"""A short run of the torture, by a plan that never changes; `make torture` has the long ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.plan import Act, Step
from tests.faults.torture import torture
from tests.faults.wire import Trouble
from tests.support.broker import Cluster

STEPS = (
    Step(1.5, Act.KILL, "worker 1", 0.0),
    Step(1.0, Act.KILL, "server 1", 0.0),
    Step(0.5, Act.WIRE, "worker 2 - supplier", 1.0, Trouble.RESET.value),
    Step(2.0, Act.KILL, "projector 1", 0.0),
    Step(1.0, Act.KILL, "broker", 0.0),
    Step(3.0, Act.STOP, "server 2", 0.0),
    Step(2.0, Act.KILL, "worker 2", 0.0),
)


@pytest.mark.timeout(900)
async def test_no_law_is_broken_while_each_of_them_is_killed_under_load(
    kafka_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    report = await torture(tmp_path, kafka_cluster, seed=3, plan=STEPS)
    print(report.text())
    assert report.clean
    assert len(report.kills) == 5
    assert min(report.counts[what] for what in ("commands", "notifications", "webhooks")) > 100
