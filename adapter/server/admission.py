"""Who may call, decided before any byte of the body is read. Pure.

Certificates were verified where TLS was terminated: by our listener, or by a proxy in one of the trusted networks,
whose two headers then replace the connection's own address and certificate. From any other peer these headers are
ignored.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from adapter.core.errors import Stop
from adapter.ports import Caller, Head, Peer

Network = IPv4Network | IPv6Network

SUBJECT_LIMIT: Final = 1000
"""Characters of a subject that a log line or a header carries: all of it, unless nobody would write it down."""

_HEADER_LIMIT: Final = 8192
_NO_CERTIFICATE: Final = (ValueError, x509.InvalidVersion)
_SPACED: Final = re.compile(r"(\\.)|(^|,)\s*([\w.]+)\s*=\s*")
"""An escaped character, such as the comma of "Supplier\\, Ltd", or a part's type in a distinguished name with the white
space around it."""
_TYPES: Final = {"emailAddress": NameOID.EMAIL_ADDRESS, "serialNumber": NameOID.SERIAL_NUMBER}
"""Types for which OpenSSL has names beyond those of RFC 4514."""
_MEANT: Final = re.compile(r"""["'/\s]*[\w.]+\s*=""")
"""How a distinguished name begins, in whatever form. No other name has a = there."""


class Reason(StrEnum):
    """Why a caller is refused: a label of metrics."""

    TLS = auto()
    """The handshake came to nothing."""
    NETWORK = auto()
    CERTIFICATE = auto()
    SUBJECT = auto()


@dataclass(frozen=True, slots=True)
class Refused:
    reason: Reason
    caller: Caller
    detail: str | None = None
    """What is wrong with the certificate. Quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate's names: the distinguished name (RFC 4514), and all by which it may be on the list."""

    subject: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Admission:
    """The rules of one deployment. An empty list of subjects or of networks turns that check off."""

    subjects: frozenset[str]
    """As `allowed` returns them."""
    networks: frozenset[Network]
    proxies: frozenset[Network]
    certificate_header: str
    """In lower case, like `address_header`."""
    address_header: str

    def judge(self, peer: Peer, head: Head) -> Caller | Refused:
        address, proxied = _address(peer.address), False
        if address is not None and _within(address, self.proxies):
            address, proxied = _forwarded_address(head.headers.get(self.address_header), address, self.proxies), True
        shown = peer.address if address is None else str(address)
        try:
            passed_on = head.headers.get(self.certificate_header)
            certificate = _forwarded_certificate(passed_on) if proxied else peer.certificate
            identity = None if certificate is None else identity_of(certificate)
        except _NO_CERTIFICATE:
            bad = f"{self.certificate_header} is no single certificate, as RFC 9440 has it or in URL-encoded PEM"
            return Refused(Reason.CERTIFICATE, Caller(shown, None), bad if proxied else "it can't be read")
        caller = Caller(shown, None if identity is None else identity.subject[:SUBJECT_LIMIT])
        if self.networks and (address is None or not _within(address, self.networks)):
            return Refused(Reason.NETWORK, caller)
        if self.subjects:
            if identity is None:
                none = "the proxy passes on none" if proxied else "neither TLS nor a trusted proxy shows one"
                return Refused(Reason.CERTIFICATE, caller, none)
            if identity.names.isdisjoint(self.subjects):
                return Refused(Reason.SUBJECT, caller)
        return caller


@lru_cache(maxsize=256)
def identity_of(certificate: bytes) -> Identity:
    """The names of a certificate (DER). Raises ValueError or x509.InvalidVersion if it is none."""
    found = x509.load_der_x509_certificate(certificate)
    names = {_distinguished(found.subject)}
    try:
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        alternatives = None  # UnsupportedGeneralNameType: one is of a rare kind, and then none can be read
    for name in alternatives or ():
        match name:
            case x509.DNSName(value=value):
                names.add(value.lower())
            case x509.UniformResourceIdentifier(value=value) | x509.RFC822Name(value=value):
                names.add(value)
            case x509.IPAddress(value=value):
                names.add(str(value))
            case _:
                pass
    names.discard("")
    return Identity(found.subject.rfc4514_string() or min(names, default=""), frozenset(names))


def allowed(subjects: Iterable[str]) -> frozenset[str]:
    """The list in the form in which names of certificates are compared: distinguished names with their parts in one
    order, host names in lower case.

    Raises Stop for a distinguished name that can't be read: no certificate would ever have it.
    """
    found: set[str] = set()
    problems: list[str] = []
    for subject in subjects:
        try:
            name = x509.Name.from_rfc4514_string(_SPACED.sub(_unspaced, subject), _TYPES)
            found.add(_distinguished(name))
        except ValueError:
            if _MEANT.match(subject):
                problems.append(
                    f"ADAPTER_SERVER__ALLOWED_SUBJECTS: {subject} is no distinguished name that we can read; "
                    r"write it as the log line of a refused caller has it, such as CN=gateway,O=Supplier\, Ltd"
                )
            elif ":" in subject or "@" in subject:
                found.add(subject)
            else:
                found |= {subject, subject.lower()}
    if problems:
        raise Stop(*sorted(problems))
    return frozenset(found)


def _unspaced(found: re.Match[str]) -> str:
    return found[1] or f"{found[2]}{found[3]}="


def _distinguished(name: x509.Name) -> str:
    # Tools print the parts of a name in either order; sorted, both are the same. An attribute's type is compared by
    # its number, its value whatever the case (X.520 caseIgnoreMatch). Control characters keep the parts apart.
    parts = sorted(f"{part.oid.dotted_string}\x01{str(part.value).casefold()}" for part in name)
    return "\x02".join(parts)


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _within(address: IPv4Address | IPv6Address, networks: frozenset[Network]) -> bool:
    return any(address in network for network in networks)


def _forwarded_address(
    header: str | None, proxy: IPv4Address | IPv6Address, proxies: frozenset[Network]
) -> IPv4Address | IPv6Address | None:
    """The last address in the header that is not one of our proxies. The caller may have made up those before it."""
    if header is None:
        return proxy
    for part in reversed(header.split(",")):
        found = _address(_bare(part.strip()))
        if found is None or not _within(found, proxies):
            return found
    return proxy


def _bare(text: str) -> str:
    """The address without port and brackets, which some proxies add."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _forwarded_certificate(header: str | None) -> bytes | None:
    """DER of what a proxy passes: `:base64:` (RFC 9440 section 2.1) or URL-encoded PEM (nginx).

    Raises ValueError or x509.InvalidVersion for anything else.
    """
    if header is None or not header.strip():
        return None
    if len(header) > _HEADER_LIMIT:
        raise ValueError("too long")
    text = header.strip()
    if "," in text:  # the proxy has added its own to one that the caller wrote
        raise ValueError("several")
    if text.startswith(":") and text.endswith(":") and len(text) > 2:
        try:
            return base64.b64decode(text[1:-1], validate=True)
        except binascii.Error as error:
            raise ValueError("not base64") from error
    return x509.load_pem_x509_certificate(unquote_to_bytes(text)).public_bytes(Encoding.DER)
