"""The throw-away certificates satisfy a strict peer, and the bad ones are bad in the way they say."""

import ssl
import stat
from pathlib import Path

import pytest

from adapter.twin.certificates import Authority, Pair, make
from tests.support.certificates import Trials


def shake_hands(*, server: Pair, client: Pair, authority: Path, host: str = "localhost") -> ssl.SSLObject:
    """The client's side after a mutual handshake in memory, each side trusting `authority` alone."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.verify_mode = ssl.CERT_REQUIRED
    for context, pair in ((ours, client), (theirs, server)):
        context.load_verify_locations(authority)
        context.load_cert_chain(pair.certificate, pair.key)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        ours.wrap_bio(to_client, to_server, server_hostname=host),
        theirs.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(6):  # flights of messages, more than a handshake has
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return sides[0]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_made_set_is_enough_for_mutual_tls(tmp_path: Path, host: str) -> None:
    made = make(tmp_path, client="SPDEV1")
    side = shake_hands(
        server=Pair(made.server_certificate, made.server_key),
        client=Pair(made.client_certificate, made.client_key),
        authority=made.ca,
        host=host,
    )
    assert side.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("server", "client", "problem"),
    [
        ("expired_server", None, "certificate has expired"),
        ("wrong_host_server", None, "Hostname mismatch"),
        ("unknown_server", None, "unable to get local issuer certificate"),
        (None, "expired_client", "certificate has expired"),
        (None, "unknown_client", "unable to get local issuer certificate"),
    ],
)
def test_a_bad_certificate_is_refused_for_what_it_is(
    trials: Trials, server: str | None, client: str | None, problem: str
) -> None:
    good = trials.good
    with pytest.raises(ssl.SSLCertVerificationError, match=problem):
        shake_hands(
            server=getattr(trials, server) if server else Pair(good.server_certificate, good.server_key),
            client=getattr(trials, client) if client else Pair(good.client_certificate, good.client_key),
            authority=good.ca,
        )


def test_a_servers_certificate_is_none_for_a_client(trials: Trials) -> None:
    server = Pair(trials.good.server_certificate, trials.good.server_key)
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        shake_hands(server=server, client=server, authority=trials.good.ca)


def test_issuing_a_name_again_replaces_its_files_with_another_pair(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first = authority.server("server")
    before = (first.certificate.read_bytes(), first.key.read_bytes())
    second = authority.server("server")
    assert second == first
    assert (second.certificate.read_bytes(), second.key.read_bytes()) != before
    shake_hands(server=second, client=authority.client("client"), authority=authority.certificate)


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    made = make(tmp_path)
    for key in (made.server_key, made.client_key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
