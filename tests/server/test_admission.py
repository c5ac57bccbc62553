"""Who may call: certificates by any of their names, networks, and proxies whose word is taken."""

import base64
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address, ip_network
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from adapter.core.errors import Stop
from adapter.ports import Caller, Head, Peer
from adapter.server.admission import Admission, Refused, allowed

NAME = "CN=gateway,OU=Network Operations,O=Supplier Ltd,C=GB"
URI = "spiffe://supplier.example/gateway"


def made(subject: str = NAME, *, odd: bytes | None = None) -> x509.Certificate:
    """`odd` is the value of its list of alternative names (DER)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string(subject)
    now = datetime.now(UTC)
    alternatives = [
        x509.DNSName("gw.supplier.example"),
        x509.UniformResourceIdentifier(URI),
        x509.RFC822Name("noc@supplier.example"),
        x509.IPAddress(ip_address("192.0.2.10")),
    ]
    names: x509.ExtensionType = x509.SubjectAlternativeName(alternatives)
    if odd is not None:
        names = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, odd)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )


CERTIFICATE = made()
DER = CERTIFICATE.public_bytes(Encoding.DER)
PEM = CERTIFICATE.public_bytes(Encoding.PEM).decode()
RFC_9440 = f":{base64.b64encode(DER).decode()}:"


def judged(
    *,
    subjects: str = "",
    networks: str = "",
    proxies: str = "",
    address: str = "192.0.2.7",
    certificate: bytes | None = DER,
    **headers: str,
) -> Caller | Refused:
    admission = Admission(
        subjects=allowed(filter(None, subjects.split(";"))),
        networks=frozenset(map(ip_network, networks.split())),
        proxies=frozenset(map(ip_network, proxies.split())),
        certificate_header="client-cert",
        address_header="x-forwarded-for",
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return admission.judge(Peer(address, certificate), Head("POST", "/", named))


def reason(verdict: Caller | Refused) -> str:
    return verdict.reason if isinstance(verdict, Refused) else "admitted"


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(bytes.fromhex("3009a507a1050c03616263"), id="ediPartyName"),
        pytest.param(bytes.fromhex("3004a3023000"), id="x400Address"),
    ],
)
def test_a_certificate_with_a_name_of_a_kind_that_nobody_uses_is_known_by_its_subject(odd: bytes) -> None:
    certificate = made(odd=odd).public_bytes(Encoding.DER)
    assert reason(judged(subjects=NAME, certificate=certificate)) == "admitted"
    assert reason(judged(certificate=certificate)) == "admitted"
    assert reason(judged(subjects="CN=other", certificate=certificate)) == "subject"


def test_a_certificate_of_a_version_that_does_not_exist_is_none() -> None:
    certificate = DER.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020103"), 1)
    assert reason(judged(certificate=certificate)) == "certificate"
    header = "-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(certificate).decode() + "-----END CERTIFICATE-----\n"
    for passed in (quote(header), f":{base64.b64encode(certificate).decode()}:"):
        assert reason(judged(proxies="192.0.2.7/32", client_cert=passed)) == "certificate"


@pytest.mark.parametrize(
    "listed",
    [
        NAME,
        "C=GB,O=Supplier Ltd,OU=Network Operations,CN=gateway",  # as openssl prints it
        "C = GB, O = Supplier Ltd, OU = Network Operations, CN = gateway",  # as it printed it before 3.2
        "CN=GATEWAY, OU=network operations, O=Supplier Ltd, C=gb",
        "gw.supplier.example",
        "GW.Supplier.Example",
        URI,
        "noc@supplier.example",
        "192.0.2.10",
        f"CN=somebody else;{NAME}",
    ],
)
def test_a_certificate_is_let_in_by_any_of_its_names(listed: str) -> None:
    assert reason(judged(subjects=listed)) == "admitted"


@pytest.mark.parametrize(
    ("subject", "spaced"),
    [
        (r"CN=gateway,O=Supplier\, Ltd,C=GB", r"CN=gateway, O=Supplier\, Ltd, C=GB"),
        (r"CN=gateway\\,O=Supplier,C=GB", r"CN=gateway\\, O=Supplier, C=GB"),
        (r"CN=\ gateway\ ,C=GB", r"CN=\ gateway\ , C=GB"),
        (
            f"CN=gateway,OU={'a' * 64},OU={'b' * 64},O={'c' * 64}",
            f"CN=gateway, OU={'a' * 64}, OU={'b' * 64}, O={'c' * 64}",
        ),
        ("1.2.840.113549.1.9.1=noc@supplier.example,C=GB", "1.2.840.113549.1.9.1=noc@supplier.example, C=GB"),
    ],
)
def test_a_subject_is_let_in_as_the_log_shows_it_also_with_spaces_between_its_parts(subject: str, spaced: str) -> None:
    certificate = made(subject).public_bytes(Encoding.DER)
    refused = judged(subjects="CN=other", certificate=certificate)
    assert isinstance(refused, Refused)
    assert refused.caller.subject == subject
    for listed in (subject, spaced):
        assert reason(judged(subjects=listed, certificate=certificate)) == "admitted"


@pytest.mark.parametrize(
    "listed", ["CN=gateway", "gateway", "supplier.example", "*.supplier.example", "O=Supplier Ltd", URI.upper()]
)
def test_part_of_a_name_is_not_the_name(listed: str) -> None:
    verdict = judged(subjects=listed)
    assert reason(verdict) == "subject"
    assert isinstance(verdict, Refused)
    assert verdict.caller.subject == NAME  # for the log


def test_what_only_openssl_has_a_word_for_may_be_called_by_it() -> None:
    certificate = made("1.2.840.113549.1.9.1=noc@supplier.example,CN=gateway,2.5.4.5=7").public_bytes(Encoding.DER)
    for listed in (
        "emailAddress=noc@supplier.example,CN=gateway,serialNumber=7",
        "serialNumber = 7, CN = gateway, emailAddress = noc@supplier.example",
    ):
        assert reason(judged(subjects=listed, certificate=certificate)) == "admitted"


@pytest.mark.parametrize(
    "written",
    [
        'C = GB, O = "Supplier, Ltd", CN = gateway',  # as openssl prints it
        "/C=GB/O=Supplier Ltd/CN=gateway",  # as it did long ago
        "subject=C=GB, CN=gateway",
        '"CN=gateway,C=GB"',  # in a file of variables whose quotes count
        "cn=gateway",
        "E=noc@supplier.example, CN=gateway",  # as Windows prints it
        "CN=gateway,",
    ],
)
def test_a_distinguished_name_that_no_certificate_would_match_is_told(written: str) -> None:
    with pytest.raises(Stop) as stop:
        allowed([written, NAME, URI, "gw.supplier.example"])
    (problem,) = stop.value.problems
    assert problem.startswith(f"ADAPTER_SERVER__ALLOWED_SUBJECTS: {written} is no distinguished name")


def test_a_name_of_another_kind_may_have_an_equals_sign() -> None:
    assert allowed(["https://supplier.example/?gateway=1"]) == {"https://supplier.example/?gateway=1"}


def test_with_a_list_of_subjects_there_must_be_a_certificate() -> None:
    assert reason(judged(subjects=NAME, certificate=None)) == "certificate"
    assert reason(judged(certificate=None)) == "admitted"


@pytest.mark.parametrize(
    ("networks", "address", "expected"),
    [
        ("192.0.2.0/24", "192.0.2.7", "admitted"),
        ("192.0.2.0/24", "192.0.3.7", "network"),
        ("192.0.2.0/24", "::ffff:192.0.2.7", "admitted"),  # as a socket for both kinds shows it
        ("2001:db8::/32", "2001:db8:1::7", "admitted"),
        ("2001:db8::/32", "2001:db9::7", "network"),
        ("fe80::/10", "fe80::1%eth0", "admitted"),
        ("198.51.100.0/24 2001:db8::/32 192.0.2.7/32", "192.0.2.7", "admitted"),
        ("192.0.2.0/24", "/run/socket", "network"),
    ],
)
def test_networks_of_both_kinds(networks: str, address: str, expected: str) -> None:
    assert reason(judged(networks=networks, address=address)) == expected


def test_network_and_subject_must_both_be_right() -> None:
    assert reason(judged(networks="198.51.100.0/24", subjects=NAME)) == "network"
    assert reason(judged(networks="192.0.2.0/24", subjects="CN=somebody else")) == "subject"


@pytest.mark.parametrize("header", [RFC_9440, quote(PEM), PEM.replace("\n", "%0A")])
def test_the_word_of_a_trusted_proxy_is_taken_for_certificate_and_address(header: str) -> None:
    verdict = judged(
        subjects=NAME,
        networks="203.0.113.0/24",
        proxies="192.0.2.0/24",
        certificate=None,
        client_cert=header,
        x_forwarded_for="203.0.113.9",
    )
    assert verdict == Caller("203.0.113.9", NAME)


def test_the_same_headers_from_anybody_else_mean_nothing() -> None:
    claimed = partial(judged, client_cert=RFC_9440, x_forwarded_for="203.0.113.9")
    assert reason(claimed(subjects=NAME, certificate=None)) == "certificate"
    assert reason(claimed(networks="203.0.113.0/24")) == "network"
    assert claimed() == Caller("192.0.2.7", NAME)


def test_the_proxys_own_certificate_does_not_stand_for_its_callers() -> None:
    assert reason(judged(subjects=NAME, proxies="192.0.2.0/24")) == "certificate"


@pytest.mark.parametrize(
    ("chain", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the first one may be made up
        ("203.0.113.9, 192.0.2.8", "203.0.113.9"),  # through two proxies of ours
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::9]:4711", "2001:db8::9"),
        ("2001:db8::9", "2001:db8::9"),
        ("192.0.2.8", "192.0.2.7"),  # nothing but proxies: the one that is connected
    ],
)
def test_the_address_is_the_last_one_that_is_no_proxy_of_ours(chain: str, address: str) -> None:
    verdict = judged(proxies="192.0.2.0/24", certificate=None, x_forwarded_for=chain)
    assert isinstance(verdict, Caller)
    assert verdict.address == address


def test_an_address_that_is_none_is_in_no_network() -> None:
    verdict = judged(networks="203.0.113.0/24", proxies="192.0.2.0/24", x_forwarded_for="unknown")
    assert reason(verdict) == "network"


@pytest.mark.parametrize(
    "header",
    [
        ":not base64:",
        ":AAAA:",
        "::",
        "-----BEGIN CERTIFICATE-----",
        quote(PEM.replace("M", "N")),
        "x" * 20_000,
        RFC_9440 + ", " + RFC_9440,
        quote(PEM) + "," + quote(PEM),  # the caller's own word, and behind it that of a proxy that adds instead of sets
        quote(PEM) + ", " + quote(made("CN=another").public_bytes(Encoding.PEM).decode()),
    ],
)
def test_a_proxys_certificate_that_is_none_is_refused_as_one(header: str) -> None:
    assert reason(judged(subjects=NAME, proxies="192.0.2.0/24", client_cert=header)) == "certificate"


@given(st.text(st.characters(codec="latin-1"), max_size=300), st.text(st.characters(codec="latin-1"), max_size=100))
def test_whatever_a_proxy_passes_on_nobody_gets_in_by_it(certificate: str, address: str) -> None:
    verdict = judged(
        subjects=NAME, proxies="192.0.2.0/24", client_cert=certificate, x_forwarded_for=address, certificate=None
    )
    assert isinstance(verdict, Refused)
