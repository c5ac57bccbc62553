"""Decoders by schema id, made when an id occurs for the first time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NoReturn, Protocol

from adapter.core.avro.decoder import VALUE_LIMIT, Decoded, Decoder, UnknownFields
from adapter.core.avro.framing import unframe
from adapter.core.avro.reader import number
from adapter.core.avro.references import branches
from adapter.core.avro.schema import Schema
from adapter.core.errors import Undecodable
from adapter.core.immutable import immutable

LOST: Final = '"The registry is lost, or was restored to an earlier state" in docs/disaster.md'
"""What to read if an id of ours has no schema any more, or another one."""


class Lookup(Protocol):
    """The part of a schema registry that decoding needs."""

    async def schema(self, identifier: int) -> str | None:
        """Its JSON text, None if there is none. Raises Unavailable."""
        ...


class Decoders:
    """Caches decoders for ever, since the schema of an id never changes; also the reason why a schema has none."""

    def __init__(
        self,
        registry: Lookup,
        schemas: Sequence[Schema],
        unknown_fields: UnknownFields,
        *,
        most: int = VALUE_LIMIT,
    ) -> None:
        self._registry = registry
        self._schemas = schemas
        self._unknown_fields = unknown_fields
        self._most = most
        self._decoders: dict[int, Decoder | _Union | _Refusal] = {}

    async def decode(self, value: bytes | None) -> Decoded:
        """Raises Undecodable, or Unavailable while the registry does not answer."""
        schema_id, payload = unframe(value)
        decoder = self._decoders.get(schema_id)
        if decoder is None:
            text = await self._registry.schema(schema_id)
            if text is None:
                raise Undecodable("unknown-schema", f"the registry has no schema {schema_id}")
            decoder = self._decoders.get(schema_id)  # of another that has waited for it
            if decoder is None:
                decoder = self._decoders[schema_id] = self._decoder(text)
        return decoder.decode(payload)

    def _decoder(self, text: str) -> "Decoder | _Union | _Refusal":
        if not text.lstrip().startswith("["):
            return self._of_record(text)
        try:
            return _Union([partial(self._of_record, branch) for branch in branches(text)])
        except ValueError as error:
            return _Refusal("bad-schema", str(error))

    def _of_record(self, text: str) -> "Decoder | _Refusal":
        try:
            return Decoder(text, self._schemas, unknown_fields=self._unknown_fields, most=self._most)
        except Undecodable as why:
            return _Refusal(why.reason, why.detail)


class _Union:
    """Decodes what was written with a union: the place of a branch, then a value of it (Avro specification, "Binary
    encoding"). The decoder of a branch is made when it occurs for the first time.
    """

    def __init__(self, make: "Sequence[Callable[[], Decoder | _Refusal]]") -> None:
        self._make = make
        self._decoders: dict[int, Decoder | _Refusal] = {}

    def decode(self, payload: bytes) -> Decoded:
        try:
            place, at = number(payload, 0)
        except (IndexError, ValueError):
            place, at = -1, 0
        if not 0 <= place < len(self._make):
            raise Undecodable("malformed", f"begins with no branch of a union of {len(self._make)}")
        decoder = self._decoders.get(place)
        if decoder is None:
            decoder = self._decoders[place] = self._make[place]()
        return decoder.decode(payload[at:])


@immutable
class _Refusal:
    """Cached in place of a decoder for a schema we can't read: to find that out may take a tenth of a second."""

    reason: str
    detail: str

    def decode(self, _: bytes) -> NoReturn:
        raise Undecodable(self.reason, self.detail)
