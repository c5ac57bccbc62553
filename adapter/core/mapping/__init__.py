"""XML and Avro tied together by equal names: compiled once from an XSD element and an Avro record, then run
per message without looking at either schema again.
"""

from adapter.core.mapping.notes import Deviation, ValueClass
from adapter.core.mapping.read import MessageReader, Read, compile_message, record_of
from adapter.core.mapping.write import RequestWriter, compile_request

__all__ = [
    "Deviation",
    "MessageReader",
    "Read",
    "RequestWriter",
    "ValueClass",
    "compile_message",
    "compile_request",
    "record_of",
]
