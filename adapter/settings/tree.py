"""The settings themselves: sections, fields, defaults and meanings."""

from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum
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
    Folder,
    Header,
    Identifier,
    Names,
    Networks,
    NewFile,
    NewFolder,
    Port,
    Rate,
    Size,
    Subjects,
    Switch,
    Text,
    Texts,
    TopicName,
    TopicPrefix,
    Zone,
)

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
        description="Further librdkafka properties for every client, as a JSON object or one variable each: "
        "ADAPTER_KAFKA__PROPERTIES__SECURITY_PROTOCOL=SASL_SSL is security.protocol.",
    )
    properties_files: Files = Field(
        default={},
        description="Those with secret values, each with the file that holds the value: "
        "ADAPTER_KAFKA__PROPERTIES_FILES__SASL_PASSWORD=/run/secrets/kafka-password. Read at the start.",
    )
    group_id: Text = Field(default="fault-adapter-worker", description="Consumer group of the workers.")
    group_protocol: GroupProtocol = Field(
        default=GroupProtocol.CLASSIC,
        description="How workers share partitions: classic (cooperative-sticky) or consumer (KIP-848).",
    )
    session_timeout: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=30),
        description="A worker silent for so long loses its partitions to the others (classic groups; in "
        "consumer groups the broker decides).",
    )
    transaction_timeout: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=15),
        description="A transaction left open by a dead worker hides newer records from readers for so long.",
    )
    transactional_id_prefix: Text = Field(
        default="fault-adapter",
        description="Start of the transactional ids; access rules for transactional ids name this prefix.",
    )

    def client(self) -> dict[str, str]:
        """Properties of librdkafka for every client, secrets read from their files. Stop if one can't be."""
        secrets: dict[str, str] = {}
        faults: list[str] = []
        for name, path in self.properties_files.items():
            try:
                secrets[name] = path.read_text(encoding="utf-8-sig").strip("\r\n")
            except OSError as error:
                fault = f"can't read its file ({error.strerror}); check path and permissions"
                faults.append(f"{PREFIX}KAFKA__PROPERTIES_FILES: {name}: {fault}")
            except UnicodeDecodeError:
                fault = "its file is not UTF-8 text; write the value alone into it"
                faults.append(f"{PREFIX}KAFKA__PROPERTIES_FILES: {name}: {fault}")
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
    """The topics of the bus. Commands, events, tickets and journal are placed by one key."""

    prefix: TopicPrefix = Field(
        default="",
        description="Put before every topic name below; a second deployment on a cluster needs its own groups too.",
    )
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
        default=8,
        ge=1,
        le=100_000,
        description="Partitions of commands, events, tickets and journal: the same for the four.",
    )
    replication_factor: Count = Field(
        default=3,
        ge=1,
        le=10_000,
        description="Copies of each partition of topics made by the adapter; all but one must be in sync.",
    )
    max_message_bytes: Size = Field(
        default=4 * 1024**2,
        ge=1024,
        le=512 * 1024**2,
        description="Largest record the adapter writes. The commands topic takes half of it: every command must "
        "fit the dead letters.",
    )
    retention: Retention = Retention()

    def names(self) -> TopicNames:
        return TopicNames(
            **{name: self.prefix + getattr(self, name) for name in (field.name for field in fields(TopicNames))}
        )


class Registry(Section):
    """The schema registry (Confluent HTTP API)."""

    url: Addresses = Field(
        description="Address of the registry, several separated by commas; asked directly, through no proxy.",
        examples=["http://registry:8081"],
    )
    credentials: File | None = Field(
        default=None,
        description="File with user:password for basic authentication, or a bearer token alone (one line).",
    )
    ca: File | None = Field(default=None, description="PEM file of the authority that signed its certificate.")
    timeout: Duration = Field(default=timedelta(seconds=10), description="Time limit of one request.")
    subject_strategy: SubjectStrategy = Field(
        default=SubjectStrategy.TOPIC_RECORD,
        description="Subject of a schema: topic_record (topic-namespace.Record), record or topic (topic-value).",
    )
    unknown_fields: UnknownFields = Field(
        default=UnknownFields.REJECT,
        description="A command with a value in a field we do not know: reject it, or ignore the field.",
    )


