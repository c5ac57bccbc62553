"""Faults on demand: whom they meet, how often, and how they are written."""

import json

import pytest

from adapter.core.errors import Stop
from adapter.twin.faults import NOT_TAKEN, Fault, Kind, Plan, from_json, to_json


def plan(*faults: Fault) -> Plan:
    made = Plan()
    for fault in faults:
        made.add(fault)
    return made


def test_a_fault_meets_the_requests_it_fits_and_no_more_than_its_times() -> None:
    two = plan(Fault(Kind.RESET, operation="AddFaultReport", key="SP-7.*", times=2))
    assert two.meet("amendFaultReport", "SP-71").fault is None
    assert two.meet("addFaultReport", "SP-81").fault is None
    assert two.meet("addFaultReport", None).fault is None
    met = [two.meet("addFaultReport", "SP-71").fault is not None for _ in range(3)]
    assert met == [True, True, False]
    assert two.left() == []


def test_the_key_must_match_whole() -> None:
    assert plan(Fault(Kind.RESET, key="SP-1")).meet("addFaultReport", "SP-12").fault is None


def test_faults_without_end_stay() -> None:
    forever = plan(Fault(Kind.EMPTY, times=None))
    assert all(forever.meet("x", "y").fault for _ in range(100))


def test_the_first_that_fits_is_carried_out_and_the_others_are_not_used_up() -> None:
    both = plan(Fault(Kind.RESET), Fault(Kind.EMPTY))
    kinds = [found.kind for _ in range(2) if (found := both.meet("x", "y").fault)]
    assert kinds == [Kind.RESET, Kind.EMPTY]


def test_delays_add_up_and_go_with_another_fault() -> None:
    planned = plan(
        Fault(Kind.DELAY, seconds=0.5), Fault(Kind.RESET), Fault(Kind.DELAY, seconds=0.25, jitter=0.25)
    ).meet("x", "y")
    assert planned.fault is not None
    assert 0.75 <= planned.delay <= 1.0


def test_chance_is_the_same_for_the_same_seed() -> None:
    def draw(seed: int) -> list[bool]:
        made = plan(Fault(Kind.RESET, times=None, probability=0.5, seed=seed))
        return [made.meet("x", "y").fault is not None for _ in range(200)]

    assert draw(1) == draw(1) != draw(2)
    assert 60 < sum(draw(1)) < 140


def test_a_request_takes_effect_as_is_usual_for_the_kind_unless_told() -> None:
    assert {kind for kind in Kind if not Fault(kind).takes} == NOT_TAKEN
    assert Fault(Kind.RESET, taken=True).takes
    assert not Fault(Kind.SILENCE, taken=False).takes


def test_json_reads_back_what_it_wrote() -> None:
    faults = (
        Fault(Kind.STATUS, status=429, retry_after=1.5, retry_after_date=True, operation="addFaultReport"),
        Fault(Kind.RESET, times=None, taken=True, key="SP-.*", probability=0.1, seed=4),
    )
    assert from_json(json.loads(json.dumps([to_json(f) for f in faults]))) == faults
    assert from_json({"kind": "empty"}) == (Fault(Kind.EMPTY),)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Stop) as stopped:
        from_json(
            [
                {"kind": "explode", "times": -1, "statsu": 3, "key": "("},
                {"status": 99, "probability": 2, "taken": "yes", "seed": True, "times": None},
                "reset",
            ]
        )
    paths = [": ".join(line.split(": ")[:2]) for line in stopped.value.problems]
    assert paths == [
        "fault 0: kind",
        "fault 0: times",
        "fault 0: statsu",
        "fault 0: key",
        "fault 1: kind",
        "fault 1: status",
        "fault 1: probability",
        "fault 1: taken",
        "fault 1: seed",
        "fault 2: an object is needed",
    ]


@pytest.mark.parametrize("text", ["\x01", "\x00", "\ufffe", "\ud800"])
def test_texts_that_xml_cannot_carry_are_refused(text: str) -> None:
    with pytest.raises(Stop) as stopped:
        from_json({"kind": "refuse", "text": text, "code": text})
    assert stopped.value.problems == tuple(
        f"fault 0: {name}: holds a character that XML cannot carry" for name in ("text", "code")
    )
    assert from_json({"kind": "refuse", "text": "one line\r\n\tand another, \N{GRINNING FACE}"})


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "-1", "1e20", "1" + "0" * 300])
@pytest.mark.parametrize("name", ["seconds", "jitter", "retry_after", "times", "probability", "size", "status"])
def test_numbers_that_are_none_or_out_of_reach_are_refused(name: str, value: str) -> None:
    with pytest.raises(Stop, match=rf"\Afault 0: {name}: "):
        from_json(json.loads(f'{{"kind": "delay", "{name}": {value}}}'))


@pytest.mark.parametrize("pattern", ["(", "(" * 5000 + ")" * 5000, "a{99999999999}"])
def test_a_key_that_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(Stop, match=r"\Afault 0: key: not a regular expression"):
        from_json({"kind": "reset", "key": pattern})


def test_a_code_is_a_word() -> None:
    with pytest.raises(Stop, match=r"\Afault 0: code: "):
        from_json({"kind": "refuse", "code": "9" * 5000})
