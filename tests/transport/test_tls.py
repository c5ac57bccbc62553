"""Certificate files of a client: what is wrong with them is said at the start, and changes count only if good."""

import asyncio
import os
import shutil
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from adapter.core.errors import Stop
from adapter.transport.server_tls import ServerTls
from adapter.transport.tls import ClientTls, LiveTls, NotAfter, TlsFiles, client_context
from adapter.twin.certificates import Authority, Pair
from tests.support.certificates import Trials
from tests.support.wait import eventually, wait_until

DAY = timedelta(days=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority) -> TlsFiles:
    pair = authority.client("client")
    return TlsFiles(pair.certificate, pair.key, authority.certificate)


def test_a_context_verifies_and_speaks_nothing_old(files: TlsFiles) -> None:
    context, _ = client_context(files)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_only_the_authorities_of_the_file_are_trusted(files: TlsFiles) -> None:
    context, _ = client_context(files)
    assert context.cert_store_stats()["x509"] == 1


def test_no_session_keys_are_written_where_the_environment_says(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context, _ = client_context(files)
    assert context.keylog_filename is None


def test_ends_of_validity_are_known(authority: Authority) -> None:
    pair = authority.client("client", valid_for=3 * DAY)
    _, not_after = client_context(TlsFiles(pair.certificate, pair.key, authority.certificate))
    left = {name: end - datetime.now(UTC) for name, end in not_after.items()}
    assert left.keys() == {"certificate", "ca"}
    assert timedelta(hours=71) < left["certificate"] < 3 * DAY
    assert 9 * DAY < left["ca"] < 10 * DAY


def test_the_earliest_end_in_a_chain_counts(authority: Authority, tmp_path: Path) -> None:
    pair = authority.client("client", valid_for=20 * DAY)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(pair.certificate.read_bytes() + authority.certificate.read_bytes())
    _, not_after = client_context(TlsFiles(chain, pair.key, authority.certificate))
    assert not_after["certificate"] == not_after["ca"]


DAYS: Final = {
    "an old one beside its successor": ((("old", -1), ("new", 3650)), 3650),
    "one that was made anew under its name": ((("ours", 3), ("ours", 300), ("ours", -9)), 300),
    "two that are both needed": ((("theirs", 300), ("others", 3)), 3),
    "none that is valid": ((("old", -30), ("new", -2)), -2),
}
"""Names and days left of authorities in one file, and how many count."""


@pytest.mark.parametrize("case", DAYS)
def test_an_authority_counts_until_it_has_ended_beside_another(case: str, tmp_path: Path) -> None:
    authorities, expected = DAYS[case]
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"".join(_authority(name, days) for name, days in authorities))
    _, not_after = client_context(TlsFiles(ca=bundle))
    assert round((not_after["ca"] - datetime.now(UTC)) / DAY) == expected


def test_an_authority_that_ends_while_it_is_in_use_counts_no_more() -> None:
    soon, later = datetime.now(UTC) + timedelta(seconds=1), datetime.now(UTC) + DAY
    not_after = NotAfter({"ca": (soon, later)})
    assert not_after["ca"] == soon
    wait_until(lambda: not_after["ca"] == later)


def _authority(name: str, days: int) -> bytes:
    key, named = Ed25519PrivateKey.generate(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        subject_name=named,
        issuer_name=named,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=datetime.now(UTC) - 100 * DAY,
        not_valid_after=datetime.now(UTC) + days * DAY,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, None).public_bytes(serialization.Encoding.PEM)


def test_without_files_the_system_decides_whom_to_trust() -> None:
    _, not_after = client_context(TlsFiles())
    assert not_after == {}


Break = Callable[[TlsFiles, Trials], TlsFiles]


def _encrypt(files: TlsFiles, _: Trials) -> TlsFiles:
    assert files.key is not None
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return files


def _write(name: str, content: bytes) -> Break:
    def change(files: TlsFiles, _: Trials) -> TlsFiles:
        path: Path = getattr(files, name)
        path.write_bytes(content)
        return files

    return change


_KEY_OF_ANOTHER_KIND = Ed25519PrivateKey.generate().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


def _no_certificate_in_block(files: TlsFiles, _: Trials) -> TlsFiles:
    assert files.certificate is not None
    files.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return files


def _alter(name: str, before: bytes, after: bytes) -> Break:
    def change(files: TlsFiles, _: Trials) -> TlsFiles:
        path: Path = getattr(files, name)
        content = ssl.PEM_cert_to_DER_cert(path.read_text())
        assert before in content
        path.write_text(ssl.DER_cert_to_PEM_cert(content.replace(before, after)))
        return files

    return change


def _behind_its_authority(files: TlsFiles, trials: Trials) -> TlsFiles:
    assert files.certificate is not None
    files.certificate.write_bytes(trials.good.ca.read_bytes() + files.certificate.read_bytes())
    return files


def _indented(files: TlsFiles, _: Trials) -> TlsFiles:
    assert files.certificate is not None
    lines = files.certificate.read_text().splitlines()
    files.certificate.write_text("".join(f"  {line}\n" for line in lines))
    return files


