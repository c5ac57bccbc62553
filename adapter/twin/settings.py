"""What can be chosen about a twin, and the command line for it."""

import argparse
import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from adapter.core.errors import Stop
from adapter.twin.faults import Fault, from_json


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a mutual TLS server: its certificate and key, and the CA that client certificates must have."""

    certificate: Path
    key: Path
    ca: Path


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
    speed: float = 1.0
    """How much faster than the supplier tickets move on."""

    resolve_after: timedelta | None = None
    """Tickets in progress become Resolved by themselves after this time (divided by `speed`)."""

    reserved_keys_only: bool = False
    """Refuse a reservation key that this twin did not give out."""

    buyer: str | None = None
    """Only this buyerIdentifier is served, others get 403."""

    echo_message_id: bool = True
    """Answers carry the request's messageId; else one of the twin's own (the samples show both)."""

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
    add("--base-path", default="", metavar="PATH", help="in front of the operations' paths, e.g. /prod/api2")
    add("--certificate", type=Path, metavar="FILE", help="server certificate (PEM); turns on mutual TLS")
    add("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    add("--ca", type=Path, metavar="FILE", help="CA that client certificates must come from (PEM)")
    add("--control-host", default=default.control_host, help="address of the control API (%(default)s)")
    add("--control-port", type=int, default=8445, help="port of the control API (%(default)s)")
    add("--calls", type=Path, metavar="FILE", help="append a JSON line for every request")
    add("--faults", type=Path, metavar="FILE", help="faults on demand from a JSON file")
    add("--fault", action="append", default=[], metavar="JSON", help="one fault on demand; may be repeated")
    add("--speed", type=float, default=1.0, help="how much faster than life tickets move on (%(default)s)")
    add("--resolve-after", type=float, metavar="SECONDS", help="resolve tickets by themselves after this time")
    add("--reserved-keys-only", action="store_true", help="refuse reservation keys not given out here")
    add("--buyer", metavar="ID", help="serve only this buyerIdentifier")
    add("--own-message-ids", action="store_true", help="answer with own message ids instead of the request's")
    add("--keep-alive", type=float, default=default.keep_alive, metavar="SECONDS", help="idle limit (%(default)s)")
    add("--lean", action="store_true", help="fixed replies, no validation, no state: for measurements")
    add("--latency", type=float, default=0.0, metavar="SECONDS", help="with --lean: time before each answer")


def from_arguments(given: argparse.Namespace) -> TwinSettings:
    """The settings of a parsed command line. Raises Stop with everything that is wrong."""
    problems: list[str] = []
    tls = (given.certificate, given.key, given.ca)
    if any(tls) and not all(tls):
        problems.append("--certificate, --key and --ca go together: all three or none")
    if given.latency and not given.lean:
        problems.append(
            '--latency goes with --lean; else use --fault \'{"kind": "delay", "seconds": 0.1, "times": null}\''
        )
    if given.lean and (given.faults or given.fault or given.calls):
        problems.append("--lean gives fixed replies and counts in memory: no --faults, --fault or --calls with it")
    if given.speed <= 0:
        problems.append("--speed: above 0")
    faults = _faults(given, problems)
    if problems:
        raise Stop(*problems)
    return TwinSettings(
        host=given.host,
        port=given.port,
        base_path=given.base_path.rstrip("/"),
        tls=TlsFiles(*tls) if all(tls) else None,
        control_host=given.control_host,
        control_port=given.control_port,
        calls=given.calls,
        faults=tuple(faults),
        speed=given.speed,
        resolve_after=timedelta(seconds=given.resolve_after) if given.resolve_after is not None else None,
        reserved_keys_only=given.reserved_keys_only,
        buyer=given.buyer,
        echo_message_id=not given.own_message_ids,
        keep_alive=given.keep_alive,
        lean=given.lean,
        latency=given.latency,
    )


def _faults(given: argparse.Namespace, problems: list[str]) -> list[Fault]:
    """The faults of the command line; what is wrong with them goes to `problems`."""
    faults: list[Fault] = []
    texts = [("--fault", text) for text in given.fault]
    if given.faults:
        try:
            texts.append((f"--faults {given.faults}", given.faults.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"--faults {given.faults}: cannot be read: {error}")
    for option, text in texts:
        try:
            faults += from_json(json.loads(text))
        except json.JSONDecodeError as error:
            problems.append(f"{option}: not JSON: {error}")
        except Stop as stop:
            problems += [f"{option}: {problem}" for problem in stop.problems]
    return faults
