"""The bench itself: what it calls slower, and that a measurement survives its line."""

from dataclasses import asdict
from pathlib import Path

import pytest

from bench import load, model, report
from bench.commands import CASES
from bench.measurement import Measurement, append, machine, read, yardstick
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


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        pytest.param(model.Plan(keys=100, in_flight=512, latency_ms=75), 1000, id="keys"),
        pytest.param(model.Plan(keys=1000, in_flight=30, latency_ms=75), 400, id="calls in flight"),
        pytest.param(model.Plan(keys=1000, in_flight=15, latency_ms=5), 1000, id="commits, with a quick supplier"),
        pytest.param(model.Plan(keys=10_000, in_flight=5000, latency_ms=75), 2500, id="the worker's loop"),
        pytest.param(model.Plan(keys=10_000, in_flight=5000, latency_ms=75, workers=2), 5000, id="two loops"),
        pytest.param(
            model.Plan(keys=10_000, in_flight=5000, latency_ms=75, workers=2, cores=2), 4000, id="the machine"
        ),
        pytest.param(model.Plan(keys=10_000, in_flight=5000, latency_ms=75, skewed=True), 50, id="one hot key"),
    ],
)
def test_the_model_says_what_bounds_a_deployment(plan: model.Plan, expected: float) -> None:
    assert model.rate(plan, model.Costs(worker=0.4, around=0.1)) == pytest.approx(expected)


def test_the_page_gets_its_figures_between_its_marks_and_keeps_the_rest() -> None:
    figures = {
        "rate_per_s": 2500.0,
        "cpu_ms_per_command": 0.34,
        "cpu_ms_per_command_second_half": 0.33,
        "twin_cpu_ms_per_command": 0.03,
        "machine_cores": 1.5,
        "peak_memory_mib": 120.0,
    }
    found = [Measurement("A", asdict(CASES["A"]), figures, 0.002, machine(), "2026-01-31T12:00:00Z") for _ in range(2)]
    text = report.page(f"before\n{report._BEGIN}\nold\n{report._END}\nafter\n", found)
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| A, plain | 60,000 | 2,500 | 0.34 | 0.33 | 1.5 | 120 |" in text
    assert "old" not in text
    with pytest.raises(ValueError, match="needs a line"):
        report.page("no marks", found)
