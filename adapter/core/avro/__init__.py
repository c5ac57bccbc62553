"""Avro on the bus: schemas, the Confluent wire format, strict encoding, decoding with resolution, a readable
JSON form, the names of subjects, and the rules of compatible change.
"""

from adapter.core.avro.compatibility import compatibility, full_transitive
from adapter.core.avro.decoder import Decoded, Decoder, UnknownFields
from adapter.core.avro.encoder import Encoder
from adapter.core.avro.framing import frame, unframe
from adapter.core.avro.readable import from_json, to_json
from adapter.core.avro.schema import Schema
from adapter.core.avro.subjects import SubjectStrategy, subject

__all__ = [
    "Decoded",
    "Decoder",
    "Encoder",
    "Schema",
    "SubjectStrategy",
    "UnknownFields",
    "compatibility",
    "frame",
    "from_json",
    "full_transitive",
    "subject",
    "to_json",
    "unframe",
]
