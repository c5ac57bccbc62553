"""Bad records and bad replies: none of them stops the worker, loses a command or holds up another key."""

import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from adapter.core.partition import partition_of
from adapter.twin import Fault, Kind
from tests.support import estate as say
from tests.support import foreign
from tests.support.door import Door, door
from tests.support.estate import Command, Letter, Place, unique
from tests.support.rig import Member, Rig, open_rig
from tests.support.wait import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNREADABLE = (
    Kind.DOCTYPE,
    Kind.HUGE,
    Kind.ENCODING,
    Kind.HTML,
    Kind.EMPTY,
    Kind.MALFORMED,
    Kind.TRUNCATED,
    Kind.GARBAGE,
    Kind.OTHER_ELEMENT,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(kafka: str) -> AsyncIterator[Rig]:
    async with open_rig(kafka, largest=32 * 1024**2) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registry_door(rig: Rig) -> AsyncIterator[Door]:
    async with door(rig.registry.url) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(rig: Rig, registry_door: Door) -> AsyncIterator[Member]:
    async with rig.worker(
        REGISTRY__URL=registry_door.url,
        TOPICS__MAX_MESSAGE_BYTES=str(32 * 1024**2),
        SUPPLIER__DOUBT_LIMITS='{"AddFaultReport": "300ms"}',
        WORKER__BREAKER_FAILURES="1000",
    ) as member:
        yield member


async def goes_on(rig: Rig, *keys: str) -> None:
    """The worker takes further commands, of other keys and of these."""
    commands = [say.add(unique()), *(say.add(key) for key in keys)]
    for command in commands:
        rig.estate.send(command)
    await rig.estate.all_final(commands)


async def lettered(rig: Rig, value: bytes | None, key: bytes | None = None, reason: str = "") -> Letter:
    """The dead letter that record becomes."""
    key = unique().encode() if key is None else key
    place = rig.estate.put(value, key, headers={"made-by": b"billing", "traceparent": b"00-zz"})
    letter = await rig.estate.letter(place)
    check(letter, place, value, key, reason)
    return letter


def check(letter: Letter, place: Place, value: bytes | None, key: bytes | None, reason: str) -> None:
    assert letter.reason == reason
    assert letter.value == value
    assert letter.key == key
    headers = dict(letter.headers)
    assert headers["made-by"] == b"billing"
    assert headers["traceparent"] == b"00-zz"
    assert headers["dead-letter-detail"]
    assert (headers["dead-letter-topic"] or b"").endswith(b".commands")
    assert letter.place == place


# -- records that can never become a command -----------------------------------------------------------------


async def test_an_empty_record_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    await lettered(rig, b"", reason="empty")
    await goes_on(rig)


async def test_a_record_without_a_value_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    await lettered(rig, None, reason="null-value")


async def test_a_record_that_ends_within_its_frame_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    await lettered(rig, b"\x00\x00\x01", reason="truncated")


async def test_a_record_that_ends_within_its_content_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    command = say.add(unique())
    await lettered(rig, rig.estate.encode(command)[:-7], command.key.encode(), reason="malformed")
    await goes_on(rig, command.key)


async def test_a_record_with_bytes_too_many_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    await lettered(rig, rig.estate.encode(say.add(unique())) + b"\x00", reason="malformed")


async def test_a_record_in_no_wire_format_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    await lettered(rig, b'{"commandId": "1"}', reason="unframed")


async def test_a_record_of_a_schema_nobody_registered_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    await lettered(rig, struct.pack(">bI", 0, 999_999) + b"\x00", reason="unknown-schema")
    await goes_on(rig)


async def test_a_record_of_another_type_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    def other(document: dict[str, Any]) -> None:
        document.clear()
        document.update({"type": "record", "name": "Invoice", "namespace": "billing", "fields": []})

    identifier = await rig.estate.register("AddFaultReport", other, subject=f"invoices-{unique()}")
    await lettered(rig, struct.pack(">bI", 0, identifier), reason="unknown-record")


async def test_an_event_on_the_commands_topic_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    command = say.add(unique())
    rig.estate.send(command)
    event = await rig.estate.final(command)
    assert event.type == "FaultReportAdded"
    await lettered(rig, event.value, command.key.encode(), reason="unknown-record")


async def test_a_lone_surrogate_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    # Avro's strings are UTF-8, which has no surrogates (RFC 3629 section 3); some producers write them all the same.
    command = say.amend(unique(), faultDetails={"description": "abc"})
    value = rig.estate.encode(command)
    assert value.count(b"\x06abc") == 1
    await lettered(rig, value.replace(b"\x06abc", b"\x06\xed\xa0\x80"), command.key.encode(), reason="malformed")


async def test_a_blank_command_id_is_a_dead_letter(rig: Rig, worker: Member) -> None:
    command = say.add(unique())
    value = rig.estate.encode(Command(command.name, command.key, command.record, command_id=" "))
    await lettered(rig, value, command.key.encode(), reason="no-command-id")


async def test_a_header_whose_name_is_not_text_stops_nobody(rig: Rig, worker: Member, kafka: str) -> None:
    command = say.add(unique())
    key, value = command.key.encode(), rig.estate.encode(command)
    partition = partition_of(key, rig.topics.partitions)
    foreign.put(kafka, rig.topics.commands, partition, key=key, value=value, header=(b"made-\xffby", b"billing"))
    event = await rig.estate.final(command)
    assert event.type == "FaultReportAdded"
    await goes_on(rig, command.key)


# -- commands that are refused -------------------------------------------------------------------------------


async def test_a_command_without_a_key_is_refused(rig: Rig, worker: Member) -> None:
    command = say.add(unique())
    rig.estate.put(rig.estate.encode(command), None)
    event = await rig.estate.final(command)
    assert event.type == "CommandRejected"
    assert event.key == command.key.encode()
    assert command.key not in rig.twin.tickets


@pytest.mark.parametrize("key", [b"SP-OTHER", b"", b"\xff\xfe"], ids=["other", "empty", "no text"])
async def test_a_command_with_a_foreign_key_is_refused(rig: Rig, worker: Member, key: bytes) -> None:
    command = say.add(unique())
    rig.estate.put(rig.estate.encode(command), key)
    event = await rig.estate.final(command)
    assert event.type == "CommandRejected"
    assert [problem["path"] for problem in event.record["problems"]] == ["buyerFaultReference"]
    assert event.key == key
    assert command.key not in rig.twin.tickets


@pytest.mark.parametrize("text", ["a\x00b", "a\x1bb", "a\ufffeb"], ids=["null", "escape", "noncharacter"])
async def test_a_character_xml_cannot_carry_is_refused_by_its_field(rig: Rig, worker: Member, text: str) -> None:
    command = say.add(unique(), faultDetails={"type": "IMPAIRED_SERVICE", "description": text})
    rig.estate.send(command)
    event = await rig.estate.final(command)
    assert [problem["path"] for problem in event.record["problems"]] == ["faultDetails.description"]
    assert text not in str(event.record)


async def test_a_text_of_ten_megabytes_is_refused_as_too_long(rig: Rig, worker: Member) -> None:
    command = say.add(unique(), faultDetails={"type": "IMPAIRED_SERVICE", "description": "x" * 10_000_000})
    rig.estate.send(command)
    event = await rig.estate.final(command)
    (problem,) = event.record["problems"]
    assert problem["path"] == "faultDetails.description"
    assert "longer than" in problem["text"]
    await goes_on(rig)


async def test_ten_megabytes_of_rubbish_are_a_dead_letter(rig: Rig, worker: Member) -> None:
    await lettered(rig, b"x" * 10_000_000, reason="unframed")
    await goes_on(rig)


# -- the registry --------------------------------------------------------------------------------------------


async def test_while_the_registry_is_down_its_records_wait_and_others_go_on(
    rig: Rig, worker: Member, registry_door: Door
) -> None:
    waiting = say.amend(unique())
    captured: dict[str, Any] = {}

    def reworded(document: dict[str, Any]) -> None:
        document["doc"] = f"another edition, {unique()}"
        captured.update(document)

    identifier = await rig.estate.register("AmendFaultReport", reworded, subject=f"editions-{unique()}")
    await goes_on(rig)  # so that its schema is known
    letters = len(rig.estate.letters)
    await registry_door.shut()
    rig.estate.put(rig.estate.encode(waiting, schema=captured, identifier=identifier), waiting.key.encode())
    await eventually(lambda: "registry not available" in worker.lines.getvalue(), what="the worker asking in vain")
    await goes_on(rig)
    assert not rig.estate.of(waiting)
    await registry_door.open()
    assert (await rig.estate.final(waiting)).record["code"] == "404"
    assert len(rig.estate.letters) == letters


# -- replies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_after_an_unreadable_reply_a_query_is_made_again(rig: Rig, worker: Member, kind: Kind) -> None:
    command = say.query(unique("UPRN"))
    rig.twin.inject(Fault(kind, key=command.key))
    rig.estate.send(command)
    event = await rig.estate.final(command)
    assert event.type == "AppointmentAvailabilityFound"
    assert event.record["attempts"] == 2
    calls = [call for call in rig.twin.calls if call.key == command.key]
    assert [call.fault for call in calls] == [kind.value, None]
    assert len({call.message_id for call in calls}) == 1


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_after_an_unreadable_reply_an_add_is_in_doubt_and_not_repeated(
    rig: Rig, worker: Member, kind: Kind
) -> None:
    command = say.add(unique())
    rig.twin.inject(Fault(kind, key=command.key))
    rig.estate.send(command)
    await goes_on(rig)
    await rig.estate.final(command)
    doubt, event = rig.estate.of(command)
    assert doubt.type == "CommandOutcomeUnknown"
    assert doubt.record["reason"]
    assert event.type == "CommandSettled"
    assert (event.record["outcome"], event.record["settledBy"]) == ("UNDETERMINED", "TIME_LIMIT")
    assert len([call for call in rig.twin.calls if call.key == command.key]) == 1


async def test_news_are_asked_for_once_though_the_answer_is_empty(rig: Rig, worker: Member) -> None:
    command = say.ask_update(unique(), maintainerFaultReference="CF-1")
    rig.twin.inject(Fault(Kind.EMPTY, key=command.key))
    rig.estate.send(command)
    event = await rig.estate.final(command)
    assert (event.type, event.record["reply"]) == ("FaultReportUpdateRequested", None)
    assert event.record["attempts"] == 1


async def test_an_element_nobody_knows_in_a_reply_changes_nothing(rig: Rig, worker: Member) -> None:
    command = say.add(unique())
    rig.twin.inject(Fault(Kind.EXTRA_ELEMENT, key=command.key))
    rig.estate.send(command)
    event = await rig.estate.final(command)
    assert event.type == "FaultReportAdded"
    assert event.record["attempts"] == 1


async def test_nothing_was_left_behind(rig: Rig, worker: Member) -> None:
    await goes_on(rig)
    await rig.estate.caught_up(rig.group)
    assert not worker.running.done()


async def test_lanes_that_are_halted_are_counted_while_all_others_go_on(kafka: str) -> None:
    small = {"TOPICS__MAX_MESSAGE_BYTES": "4KiB", "SERVER__MAX_BODY_BYTES": "1KiB", "SUPPLIER__MAX_REPLY_BYTES": "2KiB"}
    async with open_rig(kafka) as rig, rig.worker(**small) as worker:
        rig.estate.put_all([(b"longer than a dead letter may be" * 200, key) for key in (b"A", b"B", b"A")])
        await eventually(lambda: worker.metric("lanes_halted", reason="dead-letter-too-large") == 2)
        command = say.add(unique())
        rig.estate.send(command)
        await rig.estate.final(command)
        assert worker.metric("lanes_halted", reason="event-too-large") == 0
