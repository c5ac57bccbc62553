"""Every setting of the product: one frozen tree, read from environment variables and mounted files.

A variable's name is its place in the tree: `ADAPTER_`, then the sections and the field in capitals, joined with `__`.
An empty variable counts as not set. Secrets are never variables: a setting names the file that holds one. `load` is
the only door to the environment; it finds all faults before it raises one `Stop`. `describe` is the single source of
`adapter settings` and of docs/settings.md.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    DirectoryPath,
    Field,
    FilePath,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from adapter.core.errors import Stop
from adapter.core.operation import Mode

PREFIX = "ADAPTER_"


class GroupProtocol(StrEnum):
    """How the members of the worker's consumer group share the partitions."""

    CLASSIC = "classic"
    """Cooperative-sticky, any broker."""

    CONSUMER = "consumer"
    """KIP-848, Kafka 4.0 and later."""


class SubjectStrategy(StrEnum):
    """Under which subject a registry keeps the schema of a record."""

    TOPIC_RECORD = "topic_record"
    RECORD = "record"
    TOPIC = "topic"


class UnknownFields(StrEnum):
    """What becomes of a command with a value in a field this release does not know."""

    REJECT = "reject"
    IGNORE = "ignore"


class Environment(StrEnum):
    """The supplier's published environments (contract, section 5)."""

    PRODUCTION = "production"
    CFSTAGING = "cfstaging"
    CFSIT = "cfsit"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as people read it."""

    variable: str
    type: str
    default: str | None
    """None: it has to be set."""

    meaning: str


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
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


def parse_duration(value: object) -> object:
    """Seconds (`10`, `1.5`) or a number with ms, s, m, h or d as a timedelta. ValueError if not positive or not one."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", str(value), re.ASCII)
    if match is None or (seconds := float(match[1]) * _UNITS[match[2] or "s"]) <= 0:
        raise ValueError("is not a duration")
    try:
        return timedelta(seconds=seconds)
    except OverflowError as error:
        raise ValueError("is too long a duration") from error


def parse_size(value: object) -> object:
    """Bytes (`4194304`) or a number with KiB, MiB, GiB, kB, MB or GB as int. ValueError if not positive or not one."""
    if isinstance(value, int):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value), re.ASCII)
    unit = _SIZES.get(match[2].lower()) if match else None
    if match is None or unit is None or (size := int(float(match[1]) * unit)) <= 0:
        raise ValueError("is not a size in bytes")
    return size


def _web_address(value: str) -> str:
    """An http or https address without user, query or fragment, and without the last slash."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError("is not a web address") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError("is not an address that starts with https:// or http:// and a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "must not hold a user or password: put them into a file, see the credentials setting"
        )
    if parts.query or parts.fragment:
        raise ValueError("must end with its path: no ? and no #")
    return value.rstrip("/")


def _several(value: object) -> object:
    """A comma-separated list, or a JSON array, as a list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError("is not a JSON array") from error
    return [part.strip() for part in value.split(",") if part.strip()]


