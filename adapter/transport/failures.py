"""Names and texts for failed supplier calls: errors of the network and of TLS as ports.NotSent and ports.Unclear. Which
of the two applies is decided by the caller, who knows whether anything had been written.
"""

import os
import socket
import ssl
from collections.abc import Iterator

from adapter.ports import NotSent, Unclear


def not_connected(error: OSError) -> NotSent:
    """For a call that found no connection to the supplier."""
    match error:
        case socket.gaierror():
            return NotSent("resolve", "the host name does not resolve")
        case ssl.SSLError():
            return NotSent("tls", words(error))
        case _:
            return NotSent("connect", words(error))


def not_tunnelled(error: OSError) -> NotSent:
    """For a call that did not reach the proxy, or lost the connection before the proxy had answered."""
    return NotSent("proxy", f"no connection through the proxy: {words(error)}")


def lost(error: Exception | None) -> Unclear:
    """For a call whose connection ended, with or without an error, after something was written."""
    return Unclear("reset", f"the connection was lost: {'closed by the server' if error is None else words(error)}")


CERTIFICATE_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_DECRYPT_ERROR",  # wrong signature, as when the authority has a new key under its old name
    "TLSV1_ALERT_UNKNOWN_CA",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
}
"""Alerts that by their definition belong to the handshake. Not handshake_failure: a refused renegotiation ends in it
too, after the request was read. Not access_denied: some servers check the client's identity after the handshake.
"""


def refused_certificate(error: Exception | None) -> NotSent | None:
    """For an error that comes first on a new connection: NotSent if it proves that our certificate was refused.

    In TLS 1.3 the client finishes its handshake, and may write, before the server has verified its certificate. Such
    an alert, as the first thing received, proves that the server's handshake never finished: the request was not
    passed to the application (RFC 8446 sections 4.4.2.4 and 6.2).
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) and cause.reason in CERTIFICATE_ALERTS:
            return NotSent("tls", f"the server refuses the client certificate: {cause.reason}")
    return None


def system_words(error: OSError) -> str | None:
    """The operating system's text for the error. asyncio replaces it by where the connection failed: then both."""
    said, number = error.strerror, error.errno or 0
    if number <= 0 or isinstance(error, socket.gaierror | ssl.SSLError):
        return said
    why = os.strerror(number)
    return f"{why}: {said}" if said and not said.startswith(why) else said or why


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    # Not __context__: that may be an unrelated error which the caller was handling.
    while error is not None:
        yield error
        error = error.__cause__


def words(error: BaseException) -> str:
    """What is wrong with the connection; if that is unknown, the error's type."""
    # Never str(): it may quote received data.
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"the server's certificate is refused: {cause.verify_message}"
            case ssl.SSLError() if cause.reason == "WRONG_VERSION_NUMBER":
                return f"{cause.reason}: what answers there does not speak TLS"
            case ssl.SSLError() if cause.reason:
                return cause.reason
            case OSError() if said := system_words(cause):
                return said
            case _:
                pass
    return type(error).__name__
