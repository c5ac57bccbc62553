"""Every setting of the product: one frozen tree, read from environment variables and mounted files.

A variable's name is its place in the tree: `ADAPTER_`, then the sections and the field in capitals, joined with
`__`. White space around a value counts for nothing, an empty variable counts as not set. Secrets are never variables:
a setting names the file that holds one.
`load` is the only door to the environment; it finds all faults before it raises one `Stop`. `describe` is the single
source of `adapter settings` and of docs/settings.md.
"""

from adapter.settings.environment import load
from adapter.settings.reference import Row, describe, markdown
from adapter.settings.secrets import secret
from adapter.settings.tree import (
    Bus,
    Calling,
    Cluster,
    GroupProtocol,
    Kafka,
    Offline,
    Projecting,
    Reading,
    Receiving,
    Registry,
    Retention,
    Settings,
    Supplier,
    Telemetry,
    Topics,
    Translating,
    Vocabulary,
)

__all__ = [
    "Bus",
    "Calling",
    "Cluster",
    "GroupProtocol",
    "Kafka",
    "Offline",
    "Projecting",
    "Reading",
    "Receiving",
    "Registry",
    "Retention",
    "Row",
    "Settings",
    "Supplier",
    "Telemetry",
    "Topics",
    "Translating",
    "Vocabulary",
    "describe",
    "load",
    "markdown",
    "secret",
]
