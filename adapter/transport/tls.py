"""TLS contexts from certificate files, and their replacement while the process runs; here also the client's context.

Changed files always make a *new* context; a live one is never modified: a certificate that does not match its key
would leave it without a usable key, and an authority can be added to a context but never removed from it. A connection
remembers the context it was made with, so that those of an older context are not used again.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from adapter.core.errors import Stop

LOOK: Final = 5.0
"""Seconds between two looks at the files."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Certificate (with its chain) and key go together; without `ca` the system's authorities are
    trusted, with it only those in the file.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


class NotAfter(Mapping[str, datetime]):
    """When the certificates in use expire, by "certificate" and "ca", evaluated at the time of the call.

    That is the earliest expiry in each file; but an expired authority does not count where another one is still
    valid: that is its successor.
    """

    def __init__(self, ends: Mapping[str, Sequence[datetime]]) -> None:
        self._ends = ends

    def __getitem__(self, kind: str) -> datetime:
        ends, now = self._ends[kind], datetime.now(UTC)
        return min((end for end in ends if end > now), default=max(ends))

    def __iter__(self) -> Iterator[str]:
        return iter(self._ends)

    def __len__(self) -> int:
        return len(self._ends)


class LiveTls:
    """The context for new connections, always from the newest valid set of files.

    Raises Stop with every problem if the first set is not valid.
    """

    def __init__(
        self, files: TlsFiles, make: Callable[[TlsFiles], tuple[ssl.SSLContext, Mapping[str, datetime]]]
    ) -> None:
        self._files = files
        self._make = make
        self._seen = stamp(_paths(files))
        self.problems: tuple[str, ...] = ()
        """Of the files as they were at the last refresh: with any, the files before stay in use."""
        self.context, self.not_after = make(files)

    def refresh(self) -> tuple[str, ...] | None:
        """Use changed files if they are valid; returns their problems, with which the files before stay in use. None if
        nothing is new since the last call.

        Files that were not valid are tried at every call: a certificate may become valid, or readable, unchanged.
        """
        # Before reading: files that change meanwhile then differ from the stamp, and are read again.
        found = stamp(_paths(self._files))
        changed, before = found != self._seen, self.problems
        if not changed and not before:
            return None
        self._seen = found
        try:
            self.context, self.not_after = self._make(self._files)
        except Stop as stop:
            self.problems = stop.problems
            return stop.problems if changed or stop.problems != before else None
        self.problems = ()
        return ()

    async def watch(self, report: Callable[[Sequence[str]], None], *, interval: float = LOOK) -> None:
        """Refresh every `interval` seconds until cancelled; `report` is called with the problems of every change."""
        while True:
            await asyncio.sleep(interval)
            if (problems := await asyncio.to_thread(self.refresh)) is not None:
                report(problems)


class ClientTls(LiveTls):
    """The client's context."""

    def __init__(self, files: TlsFiles) -> None:
        super().__init__(files, client_context)


def client_context(files: TlsFiles) -> tuple[ssl.SSLContext, Mapping[str, datetime]]:
    """A context for TLS 1.2 or newer that verifies chain and host name, and the times of expiry by kind of file.

    Raises Stop with every problem of the files.
    """
    # Not ssl.create_default_context: it writes session keys to a file that an environment variable names.
    context = plain_context(ssl.PROTOCOL_TLS_CLIENT)
    problems: list[str] = []
    ends: dict[str, Sequence[datetime]] = {}
    match files:
        case TlsFiles(certificate=Path() as certificate, key=Path() as key):
            ends["certificate"] = identify(context, certificate, key, problems)
        case TlsFiles(certificate=None, key=None):
            pass
        case _:
            problems.append("TLS: a client certificate and its key go together; give both files or neither")
    if files.ca is not None:
        ends["ca"] = trust(context, files.ca, problems)
    if problems:
        raise Stop(*problems)
    if files.ca is None:
        # Last, since it takes long, and invalid files are tried again and again.
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context, NotAfter(ends)


