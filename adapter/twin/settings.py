"""The settings of a twin, and the command line for them."""

import argparse
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from adapter.core.errors import Stop
from adapter.twin import limits
from adapter.twin.dialects import Dialect
from adapter.twin.faults import Fault, from_json
from adapter.twin.life import Rules
from adapter.twin.limits import Limit


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for mutual TLS: our certificate and key, and the CA that must have signed the other side's."""

    certificate: Path
    key: Path
    ca: Path

    def context(self, protocol: int) -> ssl.SSLContext:
        """A context for TLS 1.2 or later, of a server or a client, that demands a certificate of the other side. Raises
        Stop, naming the file that can't be used.
        """
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise Stop(f"certificate {self.certificate} with key {self.key}: {error.strerror}") from error
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            raise Stop(f"CA {self.ca}: {error.strerror}") from error
        return context


@dataclass(frozen=True, slots=True)
class Notify:
    """Where and how the buyer is notified."""

    url: str
    """Notifications for which the contract names a path go to url/notifyAmended or url/notifyInProgress, others to url.
    """

    tls: TlsFiles | None = None
    """Client certificate and key, and the CA of the receiver; None: no certificate is shown."""

    repeats: float = 0.0
    """Probability that a notification is sent once more after it was acknowledged."""

    disorder: float = 0.0
    """Probability that a notification is sent after the next one of its ticket."""

    hold: float = 5.0
    """Seconds that a late one waits for the next one, at most."""

    dialects: frozenset[Dialect] = frozenset()
    dialect_chance: float = 1.0
    """Probability of each dialect in a message."""

    seed: int = 0
    """Seed of all random choices."""

    attempts: int | None = None
    """A notification is given up after so many; None: never."""

    retry: float = 1.0
    """Seconds before the second attempt; doubled each time, 60 at most."""

    log: Path | None = None
    """JSON lines of every notification are appended here."""