class Tls(Section):
    """Mutual TLS towards the supplier; files are read again when they change."""

    certificate: File | None = Field(default=None, description="PEM file of our certificate with its chain.")
    key: File | None = Field(default=None, description="PEM file of the certificate's private key.")
    ca: File | None = Field(default=None, description="PEM file of the authorities we trust; without it the system's.")


class Proxy(Section):
    """An HTTP CONNECT proxy to leave by; the supplier allow-lists source addresses."""

    url: Address | None = Field(
        default=None, description="Address of the proxy; without it none is used, whatever HTTPS_PROXY says."
    )
    credentials: File | None = Field(default=None, description="File with user:password for the proxy (one line).")


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
    content_type: Header = Field(
        default="text/xml; charset=utf-8",
        description="Content-Type of the requests: that of SOAP 1.1; the supplier's reference names application/xml.",
    )
    soap_actions: Actions = Field(
        default={},
        description='SOAPAction of an operation where it is not empty: {"AddFaultReport": "urn:add"}, or one '
        "variable each: ADAPTER_SUPPLIER__SOAP_ACTIONS__AddFaultReport.",
    )
    accepted_codes: Codes = Field(
        default=frozenset({200, 201, 202}), description="Values of responseCode that mean accepted."
    )
    reservation_key_rule: Mode = Field(
        default=Mode.REFUSE,
        description="A Service Outage without reservation key, or another type with one: refuse, warn, off.",
    )
    unique_references: Switch = Field(
        default=False,
        description="true if the supplier refuses a second report with the same reference: an unclear "
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
    max_calls_per_second: Rate | None = Field(
        default=None,
        description="Calls a worker begins in a second, evenly; each worker by itself, so divide what the supplier "
        "agreed to by their number. Without it as many as it can.",
    )
    connect_timeout: Duration = Field(default=timedelta(seconds=5), description="Time limit to connect, TLS included.")
    write_timeout: Duration = Field(default=timedelta(seconds=10), description="Time limit to send a request.")
    read_timeout: Duration = Field(
        default=timedelta(seconds=30), description="Longest silence while a reply is awaited."
    )
    total_timeout: Duration = Field(
        default=timedelta(seconds=45),
        ge=timedelta(milliseconds=1),
        le=timedelta(hours=1),
        description="Time limit of a whole call.",
    )
    keep_alive: DurationOrZero = Field(
        default=timedelta(seconds=25),
        description="Idle connections are closed after this; choose less than the supplier's own limit. A shorter one "
        "that its answers name (Keep-Alive), or after which it has ended one in the last hour, counts by itself. 0s: "
        "none is used again, for a supplier that ends them after each answer without saying so.",
    )
    max_reply_bytes: Size = Field(
        default=2 * 1024**2,
        description="A longer reply is not read to its end. Each call under way may hold so much in memory.",
    )
    doubt_limits: Durations = Field(
        default={},
        description="How long an unclear call is reconciled before its command ends undetermined, where not "
        'the built-in limit: {"ReserveAppointment": "60s"}.',
    )


class Worker(Section):
    """Limits of the worker."""

    window_records: Count = Field(
        default=10_000,
        description="Unfinished commands in memory before partitions are paused; of each up to 500 may come on top.",
    )
    window_bytes: Size = Field(
        default=64 * 1024**2, description="The same in bytes; of each what one fetch brings (1 MiB) may come on top."
    )
    partition_span: Count = Field(
        default=50_000,
        description="Offsets between the oldest unfinished and the newest command of a partition before it is paused.",
    )
    retry_first: Duration = Field(
        default=timedelta(milliseconds=500), description="First wait before a call is repeated."
    )
    retry_max: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(milliseconds=1),
        le=timedelta(hours=1),
        description="Longest wait before a call is repeated.",
    )
    breaker_failures: Count = Field(
        default=5, description="Calls that fail in a row before the circuit breaker stops starting new ones."
    )
    breaker_probe: Duration = Field(
        default=timedelta(seconds=5),
        ge=timedelta(milliseconds=1),
        le=timedelta(hours=1),
        description="Wait between the probes of an open circuit breaker.",
    )
    stop_timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="Time limit to finish what is under way when asked to stop.",
    )
    parked_after: Duration = Field(
        default=timedelta(seconds=30),
        description="A lane held in doubt for so long has the commands that wait behind it moved into the journal, so "
        "that its partition goes on.",
    )
    parked_per_ticket: Count = Field(
        default=1000, description="Commands that may wait so behind one in doubt; more are rejected."
    )
    reference_wait: Duration = Field(
        default=timedelta(seconds=60),
        description="A command that needs the supplier's reference and leaves it out waits so long for its ticket to "
        "have one; then it is rejected.",
    )
    store: NewFolder | None = Field(
        default=None,
        description="Folder for an index of the tickets that commands were asked about, on a local disk; each worker "
        "needs its own. Without it a temporary folder.",
    )
    remembered_commands: Count = Field(
        default=50_000, description="Finished commands remembered, by id, to recognise one that comes again."
    )


