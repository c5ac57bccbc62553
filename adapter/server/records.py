"""A notification as a record for the bus: an event, or raw bytes for the quarantine. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from adapter.core import cloudevents, notification
from adapter.core.avro import Encoder
from adapter.core.instant import utc
from adapter.core.kept import Quarantined
from adapter.core.notification import Delivery, Readable, Refusal
from adapter.ports import Arrival, Caller, Outgoing, size

REASONS: Final = notification.REASONS | {"not-writable", "event-too-large"}
"""Why a body goes to the quarantine."""


@dataclass(frozen=True, slots=True)
class Records:
    """Builds the records of one deployment."""

    events_topic: str
    quarantine_topic: str
    source: str
    encoder: Encoder
    """Of the notification's event."""
    largest: int
    """Bytes that a record may have in a topic, headers included."""

    def event(self, readable: Readable, arrival: Arrival) -> Outgoing | Refusal:
        """The event; a Refusal where it can't be written, as when it is too large."""
        try:
            value = self.encoder.encode(readable.record)
        except ValueError as error:
            return Refusal("not-writable", str(error), readable.version)
        headers = cloudevents.headers(
            readable.id,
            source=self.source.encode(),
            kind=f"{self.encoder.schema.fullname}.{readable.kind}",
            at=arrival.delivery.received_at,
            traceparent=arrival.traceparent,
        )
        event = Outgoing(self.events_topic, readable.reference.encode(), value, headers)
        if size(event) > self.largest:
            return Refusal("event-too-large", "as an event it is longer than the bus takes", readable.version)
        return event

    def quarantined(self, refusal: Refusal, arrival: Arrival, *, at: datetime) -> Outgoing:
        """The body as it came, with why, from whom and when."""
        delivery, caller = arrival.delivery, arrival.caller
        told = Quarantined(
            reason=refusal.reason,
            detail=refusal.detail,
            address=caller.address,
            subject=caller.subject,
            received_at=utc(delivery.received_at),
            at=utc(at),
            path=delivery.path,
            soap_action=delivery.soap_action,
            content_type=delivery.content_type,
            traceparent=arrival.traceparent,
        )
        return Outgoing(self.quarantine_topic, None, delivery.body, told.headers())


def quarantined_arrival(told: Quarantined, body: bytes) -> Arrival:
    """The arrival that `Records.quarantined` wrote down. Raises ValueError for any other record."""
    if told.received_at is None or told.path is None or told.address is None:
        raise ValueError("not a server's")
    received_at = datetime.fromisoformat(told.received_at)
    delivery = Delivery(body, received_at, told.path, content_type=told.content_type, soap_action=told.soap_action)
    return Arrival(delivery, Caller(told.address, told.subject), told.traceparent)