def _der(files: TlsFiles, _: Trials) -> TlsFiles:
    assert files.certificate is not None
    found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    files.certificate.write_bytes(found.public_bytes(serialization.Encoding.DER))
    return files


def _der_key(files: TlsFiles, _: Trials) -> TlsFiles:
    assert files.key is not None
    found = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        found.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


_VERSION_3, _VERSION_5 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x04"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda files, _: replace(files, certificate=Path("/no/such/file")), "/no/such/file: cannot be read"),
        (lambda files, _: replace(files, key=Path("/no/such/file")), "/no/such/file: cannot be read"),
        (lambda files, _: replace(files, ca=Path("/no/such/file")), "/no/such/file: cannot be read"),
        (lambda files, _: replace(files, certificate=Path("/")), "/: cannot be read"),
        (lambda files, _: replace(files, key=None), "go together"),
        (lambda files, trials: replace(files, key=trials.good.client_key), "is not the key of"),
        (_write("key", _KEY_OF_ANOTHER_KIND), "is not the key of"),
        (
            lambda files, trials: replace(
                files, certificate=trials.expired_client.certificate, key=trials.expired_client.key
            ),
            "expired at",
        ),
        (_encrypt, "the key is encrypted"),
        (_write("certificate", b""), "holds no PEM certificate"),
        (_write("certificate", b"\xff\x00binary"), "holds no PEM certificate"),
        (_no_certificate_in_block, "holds no PEM certificate"),
        (_der, r"convert it: openssl x509 -inform DER -in \S+/client\.pem, or openssl pkcs12 -nokeys -in \S+/client"),
        (_der_key, r"convert it: openssl pkey -inform DER -in \S+client\.key, or openssl pkcs12 -nocerts -nodes -in"),
        (_write("key", b"not a key"), "give a PEM private key"),
        (_behind_its_authority, r"client\.pem: the certificate of .*client\.key is not its first; put it first"),
        (_indented, r"client\.pem: OpenSSL can't use it"),
        (_write("ca", b"nothing"), "holds no PEM certificate"),
        (_alter("certificate", _VERSION_3, _VERSION_5), "holds no PEM certificate that can be read"),
        (_alter("ca", _VERSION_3, _VERSION_5), "holds no PEM certificate that can be read"),
        (_alter("ca", b"throw-away", b"throw\xffaway"), "holds no PEM certificate that can be read"),
    ],
)
def test_files_that_cannot_work_stop_the_start_and_say_what_to_do(
    files: TlsFiles, trials: Trials, change: Break, said: str
) -> None:
    with pytest.raises(Stop, match=said):
        ClientTls(change(files, trials))


def test_a_certificate_of_the_future_stops_the_start(authority: Authority) -> None:
    pair = authority.client("client", valid_for=2 * DAY, age=-DAY)
    with pytest.raises(Stop, match="not valid before"):
        ClientTls(TlsFiles(pair.certificate, pair.key, authority.certificate))


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(Stop) as caught:
        ClientTls(TlsFiles(Path("/no/certificate"), Path("/no/key"), Path("/no/ca")))
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["/no/certificate", "/no/key", "/no/ca"]


def _serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def problem(tls: LiveTls) -> str:
    """The one problem of files that have just changed."""
    (found,) = tls.refresh() or ()
    return found


def test_unchanged_files_are_not_read_again(files: TlsFiles) -> None:
    tls = ClientTls(files)
    context = tls.context
    assert tls.refresh() is None
    assert tls.context is context


def test_a_good_new_pair_is_taken_into_use(files: TlsFiles, authority: Authority) -> None:
    tls = ClientTls(files)
    before = tls.context
    authority.client("client", valid_for=5 * DAY)
    assert tls.refresh() == ()
    assert tls.not_after["certificate"] > datetime.now(UTC) + 4 * DAY
    assert tls.context is not before
    assert tls.refresh() is None


def test_a_broken_new_pair_leaves_the_old_one_in_use_and_is_said_once(
    files: TlsFiles, authority: Authority, trials: Trials
) -> None:
    assert files.key is not None
    tls = ClientTls(files)
    before, ends = tls.context, tls.not_after
    shutil.copy(trials.good.client_key, files.key)
    assert "is not the key of" in problem(tls)
    assert (tls.context, tls.not_after) == (before, ends)
    assert tls.refresh() is None
    authority.client("client")
    assert tls.refresh() == ()
    assert tls.context is not before


def test_a_file_that_vanishes_for_a_moment_is_a_problem_and_then_none(files: TlsFiles) -> None:
    assert files.certificate is not None
    tls = ClientTls(files)
    aside = files.certificate.with_suffix(".aside")
    files.certificate.rename(aside)
    assert "cannot be read" in problem(tls)
    aside.rename(files.certificate)
    assert tls.refresh() == ()


Side = type[ClientTls | ServerTls]


