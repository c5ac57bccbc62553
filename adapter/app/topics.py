"""The topics of a role: examined at its start, and checked while it runs, since a change would break its guarantees."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from adapter.core.errors import Stop, Unavailable
from adapter.transport.kafka.admin import require_topics

_CHECK: Final = 5.0
"""Seconds between two checks of the topics."""
_GROWN: Final = 'see "Partitions were added" in docs/disaster.md'


@dataclass(frozen=True, slots=True)
class Seen:
    """The topics as they were at the start."""

    partitions: int
    """Number of partitions of each."""
    identities: Mapping[str, str]
    """Identities of the topics whose offsets we remember."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitions:
    """Co-partitioned topics: all must have the same number of partitions, so that a key has the same one in each.

    `count` returns the numbers of partitions of the topics that exist, `identify` their identities; both raise
    Unavailable.
    """

    count: Callable[[Sequence[str]], Mapping[str, int]]
    identify: Callable[[Sequence[str]], Mapping[str, str]]
    keyed: tuple[str, ...]
    others: tuple[str, ...] = ()
    """Topics that must exist as well."""
    originals: Mapping[str, str]
    """Topics whose offsets we remember, so that they must not be recreated, with the chapter of docs/disaster.md about
    that.
    """

    def look(self) -> Seen:
        """Examine the topics. Raises Stop if one is missing or their numbers of partitions differ, and Unavailable."""
        counts = self.count((*self.keyed, *self.others))
        require_topics((*self.keyed, *self.others), counts)
        if len({counts[name] for name in self.keyed}) > 1:
            found = ", ".join(f"{name} has {counts[name]}" for name in self.keyed)
            raise Stop(f"topics of one key must have the same number of partitions: {found}; {_GROWN}")
        identities = self.identify(tuple(self.originals))
        require_topics(self.originals, identities)
        return Seen(counts[self.keyed[0]], identities)

    def check(self, before: Seen) -> None:
        """Raises Stop if a topic was repartitioned or recreated since; raises Unavailable.

        A topic that a broker does not know for a moment, because it has just started, counts as unchanged.
        """
        changed = [
            f"{name} had {before.partitions} partitions and has {now}, so keys have moved; {_GROWN}"
            for name, now in self.count(self.keyed).items()
            if now not in (0, before.partitions)
        ]
        changed += [
            f'{name} was deleted and made anew while we ran: see "{self.originals[name]}" in docs/disaster.md'
            for name, now in self.identify(tuple(self.originals)).items()
            if now != before.identities[name]
        ]
        if changed:
            raise Stop(*changed)

    @asynccontextmanager
    async def watched(self, before: Seen, failed: Callable[[Exception], None]) -> AsyncIterator[None]:
        """Check the topics every few seconds within the block. `failed` is called with any error but Unavailable."""

        async def watch() -> None:
            while True:
                await asyncio.sleep(_CHECK)
                try:
                    await asyncio.to_thread(self.check, before)
                except Unavailable:
                    pass
                except Exception as error:  # noqa: BLE001 -- or the flow would go on with topics that nobody checks
                    failed(error)

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
