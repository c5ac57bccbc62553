"""The headers of an event: CloudEvents 1.0, Kafka protocol binding, binary content mode (section 3.2)."""

from datetime import UTC, datetime


def headers(
    identifier: str, *, source: bytes, kind: str, at: datetime, traceparent: str | None
) -> list[tuple[str, bytes | None]]:
    """`kind` is the ce_type; `traceparent` (W3C trace context) is passed on where there is one."""
    found: list[tuple[str, bytes | None]] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", identifier.encode()),
        ("ce_source", source),
        ("ce_type", kind.encode()),
        ("ce_time", at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()),
        ("content-type", b"application/avro"),
    ]
    if traceparent is not None:
        found.append(("traceparent", traceparent.encode()))
    return found
