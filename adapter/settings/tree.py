"""The settings themselves: sections, fields, defaults and meanings."""

from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from adapter.core.avro import SubjectStrategy, UnknownFields
from adapter.core.errors import Stop
from adapter.core.operation import Mode
from adapter.settings.kinds import (
    Actions,
    Address,
    Addresses,
    Brokers,
    Codes,
    Count,
    Duration,
    DurationOrZero,
    Durations,
    File,
    Files,
    Header,
    Identifier,
    Names,
    Networks,
    NewFile,
    NewFolder,
    Port,
    ProxyAddress,
    Rate,
    SchemaFolder,
    Size,
    Subjects,
    Switch,
    Text,
    Texts,
    TopicName,
    TopicPrefix,
    Zone,
)
from adapter.settings.secrets import secret

PREFIX = "ADAPTER_"


class GroupProtocol(StrEnum):
    """How the members of the worker's consumer group share the partitions."""

    CLASSIC = "classic"
    """Cooperative-sticky, any broker."""

    CONSUMER = "consumer"
    """KIP-848, Kafka 4.0 and later."""


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


_DEFAULTS: Final = {"reconnect.backoff.max.ms": "1000"}
"""Properties of every client of Kafka. A broker that is away is tried at least once a second, as Java's clients do; by
default librdkafka comes back up to 10 s after the broker.
"""


class Section(BaseModel):
    """A branch of the tree."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(Section):
    """The cluster and how the worker joins it."""

    bootstrap_servers: Brokers = Field(
        description="Brokers to find the cluster by, host:port separated by commas.",
        examples=["kafka-1:9092,kafka-2:9092"],
    )
    properties: Texts = Field(
        default={},
        description="Further librdkafka properties for every client, as one JSON object or one variable each: "
        "ADAPTER_KAFKA__PROPERTIES__SECURITY_PROTOCOL=SASL_SSL sets security.protocol.",
    )
    properties_files: Files = Field(
        default={},
        description="Properties with secret values, each with the file that holds the value: "
        "ADAPTER_KAFKA__PROPERTIES_FILES__SASL_PASSWORD=/run/secrets/kafka-password. Changed files are taken up once "
        "Kafka accepts them.",
    )
    group_id: Text = Field(
        default="fault-adapter-worker",
        description="Consumer group of the workers. A second deployment on the same cluster needs another.",
    )
    group_protocol: GroupProtocol = Field(
        default=GroupProtocol.CLASSIC,
        description="How the members of a consumer group share partitions: classic (cooperative-sticky, any broker) or "
        "consumer (KIP-848, Kafka 4.0 and later).",
    )
    session_timeout: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=30),
        description="A group member that is silent for this long loses its partitions to the others. For classic "
        "groups only; with the consumer protocol the broker decides.",
    )
    transaction_timeout: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=15),
        description="A transaction left open by a dead worker hides newer records from readers for this long.",
    )
    transactional_id_prefix: Text = Field(
        default="fault-adapter",
        description="Prefix of the transactional ids. Change it if the cluster's access rules allow you another.",
    )

    def client(self) -> dict[str, str]:
        """Properties of librdkafka for every client, secrets read from their files. Stop if one can't be."""
        secrets: dict[str, str] = {}
        faults: list[str] = []
        for name, path in self.properties_files.items():
            try:
                secrets[name] = secret(f"{PREFIX}KAFKA__PROPERTIES_FILES: {name}", path)
            except Stop as stop:
                faults += stop.problems
        if faults:
            raise Stop(*faults)
        return {**_DEFAULTS, **self.properties, **secrets, "bootstrap.servers": self.bootstrap_servers}


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
    dead_letters: Duration = Field(default=timedelta(days=90), description="Retention of the dead-letter topic.")
    quarantine: Duration = Field(default=timedelta(days=90), description="Retention of the quarantine topic.")
    journal: Duration = Field(
        default=timedelta(days=15),
        description="Retention of the send journal; at least twice that of the commands topic.",
    )


