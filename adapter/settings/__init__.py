"""Every setting of the product: one frozen tree, read from environment variables and mounted files.

A variable's name is its place in the tree: `ADAPTER_`, then the sections and the field in capitals, joined with
`__`. White space around a value counts for nothing, an empty variable counts as not set. Secrets are never variables:
a setting names the file that holds one.
`load` is the only door to the environment; it finds all faults before it raises one `Stop`. `describe` is the single
source of `adapter settings` and of docs/settings.md.
"""

from adapter.core.avro import UnknownFields
from adapter.settings.environment import load
from adapter.settings.reference import Row, describe, markdown
from adapter.settings.tree import (
    Bus,
    Cluster,
    Environment,
    GroupProtocol,
    Kafka,
    LogFormat,
    LogLevel,
    Offline,
    Projecting,
    Projector,
    Proxy,
    Receiving,
    Registry,
    Retention,
    Server,
    ServerTls,
    Settings,
    Spool,
    Supplier,
    Telemetry,
    Tls,
    TopicNames,
    Topics,
    Vocabulary,
    Worker,
)

__all__ = [
    "Bus",
    "Cluster",
    "Environment",
    "GroupProtocol",
    "Kafka",
    "LogFormat",
    "LogLevel",
    "Offline",
    "Projecting",
    "Projector",
    "Proxy",
    "Receiving",
    "Registry",
    "Retention",
    "Row",
    "Server",
    "ServerTls",
    "Settings",
    "Spool",
    "Supplier",
    "Telemetry",
    "Tls",
    "TopicNames",
    "Topics",
    "UnknownFields",
    "Vocabulary",
    "Worker",
    "describe",
    "load",
    "markdown",
]
