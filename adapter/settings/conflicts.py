"""Rules between settings: combinations that are wrong although each value is right."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from urllib.parse import urlsplit

from adapter.settings.tree import (
    PREFIX,
    Calling,
    Cluster,
    Kafka,
    Projecting,
    Projector,
    Receiving,
    Server,
    ServerTls,
    Settings,
    Supplier,
    Tls,
    TopicNames,
    Topics,
    Tree,
    Vocabulary,
    Worker,
)

# librdkafka properties that the adapter sets itself, since its guarantees depend on them, and what to do instead.
_OURS = {
    "bootstrap.servers": "set ADAPTER_KAFKA__BOOTSTRAP_SERVERS",
    "metadata.broker.list": "set ADAPTER_KAFKA__BOOTSTRAP_SERVERS",
    "group.id": "set ADAPTER_KAFKA__GROUP_ID",
    "group.protocol": "set ADAPTER_KAFKA__GROUP_PROTOCOL",
    "session.timeout.ms": "set ADAPTER_KAFKA__SESSION_TIMEOUT",
    "max.poll.interval.ms": "it follows from ADAPTER_SUPPLIER__TOTAL_TIMEOUT and ADAPTER_KAFKA__TRANSACTION_TIMEOUT",
    "transaction.timeout.ms": "set ADAPTER_KAFKA__TRANSACTION_TIMEOUT",
    "transactional.id": "set ADAPTER_KAFKA__TRANSACTIONAL_ID_PREFIX",
    "message.max.bytes": "set ADAPTER_TOPICS__MAX_MESSAGE_BYTES",
    "partition.assignment.strategy": "the adapter needs cooperative-sticky",
    "default.topic.config": "write the properties of topics beside the others",
    "enable.auto.commit": "offsets are committed with the outcomes",
    "enable.auto.offset.store": "offsets are committed with the outcomes",
    "enable.idempotence": "transactions need it",
    "acks": "transactions need all",
    "request.required.acks": "transactions need all",
    "isolation.level": "the adapter chooses it for each reader",
    "auto.offset.reset": "only a new group starts at the beginning",
    "partitioner": "keys are placed as Java clients place them (murmur2_random)",
}
_SECRET = re.compile(r"password|passphrase|secret|\.(key|keystore)\.pem$|^sasl\.jaas\.config$")
_NUMBER = re.compile(r"\.(ms|seconds|bytes|kbytes|messages|size)$")
"""librdkafka properties that are numbers. Of "30s" it would take the leading digits, without an error."""


def is_secret(name: str) -> bool:
    """Whether the value of this librdkafka property is a secret."""
    return _SECRET.search(name) is not None and not name.endswith(".location")


def conflicts(settings: Tree) -> Iterator[tuple[str, str]]:
    """Every broken rule as (variable, what is wrong and what to do)."""
    if isinstance(settings, Cluster):
        yield from _kafka_conflicts(settings.kafka)
    if isinstance(settings, Cluster | Vocabulary):
        yield from _topic_conflicts(settings.topics)
    if isinstance(settings, Receiving):
        yield from _server_conflicts(settings.server, settings.topics)
    if isinstance(settings, Projecting):
        yield from _projector_conflicts(settings.projector, settings.kafka)
    if isinstance(settings, Calling):
        yield from _supplier_conflicts(settings.supplier, settings.topics)
    if isinstance(settings, Settings):
        yield from _worker_conflicts(settings.worker, settings.supplier, settings.topics)


def _kafka_conflicts(kafka: Kafka) -> Iterator[tuple[str, str]]:
    for name in (*kafka.properties, *kafka.properties_files):
        if name in _OURS:
            yield f"{PREFIX}KAFKA__PROPERTIES", f"{name} is the adapter's own: {_OURS[name]}"
    for name, value in kafka.properties.items():
        if _NUMBER.search(name) and not re.fullmatch(r"-?\d+(\.\d+)?", value, re.ASCII):
            yield f"{PREFIX}KAFKA__PROPERTIES", f"{name} is a number alone, without a unit"
        if is_secret(name):
            yield (
                f"{PREFIX}KAFKA__PROPERTIES",
                f"{name} is a secret; write it to a file and name that in {PREFIX}KAFKA__PROPERTIES_FILES",
            )
        if name in kafka.properties_files:
            yield f"{PREFIX}KAFKA__PROPERTIES_FILES", f"{name} is in {PREFIX}KAFKA__PROPERTIES as well"
    if not _has_tokens(kafka.properties):
        said = "sasl.mechanism is OAUTHBEARER and its tokens have no source; set sasl.oauthbearer.method to oidc, "
        said += "with sasl.oauthbearer.client.id and sasl.oauthbearer.token.endpoint.url"
        yield f"{PREFIX}KAFKA__PROPERTIES", said


def _has_tokens(properties: Mapping[str, str]) -> bool:
    """Without a source of tokens librdkafka waits for its program to give it some, and says nothing."""
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms"))
    oidc = properties.get("sasl.oauthbearer.method") == "oidc"
    return mechanism != "OAUTHBEARER" or oidc or "enable.sasl.oauthbearer.unsecure.jwt" in properties


def _topic_conflicts(topics: Topics) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for field in (each.name for each in fields(TopicNames)):
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


def _supplier_conflicts(supplier: Supplier, topics: Topics) -> Iterator[tuple[str, str]]:
    base, environment = f"{PREFIX}SUPPLIER__BASE_URL", f"{PREFIX}SUPPLIER__ENVIRONMENT"
    plaintext = supplier.base_url is not None and urlsplit(supplier.base_url).scheme == "http"
    if supplier.base_url is None and supplier.environment is None:
        yield (
            base,
            f"is missing; write the supplier's address, or set {environment} to production, cfstaging or cfsit",
        )
    elif supplier.base_url is not None and supplier.environment is not None:
        yield base, f"is set together with {environment}; keep one of the two"
    elif plaintext and not supplier.allow_plaintext:
        yield (
            base,
            f"is not encrypted; write https://, or set {PREFIX}SUPPLIER__ALLOW_PLAINTEXT=true for a test",
        )
    yield from _half(supplier.tls, "SUPPLIER")
    if supplier.environment is not None and supplier.tls.certificate is None and supplier.tls.key is None:
        yield (
            f"{PREFIX}SUPPLIER__TLS__CERTIFICATE",
            f"is missing: the supplier's environments ask for a client certificate (with {PREFIX}SUPPLIER__TLS__KEY)",
        )
    if supplier.proxy.credentials is not None and supplier.proxy.url is None:
        yield f"{PREFIX}SUPPLIER__PROXY__URL", "is missing: credentials for the proxy are set"
    if supplier.proxy.url is not None and plaintext:
        yield f"{PREFIX}SUPPLIER__PROXY__URL", f"needs {base} to start with https://: nothing else is tunnelled"
    for name in ("connect_timeout", "write_timeout", "read_timeout"):
        if getattr(supplier, name) > supplier.total_timeout:
            yield (
                f"{PREFIX}SUPPLIER__{name.upper()}",
                f"must not be longer than {PREFIX}SUPPLIER__TOTAL_TIMEOUT",
            )
    if 2 * supplier.max_reply_bytes > topics.max_message_bytes:
        yield (
            f"{PREFIX}SUPPLIER__MAX_REPLY_BYTES",
            f"must not be more than half of {PREFIX}TOPICS__MAX_MESSAGE_BYTES, or its event could not be stored",
        )


def _worker_conflicts(worker: Worker, supplier: Supplier, topics: Topics) -> Iterator[tuple[str, str]]:
    if worker.stop_timeout <= supplier.total_timeout:
        yield (
            f"{PREFIX}WORKER__STOP_TIMEOUT",
            f"must be longer than {PREFIX}SUPPLIER__TOTAL_TIMEOUT, or calls are cut off when a worker stops",
        )
    if worker.retry_first > worker.retry_max:
        yield f"{PREFIX}WORKER__RETRY_FIRST", f"must not be longer than {PREFIX}WORKER__RETRY_MAX"
    if worker.window_bytes < topics.max_message_bytes:
        yield f"{PREFIX}WORKER__WINDOW_BYTES", f"must not be less than {PREFIX}TOPICS__MAX_MESSAGE_BYTES"


def _server_conflicts(server: Server, topics: Topics) -> Iterator[tuple[str, str]]:
    yield from _half(server.tls, "SERVER")
    if server.allow_plaintext and server.allowed_subjects and not server.trusted_proxies:
        yield (
            f"{PREFIX}SERVER__ALLOWED_SUBJECTS",
            f"refuses every caller: without TLS only one of {PREFIX}SERVER__TRUSTED_PROXIES can show a certificate",
        )
    # A Latin-1 body may be twice as long in UTF-8. For any other body, the other half is enough for key and headers.
    if 2 * server.max_body_bytes > topics.max_message_bytes:
        yield (
            f"{PREFIX}SERVER__MAX_BODY_BYTES",
            f"must not be more than half of {PREFIX}TOPICS__MAX_MESSAGE_BYTES, or it could not be stored",
        )
    if server.max_bytes_in_flight < server.max_body_bytes:
        yield f"{PREFIX}SERVER__MAX_BYTES_IN_FLIGHT", f"must not be less than {PREFIX}SERVER__MAX_BODY_BYTES"


def _half(tls: Tls | ServerTls, section: str) -> Iterator[tuple[str, str]]:
    certificate, key = f"{PREFIX}{section}__TLS__CERTIFICATE", f"{PREFIX}{section}__TLS__KEY"
    if (tls.certificate is None) != (tls.key is None):
        missing, other = (key, certificate) if tls.key is None else (certificate, key)
        yield missing, f"is missing: {other} is set, and a certificate is of use only with its key"


def _projector_conflicts(projector: Projector, kafka: Kafka) -> Iterator[tuple[str, str]]:
    if projector.warn_before >= projector.resolve_deadline:
        yield f"{PREFIX}PROJECTOR__WARN_BEFORE", f"must be shorter than {PREFIX}PROJECTOR__RESOLVE_DEADLINE"
    if projector.group_id == kafka.group_id:
        yield f"{PREFIX}PROJECTOR__GROUP_ID", f"must differ from {PREFIX}KAFKA__GROUP_ID, the workers' group"
