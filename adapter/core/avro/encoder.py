"""Records to bytes, strictly."""

from collections.abc import Mapping
from typing import Any

from adapter.core.avro.check import Misfit, checker
from adapter.core.avro.framing import frame
from adapter.core.avro.schema import Schema
from adapter.core.avro.writer import Unfit, compile_writer


class Encoder:
    """Writes records of one schema. Missing fields take their default; nothing else is forgiven."""

    def __init__(self, schema: Schema, schema_id: int) -> None:
        """Raises ValueError for a schema with types that no record of ours has."""
        self.schema = schema
        self._prefix = frame(schema_id, b"")
        self._write = compile_writer(schema)

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """Raises ValueError with the path of what does not fit; the value itself is never in the text."""
        try:
            return self._write(record, self._prefix)
        except Unfit:
            raise ValueError(self._misfit(record)) from None

    def _misfit(self, record: Mapping[str, Any]) -> str:
        try:
            checker(self.schema.record)(record)
        except Misfit as misfit:
            return misfit.where(self.schema.name)
        return f"{self.schema.name}: does not fit"