def _web_addresses(value: str) -> str:
    return ",".join(_web_address(part.strip()) for part in value.split(","))


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a type is named to people, with an example of what to write."""

    name: str
    example: str


Duration = Annotated[timedelta, BeforeValidator(parse_duration), _Kind("duration", "500ms, 10s or 2m")]
Size = Annotated[int, BeforeValidator(parse_size), _Kind("size", "65536 or 4MiB")]
Count = Annotated[int, Field(gt=0), _Kind("whole number", "100")]
Port = Annotated[int, Field(ge=0, le=65535), _Kind("port", "9464")]
Switch = Annotated[bool, _Kind("true or false", "true")]
Address = Annotated[str, AfterValidator(_web_address), _Kind("web address", "https://host:443/path")]
Addresses = Annotated[str, AfterValidator(_web_addresses), _Kind("web addresses", "http://registry:8081")]
File = Annotated[FilePath, _Kind("file", "/run/secrets/name")]
Folder = Annotated[DirectoryPath, _Kind("folder", "/opt/schemas")]
TopicName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249), _Kind("topic name", "fault.commands")
]
TopicPrefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=100), _Kind("text", "staging.")]
Text = Annotated[str, Field(pattern=r"\S"), _Kind("text", "fault-adapter")]
Identifier = Annotated[
    str, Field(pattern=r"\S", max_length=36), _Kind("text of at most 36 characters", "SPDEV1")
]
Codes = Annotated[frozenset[int], BeforeValidator(_several), _Kind("list of whole numbers", "200,201,202")]
Zone = Annotated[ZoneInfo, _Kind("time zone", "Europe/London")]
Texts = Annotated[dict[str, str], _Kind("JSON object", '{"name": "value"}')]
Files = Annotated[dict[str, File], _Kind("JSON object", '{"sasl.password": "/run/secrets/kafka-password"}')]
Durations = Annotated[dict[str, Duration], _Kind("JSON object", '{"AddFaultReport": "24h"}')]


class Section(BaseModel):
    """A branch of the tree."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(Section):
    """The cluster and how the worker joins it."""

    bootstrap_servers: Text = Field(
        description="Brokers to find the cluster by, host:port separated by commas.",
        examples=["kafka-1:9092,kafka-2:9092"],
    )
    properties: Texts = Field(
        default={},
        description="Further librdkafka properties for every client, as a JSON object or one variable each: "
        "ADAPTER_KAFKA__PROPERTIES__SECURITY_PROTOCOL=SASL_SSL is security.protocol.",
    )
    properties_files: Files = Field(
        default={},
        description="librdkafka properties whose values are secrets, each with the file that holds the value: "
        "ADAPTER_KAFKA__PROPERTIES_FILES__SASL_PASSWORD=/run/secrets/kafka-password.",
    )
    group_id: Text = Field(default="fault-adapter-worker", description="Consumer group of the workers.")
    group_protocol: GroupProtocol = Field(
        default=GroupProtocol.CLASSIC,
        description="How workers share partitions: classic (cooperative-sticky) or consumer (KIP-848, Kafka 4).",
    )
    session_timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="A worker silent for so long loses its partitions to the others (group protocol classic; with "
        "consumer the broker decides).",
    )
    transaction_timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="A transaction left open by a dead worker hides newer records from readers for so long.",
    )
    transactional_id_prefix: Text = Field(
        default="fault-adapter",
        description="Start of the transactional ids; access rules for transactional ids name this prefix.",
    )

    def client(self) -> dict[str, str]:
        """librdkafka properties every client of this cluster has, secrets read from their files. Stop if one can't be."""
        secrets: dict[str, str] = {}
        faults: list[str] = []
        for name, path in self.properties_files.items():
            try:
                secrets[name] = path.read_text(encoding="utf-8").strip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                faults.append(
                    f"{PREFIX}KAFKA__PROPERTIES_FILES: {name}: can't read its file ({type(error).__name__})"
                )
        if faults:
            raise Stop(*faults)
        return {**self.properties, **secrets, "bootstrap.servers": self.bootstrap_servers}


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The topics' whole names, prefix included."""

    commands: str
    events: str
    tickets: str
    dead_letters: str
    quarantine: str
    journal: str


class Retention(Section):
    """How long the topics keep records, where the adapter creates them."""

    commands: Duration = Field(default=timedelta(days=7), description="Retention of the commands topic.")
    events: Duration = Field(default=timedelta(days=365), description="Retention of the events topic.")
    dead_letters: Duration = Field(default=timedelta(days=90), description="Retention of the dead letters.")
    quarantine: Duration = Field(default=timedelta(days=90), description="Retention of the quarantine topic.")
    journal: Duration = Field(
        default=timedelta(days=15),
        description="Retention of the send journal; at least twice that of the commands.",
    )


