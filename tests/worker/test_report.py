"""What a running worker shows of itself: its gauges, and its part of the page at /status."""

import time
from datetime import datetime

import pytest

from adapter.worker.report import status, watch
from tests.support.estate import add, amend
from tests.support.plant import Bounded, Plant, later, silent


async def test_it_shows_what_is_called_what_waits_and_for_what_and_what_is_in_doubt(plant: Plant) -> None:
    hand = plant.hire(0, 1, limits=Bounded(doubt=60))
    watch(hand.flow, hand.gate, hand.metrics)
    plant.desk.answers = silent
    held, called = add("T-1"), add("T-2")
    plant.send(held, amend("T-1"))
    await plant.until(lambda: plant.types(held))
    plant.desk.answers = later
    plant.send(called, amend("T-2"), amend("T-2"))
    await plant.called(called)
    shown = status(hand.flow, hand.gate)
    since_1970 = pytest.approx(time.time(), abs=60)  # the age of all commands here

    free = {"held_back_by": "", "breaker": "closed", "probe_in_seconds": 0}
    assert shown["calls"] == {"in_flight": 1, "waiting": 0, **free}
    waiting = shown["partitions"][0]
    assert waiting.pop("oldest_seconds") == since_1970
    assert hand.counted("oldest_unfinished_seconds", partition="0") == since_1970
    busy = {"position": 1, "span": 4, "unfinished": 4, "oldest_offset": 1, "lanes": 2, "residents": 1}
    assert waiting == {"partition": 0, "started": True, "waiting": {"doubt": 1}, "paused": False, **busy}
    idle: dict[str, object] = {
        "position": 0,
        "span": 0,
        "unfinished": 0,
        "oldest_offset": None,
        "lanes": 0,
        "residents": 0,
    }
    idle |= {"partition": 1, "started": True, "waiting": {}, "paused": False, "oldest_seconds": 0}
    assert shown["partitions"][1:] == [idle]
    assert shown["window"] == {"records": 4, "bytes": hand.counted("window_bytes")}

    (doubt,) = shown["doubts"]
    assert 0 < datetime.fromisoformat(doubt.pop("until")).timestamp() - time.time() <= 60
    assert doubt == {"command_id": held.command_id, "partition": 0, "offset": 0}
    lanes = shown["waiting"]
    assert lanes[0].pop("seconds") >= lanes[1].pop("seconds"), "who has waited for longest comes first"
    assert lanes == [
        {"key": "T-1", "partition": 0, "offset": 0, "why": "doubt", "behind": 1},
        {"key": "T-2", "partition": 0, "offset": 2, "why": "calling", "behind": 2},
    ]

    assert hand.counted("partitions", flow="worker") == 2
    assert hand.counted("partitions_starting", flow="worker") == 0
    assert hand.counted("supplier_calls_in_flight") == 1
    assert hand.counted("doubts_held") == shown["doubts_held"] == 1
    assert {state: hand.counted("lanes", state=state) for state in ("waiting", "active")} == {"waiting": 1, "active": 1}
    assert hand.counted("window_records") == hand.counted("frontier_lag", partition="0") == 4
    assert hand.counted("frontier_lag", partition="1") == hand.counted("breaker_state") == 0
    assert hand.counted("window_bytes") == sum(len(source.value or b"") for source in plant.bus.commands[0][1:])


async def test_of_a_partition_that_has_not_started_it_shows_nothing_but_that(plant: Plant) -> None:
    dying = plant.hire(0)
    await dying.settle()
    dying.member.hold()
    plant.send(add("T-1"))
    await plant.until(lambda: dying.member.open_transaction)
    hand = plant.hire()
    watch(hand.flow, hand.gate, hand.metrics)
    hand.member.assign(0)
    await hand.settle()
    assert not status(hand.flow, hand.gate)["partitions"][0]["started"]
    assert hand.counted("partitions_starting", flow="worker") == 1
    assert 'partition="0"' not in hand.metrics.exposition("")[0].decode()
