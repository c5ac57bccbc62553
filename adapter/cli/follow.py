"""Following commands on the events topic until each has its final outcome."""

import json
import sys
from collections.abc import Callable, Iterable

from adapter.catalogue import Catalogue
from adapter.core.avro import Decoded, Decoder, to_json, unframe
from adapter.core.errors import Undecodable
from adapter.transport.kafka.client import Seen

_PROVISIONAL = frozenset({"CommandOutcomeUnknown"})


class Outcomes:
    """The commands waited for. Prints their events as JSON lines as they come."""

    def __init__(self, compiled: Catalogue, schema: Callable[[int], str | None], pending: Iterable[str]) -> None:
        """`schema` gives the registry's schema of an id as text."""
        self._schemas = compiled.events
        self._accepted = {entry.accepted.name for entry in compiled.operations.values()}
        self._schema = schema
        self._decoders: dict[int, Decoder | None] = {}
        self.pending = set(pending)
        self.not_accepted = False

    def follow(self, records: Iterable[Seen]) -> None:
        """Read until nothing is pending or the records end."""
        if not self.pending:
            return
        for record in records:
            event = self._decode(record)
            if event is None or event.record.get("commandId") not in self.pending:
                continue
            shown = {"event": event.name, **to_json(self._schemas[event.name], event.record)}
            sys.stdout.write(json.dumps(shown, ensure_ascii=False) + "\n")
            sys.stdout.flush()
            if event.name in _PROVISIONAL:
                continue
            self.pending.discard(event.record["commandId"])
            if event.name not in self._accepted and event.record.get("outcome") != "ACCEPTED":
                self.not_accepted = True
            if not self.pending:
                return

    def _decode(self, record: Seen) -> Decoded | None:
        """The event, None for a record that is none of ours: others may write here too."""
        try:
            identifier, payload = unframe(record.value)
            if identifier not in self._decoders:
                text = self._schema(identifier)
                self._decoders[identifier] = None if text is None else Decoder(text, self._schemas.values())
            decoder = self._decoders[identifier]
            return None if decoder is None else decoder.decode(payload)
        except Undecodable:
            return None
