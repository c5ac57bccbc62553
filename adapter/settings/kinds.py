"""The types of settings: how a text is parsed, and how the type is called in messages and documentation."""

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field


@dataclass(frozen=True, slots=True)
class Kind:
    """How a type is named to people, with an example of what to write: a value of it."""

    name: str
    example: str


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 365_000 * _UNITS["d"]
"""Longest duration in seconds: added to the present, it is still a date that datetime can represent."""
_LARGEST = 2**50
"""Largest size in bytes: more than any machine has, and still exact as a float."""
_SIZES = {
    "": 1,
    "b": 1,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
}


def parse_duration(value: object, *, zero: bool = False) -> timedelta:
    """The timedelta for seconds (`10`, `1.5`) or for a number with ms, s, m, h or d. It must be above zero, unless
    `zero` is given. Raises ValueError.
    """
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", str(value), re.ASCII)
    if match is None:
        raise ValueError("is not a duration")
    seconds = float(match[1]) * _UNITS[match[2] or "s"]
    if seconds <= 0 and not zero:
        raise ValueError("is not a duration above zero")
    if seconds > _LONGEST:
        raise ValueError("is too long a duration")
    return timedelta(seconds=seconds)


def parse_size(value: object) -> int:
    """The bytes for a number (`4194304`), or a number with KiB, MiB, GiB, kB, MB or GB. Raises ValueError."""
    if isinstance(value, int):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value), re.ASCII)
    unit = _SIZES.get(match[2].lower()) if match else None
    if match is None or unit is None or not 1 <= (size := float(match[1]) * unit) <= _LARGEST:
        raise ValueError("is not a size in bytes")
    return int(size)


def _visible(value: str) -> str:
    """A text without characters that one gets by copying and does not see. XML cannot carry all of them, so with one in
    a text of every request every command would be rejected.
    """
    hidden = next((character for character in value if not character.isprintable()), None)
    if hidden is not None:
        raise ValueError(f"holds a character that cannot be seen (U+{ord(hidden):04X})")
    return value


def _web_address(value: str) -> str:
    """An http or https address without user, query or fragment, and without the last slash."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError("is not a web address") from error
    if " " in _visible(value):
        raise ValueError("holds a space")
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError("is not an address that starts with https:// or http:// and a host")
    try:
        parts.hostname.encode("idna")  # what the resolver does with it
    except UnicodeError as error:
        raise ValueError("has a host of which a part is empty or has more than 63 characters") from error
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password: put them into a file, see the credentials setting")
    if parts.query or parts.fragment:
        raise ValueError("must end with its path: no ? and no #")
    return value.rstrip("/")


def _proxy_address(value: str) -> str:
    address = _web_address(value)
    if urlsplit(address).scheme != "http":
        raise ValueError("is not an address that starts with http://: the connection to the proxy itself has no TLS")
    return address


def _file(path: Path) -> Path:
    try:
        return _there(path, S_ISREG, "file")
    except ValueError as error:
        text = str(path)
        if "\n" in text or "\r" in text or len(text) > 255:
            raise ValueError("holds the content: name the file that has it") from error
        raise


def _schemas(path: Path) -> Path:
    _there(path, S_ISDIR, "folder")
    try:
        missing = [f"{name}/" for name in ("avro", "xsd") if not (path / name).is_dir()]
    except PermissionError as error:
        raise ValueError("names a folder that this user may not enter") from error
    if missing:
        raise ValueError(f"names a folder that holds no {' and no '.join(missing)}")
    return path


def _there(path: Path, is_one: Callable[[int], bool], kind: str) -> Path:
    """The path, if it is an existing `kind`. Raises ValueError; without the path, which may be a misplaced secret."""
    try:
        mode = path.stat().st_mode
    except PermissionError as error:
        raise ValueError(f"names a {kind} where this user may not enter the folder") from error
    except (OSError, ValueError) as error:
        said = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "is no path"
        raise ValueError(f"does not name a {kind} ({said})") from error
    if not is_one(mode):
        raise ValueError(f"does not name a {kind}")
    return path


def _header(value: str) -> str:
    """The value of an HTTP header."""
    if not (value.isascii() and value.isprintable()):
        raise ValueError("holds a character that an HTTP header cannot carry")
    return value


def _action(value: str) -> str:
    """A SOAPAction without its quotes (SOAP 1.1 section 6.1.1)."""
    if '"' in value:
        raise ValueError("must not hold quotes: the adapter puts them around it")
    return _header(value)


def _several(value: object) -> object:
    """A comma-separated list, or a JSON array, as a list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError("is not a JSON array") from error
    return _named(value.split(","))


def _named(parts: Iterable[str]) -> list[str]:
    """The parts of a list that are not blank. A list that is set and names nothing is a mistake, perhaps of a template:
    as no list it would admit everybody.
    """
    named = [part.strip() for part in parts if part.strip()]
    if not named:
        raise ValueError("names nothing; unset it if nothing is meant")
    return named


