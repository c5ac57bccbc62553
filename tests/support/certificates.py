"""Certificates for tests of TLS: a good set, and each way in which one can be wrong."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from adapter.twin.certificates import Authority, Certificates, Pair

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Trials:
    """One authority's good set and everything a peer must refuse. `good.ca` signed all but the `unknown` pairs."""

    authority: Authority
    good: Certificates
    expired_server: Pair
    expired_client: Pair
    wrong_host_server: Pair
    unknown_ca: Path
    unknown_server: Pair
    unknown_client: Pair


def trials(folder: Path) -> Trials:
    authority = Authority(folder)
    server = authority.server("server")
    client = authority.client("client")
    stranger = Authority(folder / "unknown", name="unknown-ca")
    return Trials(
        authority=authority,
        good=Certificates(authority.certificate, server.certificate, server.key, client.certificate, client.key),
        expired_server=authority.server("expired-server", valid_for=-HOUR),
        expired_client=authority.client("expired-client", valid_for=-HOUR),
        wrong_host_server=authority.server("wrong-host-server", hosts=("elsewhere.example",)),
        unknown_ca=stranger.certificate,
        unknown_server=stranger.server("unknown-server"),
        unknown_client=stranger.client("unknown-client"),
    )


def keystore(listener: str, pair: Pair) -> dict[str, str]:
    """Properties of a broker that shows this certificate at that listener."""
    return {
        f"listener.name.{listener}.ssl.keystore.type": "PEM",
        f"listener.name.{listener}.ssl.keystore.certificate.chain": one_line(pair.certificate),
        f"listener.name.{listener}.ssl.keystore.key": one_line(pair.key),
    }


def one_line(path: Path) -> str:
    """A PEM file as a property's value."""
    return path.read_text().strip().replace("\n", "\\n")