class Topics(Section):
    """The topics of the bus. Commands, events, tickets and journal are placed by one key."""

    prefix: TopicPrefix = Field(
        default="",
        description="Prepended to every topic name below, so that a second deployment on the same cluster has its own.",
    )
    commands: TopicName = Field(default="fault.commands", description="Commands from the estate.")
    events: TopicName = Field(default="fault.events", description="Outcomes of commands, and notifications.")
    tickets: TopicName = Field(default="fault.tickets", description="Current state of each ticket.")
    dead_letters: TopicName = Field(
        default="fault.dead-letters", description="Records that can never become a command, as raw bytes."
    )
    quarantine: TopicName = Field(
        default="fault.quarantine",
        description="Bodies from the supplier that can't be read, notifications and replies, as raw bytes.",
    )
    journal: TopicName = Field(default="fault.journal", description="The workers' send journal.")
    partitions: Count = Field(
        default=8,
        ge=1,
        le=100_000,
        description="Number of partitions of the commands, events, tickets and journal topics; it is the same for "
        "all four.",
    )
    replication_factor: Count = Field(
        default=3,
        ge=1,
        le=10_000,
        description="Replicas of each partition in topics that the adapter creates; all but one must be in sync.",
    )
    max_message_bytes: Size = Field(
        default=4 * 1024**2,
        ge=1024,
        le=512 * 1024**2,
        description="Largest record that the adapter writes. The commands topic accepts half of it, so that every "
        "command fits into the dead-letter topic.",
    )
    retention: Retention = Retention()

    def names(self) -> TopicNames:
        return TopicNames(**{field.name: self.prefix + getattr(self, field.name) for field in fields(TopicNames)})


class Registry(Section):
    """The schema registry (Confluent HTTP API)."""

    url: Addresses = Field(
        description="Address of the registry, several separated by commas; asked directly, through no proxy.",
        examples=["http://registry:8081"],
    )
    credentials: File | None = Field(
        default=None,
        description="File with user:password for basic authentication, or with only a bearer token (one line).",
    )
    ca: File | None = Field(
        default=None, description="PEM file of the authority that signed the registry's certificate."
    )
    timeout: Duration = Field(default=timedelta(seconds=10), description="Timeout of a request.")
    subject_strategy: SubjectStrategy = Field(
        default=SubjectStrategy.TOPIC_RECORD,
        description="Subject naming strategy, as the producers of commands use it: topic_record "
        "(topic-namespace.Record), record (namespace.Record) or topic (topic-value).",
    )
    unknown_fields: UnknownFields = Field(
        default=UnknownFields.REJECT,
        description="What to do with a command that has a value in a field unknown to the adapter: reject it, or "
        "ignore the field.",
    )


class Tls(Section):
    """Mutual TLS towards the supplier; files are read again when they change."""

    certificate: File | None = Field(default=None, description="PEM file of the client certificate with its chain.")
    key: File | None = Field(default=None, description="PEM file of the client certificate's private key.")
    ca: File | None = Field(
        default=None, description="PEM file of the trusted certificate authorities. Unset: the system's."
    )


class Proxy(Section):
    """An HTTP CONNECT proxy to leave by; the supplier allow-lists source addresses."""

    url: ProxyAddress | None = Field(
        default=None, description="Address of the proxy. Unset: no proxy, even if HTTPS_PROXY is set."
    )
    credentials: File | None = Field(default=None, description="File with user:password for the proxy (one line).")


