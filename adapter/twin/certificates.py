"""Throw-away certificates for the demo, the tests and a trial of mutual TLS on one machine: an authority, a server's
and a client's certificate as PEM files. Keys are P-256, extensions are complete enough for strict verification
(RFC 5280 sections 4.2.1.1 to 4.2.1.12), nothing here is meant to protect anything.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_AGE = timedelta(minutes=5)
"""How long before its issue the validity of a certificate begins."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of one set. `ca` signed both certificates."""

    ca: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path


@dataclass(frozen=True, slots=True)
class Pair:
    certificate: Path
    key: Path


def make(folder: Path, *, client: str = "buyer") -> Certificates:
    """A whole set in `folder`, valid for a day: the server answers for LOOPBACK, the client is called `client`."""
    authority = Authority(folder, valid_for=DAY)
    server, user = authority.server("server"), authority.client("client", subject=client)
    return Certificates(authority.certificate, server.certificate, server.key, user.certificate, user.key)


class Authority:
    """A certificate authority whose key lives in memory only. Issuing the same name again replaces its files, each
    in one step, as a rotation does.
    """

    def __init__(self, folder: Path, *, name: str = "ca", valid_for: timedelta = 10 * DAY) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"throw-away {name}")])
        self.certificate = folder / f"{name}.pem"
        now = datetime.now(UTC)
        usage = _key_usage(signs_certificates=True)
        ours = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        built = (
            _builder(self._name, self._name, self._key, starts=now - 2 * DAY, ends=now + valid_for)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(ours, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        _write(self.certificate, built.public_bytes(serialization.Encoding.PEM))

    def server(self, file: str, *, hosts: tuple[str, ...] = LOOPBACK, valid_for: timedelta = DAY) -> Pair:
        """A server's certificate for these names and addresses as `file`.pem and `file`.key. It ends after `valid_for`
        from now; a negative one makes it expired.
        """
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        return self._issue(file, hosts[0], ExtendedKeyUsageOID.SERVER_AUTH, names=names, valid_for=valid_for)

    def client(
        self,
        file: str,
        *,
        subject: str = "buyer",
        valid_for: timedelta = DAY,
        age: timedelta = _AGE,
    ) -> Pair:
        """A client's certificate for this common name, valid since `age` ago; the rest as for a server's."""
        return self._issue(file, subject, ExtendedKeyUsageOID.CLIENT_AUTH, names=None, valid_for=valid_for, age=age)

    def _issue(
        self,
        file: str,
        subject: str,
        purpose: x509.ObjectIdentifier,
        *,
        names: x509.SubjectAlternativeName | None,
        valid_for: timedelta,
        age: timedelta = _AGE,
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        now = datetime.now(UTC)
        ours = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        theirs = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        ends = now + valid_for
        builder = (
            _builder(name, self._name, key, starts=min(now - age, ends - age), ends=ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(ours, critical=False)
            .add_extension(theirs, critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        pair = Pair(self._folder / f"{file}.pem", self._folder / f"{file}.key")
        _write(
            pair.key,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        _write(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return pair


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    starts: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts)
        .not_valid_after(ends)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes) -> None:
    # A reader must never see half a file, and a key is for its owner alone.
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    fresh.replace(path)