class ServerTls(Section):
    """Mutual TLS of the notification listener; files are read again when they change."""

    certificate: File | None = Field(default=None, description="PEM file of the listener's certificate with its chain.")
    key: File | None = Field(default=None, description="PEM file of the certificate's private key.")
    ca: File | None = Field(
        default=None, description="PEM file of the authorities whose client certificates are accepted."
    )


class Spool(Section):
    """Where notifications are kept while Kafka does not answer."""

    path: NewFile | None = Field(
        default=None,
        description="File of the spool, on a disk that outlives the process; without it the supplier gets 503 while "
        "Kafka does not answer, and a server that starts then does not listen.",
    )
    max_bytes: Size = Field(default=256 * 1024**2, description="Notifications kept there at most, in bytes of content.")


class Server(Section):
    """The listener for the supplier's notifications: who may call, and its limits."""

    host: Text = Field(default="0.0.0.0", description="Address the listener binds to.")  # noqa: S104 -- called from outside the container
    port: Port = Field(default=8443, description="Port of the listener; 0 takes a free one.")
    tls: ServerTls = ServerTls()
    allow_plaintext: Switch = Field(
        default=False, description="Listen without TLS: behind a proxy that ends it, or for a test."
    )
    allowed_subjects: Subjects = Field(
        default=frozenset(),
        description="Client certificates that are let in, by a subject alternative name or the whole distinguished "
        "name, as the log line of a refused caller has it, separated by semicolons; without it every one the "
        "authorities have signed.",
    )
    allowed_networks: Networks = Field(
        default=frozenset(), description="Networks callers may come from (IPv4, IPv6); without it any."
    )
    trusted_proxies: Networks = Field(
        default=frozenset(),
        description="Networks of proxies that end TLS for us; only from them are the two headers below believed.",
    )
    certificate_header: Text = Field(
        default="Client-Cert",
        description="Header in which such a proxy passes the client's certificate: RFC 9440, or URL-encoded PEM.",
    )
    address_header: Text = Field(
        default="X-Forwarded-For", description="Header in which such a proxy passes the client's address."
    )
    accepted_buyers: Names = Field(
        default=frozenset(),
        description="Values of buyerIdentifier that are ours; without it ADAPTER_SUPPLIER__BUYER_IDENTIFIER alone.",
    )
    own_message_id: Switch = Field(
        default=False, description="Answer with a messageId of our own instead of the notification's."
    )
    max_body_bytes: Size = Field(default=2 * 1024**2, description="Longest notification; a longer one is not read.")
    max_bytes_in_flight: Size = Field(
        default=64 * 1024**2, description="Bytes of all notifications under way at once; beyond it callers get 503."
    )
    max_connections: Count = Field(
        default=2000,
        description="Connections at once, those in their TLS handshake included; beyond it the oldest handshake is "
        "ended, or the connection that was silent for longest where handshakes are few.",
    )
    idle_timeout: Duration = Field(
        default=timedelta(seconds=30), description="A connection without a whole request header for so long is closed."
    )
    body_timeout: Duration = Field(default=timedelta(seconds=20), description="Time limit for the body of a request.")
    publish_timeout: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(milliseconds=1),
        le=timedelta(hours=1),
        description="Time limit for Kafka's acknowledgement; after it the notification is spooled or refused with 503.",
    )
    remembered_notifications: Count = Field(
        default=100_000, description="Stored notifications remembered, by id, to recognise one that comes again."
    )
    stop_timeout: Duration = Field(
        default=timedelta(seconds=20),
        description="Time limit to answer what is under way, and to publish what the spool holds, when asked to stop.",
    )
    spool: Spool = Spool()