def plain_context(protocol: int) -> ssl.SSLContext:
    """For TLS 1.2 or newer and HTTP/1.1, without any certificate."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Without renegotiation a completed handshake is final, so a refused certificate means that no request was read.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def identify(context: ssl.SSLContext, certificate: Path, key: Path, problems: list[str]) -> Sequence[datetime]:
    """Load this certificate and key into the context; returns the times of expiry as `check` does, adds problems."""
    ends = check(certificate, problems, own=True)
    if _is_readable(key, problems) and ends:
        _load_pair(context, certificate, key, problems)
    return ends


def trust(context: ssl.SSLContext, ca: Path, problems: list[str]) -> Sequence[datetime]:
    """Have the context trust these authorities; returns the times of expiry as `check` does, adds problems.

    Every authority in the file is trusted, also an intermediate one, for which OpenSSL alone would demand its root.
    """
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ends := check(ca, problems, own=False):
        try:
            context.load_verify_locations(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            problems.append(f"{ca}: cannot be used as authorities ({reason(error)}); give CA certificates")
    return ends


def check(path: Path, problems: list[str], *, own: bool) -> Sequence[datetime]:
    """Times of expiry in the file; empty, with a problem added, if not everything in it can be read as certificates.

    For our `own` certificate with its chain it is one, the earliest, and all must be valid now. For authorities, where
    an expired one may stand beside its successor, there is one for each name: the latest.
    """
    latest: dict[x509.Name, datetime] = {}
    content = b""
    try:
        content = path.read_bytes()
        found = x509.load_pem_x509_certificates(content)
        if not own:
            for authority in sorted(found, key=lambda each: each.not_valid_after_utc):
                latest[authority.subject] = authority.not_valid_after_utc  # the name is parsed only now
    except OSError as error:
        problems.append(f"{path}: cannot be read ({reason(error)}); check path and permissions")
        return ()
    except (ValueError, x509.InvalidVersion):
        cure = "give BEGIN CERTIFICATE blocks of X.509 version 3"
        if _is_binary(content):
            cure = f"convert it: openssl x509 -inform DER -in {path}, or openssl pkcs12 -nokeys -in {path}"
        problems.append(f"{path}: holds no PEM certificate that can be read; {cure}")
        return ()
    if not own:
        return tuple(latest.values())
    now = datetime.now(UTC)
    for certificate in found:
        if certificate.not_valid_after_utc <= now:
            problems.append(f"{path}: expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%MZ}; renew it")
        elif certificate.not_valid_before_utc > now:
            problems.append(
                f"{path}: not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%MZ}; check the clock"
            )
    return (min(certificate.not_valid_after_utc for certificate in found),)


def _is_readable(path: Path, problems: list[str]) -> bool:
    """Whether the file can be read; adds a problem if not."""
    try:
        path.read_bytes()
    except OSError as error:
        problems.append(f"{path}: cannot be read ({reason(error)}); check path and permissions")
        return False
    return True


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path, problems: list[str]) -> None:
    """Load them into the context; adds a problem if they do not belong together."""
    try:
        # With an encrypted key OpenSSL would ask for the password on the terminal, and wait.
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted:
        problems.append(f"{key}: the key is encrypted; give it without a password, protected by file permissions")
    except ssl.SSLError as error:
        problems.append(_no_pair(certificate, key, error))
    except OSError as error:
        problems.append(f"{key}: cannot be read ({reason(error)}); check path and permissions")


def _no_pair(certificate: Path, key: Path, error: ssl.SSLError) -> str:
    """What is wrong with two files that OpenSSL does not accept together."""
    content = b""
    try:
        content = key.read_bytes()
        ours = load_pem_private_key(content, None).public_key()
        keys = [each.public_key() for each in x509.load_pem_x509_certificates(certificate.read_bytes())]
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        cure = "give a PEM private key"
        if _is_binary(content):
            cure = f"convert it: openssl pkey -inform DER -in {key}, or openssl pkcs12 -nocerts -nodes -in {key}"
        return f"{key}: cannot be used with {certificate} ({reason(error)}); {cure}"
    if ours not in keys:
        return f"{key}: is not the key of {certificate}; give the two files of one pair"
    if ours != keys[0]:
        cure = "put it first, then who signed it, each before its own issuer"
        return f"{certificate}: the certificate of {key} is not its first; {cure}"
    return (
        f"{certificate}: OpenSSL can't use it ({reason(error)}); give it as it was issued, or have another one issued"
    )


def _is_binary(content: bytes) -> bool:
    """Whether a file is DER or PKCS #12 instead of PEM: both are one SEQUENCE of ASN.1, of 128 bytes or more."""
    return content[:1] == b"\x30" and content[1:2] >= b"\x80"


class _Encrypted(Exception):  # noqa: N818 -- a signal, caught where it is provoked
    pass


def _no_password() -> str:
    raise _Encrypted


def reason(error: OSError) -> str:
    """The error's reason as text, without the path."""
    return (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or type(error).__name__


Stamp = tuple[tuple[str, int, int, int] | None, ...]


def stamp(paths: Iterable[Path]) -> Stamp:
    """A value that differs once one of the files has changed."""
    # The resolved path changes when Kubernetes swaps its `..data` link, the inode when a file is replaced atomically,
    # time and size when it is written in place.
    return tuple(map(_identity, paths))


def _paths(files: TlsFiles) -> Iterator[Path]:
    return (path for path in (files.certificate, files.key, files.ca) if path is not None)


def _identity(path: Path) -> tuple[str, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 -- one style for the pair of calls
        return os.path.realpath(path), found.st_ino, found.st_mtime_ns, found.st_size
    except OSError:
        return None