class Topics(Section):
    """Topics of the bus; design of the estate's contract: commands, events, tickets and journal share one key."""

    prefix: TopicPrefix = Field(default="", description="Put before every topic name below.")
    commands: TopicName = Field(default="fault.commands", description="Commands of the estate.")
    events: TopicName = Field(default="fault.events", description="Outcomes and notifications.")
    tickets: TopicName = Field(default="fault.tickets", description="Current state of each ticket.")
    dead_letters: TopicName = Field(
        default="fault.dead-letters", description="Records that can never become a command, raw."
    )
    quarantine: TopicName = Field(
        default="fault.quarantine", description="Bodies from the supplier that are not a notification, raw."
    )
    journal: TopicName = Field(default="fault.journal", description="The workers' own send journal.")
    partitions: Count = Field(
        default=8, description="Partitions of commands, events, tickets and journal: the same for the four."
    )
    replication_factor: Count = Field(
        default=3,
        description="Copies of each partition where the adapter creates topics; one fewer must be in sync to write.",
    )
    max_message_bytes: Size = Field(
        default=4 * 1024**2,
        description="Largest record the adapter writes; the commands topic takes half of it, so that every command "
        "also fits the dead letters.",
    )
    retention: Retention = Retention()

    def names(self) -> TopicNames:
        return TopicNames(
            **{name: self.prefix + getattr(self, name) for name in TopicNames.__dataclass_fields__}
        )


class Registry(Section):
    """The schema registry (Confluent HTTP API)."""

    url: Addresses = Field(
        description="Address of the registry, several separated by commas.", examples=["http://registry:8081"]
    )
    credentials: File | None = Field(
        default=None,
        description="File with user:password for basic authentication, or a bearer token alone (one line, no colon).",
    )
    ca: File | None = Field(
        default=None, description="PEM file of the authority that signed its certificate."
    )
    timeout: Duration = Field(default=timedelta(seconds=10), description="Time limit of one request.")
    subject_strategy: SubjectStrategy = Field(
        default=SubjectStrategy.TOPIC_RECORD,
        description="Subject of a schema: topic_record (fault.commands-fault.command.AddFaultReport), record or topic.",
    )
    unknown_fields: UnknownFields = Field(
        default=UnknownFields.REJECT,
        description="A command with a value in a field this release does not know: reject it, or ignore the field.",
    )


class Tls(Section):
    """Mutual TLS towards the supplier; files are read again when they change."""

    certificate: File | None = Field(default=None, description="PEM file of our certificate with its chain.")
    key: File | None = Field(default=None, description="PEM file of the certificate's private key.")
    ca: File | None = Field(
        default=None, description="PEM file of the authorities we trust; without it the system's."
    )


class Proxy(Section):
    """An HTTP CONNECT proxy to leave by; the supplier allow-lists source addresses."""

    url: Address | None = Field(default=None, description="Address of the proxy; without it none is used.")
    credentials: File | None = Field(
        default=None, description="File with user:password for the proxy (one line)."
    )


