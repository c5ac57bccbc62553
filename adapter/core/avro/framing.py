"""The Confluent wire format: a zero byte, four bytes of a schema's id, and the payload."""

import struct
from typing import Final

from adapter.core.errors import Foreign

_MARKS: Final = {
    b"{": "JSON",
    b'"': "JSON",
    b"<": "XML",
    b"AAAA": "base64 of the record",
    b"Obj\x01": "a file of Avro",
    b"\xc3\x01": "Avro's single-object encoding",
    b"\x03": "the framing of AWS Glue",
    b"\x01": "a schema's GUID instead of its id",
}
"""How values in other encodings begin."""

_FRAME: Final = struct.Struct(">Bi")


def unframe(value: bytes | None) -> tuple[int, bytes]:
    """Schema id and payload of a record's value. Raises Foreign for what is not in the Confluent wire format."""
    if value is None:
        raise Foreign("null-value", "a record without a value")
    if not value:
        raise Foreign("empty", "a value of no bytes")
    if value[0] != 0:
        looks = next((f"; it may be {what}" for mark, what in _MARKS.items() if value.startswith(mark)), "")
        raise Foreign("unframed", f"the first byte is not zero{looks}")
    if len(value) < _FRAME.size:
        raise Foreign("truncated", f"{len(value)} bytes, the frame alone has {_FRAME.size}")
    identifier = _FRAME.unpack_from(value)[1]
    if identifier < 0:  # a registry would answer that it has no such schema
        raise Foreign("unframed", "an id of a schema is not negative")
    return identifier, value[_FRAME.size :]


def frame(schema_id: int, payload: bytes) -> bytes:
    return _FRAME.pack(0, schema_id) + payload
