"""The headers of an event: CloudEvents 1.0, Kafka protocol binding, binary content mode (section 3.2)."""

from datetime import datetime
from typing import Final
from urllib.parse import quote

from adapter.core.instant import utc

_VERSION: Final = ("ce_specversion", b"1.0")
_CONTENT: Final = ("content-type", b"application/avro")


def source(supplier: str, buyer: str) -> str:
    """The ce_source of what an adapter between these two publishes: a URI reference."""
    return f"/fault-adapter/{supplier}/{quote(buyer, safe='')}"


def headers(
    identifier: str, *, source: bytes, kind: str, at: datetime, traceparent: str | None
) -> list[tuple[str, bytes | None]]:
    """`kind` is the ce_type; `traceparent` (W3C trace context) is passed on where there is one."""
    found: list[tuple[str, bytes | None]] = [
        _VERSION,
        ("ce_id", identifier.encode()),
        ("ce_source", source),
        ("ce_type", kind.encode()),
        ("ce_time", utc(at).encode()),
        _CONTENT,
    ]
    if traceparent is not None:
        found.append(("traceparent", traceparent.encode()))
    return found
