"""Digests of content: the same for the same values by whatever schema they were written, another for any other."""

import json
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter.core.avro import Decoder, Schema
from adapter.core.avro.digest import compile_digest
from tests import strategies
from tests.core.things import FIELDS, FULL, THING, foreign, schema

COMMANDS = {
    path.stem: Schema.parse(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parents[2] / "schemas/avro/commands").glob("*.avsc"))
}
NOTHING: frozenset[str] = frozenset()
ADDED = (
    {"name": "added", "type": ["null", "string"], "default": None},
    {"name": "addedText", "type": "string", "default": "as ever"},
    {"name": "addedList", "type": {"type": "array", "items": "string"}, "default": []},
    {"name": "addedWord", "type": "boolean", "default": False},
    {"name": "addedNumber", "type": "int", "default": 7},
)
"""All that a later release may add."""


def changed(kind: Any, *more: dict[str, Any]) -> Any:
    """With the texts of every record after `more` and its other fields."""
    match kind:
        case {"type": "record", "fields": fields}:
            texts = [field for field in fields if field["type"] in ("string", ["null", "string"])]
            others = [changed(field, *more) for field in fields if field not in texts]
            return {**kind, "fields": [*more, *others, *reversed(texts)]}
        case dict():
            return {name: changed(part, *more) if name in {"type", "items"} else part for name, part in kind.items()}
        case list():
            return [changed(each, *more) for each in kind]
        case _:
            return kind


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_one_digest_whatever_it_is_written_by(name: str) -> None:
    ours = COMMANDS[name]
    newer = Schema.parse(json.dumps(changed(json.loads(ours.text), *ADDED)))
    digest = compile_digest(ours, aside=NOTHING)
    later = compile_digest(newer, aside=NOTHING)
    compiled, interpreted = Decoder(ours.text, [ours]), Decoder(ours.text, [ours])
    interpreted._compiled = None
    resolving = Decoder(newer.text, [ours])

    @settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
    @given(strategies.values(ours.record, st.text(st.characters(codec="utf-8"), max_size=20)))
    def compare(record: dict[str, Any]) -> None:
        data = foreign(ours, record)
        found = {digest(decoder.decode(data).record) for decoder in (compiled, interpreted)}
        found.add(digest(resolving.decode(foreign(newer, record)).record))
        assert found == {digest(record)}
        found.add(later(Decoder(ours.text, [newer]).decode(data).record))
        assert len(found) == 1

    compare()


TEXTS = ["", "a", "word", "\0", "a\0", "\0a", "\\x00"]
TEXT, WORD = ({"name": name, "type": ["null", "string"], "default": None} for name in ("text", "word"))
ANSWER = {"type": "record", "name": "Answer", "fields": [TEXT, WORD]}
NOTED = schema(
    {"name": "answer", "type": ["null", ANSWER], "default": None},
    {"name": "about", "type": {"type": "array", "items": "string"}},
    WORD,
)


def test_other_values_have_another_digest() -> None:
    """Every record of few texts, among them those that are names, ends and what is between them."""
    answers = [None, *({"text": text, "word": word} for text, word in product([None, *TEXTS], repeat=2))]
    abouts = [list(each) for size in range(3) for each in product(TEXTS, repeat=size)]
    records = [
        {"answer": answer, "about": about, "word": word}
        for answer, about, word in product(answers, abouts, [None, *TEXTS])
    ]
    digest = compile_digest(NOTED, aside=NOTHING)
    assert len({digest(record) for record in records}) == len(records)


@pytest.mark.parametrize(
    ("field", "others"),
    [
        ("at", [datetime(2026, 1, 31, 12, 0, 0, 6000, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)]),
        ("day", [date(2026, 3, 1), None]),
        ("count", [0, 5, -6]),
        ("size", [2**40 + 1, -(2**63), None]),
        ("id", ["\ud800", "é"]),
        ("done", [False]),
        ("colour", ["RED", None]),
    ],
)
def test_every_type_of_value_counts(field: str, others: list[Any]) -> None:
    digest = compile_digest(THING, aside=NOTHING)
    assert len({digest(FULL), *(digest(FULL | {field: other}) for other in others)}) == 1 + len(others)


def test_a_digest_is_what_it_was_in_earlier_releases() -> None:
    """The journal has it: another one makes of each command that is in work at an upgrade one with reused id."""
    assert compile_digest(THING, aside=NOTHING)(FULL).hex() == "c9f3065baf181f01e3c5305e"


def test_a_default_counts_where_a_null_may_stand_in_its_place() -> None:
    digest = compile_digest(schema({"name": "a", "type": ["string", "null"], "default": ""}), aside=NOTHING)
    assert digest({"a": ""}) != digest({"a": None})


def test_fields_that_are_put_aside_do_not_count() -> None:
    digest = compile_digest(THING, aside=frozenset({"id", "notes"}))
    assert digest(FULL) == digest(FULL | {"id": "other", "notes": []})
    assert digest(FULL) != digest(FULL | {"count": 7})


def test_records_of_other_names_have_other_digests() -> None:
    other = schema(*FIELDS, name="x.Other")
    assert compile_digest(THING, aside=NOTHING)(FULL) != compile_digest(other, aside=NOTHING)(FULL)


@pytest.mark.parametrize(
    ("kind", "value", "other"),
    [
        ("double", 0.1, 0.2),
        ("bytes", b"\0", b"\\0"),
        (["null", "string", "long"], "1", 1),
        ({"type": "map", "values": "string"}, {"a": "b"}, {"a": "c"}),
        ({"type": "array", "items": ["null", "string"]}, [None, "None"], ["None", None]),
    ],
)
def test_types_that_no_command_has_yet_count_too(kind: Any, value: Any, other: Any) -> None:
    digest = compile_digest(schema({"name": "a", "type": kind}), aside=NOTHING)
    assert digest({"a": value}) != digest({"a": other})
