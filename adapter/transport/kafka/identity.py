"""Whether topics are still the same: a name does not tell, since topics can be deleted and recreated."""

from collections.abc import Mapping, Sequence
from typing import Final

from adapter.core.errors import Stop, Unavailable
from adapter.transport.kafka.admin import Admin, resetting

REMADE: Final = "A topic is made anew"
"""Chapter of docs/disaster.md."""


def identity(admin: Admin, *topics: str) -> str:
    """Of the cluster and these topics. Blocks. Raises Unavailable."""
    found = identities(admin, topics)
    cluster = found[topics[0]].partition("/")[0]
    return "/".join((cluster, *(found[name].partition("/")[2] for name in topics)))


def identities(admin: Admin, topics: Sequence[str]) -> Mapping[str, str]:
    """Of each of them. Blocks. Raises Unavailable, also if one does not exist."""
    found = admin.identities(topics)
    if missing := [name for name in topics if name not in found]:
        raise Unavailable(f"{', '.join(missing)}: there is no such topic")
    return found


def still(topic: str, partition: int, before: str, now: str, *, group: str) -> None:
    """Raises Stop if the topics whose identities were committed with the group's offset (`before`) were recreated in
    this cluster since (`now`). An offset that was mirrored from another cluster is accepted, and so is one set by a
    tool, which has no identities (`before` is empty).
    """
    if before != now and before.partition("/")[0] == now.partition("/")[0]:
        raise Stop(
            f"{topic} partition {partition}: its offset was committed before a topic was deleted and made anew, and "
            f'may lie behind records that nobody has read: see "{REMADE}" in docs/disaster.md, then: '
            f"{resetting(group, topic, 'earliest')}"
        )