@dataclass(frozen=True, slots=True)
class TwinSettings:
    """One twin. The defaults make a plain one on a free port of the loopback address."""

    host: str = "127.0.0.1"
    port: int = 0
    base_path: str = ""
    """In front of every operation's path, as "/prod/api2" at the supplier."""

    tls: TlsFiles | None = None
    control_host: str = "127.0.0.1"
    control_port: int = 0
    """The control address is always plain HTTP and has no protection: keep it on loopback."""

    calls: Path | None = None
    """JSON lines of every request are appended here."""

    faults: tuple[Fault, ...] = ()
    rules: Rules = field(default_factory=Rules)
    notify: Notify | None = None
    buyer: str | None = None
    """Only this buyerIdentifier is served, others get 403."""

    echo_message_id: bool = True
    """In both directions, an answer carries the messageId of the message that it answers. Otherwise the twin's answers
    have ids of their own, and those it gets may have any (the samples show both).
    """

    keep_alive: float = 60.0
    """Seconds after which an idle connection is closed."""

    lean: bool = False
    """Fixed replies without validation, for measurements."""

    latency: float = 0.0
    """Lean only: seconds before each answer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `adapter twin`."""
    default = TwinSettings()
    add = parser.add_argument
    add("--host", default=default.host, help="address to listen on (%(default)s)")
    add("--port", type=int, default=8444, help="port, 0 for a free one (%(default)s)")
    add("--base-path", default="", metavar="PATH", help="prefix of the operations' paths, for example /prod/api2")
    add("--certificate", type=Path, metavar="FILE", help="server certificate (PEM); turns on mutual TLS")
    add("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    add("--ca", type=Path, metavar="FILE", help="CA that must have signed client certificates (PEM)")
    add("--control-host", default=default.control_host, help="address of the control API (%(default)s)")
    add("--control-port", type=int, default=8445, help="port of the control API (%(default)s)")
    add("--calls", type=Path, metavar="FILE", help="append JSON lines about every request to this file")
    add("--faults", type=Path, metavar="FILE", help="read faults on demand from this JSON file")
    add("--fault", action="append", default=[], metavar="JSON", help="one fault on demand; may be repeated")
    add("--speed", type=float, default=1.0, help="how much faster than real time tickets progress (%(default)s)")
    add("--resolve-after", type=float, metavar="SECONDS", help="resolve tickets automatically after this time")
    add("--full-life", action="store_true", help="play the work on tickets: appointments, on hold and back, resolved")
    add("--reserved-keys-only", action="store_true", help="refuse reservation keys that this twin did not issue")
    add("--buyer", metavar="ID", help="serve only this buyerIdentifier")
    add("--own-message-ids", action="store_true", help="answer with new message ids instead of the request's")
    add(
        "--keep-alive",
        type=float,
        default=default.keep_alive,
        metavar="SECONDS",
        help="close idle connections after this time (%(default)s)",
    )
    add("--lean", action="store_true", help="fixed replies, no validation, no state; for measurements")
    add("--latency", type=float, default=0.0, metavar="SECONDS", help="with --lean: time before each answer")
    _add_notify_arguments(parser)


def from_arguments(given: argparse.Namespace) -> TwinSettings:
    """The settings of a parsed command line. Raises Stop with everything that is wrong."""
    problems = list(_beyond_limits(given))
    tls = tls_files(given, "", problems)
    if given.latency and not given.lean:
        problems.append(
            '--latency goes with --lean; else use --fault \'{"kind": "delay", "seconds": 0.1, "times": null}\''
        )
    if given.lean and (given.faults or given.fault or given.calls or given.notify_url):
        problems.append(
            "--lean gives fixed replies and counts in memory: no --faults, --fault, --calls or --notify-url with it"
        )
    notify = _notify(given, problems)
    faults = _faults(given, problems)
    if problems:
        raise Stop(*problems)
    return TwinSettings(
        host=given.host,
        port=given.port,
        base_path=given.base_path.rstrip("/"),
        tls=tls,
        control_host=given.control_host,
        control_port=given.control_port,
        calls=given.calls,
        faults=tuple(faults),
        rules=Rules(
            speed=given.speed,
            resolve_after=timedelta(seconds=given.resolve_after) if given.resolve_after is not None else None,
            full_life=given.full_life,
            reserved_keys_only=given.reserved_keys_only,
        ),
        notify=notify,
        buyer=given.buyer,
        echo_message_id=not given.own_message_ids,
        keep_alive=given.keep_alive,
        lean=given.lean,
        latency=given.latency,
    )


_LIMITS: Final[Mapping[str, Limit]] = {
    "--host": limits.host,
    "--port": limits.PORT,
    "--base-path": limits.path,
    "--control-host": limits.host,
    "--control-port": limits.PORT,
    "--speed": limits.SPEED,
    "--resolve-after": limits.SECONDS,
    "--keep-alive": limits.SECONDS,
    "--latency": limits.SECONDS,
    "--repeats": limits.CHANCE,
    "--disorder": limits.CHANCE,
    "--dialect-chance": limits.CHANCE,
    "--notify-attempts": limits.Within(1, limits.MANY),
    "--notify-retry": limits.PAUSE,
}


def _beyond_limits(given: argparse.Namespace) -> Iterator[str]:
    for option, limit in _LIMITS.items():
        value = getattr(given, option.removeprefix("--").replace("-", "_"))
        if value is not None and (problem := limit(value)):
            yield f"{option}: {problem}"


def _add_notify_arguments(parser: argparse.ArgumentParser) -> None:
    default = Notify(url="")
    group = parser.add_argument_group("notifications")
    add = group.add_argument
    add("--notify-url", metavar="URL", help="send notifications about tickets there")
    add("--notify-certificate", type=Path, metavar="FILE", help="client certificate (PEM) for it")
    add("--notify-key", type=Path, metavar="FILE", help="its private key (PEM)")
    add("--notify-ca", type=Path, metavar="FILE", help="CA that must have signed the receiver's certificate (PEM)")
    add("--notifications", type=Path, metavar="FILE", help="append JSON lines about each notification to this file")
    add("--repeats", type=float, default=default.repeats, metavar="P", help="probability of a repeat (%(default)s)")
    add(
        "--disorder",
        type=float,
        default=default.disorder,
        metavar="P",
        help="probability of being overtaken (%(default)s)",
    )
    add(
        "--dialect",
        action="append",
        default=[],
        choices=["all", *Dialect],
        metavar="NAME",
        help=f"stray from the plain form; may be repeated: all, {', '.join(Dialect)}",
    )
    add(
        "--dialect-chance",
        type=float,
        metavar="P",
        help=f"probability of a dialect in a message ({default.dialect_chance}; with --dialect all {_CHANCE_OF_ALL})",
    )
    add("--seed", type=int, default=default.seed, help="seed of the random choices (%(default)s)")
    add("--notify-attempts", type=int, metavar="N", help="give up on a notification after this many attempts (never)")
    add(
        "--notify-retry",
        type=float,
        default=default.retry,
        metavar="SECONDS",
        help="pause before the first retry (%(default)s)",
    )


_CHANCE_OF_ALL = 0.3


def _notify(given: argparse.Namespace, problems: list[str]) -> Notify | None:
    """The command line's settings of notifications, None without an address. Adds to `problems` what is wrong."""
    tls = tls_files(given, "notify-", problems)
    if given.notify_url is None:
        files = given.notify_certificate or given.notify_key or given.notify_ca
        if files or given.notifications or given.repeats or given.disorder or given.dialect:
            problems.append("--notify-url is needed for the other settings of notifications")
        return None
    problems += [f"--notify-url: {problem}" for problem in address_problems(given.notify_url)]
    everything = "all" in given.dialect
    chance = given.dialect_chance if given.dialect_chance is not None else _CHANCE_OF_ALL if everything else 1.0
    return Notify(
        url=given.notify_url,
        tls=tls,
        repeats=given.repeats,
        disorder=given.disorder,
        dialects=frozenset(Dialect if everything else map(Dialect, given.dialect)),
        dialect_chance=chance,
        seed=given.seed,
        attempts=given.notify_attempts,
        retry=given.notify_retry,
        log=given.notifications,
    )


def tls_files(given: argparse.Namespace, prefix: str, problems: list[str]) -> TlsFiles | None:
    """The files for mutual TLS, if given. Adds to `problems` if only some of the three are."""
    names = [f"{prefix}certificate", f"{prefix}key", f"{prefix}ca"]
    files = [getattr(given, name.replace("-", "_")) for name in names]
    if all(files):
        return TlsFiles(*files)
    if any(files):
        problems.append("--{}, --{} and --{} go together: all three or none".format(*names))
    return None


def address_problems(url: str) -> list[str]:
    """Why a notification can't be posted to that URL; empty if it can."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and not limits.host(parts.hostname or "") and parts.port != 0
    except ValueError:
        good = False
    return [] if good else ["an http or https URL is needed"]


def _faults(given: argparse.Namespace, problems: list[str]) -> list[Fault]:
    """The faults given on the command line. Adds to `problems` what is wrong with them."""
    faults: list[Fault] = []
    texts = [("--fault", text) for text in given.fault]
    if given.faults:
        try:
            texts.append((f"--faults {given.faults}", given.faults.read_text(encoding="utf-8")))
        except OSError as error:
            problems.append(f"--faults {given.faults}: cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            problems.append(f"--faults {given.faults}: is not UTF-8 text")
    for option, text in texts:
        try:
            faults += from_json(limits.from_json(text))
        except Stop as stop:
            problems += [f"{option}: {problem}" for problem in stop.problems]
    return faults