class Supplier(Section):
    """The supplier's API: where it is, who we are there, and how it is called."""

    base_url: Address | None = Field(
        default=None, description="Where its operations are; this or the environment, not both."
    )
    environment: Environment | None = Field(
        default=None, description="A published environment of the supplier; this or the base URL, not both."
    )
    buyer_identifier: Identifier = Field(
        description="Who we are: buyerIdentifier of every request.", examples=["SPDEV1"]
    )
    api_version: Identifier = Field(default="1.0", description="apiVersion of every request.")
    seller_identifier: Identifier = Field(
        default="CITYFIBRE", description="seller.sellerIdentifier of the appointment requests."
    )
    reseller_id: Identifier | None = Field(
        default=None, description="buyer.resellerId of the appointment requests; left out without it."
    )
    soap_actions: Texts = Field(
        default={},
        description='SOAPAction of an operation where it is not empty: {"AddFaultReport": "urn:add"}, or one '
        "variable each: ADAPTER_SUPPLIER__SOAP_ACTIONS__AddFaultReport.",
    )
    accepted_codes: Codes = Field(
        default=frozenset({200, 201, 202}), description="Values of responseCode that mean accepted."
    )
    reservation_key_rule: Mode = Field(
        default=Mode.REFUSE,
        description="A Service Outage without reservation key, or another type with one: refuse, warn or off.",
    )
    unique_references: Switch = Field(
        default=False,
        description="true if the supplier is known to refuse a second report with the same reference: an unclear "
        "AddFaultReport is then sent again instead of being held in doubt.",
    )
    time_zone: Zone = Field(
        default_factory=lambda: ZoneInfo("Europe/London"),
        description="Zone of the supplier's times that name none.",
    )
    tls: Tls = Tls()
    allow_plaintext: Switch = Field(default=False, description="Allow a base URL that starts with http://.")
    proxy: Proxy = Proxy()
    max_in_flight: Count = Field(default=512, description="Calls under way at once, over all partitions.")
    connect_timeout: Duration = Field(
        default=timedelta(seconds=5), description="Time limit to connect, TLS included."
    )
    write_timeout: Duration = Field(
        default=timedelta(seconds=10), description="Time limit to send a request."
    )
    read_timeout: Duration = Field(
        default=timedelta(seconds=30), description="Longest silence while a reply is awaited."
    )
    total_timeout: Duration = Field(default=timedelta(seconds=45), description="Time limit of a whole call.")
    keep_alive: Duration = Field(
        default=timedelta(seconds=25),
        description="Idle connections are closed after this; choose less than the supplier's own limit.",
    )
    max_reply_bytes: Size = Field(default=2 * 1024**2, description="A longer reply is not read to its end.")
    doubt_limits: Durations = Field(
        default={},
        description="How long an unclear call is reconciled before its command ends undetermined, where it differs "
        'from the built-in limit: {"ReserveAppointment": "60s"}.',
    )


class Worker(Section):
    """Limits of the worker."""

    window_records: Count = Field(
        default=10_000, description="Unfinished commands held in memory before partitions are paused."
    )
    window_bytes: Size = Field(default=64 * 1024**2, description="The same in bytes.")
    partition_span: Count = Field(
        default=50_000,
        description="Distance in offsets between a partition's oldest unfinished command and its newest before it is paused.",
    )
    retry_first: Duration = Field(
        default=timedelta(milliseconds=500), description="First wait before a call is repeated."
    )
    retry_max: Duration = Field(
        default=timedelta(seconds=30), description="Longest wait before a call is repeated."
    )
    breaker_failures: Count = Field(
        default=5, description="Calls that fail in a row before the circuit breaker stops starting new ones."
    )
    breaker_probe: Duration = Field(
        default=timedelta(seconds=5), description="Wait between the probes of an open circuit breaker."
    )
    stop_timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="Time limit to finish what is under way when asked to stop.",
    )
    remembered_commands: Count = Field(
        default=50_000, description="Finished commands remembered, by id, to recognise one that comes again."
    )


class Telemetry(Section):
    """Logs, metrics and health."""

    host: Text = Field(default="0.0.0.0", description="Address the metrics endpoint listens on.")  # noqa: S104 -- scraped from outside the container
    port: Port = Field(default=9464, description="Port of /metrics, /health and /status; 0 takes a free one.")
    log_level: LogLevel = Field(default=LogLevel.INFO, description="Least severe log lines to write.")
    log_format: LogFormat = Field(
        default=LogFormat.AUTO, description="json, console, or auto: console on a terminal, else json."
    )