def _subjects(value: object) -> object:
    """A list separated by semicolons, since names have commas in them, or a JSON array, as a list. A semicolon that
    belongs to a name has a backslash before it (RFC 4514), in our log lines too.
    """
    if not isinstance(value, str) or value.lstrip().startswith("["):
        return _several(value)
    return _named(re.findall(r"(?:\\.|[^;])+", value))


def _networks(value: object) -> object:
    """A list of networks in CIDR form (a lone address is a network of one)."""
    parts = _several(value)
    if not isinstance(parts, list):
        return parts
    try:
        return frozenset(ip_network(part) for part in parts)
    except ValueError as error:
        raise ValueError("is not a list of networks such as 192.0.2.0/24 without host bits") from error


def _web_addresses(value: str) -> str:
    return ",".join(_web_address(part.strip()) for part in value.split(","))


_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:;,/\[\]{}\"']+)(:0*(?P<port>[0-9]{1,5}))?")


def _brokers(value: str) -> str:
    """A list of hosts, with or without port, in librdkafka's syntax. It would wait for ever for one that is wrong."""
    named = [part.strip() for part in value.split(",") if part.strip()]
    found = [_BROKER.fullmatch(part) for part in named]
    if not found or not all(each and 1 <= int(each["port"] or 1) <= 65535 for each in found):
        raise ValueError(
            "is not a list of brokers, host:port separated by commas (a protocol before it goes into "
            "ADAPTER_KAFKA__PROPERTIES__SECURITY_PROTOCOL)"
        )
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration), Kind("duration", "500ms, 10s or 2m")]
DurationOrZero = Annotated[
    timedelta, BeforeValidator(partial(parse_duration, zero=True)), Kind("duration", "0s, 10s or 2m")
]
Size = Annotated[int, BeforeValidator(parse_size), Kind("size", "65536 or 4MiB")]
Count = Annotated[int, Field(gt=0), Kind("whole number", "100")]
Rate = Annotated[float, Field(ge=0.001, le=100_000), Kind("number", "20")]
Port = Annotated[int, Field(ge=0, le=65535), Kind("port", "9464")]
Switch = Annotated[bool, Kind("true or false", "true")]
Address = Annotated[str, AfterValidator(_web_address), Kind("web address", "https://host:443/path")]
ProxyAddress = Annotated[str, AfterValidator(_proxy_address), Kind("web address", "http://proxy:3128")]
Brokers = Annotated[str, AfterValidator(_brokers), Kind("text", "kafka-1:9092,kafka-2:9092")]
Addresses = Annotated[str, AfterValidator(_web_addresses), Kind("web addresses", "http://registry:8081")]
File = Annotated[Path, AfterValidator(_file), Kind("file", "/run/secrets/name")]
SchemaFolder = Annotated[Path, AfterValidator(_schemas), Kind("folder", "/opt/schemas")]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249), Kind("topic name", "fault.commands")]
TopicPrefix = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=100), Kind("start of a topic name", "staging.")
]
Text = Annotated[str, Field(pattern=r"\S"), Kind("text", "fault-adapter")]
Identifier = Annotated[
    str,
    Field(pattern=r"\S", max_length=36),
    AfterValidator(_visible),
    Kind("text of at most 36 characters", "SPDEV1"),
]
Codes = Annotated[frozenset[int], BeforeValidator(_several), Kind("list of whole numbers", "200,201,202")]
Zone = Annotated[ZoneInfo, Kind("time zone", "Europe/London")]
Texts = Annotated[dict[str, str], Kind("JSON object", '{"name": "value"}')]
Actions = Annotated[
    dict[str, Annotated[str, AfterValidator(_action)]], Kind("JSON object", '{"AddFaultReport": "urn:add"}')
]
Header = Annotated[str, Field(pattern=r"\S"), AfterValidator(_header), Kind("text", "application/xml; charset=utf-8")]
Files = Annotated[dict[str, File], Kind("JSON object", '{"sasl.password": "/run/secrets/kafka-password"}')]
Durations = Annotated[dict[str, Duration], Kind("JSON object", '{"AddFaultReport": "24h"}')]
Subjects = Annotated[
    frozenset[str], BeforeValidator(_subjects), Kind("list separated by ;", "CN=gateway,O=Supplier; gateway.example")
]
Names = Annotated[frozenset[str], BeforeValidator(_several), Kind("list", "SPDEV1,SPDEV2")]
Networks = Annotated[
    frozenset[IPv4Network | IPv6Network],
    BeforeValidator(_networks),
    Kind("list of networks", "192.0.2.0/24,2001:db8::/32"),
]
NewFile = Annotated[Path, Kind("path", "/var/lib/adapter/spool.db")]
NewFolder = Annotated[Path, Kind("folder", "/var/lib/adapter/tickets")]