class Supplier(Section):
    """The supplier's API: where it is, who we are there, and how it is called."""

    base_url: Address | None = Field(
        default=None, description="Base URL of the supplier's operations. Set this or the environment, not both."
    )
    environment: Environment | None = Field(
        default=None, description="A published environment of the supplier. Set this or the base URL, not both."
    )
    buyer_identifier: Identifier = Field(
        description="Who we are: buyerIdentifier of every request.", examples=["SPDEV1"]
    )
    api_version: Identifier = Field(default="1.0", description="Value of apiVersion in every request.")
    seller_identifier: Identifier = Field(
        default="CITYFIBRE", description="Value of seller.sellerIdentifier in the appointment requests."
    )
    reseller_id: Identifier | None = Field(
        default=None, description="Value of buyer.resellerId in the appointment requests. Unset: left out."
    )
    content_type: Header = Field(
        default="text/xml; charset=utf-8",
        description="Content-Type of requests. The default is that of SOAP 1.1; the supplier's reference names "
        "application/xml.",
    )
    soap_actions: Actions = Field(
        default={},
        description='SOAPAction of each operation whose SOAPAction is not empty: {"AddFaultReport": "urn:add"}, or '
        "one variable each: ADAPTER_SUPPLIER__SOAP_ACTIONS__AddFaultReport.",
    )
    accepted_codes: Codes = Field(
        default=frozenset({200, 201, 202}), description="Values of responseCode that mean the command was accepted."
    )
    reservation_key_rule: Mode = Field(
        default=Mode.REFUSE,
        description="How to treat a Service Outage without a reservation key, or another incident type with one: "
        "refuse, warn or off.",
    )
    unique_references: Switch = Field(
        default=False,
        description="Set to true if the supplier refuses a second report with the same reference. An AddFaultReport "
        "whose outcome is unclear is then sent again instead of being held in doubt.",
    )
    time_zone: Zone = Field(
        default_factory=lambda: ZoneInfo("Europe/London"),
        description="Time zone of supplier times that name none.",
    )
    tls: Tls = Tls()
    allow_plaintext: Switch = Field(default=False, description="Allow a base URL that starts with http://.")
    proxy: Proxy = Proxy()
    max_in_flight: Count = Field(
        default=512,
        description="Maximum number of concurrent calls of each worker, over all its partitions; each is a connection. "
        "Raise it if calls in flight stay at it while the supplier answers as quickly as ever.",
    )
    max_calls_per_second: Rate | None = Field(
        default=None,
        description="Maximum rate at which a worker starts calls, evenly spaced. It applies to each worker: divide "
        "the rate agreed with the supplier by the number of workers. Unset: unlimited.",
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=5), description="Timeout for connecting, including the TLS handshake."
    )
    write_timeout: Duration = Field(default=timedelta(seconds=10), description="Timeout for sending a request.")
    read_timeout: Duration = Field(
        default=timedelta(seconds=30), description="Longest silence while waiting for a reply."
    )
    total_timeout: Duration = Field(
        default=timedelta(seconds=45),
        ge=timedelta(milliseconds=1),
        le=timedelta(hours=1),
        description="Timeout of a whole call.",
    )
    keep_alive: DurationOrZero = Field(
        default=timedelta(seconds=25),
        description="Idle connections are closed after this time; choose less than the supplier's own limit. A "
        "shorter limit takes precedence if the supplier's answers name it (Keep-Alive), or if the "
        "supplier closed a connection after it in the last hour. 0s: never reuse a connection, for a "
        "supplier that closes each one after its answer without saying so.",
    )
    max_reply_bytes: Size = Field(
        default=2 * 1024**2,
        description="Maximum size of a reply; a longer one is not read to its end. Replies of more than 32 KiB share "
        "32 MiB of memory (or 8 times this, if that is more) until their outcomes are committed. Beyond that they "
        "wait unread, within the time limit of their call.",
    )
    doubt_limits: Durations = Field(
        default={},
        description="How long an unclear call is reconciled before its command ends as undetermined, per operation, "
        'where the built-in limit does not suit: {"ReserveAppointment": "60s"}.',
    )


