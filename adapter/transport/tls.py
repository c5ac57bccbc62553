"""The client's side of TLS: a context from certificate files, and its replacement while the process runs.

A changed set of files becomes a *new* context. A live one is never touched: a pair that does not fit would leave it
without a usable key, and an authority can be added to a context but never removed from it. Who keeps connections
alive holds them by the context they were made with, so those of an older one are not used again.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from adapter.core.errors import Stop


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Certificate (with its chain) and key go together; without `ca` the system's authorities are
    trusted, with it only those in the file.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


class NotAfter(Mapping[str, datetime]):
    """When what is in use ends, by "certificate" and "ca", as it stands when it is asked for.

    The earliest end of each file; but an authority that has ended counts no more where another has not: that is
    its successor.
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


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of changed files. With problems the previous certificates stay in use."""

    problems: tuple[str, ...]
    not_after: Mapping[str, datetime]
    """Of what is in use now."""


class LiveTls:
    """The context for new connections, always from the newest set of files that was good.

    Raises Stop when the first set is not good, with every problem.
    """

    def __init__(
        self, files: TlsFiles, make: Callable[[TlsFiles], tuple[ssl.SSLContext, Mapping[str, datetime]]]
    ) -> None:
        self._files = files
        self._make = make
        self._seen = stamp(files)
        self._problems: tuple[str, ...] = ()
        self.context, self.not_after = make(files)

    def refresh(self) -> Reload | None:
        """Take changed files into use if they are good. None if there is nothing new since the last look.

        Files that were not good are tried at every look: a certificate becomes valid, or readable, without a change.
        """
        # Before reading: files that change meanwhile then differ from the stamp, and are read again.
        found = stamp(self._files)
        changed, before = found != self._seen, self._problems
        if not changed and not before:
            return None
        self._seen = found
        try:
            self.context, self.not_after = self._make(self._files)
        except Stop as stop:
            self._problems = stop.problems
            return Reload(stop.problems, self.not_after) if changed or stop.problems != before else None
        self._problems = ()
        return Reload((), self.not_after)


class ClientTls(LiveTls):
    """The client's side, which looks by itself."""

    def __init__(self, files: TlsFiles) -> None:
        super().__init__(files, client_context)

    async def watch(self, interval: float, report: Callable[[Reload], None]) -> None:
        """Look every `interval` seconds until cancelled; `report` is told what came of every change of the files."""
        while True:
            await asyncio.sleep(interval)
            if (reload := self.refresh()) is not None:
                report(reload)


def client_context(files: TlsFiles) -> tuple[ssl.SSLContext, Mapping[str, datetime]]:
    """A context for TLS 1.2 or newer that verifies chain and host name, and ends of validity by kind of file.

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
        # Last: they are many, and files that are no good are tried again and again.
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
    """Make this pair the context's own; ends of validity as `check` says them, problems noted."""
    ends = check(certificate, problems, own=True)
    if _is_readable(key, problems) and ends:
        _load_pair(context, certificate, key, problems)
    return ends


def trust(context: ssl.SSLContext, ca: Path, problems: list[str]) -> Sequence[datetime]:
    """Make these authorities the context's; ends of validity as `check` says them, problems noted.

    Whoever is in the file is trusted: also one that another has signed, of which OpenSSL would want that other.
    """
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ends := check(ca, problems, own=False):
        try:
            context.load_verify_locations(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            problems.append(f"{ca}: cannot be used as authorities ({reason(error)}); give CA certificates")
    return ends


def check(path: Path, problems: list[str], *, own: bool) -> Sequence[datetime]:
    """Ends of validity in the file; empty, with a problem noted, if not all that is in it can be read as certificates.

    Of our `own` certificate with its chain that is the earliest, and all must be valid now. Of authorities, where an
    expired one may stand beside its successor, it is that of each name: the latest.
    """
    latest: dict[x509.Name, datetime] = {}
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
        if not own:
            for authority in sorted(found, key=lambda each: each.not_valid_after_utc):
                latest[authority.subject] = authority.not_valid_after_utc  # the name is parsed only now
    except OSError as error:
        problems.append(f"{path}: cannot be read ({reason(error)}); check path and permissions")
        return ()
    except (ValueError, x509.InvalidVersion):
        problems.append(
            f"{path}: holds no PEM certificate that can be read; give BEGIN CERTIFICATE blocks of X.509 version 3"
        )
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
    """Whether it is; a problem noted if not."""
    try:
        path.read_bytes()
    except OSError as error:
        problems.append(f"{path}: cannot be read ({reason(error)}); check path and permissions")
        return False
    return True


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path, problems: list[str]) -> None:
    """Make them the context's own; a problem noted if they are no pair."""
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
    """What is wrong with two files that OpenSSL does not take together."""
    try:
        ours = load_pem_private_key(key.read_bytes(), None).public_key()
        keys = [each.public_key() for each in x509.load_pem_x509_certificates(certificate.read_bytes())]
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return f"{key}: cannot be used with {certificate} ({reason(error)}); give a PEM private key"
    if ours not in keys:
        return f"{key}: is not the key of {certificate}; give the two files of one pair"
    if ours != keys[0]:
        cure = "put it first, then who signed it, each before its own issuer"
        return f"{certificate}: the certificate of {key} is not its first; {cure}"
    return (
        f"{certificate}: OpenSSL can't use it ({reason(error)}); give it as it was issued, or have another one issued"
    )


class _Encrypted(Exception):  # noqa: N818 -- a signal, caught where it is provoked
    pass


def _no_password() -> str:
    raise _Encrypted


def reason(error: OSError) -> str:
    """In words, without the path."""
    return (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or type(error).__name__


Stamp = tuple[tuple[str, int, int, int] | None, ...]


def stamp(files: TlsFiles) -> Stamp:
    """What differs once the files have changed."""
    # The resolved path changes when Kubernetes swaps its `..data` link, the inode with an atomic replacement, time
    # and size with a write in place.
    return tuple(_identity(path) for path in (files.certificate, files.key, files.ca) if path is not None)


def _identity(path: Path) -> tuple[str, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 -- one style for the pair of calls
        return os.path.realpath(path), found.st_ino, found.st_mtime_ns, found.st_size
    except OSError:
        return None
