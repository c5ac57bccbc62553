"""The server's side of TLS: a context that demands a certificate from every client. See `tls` for its replacement."""

import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from adapter.core.errors import Stop
from adapter.transport.tls import LiveTls, NotAfter, TlsFiles, identify, plain_context, trust

_SESSIONS: Final = 1000
"""Sessions of TLS 1.2 in the cache, each with the client's whole chain. OpenSSL would keep 20,000, and Python offers
no setting for it.
"""


class ServerTls(LiveTls):
    """The server's context. Raises Stop with every problem if the first set of files is not valid."""

    def __init__(self, files: TlsFiles) -> None:
        super().__init__(files, server_context)

    def refresh(self) -> tuple[str, ...] | None:
        """As LiveTls; besides, a context whose session cache has grown large is replaced by a new one."""
        problems = super().refresh()
        if self.context.session_stats()["number"] > _SESSIONS:
            with suppress(Stop):  # reported above; the context in use stays
                self.context, self.not_after = server_context(self._files)
        return problems


def server_context(files: TlsFiles) -> tuple[ssl.SSLContext, Mapping[str, datetime]]:
    """A context for TLS 1.2 or newer that demands a client certificate of the authorities in `files.ca`, and the times
    of expiry by kind of file. Raises Stop with every problem of the files; all three are needed.
    """
    context = plain_context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would not be asked for its certificate again, also after its authority was taken off the list.
    # Without tickets, what can be resumed is in this context's own memory and ends with it.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    problems: list[str] = []
    ends: dict[str, Sequence[datetime]] = {}
    match files:
        case TlsFiles(certificate=Path() as certificate, key=Path() as key, ca=Path() as ca):
            ends["certificate"] = identify(context, certificate, key, problems)
            ends["ca"] = trust(context, ca, problems)
        case _:
            problems.append("TLS: a listener needs certificate, key and the authorities of its clients")
    if problems:
        raise Stop(*problems)
    return context, NotAfter(ends)
