"""A notification as a record for the bus: an event, or raw bytes for the quarantine. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from adapter.core import cloudevents, notification
from adapter.core.avro import Encoder
from adapter.core.instant import utc
from adapter.core.notification import Delivery, Readable, Refusal
from adapter.ports import Arrival, Caller, Outgoing

REASONS: Final = notification.REASONS | {"not-writable", "event-too-large"}
"""Why a body goes to the quarantine."""

_ROOM = 16 * 1024
"""Bytes a record has for its headers, and for what the protocol adds."""


@dataclass(frozen=True, slots=True)
class Records:
    """Builds the records of one deployment."""

    events_topic: str
    quarantine_topic: str
    source: str
    encoder: Encoder
    """Of the notification's event."""
    largest: int
    """Bytes a topic takes as one record."""

    def event(self, readable: Readable, arrival: Arrival) -> Outgoing | Refusal:
        """The event; a Refusal where it can't be written, as when it is too large."""
        key = readable.reference.encode()
        try:
            value = self.encoder.encode(readable.record)
        except ValueError as error:
            return Refusal("not-writable", str(error), readable.version)
        if len(key) + len(value) + _ROOM > self.largest:
            return Refusal("event-too-large", "as an event it is longer than the bus takes", readable.version)
        headers = cloudevents.headers(
            readable.id,
            source=self.source.encode(),
            kind=f"{self.encoder.schema.fullname}.{readable.kind}",
            at=arrival.delivery.received_at,
            traceparent=arrival.traceparent,
        )
        return Outgoing(self.events_topic, key, value, headers)

    def quarantined(self, refusal: Refusal, arrival: Arrival, *, at: datetime) -> Outgoing:
        """The body as it came, with why, from whom and when."""
        delivery, caller = arrival.delivery, arrival.caller
        known = {
            "quarantine-reason": refusal.reason,
            "quarantine-detail": refusal.detail,
            "quarantine-address": caller.address,
            "quarantine-subject": caller.subject,
            "quarantine-received-at": utc(delivery.received_at),
            "quarantine-at": utc(at),
            "quarantine-path": delivery.path[:2000],
            "quarantine-soap-action": delivery.soap_action and delivery.soap_action[:2000],
            "content-type": delivery.content_type and delivery.content_type[:2000],
            "traceparent": arrival.traceparent,
        }
        headers = [(name, text.encode(errors="replace")) for name, text in known.items() if text is not None]
        return Outgoing(self.quarantine_topic, None, delivery.body, headers)


def quarantined_arrival(headers: Mapping[str, str], body: bytes) -> Arrival:
    """The arrival that `Records.quarantined` wrote down. Raises ValueError or KeyError for any other record."""
    delivery = Delivery(
        body,
        datetime.fromisoformat(headers["quarantine-received-at"]),
        path=headers["quarantine-path"],
        content_type=headers.get("content-type"),
        soap_action=headers.get("quarantine-soap-action"),
    )
    caller = Caller(headers["quarantine-address"], headers.get("quarantine-subject"))
    return Arrival(delivery, caller, headers.get("traceparent"))