class Worker(Section):
    """Limits of the worker."""

    window_records: Count = Field(
        default=10_000,
        description="Maximum number of unfinished commands in memory; above it, partitions are paused. Each "
        "partition may add up to 500 on top.",
    )
    window_bytes: Size = Field(
        default=64 * 1024**2,
        description="The same limit in bytes. Each partition may add what one fetch returns (1 MiB) on top. "
        "Requests of more than 32 KiB share as much again until their calls end; further ones wait.",
    )
    partition_span: Count = Field(
        default=50_000,
        description="Maximum distance in offsets between the oldest unfinished and the newest command of a "
        "partition; above it, the partition is paused.",
    )
    retry_first: Duration = Field(
        default=timedelta(milliseconds=500), description="First wait before a call is retried."
    )
    retry_max: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(milliseconds=1),
        le=timedelta(hours=1),
        description="Longest wait before a call is retried, unless the supplier asks for a longer one (Retry-After), "
        "which is kept to up to an hour.",
    )
    breaker_failures: Count = Field(
        default=5,
        description="Number of consecutive failed calls that opens the circuit breaker, which then starts no new "
        "calls.",
    )
    breaker_probe: Duration = Field(
        default=timedelta(seconds=5),
        ge=timedelta(milliseconds=1),
        le=timedelta(hours=1),
        description="Time between the probes of an open circuit breaker.",
    )
    stop_timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="Time allowed to finish work under way after a request to stop.",
    )
    parked_after: Duration = Field(
        default=timedelta(seconds=30),
        description="When a command has been in doubt for this long, the commands waiting behind it in its lane are "
        "moved into the journal, so that the partition can continue.",
    )
    parked_per_ticket: Count = Field(
        default=1000, description="Maximum number of commands parked behind one in doubt; further ones are rejected."
    )
    reference_wait: Duration = Field(
        default=timedelta(seconds=60),
        description="How long a command that needs the supplier's reference, but leaves it out, waits for its ticket "
        "to have one. After that it is rejected.",
    )
    store: NewFolder | None = Field(
        default=None,
        description="Folder on a local disk for an index of the tickets that commands referred to; each worker needs "
        "its own. Unset: a temporary folder.",
    )
    remembered_commands: Count = Field(
        default=50_000,
        description="Number of finished commands that each worker remembers, by id, to recognise repeats: as many as "
        "it finishes in the time after which producers still repeat one. Each takes about 300 bytes.",
    )


class ServerTls(Section):
    """Mutual TLS of the notification listener; files are read again when they change."""

    certificate: File | None = Field(default=None, description="PEM file of the listener's certificate with its chain.")
    key: File | None = Field(default=None, description="PEM file of the listener certificate's private key.")
    ca: File | None = Field(
        default=None, description="PEM file of the authorities whose client certificates are accepted."
    )


class Spool(Section):
    """Where notifications are kept while Kafka does not answer."""

    path: NewFile | None = Field(
        default=None,
        description="File of the spool, on a disk that outlives the process. Unset: the supplier gets 503 while "
        "Kafka does not answer, and a server started at such a time does not listen.",
    )
    max_bytes: Size = Field(
        default=256 * 1024**2, description="Maximum size of the notifications in the spool, in bytes of content."
    )


class Server(Section):
    """The listener for the supplier's notifications: who may call, and its limits."""

    host: Text = Field(default="0.0.0.0", description="Address the listener binds to; `::` takes IPv6 and IPv4.")  # noqa: S104 -- called from outside the container
    port: Port = Field(default=8443, description="Port of the listener; 0 takes a free one.")
    tls: ServerTls = ServerTls()
    allow_plaintext: Switch = Field(
        default=False, description="Listen without TLS: behind a proxy that terminates it, or for a test."
    )
    allowed_subjects: Subjects = Field(
        default=frozenset(),
        description="Client certificates that are accepted, separated by semicolons: a subject alternative name, or "
        "the whole distinguished name as the log line of a refused caller shows it. Unset: every "
        "certificate signed by the authorities.",
    )
    allowed_networks: Networks = Field(
        default=frozenset(), description="Networks from which callers are accepted (IPv4, IPv6). Unset: any."
    )
    trusted_proxies: Networks = Field(
        default=frozenset(),
        description="Networks of proxies that terminate TLS for the listener. The two headers below are believed "
        "only if they come from these.",
    )
    certificate_header: Text = Field(
        default="Client-Cert",
        description="Header in which a trusted proxy passes the client's certificate: RFC 9440, or URL-encoded PEM.",
    )
    address_header: Text = Field(
        default="X-Forwarded-For", description="Header in which a trusted proxy passes the client's address."
    )
    accepted_buyers: Names = Field(
        default=frozenset(),
        description="Accepted values of buyerIdentifier. Unset: only ADAPTER_SUPPLIER__BUYER_IDENTIFIER.",
    )
    own_message_id: Switch = Field(
        default=False,
        description="Answer with a new messageId instead of the notification's, for a supplier that refuses its own.",
    )
    max_body_bytes: Size = Field(
        default=2 * 1024**2, description="Maximum size of a notification; a longer one is not read."
    )
    max_bytes_in_flight: Size = Field(
        default=64 * 1024**2,
        description="Maximum size of all notifications being processed at once; above it, callers get 503.",
    )
    max_connections: Count = Field(
        default=2000,
        description="Maximum number of connections, including those in their TLS handshake. Above it, the oldest "
        "handshake is ended, or, if there are few handshakes, the connection that has been silent for "
        "longest.",
    )
    idle_timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="A connection is closed after this time without a complete request header.",
    )
    body_timeout: Duration = Field(default=timedelta(seconds=20), description="Timeout for the body of a request.")
    publish_timeout: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(milliseconds=10),  # the client itself keeps a record for 3 ms
        le=timedelta(hours=1),
        description="Timeout for Kafka's acknowledgement. After it, the notification is spooled or refused with 503.",
    )
    remembered_notifications: Count = Field(
        default=100_000,
        description="Number of stored notifications that each server remembers, by id, to recognise repeats: as many "
        "as come in the time after which the supplier still repeats one.",
    )
    stop_timeout: Duration = Field(
        default=timedelta(seconds=20),
        description="Time allowed to answer requests under way and to publish what the spool holds, after a request "
        "to stop.",
    )
    spool: Spool = Spool()


