"""Records to bytes, strictly."""

import io
from collections.abc import Mapping
from typing import Any

import fastavro

from adapter.core.avro.check import Misfit, checker
from adapter.core.avro.framing import frame
from adapter.core.avro.schema import Schema
from adapter.core.avro.writer import Unfit, compile_writer


class Encoder:
    """Writes records of one schema. Missing fields take their default; nothing else is forgiven."""

    def __init__(self, schema: Schema, schema_id: int) -> None:
        self.schema = schema
        self._parsed = schema.parsed
        self._prefix = frame(schema_id, b"")
        self._check = checker(schema.record)
        self._write = compile_writer(schema)

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Raises ValueError with the path of what does not fit; the value itself is never in the text."""
        if self._write is not None:
            try:
                return self._write(record, self._prefix)
            except Unfit:
                pass  # the check below finds out what is wrong, if anything is
        try:
            self._check(record)
        except Misfit as misfit:
            raise ValueError(misfit.where(self.schema.name)) from None
        sink = io.BytesIO()
        sink.write(self._prefix)
        try:
            fastavro.schemaless_writer(sink, self._parsed, record)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{self.schema.name}: cannot be written ({type(error).__name__})") from None
        return sink.getvalue()
