"""For `adapter check`: the contents of a certificate file, and a TLS handshake without a request."""

import asyncio
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from adapter.core.errors import Unavailable
from adapter.ports import NotSent
from adapter.transport.failures import refused_certificate, system_words, words
from adapter.transport.way import Proxy, handed_over, reach, resolve

_LISTEN: Final = 1.0
"""Seconds in which a refusal of our certificate is expected: with TLS 1.3 it arrives after the handshake."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A certificate. `usages` holds "client", "server" or both; both if the certificate does not restrict its use.
    `whole`: each certificate in its file is signed by the next one.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_after: datetime
    usages: frozenset[str]
    whole: bool


@dataclass(frozen=True, slots=True)
class Greeting:
    """A completed handshake: the protocol, and the other side's certificate."""

    version: str
    peer: Seen


def look(path: Path) -> Seen:
    """The file's first certificate. Raises OSError or ValueError if there is none; `tls.check` has the text for it."""
    chain = x509.load_pem_x509_certificates(path.read_bytes())
    return _seen(chain[0], whole=all(map(_signed, chain, chain[1:])))


async def greet(
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    *,
    limit: float,
    proxy: Proxy | None = None,
) -> Greeting | None:
    """Connect as calls do and complete the TLS handshake without sending a request; without `context` only connect.

    Raises Unavailable with the reason, also if the other side refuses our certificate.
    """
    try:
        async with asyncio.timeout(limit):
            link = await reach(await resolve(*((proxy.host, proxy.port) if proxy else (host, port))))
            if proxy is not None:
                await proxy.connect(link, host, port)
            if context is None:
                link.close()
                return None
            with handed_over(link):
                reader, writer = await asyncio.open_connection(sock=link, ssl=context, server_hostname=host)
            try:
                greeting = _greeting(writer)
                await _accepted(reader)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise Unavailable(f"no answer within {limit:g} s") from None
    except NotSent as failure:
        raise Unavailable(failure.detail) from None
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(f"its certificate is not accepted: {error.verify_message}") from None
    except ssl.SSLError as error:
        refused = refused_certificate(error)
        raise Unavailable(refused.detail if refused else f"TLS fails: {words(error)}") from None
    except OSError as error:
        raise Unavailable(system_words(error) or str(error) or type(error).__name__) from None
    return greeting


async def _accepted(reader: asyncio.StreamReader) -> None:
    """Wait for a refusal of our certificate. Silence means acceptance: the server is waiting for a request."""
    try:
        async with asyncio.timeout(_LISTEN):
            if not await reader.read(1):
                raise Unavailable("it closes the connection after the handshake: it may refuse our certificate")
    except TimeoutError:
        return


def _greeting(writer: asyncio.StreamWriter) -> Greeting:
    session = writer.get_extra_info("ssl_object")
    peer = x509.load_der_x509_certificate(session.getpeercert(binary_form=True))
    return Greeting(session.version(), _seen(peer, whole=True))


def _seen(certificate: x509.Certificate, *, whole: bool) -> Seen:
    return Seen(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=_names(certificate),
        not_after=certificate.not_valid_after_utc,
        usages=_usages(certificate),
        whole=whole,
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        return ()
    assert isinstance(found, x509.SubjectAlternativeName)
    addresses = (str(address) for address in found.get_values_for_type(x509.IPAddress))
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def _usages(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
    except x509.ExtensionNotFound:
        return frozenset({"client", "server"})
    assert isinstance(found, x509.ExtendedKeyUsage)
    known = {ExtendedKeyUsageOID.CLIENT_AUTH: "client", ExtendedKeyUsageOID.SERVER_AUTH: "server"}
    return frozenset(known[usage] for usage in found if usage in known)


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