class Projector(Section):
    """The flow that folds the events of each ticket into its current state."""

    group_id: Text = Field(
        default="fault-adapter-projector",
        description="Consumer group of the projectors. A second deployment on the same cluster needs another.",
    )
    store: NewFolder | None = Field(
        default=None,
        description="Folder for a copy of the tickets, on a disk that outlives the process; each projector needs its "
        "own. Unset: the copy is read from the tickets topic at every start.",
    )
    resolve_deadline: Duration = Field(
        default=timedelta(hours=48),
        description="Time after Resolved at which the supplier takes silence for acceptance.",
    )
    warn_before: Duration = Field(
        default=timedelta(hours=6), description="How long before that deadline ResolveDeadlineApproaching is published."
    )
    tombstone_after: Duration = Field(
        default=timedelta(days=90),
        description="How long after its last event a ticket is forgotten, if it is Closed or Rejected or its state "
        "never became known.",
    )


class Telemetry(Section):
    """Logs, metrics and health."""

    host: Text = Field(
        default="0.0.0.0",  # noqa: S104 -- scraped from outside the container
        description="Address the telemetry endpoint binds to; `::` takes IPv6 and IPv4.",
    )
    port: Port = Field(default=9464, description="Port of /metrics, /health and /status; 0 takes a free one.")
    log_level: LogLevel = Field(default=LogLevel.INFO, description="Lowest severity of the log lines to write.")
    log_format: LogFormat = Field(
        default=LogFormat.AUTO, description="json, console, or auto: console on a terminal, else json."
    )
    tracing: Switch = Field(
        default=False,
        description="Export spans with OpenTelemetry (OTLP over HTTP), to the endpoint in the standard OTEL_… "
        "variables.",
    )


class Tree(BaseModel):
    """Sections that are read together. `load` makes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cluster(Tree):
    """What the commands about topics need."""

    kafka: Kafka
    topics: Topics = Topics()


class Offline(Tree):
    """What the commands about schemas need that stay on this machine."""

    schemas: SchemaFolder | None = Field(
        default=None, description="Folder of schemas to use instead of the built-in ones; it contains avro/ and xsd/."
    )


class Reading(Offline):
    """What it takes to read the supplier's messages."""

    topics: Topics = Topics()
    supplier: Supplier
    server: Server = Server()


class Translating(Reading):
    """What it takes to write and read the supplier's messages without asking anybody."""

    worker: Worker = Worker()


class Calling(Translating):
    """What it takes to call the supplier, and nobody else."""


class Vocabulary(Offline):
    """What the commands about schemas need."""

    topics: Topics = Topics()
    registry: Registry


class Bus(Vocabulary, Cluster):
    """What a client of the bus needs."""


class Receiving(Reading, Bus):
    """What the server needs: not where the supplier is, but who we are there."""

    telemetry: Telemetry = Telemetry()


class Projecting(Bus):
    """What the projector needs: nothing of the supplier."""

    projector: Projector = Projector()
    telemetry: Telemetry = Telemetry()


class Settings(Calling, Receiving, Projecting):
    """The whole tree."""