@pytest.mark.parametrize("side", [ClientTls, ServerTls])
async def test_a_pair_of_the_future_is_taken_into_use_once_it_is_valid(authority: Authority, side: Side) -> None:
    pair = authority.client("client")
    tls = side(TlsFiles(pair.certificate, pair.key, authority.certificate))
    authority.client("client", valid_for=2 * DAY, age=timedelta(seconds=-3))
    assert "not valid before" in problem(tls)
    await eventually(lambda: tls.refresh() == ())
    assert tls.not_after["certificate"] < datetime.now(UTC) + 2 * DAY
    assert tls.refresh() is None


@pytest.mark.parametrize("side", [ClientTls, ServerTls])
def test_files_that_can_be_used_later_without_another_change_are_taken_into_use(
    files: TlsFiles, trials: Trials, side: Side
) -> None:
    # As after chmod, which would tell nothing here: root may read everything.
    key = files.key
    assert key is not None
    good = key.read_bytes()
    changed = key.stat().st_mtime_ns + 1
    tls = side(files)

    def problems(content: bytes) -> tuple[str, ...] | None:
        assert len(content) == len(good)
        key.write_bytes(content)
        os.utime(key, ns=(changed, changed))
        return tls.refresh()

    no_key = problems(good[::-1])
    assert no_key is not None
    assert "give a PEM private key" in no_key[0]
    assert problems(good[::-1]) is None
    no_pair = problems(trials.good.client_key.read_bytes())
    assert no_pair is not None
    assert "is not the key of" in no_pair[0]
    assert problems(good) == ()
    assert problems(good) is None


@pytest.mark.parametrize("side", [ClientTls, ServerTls])
def test_an_authority_that_another_has_signed_is_trusted_without_that_other(
    authority: Authority, tmp_path: Path, side: Side
) -> None:
    server, client = authority.server("server"), authority.client("client")
    issuing = _signed_by_another(authority, tmp_path / "issuing.pem")
    served = ServerTls(
        TlsFiles(server.certificate, server.key, issuing if side is ServerTls else authority.certificate)
    )
    called = ClientTls(
        TlsFiles(client.certificate, client.key, issuing if side is ClientTls else authority.certificate)
    )
    shake_hands(called.context, served.context)
    called = ClientTls(TlsFiles(ca=authority.certificate))
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(called.context, served.context)


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Raises what either side has against the other."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(back, there, server_hostname="localhost"), server.wrap_bio(there, back, server_side=True)
    for _ in range(5):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()


def _signed_by_another(authority: Authority, path: Path) -> Path:
    ours, key = x509.load_pem_x509_certificate(authority.certificate.read_bytes()), Ed25519PrivateKey.generate()
    builder = x509.CertificateBuilder(
        subject_name=ours.subject,
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]),
        public_key=ours.public_key(),
        serial_number=1,
        not_valid_before=ours.not_valid_before_utc,
        not_valid_after=ours.not_valid_after_utc,
        extensions=list(ours.extensions),
    )
    path.write_bytes(builder.sign(key, None).public_bytes(serialization.Encoding.PEM))
    return path


def test_a_removed_authority_is_trusted_no_more(files: TlsFiles, trials: Trials) -> None:
    assert files.ca is not None
    tls = ClientTls(files)
    shutil.copy(trials.unknown_ca, files.ca)
    assert tls.refresh() is not None
    (trusted,) = tls.context.get_ca_certs()
    assert int(str(trusted["serialNumber"]), 16) == _serial(trials.unknown_ca)


def test_a_swapped_mount_of_a_kubernetes_secret_is_noticed(tmp_path: Path) -> None:
    # A mounted secret is `..data/<file>` behind links, and `..data` is a link that is replaced in one step.
    authority = Authority(tmp_path)

    def release(name: str) -> Pair:
        folder = tmp_path / name
        folder.mkdir()
        pair = authority.client("client")
        for path in (pair.certificate, pair.key):
            shutil.copy2(path, folder / path.name)
        (tmp_path / "..next").symlink_to(folder)
        (tmp_path / "..next").rename(tmp_path / "..data")
        return pair

    pair = release("..1")
    mount = tmp_path / "mount"
    mount.mkdir()
    for path in (pair.certificate, pair.key):
        (mount / path.name).symlink_to(tmp_path / "..data" / path.name)
    tls = ClientTls(TlsFiles(mount / pair.certificate.name, mount / pair.key.name, authority.certificate))
    before = tls.context
    release("..2")
    assert tls.refresh() is not None
    assert tls.context is not before


async def test_a_watch_reports_good_and_bad_changes_and_goes_on(
    files: TlsFiles, authority: Authority, trials: Trials
) -> None:
    assert files.key is not None
    reports: list[Sequence[str]] = []
    tls = ClientTls(files)
    before = tls.context
    watch = asyncio.create_task(tls.watch(reports.append, interval=0.01))
    try:
        shutil.copy(trials.good.client_key, files.key)
        await eventually(lambda: len(reports) == 1)
        assert reports[0]
        # Key and certificate are replaced one after the other, so a look between the two may report once more.
        authority.client("client")
        await eventually(lambda: reports[-1] == ())
        assert tls.context is not before
    finally:
        watch.cancel()