class _Tree(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the constructor is given. The stock environment source stops at its first fault and lets unknown names
        pass, so `load` reads the environment with one of its own."""
        return (init_settings,)


class Cluster(_Tree):
    """What the commands about topics need."""

    kafka: Kafka
    topics: Topics = Topics()


class Vocabulary(_Tree):
    """What the commands about schemas need."""

    topics: Topics = Topics()
    registry: Registry
    schemas: Folder | None = Field(
        default=None,
        description="Folder of schemas to use instead of the built-in ones; holds avro/ and xsd/.",
    )


class Bus(Vocabulary, Cluster):
    """What a client of the bus needs."""


class Settings(Bus):
    """The whole tree: what a flow needs."""

    supplier: Supplier
    worker: Worker = Worker()
    telemetry: Telemetry = Telemetry()


_T = TypeVar("_T", bound=_Tree)


def load(kind: type[_T], environ: Mapping[str, str] = os.environ) -> _T:
    """The settings of `kind` from the variables of `environ`. Raises Stop with one line for every fault there is.

    Variables of sections that `kind` has not are checked for their names only.
    """
    tree, faults = _Variables(Settings, environ).read()
    tree = {name: value for name, value in tree.items() if name in kind.model_fields}
    for section, field in kind.model_fields.items():
        if _section(field) is not None:
            tree.setdefault(section, {})
    try:
        settings = kind(**tree)
    except ValidationError as error:
        faults += [_fault(tuple(e["loc"]), e["type"], e["msg"]) for e in error.errors()]
        _repair(tree, error)
        settings = kind(**tree)
    told = {variable for variable, _ in faults}
    faults += [(variable, text) for variable, text in _conflicts(settings) if variable not in told]
    if faults:
        raise Stop(*(f"{variable}: {text}" for variable, text in sorted(faults)))
    return settings


def describe() -> tuple[Row, ...]:
    """Every setting, in the order of the tree."""
    return tuple(
        Row(
            variable=_variable(path),
            type=_kind(field).name,
            default=None
            if field.is_required()
            else _shown(field, field.get_default(call_default_factory=True)),
            meaning=field.description or "",
        )
        for path, field in _leaves(Settings)
    )


def markdown() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made by `adapter settings --markdown`; a test compares the two. Read from environment variables; an empty",
        "variable counts as not set. Durations are seconds or carry `ms`, `s`, `m`, `h` or `d`; sizes are bytes or carry",
        "`KiB`, `MiB`, `GiB`. Secrets are never variables: a setting names the file that holds one. A name that begins with",
        f"`{PREFIX}` and is not in this list stops the start.",
    ]
    section = ""
    for row in describe():
        head = row.variable.removeprefix(PREFIX).partition("__")[0]
        if head != section:
            section = head
            lines += [
                "",
                f"## {head.lower()}",
                "",
                "| variable | type | default | meaning |",
                "| --- | --- | --- | --- |",
            ]
        default = "**must be set**" if row.default is None else f"`{row.default}`" if row.default else ""
        meaning = row.meaning.replace("|", "\\|")
        lines.append(f"| `{row.variable}` | {row.type.replace('|', chr(92) + '|')} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


# --- reading the environment ------------------------------------------------------------------------------------

# Kubernetes puts these into every container for each Service of the namespace; one may be called "adapter-…".
_SERVICE_LINK = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)?$"
)


class _Variables(PydanticBaseSettingsSource):
    """The settings source: variables to a tree of texts, with every fault in their names."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._environ = environ

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self.read()[0].get(field_name), field_name, _section(field) is not None

    def __call__(self) -> dict[str, Any]:
        return self.read()[0]

    def read(self) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        tree: dict[str, Any] = {}
        faults: list[tuple[str, str]] = []
        # Shorter names first: ADAPTER_KAFKA__PROPERTIES before the single properties that go on top of it.
        for name in sorted(n for n in self._environ if n.startswith(PREFIX)):
            value = self._environ[name]
            found = self._place(name)
            if found is None:
                if not (_SERVICE_LINK.search(name) and ("__" not in name)):
                    faults.append((name, _unknown(name)))
                continue
            path, key, field = found
            if value == "":
                continue
            branch = tree
            for segment in path[:-1]:
                branch = branch.setdefault(segment, {})
            if not _is_mapping(field):
                branch[path[-1]] = value
            elif key is not None:
                branch.setdefault(path[-1], {})[key] = value
            else:
                try:
                    branch[path[-1]] = _json_object(value, dotted=path[0] == "kafka")
                except ValueError:
                    faults.append((name, f"is not a JSON object; write {_kind(field).example}"))
        return tree, faults

    def _place(self, name: str) -> tuple[tuple[str, ...], str | None, FieldInfo] | None:
        """Path of the setting, key of the one entry where it is a mapping, and its field."""
        path: list[str] = []
        model: type[BaseModel] = self.settings_cls
        segments = name.removeprefix(PREFIX).split("__")
        for position, segment in enumerate(segments):
            field = model.model_fields.get(segment.lower()) if segment == segment.upper() else None
            if field is None:
                return None
            path.append(segment.lower())
            rest = segments[position + 1 :]
            section = _section(field)
            if section is not None:
                model = section
            elif not rest:
                return tuple(path), None, field
            elif _is_mapping(field):
                return tuple(path), _key("__".join(rest), dotted=path[0] == "kafka"), field
            else:
                return None
        return None


def _key(name: str, *, dotted: bool) -> str:
    """A librdkafka property as given, or its name with _ for the dots that shells do not allow in variables."""
    return name.lower().replace("_", ".") if dotted else name


def _json_object(text: str, *, dotted: bool) -> dict[str, str]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 -- the caller tells one kind of fault
    return {
        _key(key, dotted=dotted): item if isinstance(item, str) else json.dumps(item)
        for key, item in value.items()
    }


def _unknown(name: str) -> str:
    known = [row.variable for row in describe()]
    sections = sorted(v for v in known if v.startswith(name + "__"))
    if sections:
        return f"is a section, not a setting; its settings begin with {sections[0]}"
    near = get_close_matches(name.upper(), known, n=1, cutoff=0.6)
    return (
        f"is not a setting; did you mean {near[0]}?" if near else "is not a setting; see `adapter settings`"
    )


# --- faults -----------------------------------------------------------------------------------------------------

# Properties the adapter's guarantees rest on, and where to turn instead.
_OURS = {
    "bootstrap.servers": "set ADAPTER_KAFKA__BOOTSTRAP_SERVERS",
    "metadata.broker.list": "set ADAPTER_KAFKA__BOOTSTRAP_SERVERS",
    "group.id": "set ADAPTER_KAFKA__GROUP_ID",
    "group.protocol": "set ADAPTER_KAFKA__GROUP_PROTOCOL",
    "session.timeout.ms": "set ADAPTER_KAFKA__SESSION_TIMEOUT",
    "transaction.timeout.ms": "set ADAPTER_KAFKA__TRANSACTION_TIMEOUT",
    "transactional.id": "set ADAPTER_KAFKA__TRANSACTIONAL_ID_PREFIX",
    "message.max.bytes": "set ADAPTER_TOPICS__MAX_MESSAGE_BYTES",
    "partition.assignment.strategy": "the adapter needs cooperative-sticky",
    "enable.auto.commit": "offsets are committed with the outcomes",
    "enable.auto.offset.store": "offsets are committed with the outcomes",
    "enable.idempotence": "transactions need it",
    "acks": "transactions need all",
    "request.required.acks": "transactions need all",
    "isolation.level": "the adapter chooses it for each reader",
    "auto.offset.reset": "only a new group starts at the beginning",
    "partitioner": "keys are placed as Java clients place them (murmur2_random)",
}
_SECRET = re.compile(r"password|secret|^ssl\.key\.pem$|^ssl\.keystore\.pem$|^sasl\.jaas\.config$")


def _conflicts(settings: _Tree) -> Iterator[tuple[str, str]]:
    """What is wrong between settings that are each right."""
    if isinstance(settings, Cluster):
        yield from _kafka_conflicts(settings.kafka)
    if isinstance(settings, Cluster | Vocabulary):
        yield from _topic_conflicts(settings.topics)
    if isinstance(settings, Settings):
        yield from _supplier_conflicts(settings.supplier)
        worker, supplier = settings.worker, settings.supplier
        if worker.stop_timeout <= supplier.total_timeout:
            yield (
                f"{PREFIX}WORKER__STOP_TIMEOUT",
                f"must be longer than {PREFIX}SUPPLIER__TOTAL_TIMEOUT, or calls are cut off when a worker stops",
            )
        if worker.retry_first > worker.retry_max:
            yield f"{PREFIX}WORKER__RETRY_FIRST", f"must not be longer than {PREFIX}WORKER__RETRY_MAX"
        if worker.window_bytes < settings.topics.max_message_bytes:
            yield f"{PREFIX}WORKER__WINDOW_BYTES", f"must not be less than {PREFIX}TOPICS__MAX_MESSAGE_BYTES"


def _kafka_conflicts(kafka: Kafka) -> Iterator[tuple[str, str]]:
    for name in (*kafka.properties, *kafka.properties_files):
        if name in _OURS:
            yield f"{PREFIX}KAFKA__PROPERTIES", f"{name} is the adapter's own: {_OURS[name]}"
    for name in kafka.properties:
        if _SECRET.search(name) and not name.endswith(".location"):
            yield (
                f"{PREFIX}KAFKA__PROPERTIES",
                f"{name} is a secret: write it to a file and name that in {PREFIX}KAFKA__PROPERTIES_FILES",
            )
        if name in kafka.properties_files:
            yield f"{PREFIX}KAFKA__PROPERTIES_FILES", f"{name} is in {PREFIX}KAFKA__PROPERTIES as well"


def _topic_conflicts(topics: Topics) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for field in TopicNames.__dataclass_fields__:
        name = getattr(topics, field)
        if name in seen:
            yield (
                f"{PREFIX}TOPICS__{field.upper()}",
                f"is the same topic as {PREFIX}TOPICS__{seen[name].upper()}; each needs its own",
            )
        seen[name] = field
        if len(topics.prefix) + len(name) > 249:
            yield f"{PREFIX}TOPICS__{field.upper()}", "is longer than 249 characters with its prefix"
    if topics.retention.journal < 2 * topics.retention.commands:
        yield (
            f"{PREFIX}TOPICS__RETENTION__JOURNAL",
            f"must be at least twice {PREFIX}TOPICS__RETENTION__COMMANDS, or a late command could be sent twice",
        )


def _supplier_conflicts(supplier: Supplier) -> Iterator[tuple[str, str]]:
    base, environment = f"{PREFIX}SUPPLIER__BASE_URL", f"{PREFIX}SUPPLIER__ENVIRONMENT"
    if supplier.base_url is None and supplier.environment is None:
        yield (
            base,
            f"is missing: write the supplier's address, or set {environment} to production, cfstaging or cfsit",
        )
    elif supplier.base_url is not None and supplier.environment is not None:
        yield base, f"is set together with {environment}: keep one of the two"
    elif (
        supplier.base_url is not None
        and supplier.base_url.startswith("http://")
        and not supplier.allow_plaintext
    ):
        yield (
            base,
            f"is not encrypted: write https://, or set {PREFIX}SUPPLIER__ALLOW_PLAINTEXT=true for a test",
        )
    certificate, key = f"{PREFIX}SUPPLIER__TLS__CERTIFICATE", f"{PREFIX}SUPPLIER__TLS__KEY"
    if (supplier.tls.certificate is None) != (supplier.tls.key is None):
        missing, other = (key, certificate) if supplier.tls.key is None else (certificate, key)
        yield missing, f"is missing: {other} is set, and a certificate is of use only with its key"
    elif supplier.environment is not None and supplier.tls.certificate is None:
        yield (
            certificate,
            f"is missing: the supplier's environments ask for a client certificate (with {key})",
        )
    if supplier.proxy.credentials is not None and supplier.proxy.url is None:
        yield f"{PREFIX}SUPPLIER__PROXY__URL", "is missing: credentials for the proxy are set"
    for name in ("connect_timeout", "write_timeout", "read_timeout"):
        if getattr(supplier, name) > supplier.total_timeout:
            yield (
                f"{PREFIX}SUPPLIER__{name.upper()}",
                f"must not be longer than {PREFIX}SUPPLIER__TOTAL_TIMEOUT",
            )


def _fault(location: tuple[str | int, ...], kind: str, message: str) -> tuple[str, str]:
    path = tuple(str(part) for part in location)
    field, depth = _field(path)
    variable = _variable(path[:depth])
    if field is None:
        return variable, message
    if _is_mapping(field):
        variable += "".join(f"__{part}" for part in path[depth:])
    example = (field.examples or [_kind(field).example])[0]
    if kind == "missing":
        return variable, f"is missing: {(field.description or '').rstrip('.')}. For example {example}"
    if kind in {"string_pattern_mismatch", "int_parsing", "bool_parsing", "zoneinfo_str"}:
        message = f"is not a {_kind(field).name}".replace(
            "is not a true or false", "is neither true nor false"
        )
    message = message.removeprefix("Value error, ").replace("Input should", "should")
    return variable, f"{message}; write for example {example}"


def _repair(tree: dict[str, Any], error: ValidationError) -> None:
    """Faulty values give way to their default or example, so that the checks between settings can run as well."""
    for entry in error.errors():
        location = tuple(str(part) for part in entry["loc"])
        field, depth = _field(location)
        path = location[:depth]
        branch = tree
        for segment in path[:-1]:
            branch = branch.setdefault(segment, {})
        branch.pop(path[-1], None)
        if field is not None and field.is_required():
            branch[path[-1]] = (field.examples or [""])[0]


# --- walking the tree -------------------------------------------------------------------------------------------


def _leaves(
    model: type[BaseModel], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is None:
            yield (*path, name), field
        else:
            yield from _leaves(section, (*path, name))


def _section(field: FieldInfo) -> type[Section] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _is_mapping(field: FieldInfo) -> bool:
    return _kind(field).name == "JSON object"


def _field(path: tuple[str, ...]) -> tuple[FieldInfo | None, int]:
    """The setting a path leads to (or into, for an entry of a mapping), and how many segments name it."""
    model: type[BaseModel] = Settings
    for depth, segment in enumerate(path, 1):
        field = model.model_fields.get(segment)
        if field is None:
            return None, depth
        section = _section(field)
        if section is None:
            return field, depth
        model = section
    return None, len(path)


def _variable(path: tuple[str, ...]) -> str:
    return PREFIX + "__".join(path).upper()


def _kind(field: FieldInfo) -> _Kind:
    for entry in field.metadata:
        if isinstance(entry, _Kind):
            return entry
    for argument in (field.annotation, *getattr(field.annotation, "__args__", ())):
        for entry in getattr(argument, "__metadata__", ()):
            if isinstance(entry, _Kind):
                return entry
        if isinstance(argument, type) and issubclass(argument, StrEnum):
            values = [member.value for member in argument]
            return _Kind(" or ".join([", ".join(values[:-1]), values[-1]]), values[0])
    return _Kind("text", "")


def _shown(field: FieldInfo, value: object) -> str:
    match value:
        case int() if _kind(field).name == "size":
            return f"{value // 1024**2}MiB"
        case None:
            return ""
        case bool():
            return str(value).lower()
        case timedelta():
            return _shown_duration(value)
        case frozenset():
            return ",".join(str(item) for item in sorted(value))
        case dict():
            return json.dumps(value) if value else ""
        case Path() | ZoneInfo():
            return str(value)
        case _:
            return str(value)


def _shown_duration(value: timedelta) -> str:
    milliseconds = value // timedelta(milliseconds=1)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % size == 0 and milliseconds >= size:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
