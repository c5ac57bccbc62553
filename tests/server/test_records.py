"""How a notification becomes a record."""

from dataclasses import replace
from datetime import UTC, datetime

from adapter.core.avro import Encoder
from adapter.core.notification import Delivery, Readable, Refusal
from adapter.ports import Arrival, Caller, Outgoing, size
from adapter.server.records import Records
from tests.server.conftest import SAMPLE
from tests.support.known import known


def test_an_event_of_more_bytes_than_the_topic_takes_is_refused() -> None:
    notification = known().notification
    arrival = Arrival(Delivery(SAMPLE, datetime.now(UTC)), Caller("192.0.2.1", None))
    readable = notification.reader.read(arrival.delivery, buyers=frozenset({"SPDEV1"}))
    assert isinstance(readable, Readable)
    records = Records("events", "quarantine", "/adapter", Encoder(notification.event, 1), largest=2**20)
    event = records.event(readable, arrival)
    assert isinstance(event, Outgoing)
    assert replace(records, largest=size(event)).event(readable, arrival) == event
    refused = replace(records, largest=size(event) - 1).event(readable, arrival)
    assert isinstance(refused, Refusal)
    assert refused.reason == "event-too-large"
