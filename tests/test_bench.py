"""The bench itself: what it calls slower, and that a measurement survives its line."""

from pathlib import Path

import pytest

from bench import load
from bench.measurement import Measurement, append, read, yardstick
from bench.smoke import WORSE, judged
from bench.steps import STEPS, Cost, measured


@pytest.mark.parametrize(("ratio", "failed"), [(100.0, False), (139.0, False), (141.0, True)])
def test_a_step_that_got_slower_by_half_is_told_from_one_that_did_not(ratio: float, *, failed: bool) -> None:
    assert (judged(Cost("step", "command", 1.0, ratio), {"step": 100.0}) > WORSE) is failed


def test_a_measurement_survives_its_line(tmp_path: Path) -> None:
    found = Measurement(
        "A", {"keys": 10}, {"rate_per_s": 2.5, "in_order": True, "peak": None}, 0.5, {"cores": 2}, "now"
    )
    append(found, tmp_path / "results" / "some.jsonl")
    assert read([tmp_path / "results" / "some.jsonl"]) == [found]


def test_the_yardstick_takes_some_time() -> None:
    assert 0 < yardstick(1) < 1


@pytest.mark.parametrize("step", [step for step in STEPS if "call" not in step.name], ids=lambda step: step.name)
def test_every_step_can_be_measured(step: object) -> None:
    cost = measured(step, rounds=1)  # type: ignore[arg-type]  # parametrize has no types
    assert cost.microseconds > 0


def test_a_skewed_load_gives_every_fifth_command_to_one_key_and_numbers_each_keys_own() -> None:
    found = list(load.spread(20, 4, skewed=True))
    assert [number for key, number in found if key == "K-HOT"] == [0, 1, 2, 3]
    assert len({key for key, _ in found}) == 5