class Projector(Section):
    """The flow that folds the events of each ticket into its current state."""

    group_id: Text = Field(default="fault-adapter-projector", description="Consumer group of the projectors.")
    store: NewFolder | None = Field(
        default=None,
        description="Folder for a copy of the tickets, on a disk that outlives the process; each projector needs its "
        "own. Without it the copy is read from the tickets topic at every start.",
    )
    resolve_deadline: Duration = Field(
        default=timedelta(hours=48),
        description="From Resolved on: after it the supplier takes silence for acceptance.",
    )
    warn_before: Duration = Field(
        default=timedelta(hours=6), description="ResolveDeadlineApproaching is published so long before that."
    )
    tombstone_after: Duration = Field(
        default=timedelta(days=90),
        description="A ticket that is Closed or Rejected, or whose state nobody ever told, is forgotten so long after "
        "its last event.",
    )


class Telemetry(Section):
    """Logs, metrics and health."""

    host: Text = Field(default="0.0.0.0", description="Address the metrics endpoint listens on.")  # noqa: S104 -- scraped from outside the container
    port: Port = Field(default=9464, description="Port of /metrics, /health and /status; 0 takes a free one.")
    log_level: LogLevel = Field(default=LogLevel.INFO, description="Least severe log lines to write.")
    log_format: LogFormat = Field(
        default=LogFormat.AUTO, description="json, console, or auto: console on a terminal, else json."
    )
    tracing: Switch = Field(
        default=False,
        description="Send spans by OpenTelemetry (OTLP over HTTP) to where the standard variables OTEL_… say.",
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

    schemas: Folder | None = Field(
        default=None, description="Folder of schemas to use instead of the built-in ones; holds avro/ and xsd/."
    )


class Translating(Offline):
    """What it takes to write and read the supplier's messages without asking anybody."""

    topics: Topics = Topics()
    supplier: Supplier
    server: Server = Server()
    worker: Worker = Worker()


class Vocabulary(Offline):
    """What the commands about schemas need."""

    topics: Topics = Topics()
    registry: Registry


class Bus(Vocabulary, Cluster):
    """What a client of the bus needs."""


class Receiving(Bus):
    """What the server needs: not where the supplier is, but who we are there."""

    supplier: Supplier
    server: Server = Server()
    telemetry: Telemetry = Telemetry()


class Projecting(Bus):
    """What the projector needs: nothing of the supplier."""

    projector: Projector = Projector()
    telemetry: Telemetry = Telemetry()


class Settings(Receiving, Projecting):
    """The whole tree."""

    worker: Worker = Worker()
