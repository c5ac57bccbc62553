"""What the flows ask of the outside world; the transports answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back over HTTP, whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NotSent(Exception):  # noqa: N818 -- named for what it says
    """No byte of the request has left: the call may be tried again, whatever the operation.

    `reason` is a slug (a metric label): resolve, connect, connect-timeout, tls, proxy.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Unclear(Exception):  # noqa: N818 -- named for what it says
    """Bytes may have left and no whole answer came: nobody knows whether the supplier has taken it.

    `reason` is a slug (a metric label): write-timeout, read-timeout, total-timeout, reset, too-large, protocol.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Calls(Protocol):
    """Calls to the supplier."""

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """POST `body` to the base URL plus `path`. Raises NotSent or Unclear."""
        ...

    async def close(self) -> None: ...


class Registry(Protocol):
    """Look-ups in a schema registry with the Confluent HTTP API."""

    async def schema(self, identifier: int) -> str | None:
        """The schema of that id as JSON text, None if the registry says there is none. Raises Unavailable."""
        ...

    async def identifier(self, subject: str, schema: str) -> int | None:
        """The id under which `subject` has this schema, None if it has not. Raises Unavailable."""
        ...
