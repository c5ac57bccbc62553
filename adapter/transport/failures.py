"""What a failed supplier call is called: the exceptions of the HTTP client, its engine and TLS, put into the words of
ports.NotSent and ports.Unclear. Which of the two it is, the call itself knows (https.py).
"""

import ssl
from collections.abc import Iterator

import aiohttp
from aiohttp.http_exceptions import ContentLengthError, TransferEncodingError

from adapter.ports import NotSent, Unclear


class Gone(aiohttp.ClientConnectionError):
    """The connection cannot carry a request; nothing was written to it."""


def not_sent(error: BaseException, *, proxied: bool) -> NotSent:
    """For a call of which nothing was written; `proxied` if a proxy stands between."""
    for cause in _causes(error):
        match cause:
            case Gone():
                return NotSent("connect", "the connection was lost before anything was sent")
            case aiohttp.ClientConnectorDNSError():
                return NotSent("resolve", "the host name does not resolve")
            case aiohttp.ClientHttpProxyError():
                return NotSent("proxy", f"the proxy answered CONNECT with status {cause.status}")
            case aiohttp.ClientProxyConnectionError():
                return NotSent("proxy", f"no connection to the proxy: {_words(cause)}")
            case aiohttp.ClientSSLError() | ssl.SSLError():
                return NotSent("tls", _words(cause))
            case aiohttp.ClientConnectorError():
                return NotSent("connect", _words(cause))
            case _:
                pass
    return NotSent("proxy" if proxied else "connect", _words(error))


def unclear(error: BaseException) -> Unclear:
    """For a call of which something may have been written."""
    for cause in _causes(error):
        match cause:
            case ConnectionError() | ssl.SSLError() | aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
                return Unclear("reset", f"the connection was lost: {_words(cause)}")
            case ContentLengthError() | TransferEncodingError():
                return Unclear("reset", "the connection ended within the reply")
            case _:
                pass
    return Unclear("protocol", f"the reply is not HTTP: {_words(error)}")


CERTIFICATE_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_UNKNOWN_CA",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
}


def refused_certificate(error: BaseException) -> NotSent | None:
    """For the first failure on a new connection: proof that the client's certificate was refused, if it is that.

    In TLS 1.3 the client has finished, and may write, before the server has looked at its certificate. The alert,
    as the first thing a new connection brings, says that the server's handshake never ended: what was written was
    not handed to anybody (RFC 8446 sections 4.4.2.4 and 6.2).
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) and cause.reason in CERTIFICATE_ALERTS:
            return NotSent("tls", f"the server refuses the client certificate: {cause.reason}")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    # Not the context: where a caller is handling an error of its own, that would be taken for one of this call's.
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _words(error: BaseException) -> str:
    # Never str(): a message of the HTTP parser quotes the reply.
    name = type(error).__name__
    for cause in _causes(error):
        name = type(cause).__name__
        match cause:
            case aiohttp.ClientError():
                pass  # these inherit from errors of ssl and the system, but not what those say
            case ssl.SSLCertVerificationError():
                return f"the server's certificate is refused: {cause.verify_message}"
            case ssl.SSLError() if cause.reason:
                return cause.reason
            case OSError() if cause.strerror:
                return cause.strerror
            case _:
                pass
    return name
