"""Decoders by id: what a schema is found to be is found once, whatever is written with it."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from adapter.core.avro import Decoder, Schema, UnknownFields, frame
from adapter.core.avro.decoder import Decoded
from adapter.core.avro.lookup import Decoders
from adapter.core.errors import Undecodable
from tests.core.test_reader import number
from tests.core.things import FIELDS, FULL, NOTE, THING, foreign, schema, text_of


class Texts:
    """A registry that says how often it is asked."""

    def __init__(self, *texts: str) -> None:
        self.texts: list[str | None] = [*texts]
        self.asked: list[int] = []

    async def schema(self, identifier: int) -> str | None:
        self.asked.append(identifier)
        return self.texts[identifier]


@pytest.mark.parametrize(
    ("text", "reason"), [("nonsense", "bad-schema"), (text_of(*FIELDS, name="y.Other"), "unknown-record")]
)
def test_a_schema_that_is_not_read_with_is_judged_once(text: str, reason: str) -> None:
    registry = Texts(text)
    decoders = Decoders(registry, [THING], UnknownFields.REJECT)
    told = set()
    for _ in range(3):
        with pytest.raises(Undecodable) as why:
            asyncio.run(decoders.decode(frame(0, b"")))
        told.add((why.value.reason, why.value.detail))
    assert [each for each, _ in told] == [reason]
    assert registry.asked == [0]


def test_a_union_of_records_is_read_by_its_branches() -> None:
    """As where one subject holds all records of a topic; the last of them uses a type that the first declares."""
    note = {"name": "note", "type": "Note"}
    union = ["null", json.loads(text_of(*FIELDS, name="x.First")), json.loads(text_of(note, name="x.Last"))]
    first, last = (schema(*FIELDS, name="x.First"), schema({**note, "type": NOTE}, name="x.Last"))
    registry = Texts(json.dumps(union))
    decoders = Decoders(registry, [first, last], UnknownFields.REJECT)

    def decoded(branch: int, data: bytes) -> Decoded:
        return asyncio.run(decoders.decode(frame(0, number(branch) + data)))

    for _ in range(2):
        assert decoded(1, foreign(first, FULL)) == Decoded("First", FULL, ())
        assert decoded(2, foreign(last, {"note": FULL["first"]})) == Decoded("Last", {"note": FULL["first"]}, ())
        for branch in (3, -1):
            with pytest.raises(Undecodable, match="malformed: begins with no branch of a union of 3"):
                decoded(branch, b"")
        with pytest.raises(Undecodable, match="bad-schema: not a record"):
            decoded(0, b"")
        with pytest.raises(Undecodable, match="malformed"):
            decoded(1, b"")
    with pytest.raises(Undecodable, match="malformed"):
        asyncio.run(decoders.decode(frame(0, b"")))
    assert registry.asked == [0]


@pytest.mark.parametrize(
    "text", ["[", "[" * 100_000, json.dumps(["null"] * 31), json.dumps(["null", {"doc": "d" * 600_000}])]
)
def test_a_union_that_can_not_be_read_is_told(text: str) -> None:
    decoders = Decoders(Texts(text), [THING], UnknownFields.REJECT)
    with pytest.raises(Undecodable, match="bad-schema: not a union of at most 30"):
        asyncio.run(decoders.decode(frame(0, b"\0")))


def test_a_schema_that_is_not_there_yet_is_asked_for_again() -> None:
    registry = Texts(THING.text)
    registry.texts[0] = None
    decoders = Decoders(registry, [THING], UnknownFields.REJECT)
    with pytest.raises(Undecodable, match="unknown-schema"):
        asyncio.run(decoders.decode(frame(0, b"")))
    registry.texts[0] = THING.text
    with pytest.raises(Undecodable, match="malformed"):
        asyncio.run(decoders.decode(frame(0, b"")))


def test_many_that_wait_for_one_schema_have_it_read_once() -> None:
    class Slow(Texts):
        async def schema(self, identifier: int) -> str | None:
            await asyncio.sleep(0)  # lets the others ask as well
            return await super().schema(identifier)

    writer = schema(*FIELDS, *({"name": f"n{place}", "type": "null"} for place in range(400))).text

    async def waiting(many: int) -> None:
        decoders = Decoders(Slow(writer), [THING], UnknownFields.REJECT)
        await asyncio.gather(*(decoders.decode(frame(0, foreign(THING, FULL))) for _ in range(many)))

    alone = quickest(lambda: asyncio.run(waiting(1)))
    assert quickest(lambda: asyncio.run(waiting(50))) < 4 * alone


@pytest.mark.parametrize("other", ["null", {"type": "fixed", "name": "none_of_ours", "size": 0}], ids=["ours", "other"])
def test_to_find_a_time_beyond_the_calendar_a_large_schema_is_read_once(other: Any) -> None:
    many = [{"name": f"n{place}", "type": "null"} for place in range(4000)]
    writer = schema(*FIELDS[:2], {"name": "other", "type": other}, *many).text
    decoder = Decoder(writer, [THING])

    def refuse() -> None:
        with pytest.raises(Undecodable, match="beyond the years"):
            decoder.decode(b"\x021" + number(2**62))

    refuse()
    assert quickest(refuse) < quickest(lambda: Schema.parse(writer)) / 4


def quickest(act: Callable[[], object]) -> float:
    """Seconds of the quickest of three."""
    spent = []
    for _ in range(3):
        began = time.process_time()
        act()
        spent.append(time.process_time() - began)
    return min(spent)
