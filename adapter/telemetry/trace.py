"""W3C trace context, level 1: the `traceparent` that goes from command to request to event."""

import re
import secrets
from dataclasses import dataclass

# Section 3.2: version, trace-id, parent-id and flags in lower-case hexadecimal. A later version may append parts.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace. `str()` is the header's value."""

    trace_id: str
    parent_id: str
    flags: int

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.parent_id}-{self.flags:02x}"

    @property
    def sampled(self) -> bool:
        return bool(self.flags & _SAMPLED)


def parse_traceparent(value: str | bytes | None) -> Trace | None:
    """The trace in a header; None if there is none or it is not valid by section 3.2 (a new trace starts then)."""
    if value is None:
        return None
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    # Only the flag that level 1 defines is handed on (section 3.2.2.5.2).
    return Trace(trace_id, parent_id, int(flags, 16) & _SAMPLED)


def continued(trace: Trace | None) -> Trace:
    """A step further in `trace`; the first step of a new, unsampled trace without one."""
    if trace is None:
        return Trace(secrets.token_hex(16), secrets.token_hex(8), 0)
    return Trace(trace.trace_id, secrets.token_hex(8), trace.flags)
