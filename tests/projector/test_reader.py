"""What is an event of a ticket, and how a ticket fits its topic; without a broker."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapter.core.avro import Decoder, Encoder, UnknownFields
from adapter.core.avro.lookup import Decoders
from adapter.core.journal import Source
from adapter.core.ticket import Command, Outcome, Ticket, due, fold, mark
from adapter.projector.reader import Heard, Passed, Reader
from adapter.projector.records import Records
from tests.support.happenings import POLICY, T0, appointment, doubted, minutes, notified
from tests.support.known import known

KNOWN = known()
EVENT, TICKET, WARNING = (
    KNOWN.events["FaultReportUpdated"],
    KNOWN.tickets["Ticket"],
    KNOWN.events["ResolveDeadlineApproaching"],
)
LARGEST = 64 * 1024


class OneSchema:
    async def schema(self, identifier: int) -> str | None:
        return EVENT.text if identifier == 1 else None


async def read(at: float = T0.timestamp(), key: bytes = b"SP-1", **fields: Any) -> Heard | Passed:
    record = notified("IN_PROGRESS", T0).record
    value = Encoder(EVENT, 1).encode({**record, **fields})
    reader = Reader(Decoders(OneSchema(), [EVENT], UnknownFields.IGNORE), partitions=1)
    return await reader.read(Source(0, 0, at, key, value, (("ce_id", b"N-1"),)))


async def test_an_event_is_read_with_its_id_and_the_time_it_was_written() -> None:
    heard = await read()
    assert isinstance(heard, Heard)
    assert (heard.reference, heard.event.name, heard.event.id) == ("SP-1", "FaultReportUpdated", "N-1")
    assert heard.event.arrived == T0


async def test_white_space_within_a_reference_is_read_as_the_supplier_reads_it() -> None:
    heard = await read(key=b"SP 1", buyerFaultReference=" SP \t1\n")
    assert isinstance(heard, Heard)
    assert heard.reference == "SP 1"


@pytest.mark.parametrize(
    "at",
    [253_402_000_000.0, 1e300, -1e300, -1e11, -0.001],
    ids=["year 9999", "no year", "no year before", "before the calendar", "Kafka's word for none"],
)
async def test_an_event_written_at_no_time_at_all_is_passed_over(at: float) -> None:
    assert await read(at) == Passed("unreadable", "bad-time")


async def test_an_event_received_at_the_end_of_time_is_passed_over_since_no_deadline_could_follow() -> None:
    assert await read(receivedAt=datetime(9999, 12, 31, tzinfo=UTC)) == Passed("unreadable", "bad-time")


async def test_whatever_time_the_supplier_names_a_ticket_can_be_made_of_it() -> None:
    for sent in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)):
        heard = await read(supplierSentAt=sent, status="RESOLVED")
        assert isinstance(heard, Heard)
        known = fold(None, "SP-1", heard.event, POLICY).ticket
        records(largest=LARGEST).keep(known)


# -- how a ticket fits -------------------------------------------------------------------------------------------------


def records(*, largest: int) -> Records:
    return Records("events", "tickets", Encoder(TICKET, 1), Encoder(WARNING, 2), POLICY, largest)


def long_ticket(**more: Any) -> Ticket:
    commands = tuple(Command(f"C-{n}", "AmendFaultReport", Outcome.ACCEPTED, T0) for n in range(5))
    known = fold(None, "SP-1", doubted("C-X", at=T0), POLICY).ticket
    return replace(known, maintainer_reference="CF-1", commands=(*known.commands, *commands), **more)


def stored(known: Ticket) -> tuple[dict[str, Any], bool]:
    kept, trimmed = records(largest=LARGEST).keep(known)
    assert kept.value is not None
    assert len(kept.key) + len(kept.value) + len(kept.reference or b"") < LARGEST
    return Decoder(TICKET.text, [TICKET]).decode(kept.value[5:]).record, trimmed


def test_a_ticket_that_fits_is_kept_whole() -> None:
    record, trimmed = stored(long_ticket())
    assert (len(record["commands"]), record["maintainerFaultReference"], trimmed) == (6, "CF-1", False)


def test_what_is_too_long_goes_first_and_a_command_in_doubt_stays() -> None:
    known = long_ticket(appointments=(appointment("CAMS-1", changedAt=T0),))
    long_commands = replace(
        known, commands=tuple(replace(c, code="x" * 20_000) for c in known.commands if c.outcome is Outcome.ACCEPTED)
        + known.commands[:1]
    )  # fmt: skip
    record, trimmed = stored(long_commands)
    assert trimmed
    assert [c["commandId"] for c in record["commands"]] == ["C-X"]
    assert record["appointments"] == []
    assert record["maintainerFaultReference"] == "CF-1"


def test_even_a_supplier_reference_of_any_length_fits() -> None:
    record, trimmed = stored(replace(long_ticket(), maintainer_reference="C" * LARGEST))
    assert (record["maintainerFaultReference"], trimmed) == (None, True)


def test_a_ticket_fits_together_with_its_headers() -> None:
    for length in range(LARGEST // 2 - 4000, LARGEST // 2 + 4000, 500):  # it is in the value and in a header
        stored(replace(long_ticket(), maintainer_reference="C" * length))


def test_headers_tell_when_it_is_due_and_the_suppliers_reference() -> None:
    made = records(largest=LARGEST)
    resolved = fold(None, "SP-1", notified("RESOLVED", minutes(1), maintainer="CF-1"), POLICY).ticket
    written = made.written(made.keep(resolved)[0], 3)
    at = due(resolved, POLICY)
    assert at == minutes(1) + timedelta(hours=42)
    assert (written.topic, written.key, written.partition) == ("tickets", b"SP-1", 3)
    assert dict(written.headers) == {"due": str(round(at.timestamp() * 1000)).encode(), "reference": b"CF-1"}


def test_a_header_tells_by_their_marks_which_commands_a_ticket_knows() -> None:
    made, known = records(largest=LARGEST), long_ticket()
    headers = dict(made.written(made.keep(known)[0], 3).headers)
    assert headers["commands"] == b"".join(mark(command.command_id) for command in known.commands)
